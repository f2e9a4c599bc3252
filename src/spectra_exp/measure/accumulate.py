"""Sums of routing records over an evaluation set, exact whatever the batch size.

Letters: N real tokens of a batch, E experts, Q sequences, G documents, V vocabulary, P probe tokens, D width of a
vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectra_exp.foundations.collective import whole
from spectra_exp.measure.boundaries import WINDOW, since_boundary
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.families import down_projections
from spectra_exp.moe.record import RoutingRecord, check_executed


class EvaluationAccumulator:
    """Adds up what the routed layers did, batch by batch; `statistics()` gives the totals.

    The first `probe_tokens` tokens fed are the probe tokens: feed the evaluation set in one fixed order. Document
    ids count from 0 over the evaluation set. Sums are kept on the records' device: one batch costs a few passes
    over [N, E] per layer and no Python loop over tokens or experts.
    """

    # From the first batch on, as are the sums of the layers: it says on which device.
    _tokens_V: Tensor
    _domains_G: Tensor
    _tokens_G: Tensor

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        top_k: int,
        vocabulary_size: int,
        num_domains: int,
        num_documents: int,
        probe_tokens: int = 0,
    ):
        self.num_layers, self.num_experts, self.top_k = num_layers, num_experts, top_k
        self.vocabulary_size = vocabulary_size
        self.num_domains, self.num_documents = num_domains, num_documents
        self.probe_tokens = probe_tokens
        self.num_tokens = 0
        self._tokens_by_batch: list[int] = []
        self._tokens_by_sequence: list[Tensor] = []
        self._layers: list[_LayerSums] = []

    @torch.no_grad()
    def update(self, records: Sequence[RoutingRecord], tokens: TokenBatch) -> None:
        """Add one batch: one record per routed layer and the batch's real tokens in the same order.

        Raises ValueError when the records are not one per layer of the same N, or a document has two domains, and
        SpectraError when they count assignments that were not executed.
        """
        num_tokens = len(tokens.token_ids_N)
        records = sorted(records, key=lambda r: r.layer)
        layers = [r.layer for r in records]
        if layers != list(range(self.num_layers)):
            raise ValueError(f"records of layers {layers}, expected 0..{self.num_layers - 1}")
        for record in records:
            if tuple(record.chosen_NE.shape) != (num_tokens, self.num_experts):
                raise ValueError(
                    f"layer {record.layer} routed {tuple(record.chosen_NE.shape)}, "
                    f"expected ({num_tokens}, {self.num_experts})"
                )
        check_executed(records)
        if num_tokens == 0:
            return
        device = records[0].chosen_NE.device
        if not self._layers:
            self._allocate(device)
        batch = TokenBatch(*(ids.to(device) for ids in vars(tokens).values()))
        self._count_tokens(batch)
        self._tokens_by_sequence.append(torch.bincount(batch.sequence_ids_N))
        adjacent = (batch.sequence_ids_N[1:] == batch.sequence_ids_N[:-1]) & (
            batch.document_ids_N[1:] == batch.document_ids_N[:-1]
        )
        since_N, before_N = since_boundary(batch)
        previous_first = None
        for sums, record in zip(self._layers, records, strict=True):
            previous_first = sums.add(record, batch, adjacent, previous_first)
            sums.count_boundaries(record.chosen_NE, since_N, before_N, batch.domain_ids_N)
            sums.keep_probes(record, first_row=self.num_tokens)
        self.num_tokens += num_tokens
        self._tokens_by_batch.append(num_tokens)

    def reserve(self, num_documents: int) -> None:
        """Make room for documents 0..num_documents-1; what was added before stays."""
        more = num_documents - self.num_documents
        if more <= 0:
            return
        self.num_documents = num_documents
        if self._layers:
            self._domains_G = torch.cat([self._domains_G, self._domains_G.new_full((more,), -1)])
            self._tokens_G = torch.cat([self._tokens_G, self._tokens_G.new_zeros(more)])
            for sums in self._layers:
                sums.counts_GE = torch.cat([sums.counts_GE, sums.counts_GE.new_zeros(more, sums.num_experts)])

    def forget_probabilities(self, layer: int) -> None:
        """A layer whose distribution turned out not to be known for every token has none, from here on."""
        if self._layers:
            self._layers[layer].entropy_sum = self._layers[layer].gap_sum = None

    def statistics(self) -> list[LayerStatistics]:
        """The totals so far, one per routed layer. Raises ValueError before the last probe token was fed."""
        if not self._layers:
            raise ValueError("no batch was added")
        if self.num_tokens < self.probe_tokens:
            raise ValueError(f"{self.probe_tokens} probe tokens, but only {self.num_tokens} tokens were fed")
        shared: dict[str, Any] = dict(
            top_k=self.top_k,
            num_tokens=self.num_tokens,
            num_domains=self.num_domains,
            tokens_T=np.asarray(self._tokens_by_batch, dtype=np.int64),
            tokens_Q=_numpy(torch.cat(self._tokens_by_sequence)),
            tokens_V=_numpy(self._tokens_V),
            domains_G=_numpy(self._domains_G),
            tokens_G=_numpy(self._tokens_G),
        )
        return [LayerStatistics(layer=i, **shared, **sums.totals()) for i, sums in enumerate(self._layers)]

    def _allocate(self, device: torch.device) -> None:
        self._tokens_V = torch.zeros(self.vocabulary_size, dtype=torch.int64, device=device)
        self._domains_G = torch.full((self.num_documents,), -1, dtype=torch.int64, device=device)
        self._tokens_G = torch.zeros(self.num_documents, dtype=torch.int64, device=device)
        self._layers = [_LayerSums(self, device) for _ in range(self.num_layers)]

    def _count_tokens(self, batch: TokenBatch) -> None:
        self._tokens_V.scatter_add_(0, batch.token_ids_N, torch.ones_like(batch.token_ids_N))
        self._tokens_G.scatter_add_(0, batch.document_ids_N, torch.ones_like(batch.document_ids_N))
        seen_before = self._domains_G[batch.document_ids_N]
        self._domains_G[batch.document_ids_N] = batch.domain_ids_N
        now = self._domains_G[batch.document_ids_N]
        clash = (now != batch.domain_ids_N) | ((seen_before >= 0) & (seen_before != batch.domain_ids_N))
        if clash.any():
            raise ValueError(f"document {int(batch.document_ids_N[clash][0])} is given two domains")


class _LayerSums:
    """The running sums of one layer, on the records' device."""

    def __init__(self, owner: EvaluationAccumulator, device: torch.device):
        counts: dict[str, Any] = dict(dtype=torch.int64, device=device)
        num_experts, num_probes = owner.num_experts, owner.probe_tokens
        self.num_experts, self.top_k = num_experts, owner.top_k
        self.by_batch: list[Tensor] = []
        self.by_sequence: list[Tensor] = []
        self.counts_GE = torch.zeros(owner.num_documents, num_experts, **counts)
        self.counts_VE = torch.zeros(owner.vocabulary_size, num_experts, **counts)
        self.pairs_EE = torch.zeros(num_experts, num_experts, **counts)
        self.sizes = torch.zeros(num_experts + 1, **counts)
        self.after_HME = torch.zeros(WINDOW, owner.num_domains, num_experts, **counts)
        self.before_HME = torch.zeros_like(self.after_HME)
        self.settled_ME = torch.zeros_like(self.after_HME[0])
        self.overlap_sum = torch.zeros((), **counts)
        self.num_adjacent = torch.zeros((), **counts)
        self.confidence_sum = torch.zeros((), dtype=torch.float64, device=device)
        # None until a record brings one: hash and random routers have no distribution and no representation.
        self.entropy_sum: Tensor | None = None
        self.gap_sum: Tensor | None = None
        self.first_EE: Tensor | None = None
        self.null_assignments: Tensor | None = None
        self.representation_ED: Tensor | None = None
        self.output_sum_ED: Tensor | None = None
        self.probe_experts_PE = torch.full((num_probes, num_experts), -1, dtype=torch.int16, device=device)
        self.probe_weights_PE = torch.zeros(num_probes, num_experts, dtype=torch.float32, device=device)
        self.probe_hidden: list[Tensor] = []

    def add(
        self, record: RoutingRecord, batch: TokenBatch, adjacent: Tensor, previous_first_N: Tensor | None
    ) -> Tensor:
        """Each token's first expert ([N]; E where it has none), for the next layer; the batch is added."""
        chosen_NE = record.chosen_NE
        if self.by_batch and (record.probs_NE is None) != (self.entropy_sum is None):
            raise ValueError(f"layer {record.layer} gave probabilities for some batches and not for others")
        size_N = chosen_NE.sum(dim=1)
        self._count(chosen_NE, size_N, batch, adjacent)
        ranked_NE = _rank_key(record.weights_NE, chosen_NE)
        first_N = torch.where(size_N > 0, ranked_NE.argmax(dim=1), self.num_experts)
        if previous_first_N is not None:
            side = self.num_experts + 1  # one slot more for tokens without an expert, cut off again
            joint = torch.bincount(previous_first_N * side + first_N, minlength=side * side).view(side, side)
            self.first_EE = _plus(self.first_EE, joint[:-1, :-1])
        total_N = (record.weights_NE * chosen_NE).sum(dim=1)
        top_N = ranked_NE.amax(dim=1)
        # Weights that underflowed to zero say nothing: the token's experts then count as equal.
        share_N = torch.where(total_N > 0, top_N / total_N, 1.0 / size_N.clamp_min(1))
        self.confidence_sum += torch.where(size_N > 0, share_N, 0.0).sum(dtype=torch.float64)
        if record.probs_NE is not None:
            entropy_N = torch.special.entr(record.probs_NE.float()).sum(dim=1)
            self.entropy_sum = _plus(self.entropy_sum, entropy_N.sum(dtype=torch.float64))
            if self.num_experts > 1:
                best_N2 = record.probs_NE.float().topk(2, dim=1).values
                self.gap_sum = _plus(self.gap_sum, (best_N2[:, 0] - best_N2[:, 1]).sum(dtype=torch.float64))
        if record.null_assignments is not None:
            self.null_assignments = _plus(self.null_assignments, record.null_assignments)
        if record.output_sum_ED is not None:
            self.output_sum_ED = _plus(self.output_sum_ED, record.output_sum_ED.detach().double())
        if record.representation_ED is not None:
            self.representation_ED = record.representation_ED.detach()
        return first_N

    def count_boundaries(self, chosen_NE: Tensor, since_N: Tensor, before_N: Tensor, domains_N: Tensor) -> None:
        """Add this batch's assignments after boundaries of domains (`since_boundary`)."""
        after_N, settled_N = since_N >= 0, (since_N < 0) & (domains_N >= 0)
        chosen_TE = chosen_NE[after_N].long()
        for table, of_N in ((self.after_HME, domains_N), (self.before_HME, before_N)):
            table.index_put_((since_N[after_N], of_N[after_N]), chosen_TE, accumulate=True)
        self.settled_ME.index_add_(0, domains_N[settled_N], chosen_NE[settled_N].long())

    def keep_probes(self, record: RoutingRecord, first_row: int) -> None:
        """Keep the experts of this batch's probe tokens, by falling weight; `first_row` tokens were fed before."""
        rows = slice(first_row, first_row + len(record.chosen_NE))
        count = len(self.probe_experts_PE[rows])
        if not count:
            return
        experts_PE, weights_PE = ranked_experts(record.weights_NE[:count], record.chosen_NE[:count])
        self.probe_experts_PE[rows], self.probe_weights_PE[rows] = experts_PE, weights_PE
        if record.hidden_Nd is not None:
            self.probe_hidden.append(record.hidden_Nd[:count].float())

    def totals(self) -> dict[str, Any]:
        """The layer's own fields of LayerStatistics."""
        counts_TE = _numpy(torch.stack(self.by_batch))
        counts_E = counts_TE.sum(axis=0)
        experts_PE = _numpy(self.probe_experts_PE)
        width = max(self.top_k, int((experts_PE >= 0).sum(axis=1).max(initial=0)))
        mean_ED = representation_ED = None
        if self.representation_ED is not None:
            representation_ED = _numpy(self.representation_ED.double())
        if self.output_sum_ED is not None:
            mean_ED = _numpy(self.output_sum_ED) / np.maximum(counts_E, 1)[:, None]
        return dict(
            counts_E=counts_E,
            counts_TE=counts_TE,
            counts_QE=_numpy(torch.cat(self.by_sequence)),
            counts_GE=_numpy(self.counts_GE),
            counts_EV=_numpy(self.counts_VE).T,
            pairs_EE=_numpy(self.pairs_EE),
            sizes=_numpy(self.sizes),
            after_HME=_numpy(self.after_HME),
            before_HME=_numpy(self.before_HME),
            settled_ME=_numpy(self.settled_ME),
            entropy_sum=None if self.entropy_sum is None else float(self.entropy_sum),
            gap_sum=None if self.gap_sum is None else float(self.gap_sum),
            confidence_sum=float(self.confidence_sum),
            overlap_sum=float(self.overlap_sum),
            num_adjacent=int(self.num_adjacent),
            null_assignments=None if self.null_assignments is None else int(self.null_assignments),
            first_EE=None if self.first_EE is None else _numpy(self.first_EE),
            probe_experts_PK=experts_PE[:, :width],
            probe_weights_PK=_numpy(self.probe_weights_PE)[:, :width],
            representation_ED=representation_ED,
            output_mean_ED=mean_ED,
            probe_hidden_PD=_numpy(torch.cat(self.probe_hidden)) if self.probe_hidden else None,
        )

    def _count(self, chosen_NE: Tensor, size_N: Tensor, batch: TokenBatch, adjacent: Tensor) -> None:
        token_A, expert_A = chosen_NE.nonzero(as_tuple=True)  # one entry per executed assignment
        one_A = torch.ones_like(expert_A)
        self.by_batch.append(chosen_NE.sum(dim=0))
        of_sequence_QE = one_A.new_zeros(int(batch.sequence_ids_N.max()) + 1, self.num_experts)
        self.by_sequence.append(of_sequence_QE.index_add_(0, batch.sequence_ids_N, chosen_NE.to(one_A.dtype)))
        for table, ids_N in ((self.counts_VE, batch.token_ids_N), (self.counts_GE, batch.document_ids_N)):
            table.view(-1).scatter_add_(0, ids_N[token_A] * self.num_experts + expert_A, one_A)
        self.sizes += torch.bincount(size_N, minlength=self.num_experts + 1)
        both_N = (chosen_NE[1:] & chosen_NE[:-1]).sum(dim=1)
        self.overlap_sum += (both_N * adjacent).sum()
        self.num_adjacent += adjacent.sum()
        # Autocast would round the product to 8 bits; in float32 counts are exact to 2^24 tokens a batch.
        with torch.autocast(chosen_NE.device.type, enabled=False):
            used_NE = chosen_NE.to(torch.float32)
            self.pairs_EE += (used_NE.T @ used_NE).round().to(torch.int64)


def ranked_experts(weights_NE: Tensor, chosen_NE: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's experts by falling weight, int16 [N, E], padded with -1, and their weights, padded with 0."""
    # Stable, so that equal weights rank by expert index in every run.
    ranked_NE, experts_NE = torch.sort(_rank_key(weights_NE, chosen_NE), dim=1, descending=True, stable=True)
    used_NE = torch.isfinite(ranked_NE)
    return torch.where(used_NE, experts_NE, -1).to(torch.int16), torch.where(used_NE, ranked_NE, 0.0)


def _rank_key(weights_NE: Tensor, chosen_NE: Tensor) -> Tensor:
    """The weights of chosen experts, minus infinity elsewhere, so that a chosen weight of 0 still counts."""
    return torch.where(chosen_NE, weights_NE.float(), -torch.inf)


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term.clone() if total is None else total + term


def _numpy(tensor: Tensor) -> np.ndarray:
    # A copy: statistics taken halfway must not move with the next batch.
    return tensor.detach().cpu().numpy().copy()


def weight_cosines(experts: nn.Module) -> np.ndarray:
    """[E, E] cosines of the experts' flattened down-projections."""
    flat_EW = nn.functional.normalize(whole(down_projections(experts)).float().flatten(1), dim=1)
    return (flat_EW @ flat_EW.T).double().cpu().numpy()

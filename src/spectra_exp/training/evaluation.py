"""Scores a model on the fixed held-out blocks and measures the routing that was executed there.

Shapes: B sequences, S tokens each, N real tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from spectra_exp.data.batches import NOT_COUNTED, Example, evaluation_batches, kept_apart
from spectra_exp.data.corpus import Corpus
from spectra_exp.data.embedded_rounds import reversed_domains
from spectra_exp.foundations.devices import full_float32
from spectra_exp.measure.accumulate import EvaluationAccumulator, weight_cosines
from spectra_exp.measure.balance import executed_k_by_domain
from spectra_exp.measure.base import MetricTable
from spectra_exp.measure.causality import Causality, measure_causality
from spectra_exp.measure.compute import compute_metrics
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.next_token import TokenScores, chunked_scores, plain_head, scores_of_logits
from spectra_exp.routing.documents import Stretches
from spectra_exp.runs.scores import DocumentSums

# One that is looked at and one other, by turns.
CAUSALITY_SEQUENCES = 2
CAUSALITY_TOKENS = 64


@dataclass
class Evaluation:
    """losses: val_loss and its relatives, documents: the sums behind them; table: routing metrics per layer;
    statistics: the sums behind them."""

    losses: dict[str, float]
    documents: DocumentSums
    table: MetricTable | None
    statistics: list[LayerStatistics] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def all(self) -> dict[str, float]:
        """Losses and the mean over layers of each routing metric."""
        return self.losses | self.figures | (self.table.all() if self.table else {})


class Evaluator:
    """Evaluates models on one corpus; the same batches each time, no randomness, no state moved."""

    def __init__(
        self,
        corpus: Corpus,
        batch_size: int,
        probe_tokens: int,
        device: torch.device,
        bf16: bool,
        cross_document: bool = True,
    ):
        self.corpus, self.batch_size = corpus, batch_size
        # A small validation split may have fewer.
        self.probe_tokens = min(probe_tokens, corpus.eval_blocks.size)
        self.device, self.bf16, self.cross_document = device, bf16, cross_document
        self.first_document = int(corpus.eval_document_ids.min())
        self.num_documents = int(corpus.eval_document_ids.max()) - self.first_document + 1

    @full_float32()
    @torch.no_grad()
    def run(self, model: SpectraMoeForCausalLM, training_rule: bool = False) -> Evaluation:
        """One pass over the evaluation set under the rule of inference, or of training without dropout."""
        was_training = model.training
        model.eval()
        accumulator = self._accumulator(model)
        sums = _LossSums(len(self.corpus.domains), self.num_documents)
        residuals: list[Tensor] = []
        probes_left = self.probe_tokens
        for batch in evaluation_batches(self.corpus, self.batch_size):
            context = RoutingContext(training_rule=training_rule, keep_outputs=True, keep_hidden=max(probes_left, 0))
            scores = self.scores(model, batch, context)
            sums.add(scores, counted_ids(batch), batch["domain_ids"], batch["document_ids"] - self.first_document)
            records = [context.records[layer.layer] for layer in model.routed_layers]
            residuals += [r.figures["sinkhorn_residual"] for r in records if "sinkhorn_residual" in r.figures]
            if accumulator is not None:
                accumulator.update(records, self._tokens(batch))
            probes_left -= batch["input_ids"].numel()
        model.train(was_training)
        figures = {"sinkhorn_residual": float(torch.stack(residuals).max())} if residuals else {}
        if accumulator is None:
            return Evaluation(sums.losses(self.corpus.domains), sums.documents, None)
        pair = reversed_domains(self.corpus.domains)
        statistics = [
            replace(stats, weight_cosines_EE=weight_cosines(layer.experts), reversed_domains=pair)
            for stats, layer in zip(accumulator.statistics(), model.routed_layers, strict=True)
        ]
        figures |= self._executed_by_domain(statistics)
        losses = sums.losses(self.corpus.domains)
        return Evaluation(losses, sums.documents, compute_metrics(statistics), statistics, figures)

    def _executed_by_domain(self, statistics: list[LayerStatistics]) -> dict[str, float]:
        """executed_k_<domain>: mean over layers, of the domains that there are tokens of."""
        executed_M = np.mean([executed_k_by_domain(stats) for stats in statistics], axis=0)
        named = zip(self.corpus.domains, executed_M.tolist(), strict=True)
        return {f"executed_k_{name}": value for name, value in named if math.isfinite(value)}

    @full_float32()
    @torch.no_grad()
    def losses(self, model: SpectraMoeForCausalLM) -> dict[str, float]:
        """The losses of `run` under the rule of inference, without the metrics; `model` must be in evaluation mode."""
        sums = _LossSums(len(self.corpus.domains))
        for batch in evaluation_batches(self.corpus, self.batch_size):
            sums.add(self.scores(model, batch, RoutingContext()), counted_ids(batch), batch["domain_ids"])
        return sums.losses(self.corpus.domains)

    def _accumulator(self, model: SpectraMoeForCausalLM) -> EvaluationAccumulator | None:
        if not model.routed_layers:
            return None
        return EvaluationAccumulator(
            len(model.routed_layers),
            model.settings.num_real,
            model.settings.top_k,
            model.config.backbone.vocab_size,
            len(self.corpus.domains),
            self.num_documents,
            self.probe_tokens,
        )

    def _tokens(self, batch: dict[str, Tensor]) -> TokenBatch:
        tokens = TokenBatch.from_padded(
            batch["input_ids"],
            torch.ones_like(batch["input_ids"]),
            batch["document_ids"] - self.first_document,
            batch["domain_ids"],
        )
        if not self.cross_document:
            # Documents that are kept apart are sequences of their own.
            tokens.sequence_ids_N = Stretches.of(batch["document_ids"]).row_BS.flatten()
        return tokens

    @torch.no_grad()
    def loss_of(self, model: SpectraMoeForCausalLM, batch: Example) -> float:
        """The evaluation loss of one batch in evaluation mode."""
        was_training = model.training
        model.eval()
        scores = self.scores(model, batch, RoutingContext())
        model.train(was_training)
        sums = _LossSums(1)
        sums.add(scores, counted_ids(batch), torch.zeros_like(batch["input_ids"]))
        return sums.losses(["all"])["val_loss"]

    def route(self, model: SpectraMoeForCausalLM, batch: Example, context: RoutingContext) -> None:
        """Fill `context` with the routing of a batch, without logits."""
        with self._precision():
            model(**self._inputs(batch), use_cache=False, routing=context, return_logits=False)

    @torch.no_grad()
    def scores(self, model: SpectraMoeForCausalLM, batch: Example, context: RoutingContext) -> TokenScores:
        """Losses and hits of a batch's tokens, as every evaluation computes them; `context` is filled."""
        labels = counted_ids(batch).to(self.device)
        with self._precision():
            output = model(**self._inputs(batch), use_cache=False, routing=context, return_logits=False)
            if output.logits is None and (head := plain_head(model.backbone)) is not None:
                return chunked_scores(output.hidden, head, labels)
        return scores_of_logits(output.logits, labels)

    def logits(self, model: SpectraMoeForCausalLM, batch: Example, context: RoutingContext) -> Tensor:
        """Whole logits [B, S, V] of a batch; `context` is filled."""
        with self._precision():
            return model(**self._inputs(batch), use_cache=False, routing=context).logits

    def _inputs(self, batch: Example) -> dict[str, Tensor]:
        inputs = {"input_ids": batch["input_ids"], **kept_apart(batch, self.cross_document)}
        return {name: ids.to(self.device) for name, ids in inputs.items()}

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def causality(self, model: SpectraMoeForCausalLM, training_rule: bool) -> Causality:
        """Whether the model sees the future under one rule, measured on held-out tokens."""
        ids, documents = self._causality_tokens()
        was_training = model.training
        model.eval()
        result = measure_causality(
            lambda token_ids_BS: self._causality_logits(model, token_ids_BS, documents, training_rule),
            ids,
            min(self.corpus.vocabulary_size, model.config.backbone.vocab_size),
        )
        model.train(was_training)
        return result

    @torch.no_grad()
    def rules_agree(self, model: SpectraMoeForCausalLM) -> bool:
        """Whether the rules of inference and of training give the very same logits for the tokens of `causality`."""
        ids, documents = self._causality_tokens()
        was_training = model.training
        model.eval()
        inference, training = (self._causality_logits(model, ids, documents, rule) for rule in (False, True))
        model.train(was_training)
        return torch.equal(inference, training)

    def _causality_tokens(self) -> tuple[Tensor, Tensor]:
        """Token and document ids of a few held-out sequences."""
        rows = np.linspace(0, len(self.corpus.eval_blocks) - 1, CAUSALITY_SEQUENCES).astype(int)
        place = (rows, slice(CAUSALITY_TOKENS))
        ids, documents = (
            torch.from_numpy(array[place].astype(np.int64)).to(self.device)
            for array in (self.corpus.eval_blocks, self.corpus.eval_document_ids)
        )
        return ids, documents

    def _causality_logits(
        self, model: SpectraMoeForCausalLM, token_ids_BS: Tensor, documents: Tensor, training_rule: bool
    ) -> Tensor:
        # Documents stay where they are; only the tokens in them change.
        batch = {"input_ids": token_ids_BS, "document_ids": documents}
        return self.logits(model, batch, RoutingContext(training_rule=training_rule))


def counted_ids(batch: Example) -> Tensor:
    """The labels of a batch made anew of its ids, so that wrong ones show: only which of them count is the batch's."""
    return batch["input_ids"].where(batch["labels"] != NOT_COUNTED, NOT_COUNTED)


class _LossSums:
    """Sums of next-token losses by the domain of the token predicted, and by its document where that is given."""

    def __init__(self, num_domains: int, num_documents: int = 1):
        self.loss = np.zeros(num_domains)
        self.tokens = np.zeros(num_domains, dtype=np.int64)
        self.correct = 0
        self.documents = DocumentSums.empty(num_documents)

    def add(
        self, scores: TokenScores, labels_BS: Tensor, domain_ids_BS: Tensor, document_ids_BS: Tensor | None = None
    ) -> None:
        domains = domain_ids_BS[:, 1:].flatten().cpu().numpy()
        counted = (labels_BS[:, 1:] != NOT_COUNTED).flatten().cpu().numpy()
        loss = scores.loss_N.double().cpu().numpy()
        self.loss += np.bincount(domains, weights=loss, minlength=len(self.loss))
        self.tokens += np.bincount(domains[counted], minlength=len(self.tokens))
        self.correct += int(scores.correct_N.sum())
        if document_ids_BS is not None:
            documents = document_ids_BS[:, 1:].flatten().cpu().numpy()
            correct = scores.correct_N.cpu().numpy().astype(bool)
            self.documents.add(documents[counted], domains[counted], loss[counted], correct[counted])

    def losses(self, names: list[str]) -> dict[str, float]:
        """val_loss (nats per token), val_perplexity, val_accuracy; loss and perplexity of each domain met."""
        mean = float(self.loss.sum() / self.tokens.sum())
        losses = {"val_loss": mean} | {
            f"val_loss_{name}": float(total / count)
            for name, total, count in zip(names, self.loss, self.tokens, strict=True)
            if count
        }
        # exp overflows for a diverged model; its perplexity is then not a number worth a row.
        perplexities = {
            name.replace("val_loss", "val_perplexity", 1): math.exp(loss) for name, loss in losses.items() if loss < 700
        }
        return losses | perplexities | {"val_accuracy": float(self.correct / self.tokens.sum())}

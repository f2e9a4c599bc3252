"""Reads what the sparse blocks of a stock Hugging Face model execute, by hooks on them, whatever the model returns.

Shapes: M tokens of a pass, padding included, N real tokens, E experts, C classes of the router (E, or one more where
it may choose none), K experts per token, A assignments, d hidden size.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.gate import output_sums
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.stock.blocks import SparseBlock, find_blocks, looks_sparse
from spectra_exp.moe.stock.scores import Observed, chosen_scores, distribution

_CLOCK = itertools.count()
TWICE = (
    "ran twice in one pass of the model, as a module does that several layers share; its routing is read once a pass: "
    "give each layer its own"
)
# Inside `extra_pass`: experts run for a measurement, of which no watch must take notice.
_EXTRA_PASSES: ContextVar[bool] = ContextVar("extra_passes", default=False)


@contextmanager
def extra_pass() -> Iterator[None]:
    """Run experts once more without any watch counting it."""
    token = _EXTRA_PASSES.set(True)
    try:
        yield
    finally:
        _EXTRA_PASSES.reset(token)


@dataclass
class Seen:
    """What one block did in one pass. `top_k`: the most experts that it gives a token."""

    chosen_ME: Tensor
    weights_ME: Tensor
    logits_MC: Tensor | None
    hidden_Md: Tensor | None
    top_k: int


class BlockWatch:
    """Watches one sparse block: what its experts are called with, and the logits of its router.

    Experts are called on (hidden, indices, weights), or on (hidden, mask, weights). Where they are not, the router's
    own answer counts: JetMoe's sorted assignments, Llama 4's scores of all experts, and the top k of the logits where
    each expert is a module that is called on its own tokens. How many tokens such modules were called on must agree.
    """

    def __init__(self, block: SparseBlock, top_k: int | None):
        self.block, self.top_k = block, top_k
        self.name, self.num_experts = block.name, block.num_experts
        self.paused = True
        # Which function makes scores of the logits: known from the first pass on.
        self.scores: str | None = None
        self._known = False
        # Modules may be defined in another order than they run in.
        self.ran_at = 0
        self._observed: Observed | None = None
        self._forget()

    def attach(self) -> list[RemovableHandle]:
        """The hooks that watch; removing them leaves the model as it was."""
        block, handles = self.block, []
        for gate in block.gates:
            handles.append(gate.register_forward_hook(self._gate_ran))
        if block.router is not None:
            handles.append(block.router.register_forward_pre_hook(self._router_begins))
            handles.append(block.router.register_forward_hook(self._router_ran, with_kwargs=True))
        handles.append(block.experts.register_forward_pre_hook(self._experts_called, with_kwargs=True))
        for index, expert in enumerate(block.listed):
            handles.append(expert.register_forward_pre_hook(partial(self._expert_called, index)))
        handles.append(block.holder.register_forward_hook(self._block_ran, always_call=True))
        return handles

    def begin(self) -> None:
        """Forget the pass before."""
        self._forget()
        self.paused = False

    def _forget(self) -> None:
        self._stop_observing()
        self._call: tuple[Tensor, Tensor, Tensor] | None = None
        self._answer: Any = None
        self._logits_MC: Tensor | None = None
        self._hidden_Md: Tensor | None = None
        self._calls_E = [0] * self.num_experts

    @torch.compiler.disable
    def _router_begins(self, module: nn.Module, inputs: Any) -> None:
        if self.paused or self._known or self._observed is not None:
            return
        rows = {len(weight) for weight in module.parameters() if weight.ndim == 2}
        self._observed = Observed({self.num_experts, self.num_experts + 1} | rows)
        self._observed.__enter__()

    def _stop_observing(self) -> None:
        observed, self._observed = getattr(self, "_observed", None), None
        if observed is not None:
            observed.__exit__(None, None, None)
            self.scores, self._known = observed.name, observed.name is not None

    @torch.compiler.disable
    @torch.no_grad()
    def _gate_ran(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not self.paused:
            self._logits_MC = output.detach().reshape(-1, output.shape[-1]).to(torch.float32, copy=True)

    @torch.compiler.disable
    @torch.no_grad()
    def _router_ran(self, module: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
        if self.paused:
            return
        if self._observed is not None and self._observed.name is not None:
            self._stop_observing()
        if self._answer is not None:
            raise SpectraError(f"{self.name} {TWICE}")
        self._answer, self.ran_at = output, next(_CLOCK)
        self._hidden_Md = [*inputs, *named.values()][0].detach().flatten(0, -2)
        logits = _logits(output, self.num_experts)
        # The router's own linear map knows better: some return what they made of its logits.
        if self._logits_MC is None and logits is not None:
            self._logits_MC = logits.detach().reshape(-1, logits.shape[-1]).to(torch.float32, copy=True)

    @torch.compiler.disable
    @torch.no_grad()
    def _experts_called(self, module: nn.Module, inputs: tuple, named: dict) -> None:
        given = [*inputs, *named.values()]
        if self.paused or _EXTRA_PASSES.get():
            return
        self._stop_observing()
        if len(given) < 3:
            return
        if self._call is not None:
            raise SpectraError(f"{self.name} {TWICE}")
        experts, weights = given[1].detach(), given[2].detach()
        if experts.is_floating_point():
            experts, weights = weights, experts
        self.ran_at = next(_CLOCK)
        self._call = given[0].detach().flatten(0, -2), experts, weights

    @torch.compiler.disable
    def _expert_called(self, index: int, module: nn.Module, inputs: tuple) -> None:
        if not self.paused and not _EXTRA_PASSES.get():
            self._stop_observing()
            self._calls_E[index] += inputs[0].flatten(0, -2).shape[0]

    @torch.compiler.disable
    def _block_ran(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stop_observing()

    @torch.no_grad()
    def finish(self) -> Seen:
        """What the block did since `begin`. Raises SpectraError when it did not run or cannot be read."""
        self.paused = True
        self._stop_observing()
        seen = self._read()
        if seen is None:
            raise SpectraError(
                f"{self.name}: its experts were not called on (hidden states, indices, weights), nor has it a gate of "
                f"{self.num_experts} logits; this block cannot be read"
            )
        if self.block.listed:
            self._check_calls(seen)
        if not self._known and seen.logits_MC is not None and len(seen.chosen_ME):
            self.scores = chosen_scores(None, seen.logits_MC, seen.chosen_ME, seen.weights_ME)
            self._known = True
        self._forget()
        return seen

    def _read(self) -> Seen | None:
        if self._call is not None:
            hidden_Md, experts, weights = self._call
            if experts.shape[-1] == weights.shape[-1] and not _is_mask(experts, self.num_experts):
                return self._from_indices(hidden_Md, experts.reshape(-1, experts.shape[-1]), weights)
            return self._from_mask(hidden_Md, experts, weights)
        answer, hidden = self._answer, self._hidden_Md
        if hidden is not None and isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[3], list):
            return self._from_sorted(hidden, *answer[1:4])
        if isinstance(answer, tuple) and len(answer) == 2 and _logits(answer, self.num_experts) is answer[1]:
            scores_ME = answer[0].detach().reshape(-1, self.num_experts).float()
            return self._seen(scores_ME > 0, scores_ME, hidden, self.top_k or 1)
        if self.block.listed and self._logits_MC is not None:
            return self._from_logits(hidden, self._logits_MC)
        return None

    def _from_indices(self, hidden_Md: Tensor | None, experts_MK: Tensor, weights_MK: Tensor) -> Seen:
        weights_MK = weights_MK.reshape(experts_MK.shape).float()
        blank = torch.zeros(len(experts_MK), self.num_experts + 1, device=experts_MK.device)
        # One column more: kernels mark an empty place by the index E.
        weights_ME = blank.scatter_add(1, experts_MK.long(), weights_MK)[:, :-1]
        chosen_ME = blank.bool().scatter(1, experts_MK.long(), True)[:, :-1]
        if self._logits_MC is not None and self._logits_MC.shape[1] > self.num_experts:
            # A router that may choose no expert says so by the weight 0 (Zaya).
            chosen_ME = chosen_ME & (weights_ME != 0)
        return self._seen(chosen_ME, weights_ME, hidden_Md, experts_MK.shape[1])

    def _from_mask(self, hidden_Md: Tensor, mask: Tensor, weights: Tensor) -> Seen:
        chosen_ME = mask.reshape(-1, self.num_experts).bool()
        weights_ME = weights.reshape(len(chosen_ME), -1).float() * chosen_ME
        return self._seen(chosen_ME, weights_ME, hidden_Md, max(int(chosen_ME.sum(1).max()), 1))

    def _from_sorted(self, hidden_Md: Tensor, token_A: Tensor, weights_A: Tensor, sizes_E: Sequence[int]) -> Seen:
        """Assignments in the order of their experts, of which `sizes_E` says how many each has."""
        expert_A = torch.arange(self.num_experts).repeat_interleave(torch.tensor(sizes_E)).to(token_A.device)
        weights_ME = torch.zeros(len(hidden_Md), self.num_experts, device=token_A.device)
        weights_ME[token_A, expert_A] = weights_A.float()
        chosen_ME = torch.zeros_like(weights_ME, dtype=torch.bool)
        chosen_ME[token_A, expert_A] = True
        return self._seen(chosen_ME, weights_ME, hidden_Md, len(token_A) // max(len(hidden_Md), 1))

    def _from_logits(self, hidden_Md: Tensor | None, logits_MC: Tensor) -> Seen:
        if self.top_k is None:
            raise SpectraError(f"{self.name}: how many experts a token uses is not known; give top_k=")
        weights_MK, experts_MK = torch.softmax(logits_MC, dim=-1).topk(self.top_k, dim=-1)
        return self._from_indices(hidden_Md, experts_MK, weights_MK)

    def _seen(self, chosen_ME: Tensor, weights_ME: Tensor, hidden_Md: Tensor | None, top_k: int) -> Seen:
        return Seen(chosen_ME, weights_ME, self._logits_MC, hidden_Md, top_k)

    def _check_calls(self, seen: Seen) -> None:
        counts_E = seen.chosen_ME.sum(0).tolist()
        if counts_E != self._calls_E:
            raise SpectraError(
                f"{self.name}: its experts ran on {self._calls_E} tokens, but its router chose them for {counts_E}; it "
                "selects by another rule, which cannot be seen here"
            )

    def record(self, layer: int, seen: Seen, real_M: Tensor | None = None) -> RoutingRecord:
        """The record of one pass over its real tokens, bool `real_M`; over all of them where None."""

        def real(rows: Tensor) -> Tensor:
            return rows if real_M is None else rows[real_M.to(rows.device)]

        chosen_NE, weights_NE, probs_NE = real(seen.chosen_ME), real(seen.weights_ME), None
        if seen.logits_MC is not None and self.scores is not None:
            probs_NE = distribution(self.scores, real(seen.logits_MC), chosen_NE, weights_NE, self.block.router)
        return RoutingRecord(
            layer=layer,
            chosen_NE=chosen_NE,
            weights_NE=weights_NE,
            probs_NE=probs_NE,
            representation_ED=self.block.rows_Ed,
            output_sum_ED=None,
            losses={},
            figures={},
            hidden_Nd=None if seen.hidden_Md is None else real(seen.hidden_Md),
        )

    @torch.no_grad()
    def output_sums(self, hidden_Nd: Tensor | None, chosen_NE: Tensor) -> Tensor | None:
        """Each expert's summed output over its tokens, unweighted, [E, d]: a second pass through the experts, which no
        watch counts. None where each is a module, whose calls others may count, where some do nothing (LongCat), and
        where they cannot run by themselves (JetMoe)."""
        experts = self.block.experts
        if hidden_Nd is None or self.block.listed or hasattr(experts, "total_experts"):
            return None
        with extra_pass():
            parameters = list(inspect.signature(type(experts).forward).parameters)[1:]
            if len(parameters) >= 3:
                return output_sums(experts, hidden_Nd, chosen_NE)
            if len(parameters) == 1:
                # Llama 4's run on every token, those of others as zeros.
                own_ENd = chosen_NE.T[..., None] * hidden_Nd
                return experts(own_ENd.flatten(0, 1)).float().view(own_ENd.shape).sum(1)
        return None


def finished(watches: list[BlockWatch]) -> list[Seen]:
    """What each watch saw in the pass that ends; sorts the watches by the order in which their blocks ran."""
    seen = {watch: watch.finish() for watch in watches}
    watches.sort(key=lambda watch: watch.ran_at)
    return [seen[watch] for watch in watches]


def watch_blocks(model: nn.Module, top_k: int | None) -> list[BlockWatch]:
    """A watch for every sparse block of a model, in order; empty for a dense one.

    Raises SpectraError for a sparse model whose blocks were not found, or do not have the same number of experts.
    """
    blocks = find_blocks(model)
    if not blocks and looks_sparse(model):
        raise SpectraError(
            f"{type(model).__name__} is a sparse model whose blocks cannot be read: none has its experts in a child "
            "named 'experts' and says how many they are"
        )
    if len(numbers := sorted({block.num_experts for block in blocks})) > 1:
        raise SpectraError(
            f"the layers of {type(model).__name__} have different numbers of experts ({', '.join(map(str, numbers))}); "
            "metrics need one number"
        )
    return [BlockWatch(block, top_k) for block in blocks]


def _logits(output: Any, num_experts: int) -> Tensor | None:
    """The logits in what a router returns: itself, the first of (logits, weights, indices), or the last of (scores,
    logits), as Llama 4 has them."""
    if isinstance(output, Tensor):
        return output if output.shape[-1] == num_experts else None
    if not isinstance(output, tuple):
        return None
    wide = [isinstance(t, Tensor) and t.is_floating_point() and t.shape[-1] == num_experts for t in output]
    if len(output) == 2 and all(wide):
        return output[1]
    return output[wide.index(True)] if any(wide) else None


def _is_mask(experts: Tensor, num_experts: int) -> bool:
    """Whether integers that came where experts' indices are expected are 0 or 1 for each expert of a token."""
    if experts.shape[-1] != num_experts or experts.dtype == torch.bool:
        return experts.dtype == torch.bool
    # Indices of one token differ, so k = E of them hold more than 0 and 1.
    return num_experts > 2 and int(experts.max()) <= 1

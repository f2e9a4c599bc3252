"""Reads what the sparse blocks of a stock Hugging Face model execute, by hooks on them, whatever the model returns.

Shapes: M tokens of a pass, padding included, N real tokens, E experts, K experts per token, d hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.record import RoutingRecord

# Inside `extra_pass`: experts run for a measurement, of which no watch must take notice.
_EXTRA_PASSES: ContextVar[bool] = ContextVar("extra_passes", default=False)
# Weights that a distribution explains to within this are taken from it; bfloat16 rounds to about 4e-3.
TOLERANCE = 1e-2


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
    """What one block did in one pass."""

    experts_MK: Tensor
    weights_MK: Tensor
    logits_ME: Tensor | None
    hidden_Md: Tensor


class BlockWatch:
    """Watches one sparse block: a module with an `experts` child, called on (hidden, indices, weights).

    Blocks whose experts are a list of modules, called on their own tokens only, are watched through their gate, the
    linear map to E logits: the top k of those count as executed, and how many tokens each expert was then called on
    must agree.
    """

    def __init__(self, name: str, block: nn.Module, top_k: int | None):
        self.name, self.block, self.top_k = name, block, top_k
        self.experts: nn.Module = block.experts
        self.listed = isinstance(self.experts, nn.ModuleList)
        self.num_experts = _num_experts(self.experts)
        self.seen: Seen | None = None
        self.paused = True
        self._logits_ME: Tensor | None = None
        self._hidden_Md: Tensor | None = None
        self._calls_E: list[int] = []

    def attach(self) -> list[RemovableHandle]:
        """The hooks that watch; removing them leaves the model as it was."""
        others = [child for name, child in self.block.named_children() if name != "experts"]
        handles = [child.register_forward_hook(self._gate_ran) for child in others]
        if not self.listed:
            return [*handles, self.experts.register_forward_pre_hook(self._experts_called, with_kwargs=True)]
        for index, expert in enumerate(self.experts):
            handles.append(expert.register_forward_pre_hook(self._counting(index)))
        return handles

    def begin(self) -> None:
        """Forget the pass before."""
        self.seen, self._logits_ME, self._hidden_Md = None, None, None
        self._calls_E, self.paused = [0] * self.num_experts, False

    @torch.no_grad()
    def _gate_ran(self, module: nn.Module, inputs: Any, output: Any) -> None:
        logits = output[0] if isinstance(output, tuple) else output
        if self.paused or not isinstance(logits, Tensor) or logits.shape[-1] != self.num_experts:
            return
        # A shared expert of a model as wide as it has experts.
        if logits is output and logits.shape == inputs[0].shape:
            return
        self._logits_ME = logits.detach().reshape(-1, self.num_experts).float()
        self._hidden_Md = inputs[0].detach().flatten(0, -2)

    @torch.no_grad()
    def _experts_called(self, module: nn.Module, inputs: tuple, named: dict) -> None:
        given = [*inputs, *named.values()]
        if self.paused or _EXTRA_PASSES.get() or len(given) < 3:
            return
        if self.seen is not None:
            raise SpectraError(f"{self.name} ran twice in one pass of the model; RoutingMonitor reads one")
        experts_MK, weights_MK = (t.detach().reshape(-1, t.shape[-1]) for t in given[1:3])
        if experts_MK.is_floating_point():
            experts_MK, weights_MK = weights_MK, experts_MK
        hidden_Md = given[0].detach().flatten(0, -2)
        self.seen = Seen(experts_MK.long(), weights_MK.float(), self._logits_ME, hidden_Md)

    def _counting(self, index: int):
        def called(module: nn.Module, inputs: tuple) -> None:
            if not self.paused:
                self._calls_E[index] += inputs[0].flatten(0, -2).shape[0]

        return called

    def finish(self) -> Seen:
        """What the block did since `begin`. Raises SpectraError when it did not run or cannot be read."""
        self.paused = True
        if self.listed and self._logits_ME is not None:
            self.seen = self._from_logits()
        if self.seen is None:
            raise SpectraError(
                f"{self.name}: its experts were not called on (hidden states, indices, weights), nor has it a gate of "
                f"{self.num_experts} logits; RoutingMonitor cannot read this block"
            )
        return self.seen

    def _from_logits(self) -> Seen:
        if self.top_k is None:
            raise SpectraError(f"{self.name}: how many experts a token uses is not known; give top_k=")
        weights_MK, experts_MK = torch.softmax(self._logits_ME, dim=-1).topk(self.top_k, dim=-1)
        counts_E = torch.bincount(experts_MK.flatten(), minlength=self.num_experts).tolist()
        if counts_E != self._calls_E:
            raise SpectraError(
                f"{self.name}: its experts ran on {self._calls_E} tokens, but the top {self.top_k} logits are "
                f"{counts_E}; it selects by another rule, which RoutingMonitor cannot see"
            )
        return Seen(experts_MK, weights_MK, self._logits_ME, self._hidden_Md)


def watch_blocks(model: nn.Module, top_k: int | None) -> list[BlockWatch]:
    """A watch for every sparse block of a model, in order. Raises SpectraError when it has none."""
    blocks = [
        BlockWatch(name, module, top_k)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "experts", None), nn.Module) and _num_experts(module.experts)
    ]
    if not blocks:
        raise SpectraError(
            f"{type(model).__name__} has no sparse block to watch: no module with a child named 'experts' that says "
            "how many it holds"
        )
    if len({block.num_experts for block in blocks}) > 1:
        raise SpectraError("the model's blocks have different numbers of experts; RoutingMonitor needs one number")
    return blocks


def _num_experts(experts: nn.Module) -> int:
    """How many experts a module holds; 0 when it does not say."""
    return len(experts) if isinstance(experts, nn.ModuleList) else int(getattr(experts, "num_experts", 0))


def record_of(layer: int, seen: Seen, real_M: Tensor, num_experts: int, representation_ED: Tensor | None):
    """The record of one block's pass over the real tokens, bool `real_M`."""
    experts_NK, weights_NK = seen.experts_MK[real_M], seen.weights_MK[real_M]
    # One column more: kernels mark an empty place by the index E.
    blank_NE = torch.zeros(len(experts_NK), num_experts + 1, device=experts_NK.device)
    weights_NE = blank_NE.scatter(1, experts_NK, weights_NK)[:, :-1]
    chosen_NE = blank_NE.bool().scatter(1, experts_NK, True)[:, :-1]
    logits_NE = None if seen.logits_ME is None else seen.logits_ME[real_M]
    return RoutingRecord(
        layer=layer,
        chosen_NE=chosen_NE,
        weights_NE=weights_NE,
        probs_NE=None if logits_NE is None else distribution(logits_NE, chosen_NE, weights_NE),
        representation_ED=representation_ED,
        output_sum_ED=None,
        losses={},
        figures={},
    )


def distribution(logits_NE: Tensor, chosen_NE: Tensor, weights_NE: Tensor) -> Tensor | None:
    """The router's distribution: that function of its logits, softmax or sigmoids over their sum, which the executed
    weights follow; None when neither explains them."""
    share_NE = weights_NE / weights_NE.sum(1, keepdim=True).clamp(min=1e-9)
    for scores_NE in (torch.softmax(logits_NE, dim=-1), torch.sigmoid(logits_NE)):
        kept_NE = scores_NE * chosen_NE
        expected_NE = kept_NE / kept_NE.sum(1, keepdim=True).clamp(min=1e-9)
        if torch.allclose(expected_NE, share_NE, atol=TOLERANCE):
            return scores_NE / scores_NE.sum(1, keepdim=True)
    return None

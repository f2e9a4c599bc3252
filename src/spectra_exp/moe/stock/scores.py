"""What makes scores of a router's logits, and whether such scores explain the weights that were executed.

Shapes: N tokens, E experts, C classes of the router: its experts, and one more where it may also choose none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Weights that scores explain to within this are taken from them; bfloat16 rounds to about 4e-3.
TOLERANCE = 1e-2

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: torch.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
    "sqrtsoftplus": lambda logits: nn.functional.softplus(logits).sqrt(),
}
_aten = torch.ops.aten
_NAMES = {
    _aten._softmax: "softmax",
    _aten._log_softmax: "softmax",
    _aten.sigmoid: "sigmoid",
    _aten.sigmoid_: "sigmoid",
    _aten.log_sigmoid_forward: "sigmoid",
    _aten.softplus: "sqrtsoftplus",
}


class Observed(TorchDispatchMode):
    """Notes which of SCORES a router computes, while it is on: the first that is of all its logits or of the top k.

    The executed weights alone cannot tell: at k = 1 they are often all 1, and near-equal logits give near-equal shares
    by any function.
    """

    def __init__(self, widths: set[int]):
        super().__init__()
        self.widths = set(widths)
        self.name: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kind, given, named = func.overloadpacket, args[0] if args else None, kwargs or {}
        if self.name is None and isinstance(given, Tensor) and given.ndim and given.shape[-1] in self.widths:
            self.name = _NAMES.get(kind)
            if kind is _aten.topk:
                self.widths.add(int(args[1] if len(args) > 1 else named["k"]))
        return func(*args, **named)


def chosen_scores(name: str | None, logits_NC: Tensor, chosen_NE: Tensor, weights_NE: Tensor) -> str | None:
    """The name in SCORES that explains the weights best where none was observed; None where several do equally."""
    if name is not None:
        return name
    errors = {n: _error(_shares(score(logits_NC), chosen_NE), weights_NE) for n, score in SCORES.items()}
    (best, least), (_, second) = sorted(errors.items(), key=lambda pair: pair[1])[:2]
    return best if least < min(second, TOLERANCE) else None


def distribution(
    name: str, logits_NC: Tensor, chosen_NE: Tensor, weights_NE: Tensor, router: nn.Module | None = None
) -> Tensor | None:
    """The router's distribution [N, C]: its scores over their sum; None where they do not explain the weights."""
    scores_NC = SCORES[name](logits_NC)
    for expected_NE in _explanations(scores_NC, logits_NC, chosen_NE, router):
        if _error(expected_NE, weights_NE) < TOLERANCE:
            return scores_NC / scores_NC.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return None


def _explanations(
    scores_NC: Tensor, logits_NC: Tensor, chosen_NE: Tensor, router: nn.Module | None
) -> Iterator[Tensor]:
    """Weights as routers make them of scores, each token's over their sum: the plain scores of its experts first."""
    yield _shares(scores_NC, chosen_NE)
    if router is None:
        return
    num_experts = chosen_NE.shape[1]
    # Gemma 4 has a learned factor for each expert.
    for factor in [*router.parameters(recurse=False), *router.buffers(recurse=False)]:
        if factor.shape == (num_experts,):
            yield _shares(scores_NC[:, :num_experts] * factor.float(), chosen_NE)
    noise = getattr(router, "router_jitter_noise", None)
    if noise is not None and int(chosen_NE.sum(1).max()) == 2:
        yield _sparse_mixer(logits_NC, chosen_NE, 2 * noise)


def _sparse_mixer(logits_NE: Tensor, chosen_NE: Tensor, margin: float) -> Tensor:
    """PhiMoE: each expert's softmax among those near the largest logit, the first expert left out for the second."""
    first_N1 = logits_NE.masked_fill(~chosen_NE, -torch.inf).argmax(1, keepdim=True)
    left_NE = logits_NE.scatter(1, first_N1, -torch.inf)
    weights = []
    for from_NE in (logits_NE, left_NE):
        largest_N1 = from_NE.amax(1, keepdim=True)
        far_NE = (largest_N1 - logits_NE) / torch.maximum(logits_NE.abs(), largest_N1) > margin
        weights.append(from_NE.masked_fill(far_NE, -torch.inf).softmax(1))
    is_first_NE = torch.zeros_like(chosen_NE).scatter(1, first_N1, True)
    return _shares(torch.where(is_first_NE, weights[0], weights[1]), chosen_NE)


def _shares(scores_NC: Tensor, chosen_NE: Tensor) -> Tensor:
    kept_NE = scores_NC[:, : chosen_NE.shape[1]] * chosen_NE
    return kept_NE / kept_NE.sum(1, keepdim=True).clamp(min=1e-9)


def _error(expected_NE: Tensor, weights_NE: Tensor) -> float:
    """The largest difference from each token's weights over their sum; tokens without weight say nothing."""
    total_N1 = weights_NE.sum(1, keepdim=True)
    apart_NE = (expected_NE - weights_NE / total_N1.clamp(min=1e-9)).abs() * (total_N1 > 0)
    return float(apart_NE.max()) if apart_NE.numel() else 0.0

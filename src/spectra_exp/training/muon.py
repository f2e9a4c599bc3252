"""Muon for matrices and AdamW for the rest, as one optimizer with one state.

Letters: B matrices, M rows (out), N columns (in), E experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from spectra_exp.foundations.errors import ConfigError

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of the quintic step. *Source:* Keller Jordan, https://kellerjordan.github.io/posts/muon/"""

ADJUSTMENTS = ("original", "match_rms_adamw")

_OPTIONS: dict[str, dict[str, Any]] = {
    "muon": {"momentum": 0.95, "nesterov": True, "ns_steps": 5, "adjust_lr": "original"},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
}
_SMALLEST_NORM = 1e-7


def orthogonalise(matrices_BMN: Tensor, steps: int = 5) -> Tensor:
    """Each matrix U S V^T replaced by nearly U V^T: the singular values brought to between about 0.7 and 1.2.

    [B, M, N] → [B, M, N], same dtype; every matrix on its own, a zero matrix stays zero. `steps` Newton-Schulz
    iterations, in bfloat16 on CUDA and float32 elsewhere. *Source:* Keller Jordan's Muon.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices_BMN.shape[-2] > matrices_BMN.shape[-1]
    # The Gram matrix of the shorter side is the cheaper one.
    wide = matrices_BMN.mT if tall else matrices_BMN
    x = wide.float()
    # A Frobenius norm of at most 1 bounds the singular values, as the iteration needs.
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_SMALLEST_NORM)
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices_BMN.dtype)
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """An optimizer whose parameter groups say `kind: "muon"` or `kind: "adamw"`.

    Muon groups take matrices [out, in] and stacked matrices [E, out, in], each of which is orthogonalised on its
    own: momentum, Newton-Schulz, decoupled weight decay, learning rate adjusted to the matrix's shape. AdamW
    groups compute what torch.optim.AdamW does. Parameters without a gradient are skipped.

    Options of a Muon group: `momentum`, `nesterov`, `ns_steps`, `adjust_lr` ("original" sqrt(max(1, out/in)) of
    Keller Jordan, or "match_rms_adamw" 0.2 sqrt(max(out, in)) of Moonshot, arXiv 2502.16982); of an AdamW group:
    `betas`, `eps`; of both: `lr`, `weight_decay`. Raises ConfigError for an option that the kind does not have,
    and for a parameter that is no matrix in a Muon group. *Source:* torch.optim.Muon, which takes 2-D alone.
    """

    def __init__(self, params: Iterable[dict[str, Any]], *, lr: float = 1e-3, weight_decay: float = 0.0):
        """`lr` and `weight_decay` hold for the groups that name none of their own."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its kind, options and shapes."""
        kind = param_group.get("kind")
        if kind not in _OPTIONS:
            raise ConfigError.unknown("optim.kind", str(kind), _OPTIONS)
        foreign = {name for other in _OPTIONS if other != kind for name in _OPTIONS[other]} & set(param_group)
        if foreign:
            raise ConfigError(f"optim.{min(foreign)}", f"has no effect in a group of kind '{kind}'", "leave it out")
        super().add_param_group(_OPTIONS[kind] | param_group)
        group = self.param_groups[-1]
        if kind == "muon":
            if group["adjust_lr"] not in ADJUSTMENTS:
                raise ConfigError.unknown("optim.adjust_lr", group["adjust_lr"], ADJUSTMENTS)
            for param in group["params"]:
                _check_matrix(param)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """The closure's loss, if one is given, after one update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [(param, param.grad) for param in group["params"] if param.grad is not None]
            if given:
                (self._muon if group["kind"] == "muon" else self._adamw)(group, given)
        return loss

    def _muon(self, group: dict[str, Any], given: list[tuple[Tensor, Tensor]]) -> None:
        updates: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
        for param, grad in given:
            _check_matrix(param)
            update = self._momentum(group, param, grad)
            M, N = update.shape[-2:]
            wide_BMN = (update.mT if M > N else update).reshape(-1, min(M, N), max(M, N))
            updates.setdefault((wide_BMN.shape[1:], wide_BMN.dtype, wide_BMN.device), []).append((param, wide_BMN))
        lr = float(group["lr"])
        for same_shape in updates.values():
            stacked = torch.cat([wide_BMN for _, wide_BMN in same_shape])
            parts = orthogonalise(stacked, group["ns_steps"]).split([len(wide_BMN) for _, wide_BMN in same_shape])
            for (param, _), direction in zip(same_shape, parts, strict=True):
                M, N = param.shape[-2:]
                upright = direction.mT if M > N else direction
                param.mul_(1 - lr * group["weight_decay"])
                param.add_(upright.reshape(param.shape), alpha=-lr * _adjustment(group["adjust_lr"], M, N))

    def _momentum(self, group: dict[str, Any], param: Tensor, grad: Tensor) -> Tensor:
        """The direction before orthogonalisation; the state's buffer is an average, as in torch.optim.Muon."""
        state, momentum = self.state[param], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        return grad.lerp(average, momentum) if group["nesterov"] else average

    def _adamw(self, group: dict[str, Any], given: list[tuple[Tensor, Tensor]]) -> None:
        params = [param for param, _ in given]
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [grad for _, grad in given],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _adjustment(rule: str, M: int, N: int) -> float:
    """The factor of the learning rate for a matrix of `M` rows and `N` columns."""
    return math.sqrt(max(1.0, M / N)) if rule == "original" else 0.2 * math.sqrt(max(M, N))


def _check_matrix(param: Tensor) -> None:
    # Again at each step: ZeRO replaces the parameters by flat pieces after the optimizer was made.
    if param.ndim not in (2, 3):
        raise ConfigError(
            "optim",
            f"Muon got a parameter of shape {tuple(param.shape)}, not a matrix or a stack of matrices",
            "put it in an adamw group; with ZeRO, which flattens parameters, use AdamW alone",
        )

"""How the routing moves over training, from what is kept at the five fractions.

Letters: T fractions, L routed layers, P probe tokens, K experts kept per token, E experts, G documents, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spectra_exp.measure.base import metric
from spectra_exp.measure.snapshot import RoutingSnapshot

STABLE = 0.9  # consistency with the final routing from which it counts as settled
BOOTSTRAP_DRAWS = 500


@dataclass(frozen=True)
class LayerTrajectory:
    """One layer's routing at each kept fraction of training, oldest first."""

    layer: int
    top_k: int
    num_tokens: int
    fractions: tuple[float, ...]
    used_TPE: np.ndarray  # bool, the probe tokens' experts
    counts_TGE: np.ndarray  # int64, assignments by document

    @property
    def counts_TE(self) -> np.ndarray:
        """Executed assignments at each fraction."""
        return self.counts_TGE.sum(axis=1)


def layer_trajectories(snapshots: Sequence[RoutingSnapshot]) -> list[LayerTrajectory]:
    """One trajectory per routed layer from snapshots in any order.

    Raises ValueError when they differ in layers, experts, probe tokens, documents or k.
    """
    ordered = sorted(snapshots, key=lambda s: s.fraction)
    shapes = {(s.document_counts_LGE.shape, s.probe_experts_LPK.shape[:2], s.top_k, s.num_tokens) for s in ordered}
    if len(shapes) != 1:
        raise ValueError(f"snapshots do not belong together: {sorted(map(str, shapes))}")
    first = ordered[0]
    num_experts = first.document_counts_LGE.shape[2]
    return [
        LayerTrajectory(
            layer=layer,
            top_k=first.top_k,
            num_tokens=first.num_tokens,
            fractions=tuple(s.fraction for s in ordered),
            used_TPE=np.stack([expert_sets(s.probe_experts_LPK[layer], num_experts) for s in ordered]),
            counts_TGE=np.stack([s.document_counts_LGE[layer] for s in ordered]),
        )
        for layer in range(len(first.document_counts_LGE))
    ]


def expert_sets(experts_PK: np.ndarray, num_experts: int) -> np.ndarray:
    """[P, E] bool: which experts each token uses, from their ids padded with -1."""
    used_PE = np.zeros((len(experts_PK), num_experts + 1), dtype=bool)
    used_PE[np.arange(len(experts_PK))[:, None], experts_PK] = True  # -1 lands in the last column, cut off
    return used_PE[:, :-1]


def agreement(used_PE: np.ndarray, other_PE: np.ndarray, top_k: int) -> float:
    """Mean over tokens of the number of common experts over k, or over the tokens' mean number if larger."""
    return float((used_PE & other_PE).sum(axis=1).mean()) / experts_per_token(top_k, used_PE, other_PE)


def experts_per_token(top_k: int, *used: np.ndarray) -> float:
    """k, or the largest mean number of experts in the sets [P, E]: tokens may differ in theirs."""
    return max(float(top_k), *(float(used_PE.sum(axis=1).mean()) for used_PE in used))


def saturation_curve(trajectory: LayerTrajectory) -> list[float]:
    """Agreement of each fraction's routing with the final one; the last entry is the final's with itself."""
    final_PE = trajectory.used_TPE[-1]
    return [agreement(used_PE, final_PE, trajectory.top_k) for used_PE in trajectory.used_TPE]


def _comparable(trajectory: LayerTrajectory) -> bool:
    return len(trajectory.fractions) > 1 and trajectory.used_TPE.shape[1] > 0


@metric("routing_consistency", "higher", "share", range=(0, 1), reduction="fractions", floor="marginals", margin=0.02)
def routing_consistency(trajectory: LayerTrajectory) -> float | None:
    """Share of k experts that a probe token keeps from one fraction of training to the next."""
    if not _comparable(trajectory):
        return None
    return float(np.mean([agreement(a, b, trajectory.top_k) for a, b in pairwise(trajectory.used_TPE)]))


@metric("router_saturation", "higher", "share", range=(0, 1), reduction="fractions", floor="marginals")
def router_saturation(trajectory: LayerTrajectory) -> float | None:
    """Share of k experts that a probe token has in common with its final ones, mean over the earlier fractions.

    *Source:* OLMoE (Muennighoff et al. 2024), router saturation, at the top-k.
    """
    return float(np.mean(saturation_curve(trajectory)[:-1])) if _comparable(trajectory) else None


@metric("fraction_to_stability", "lower", "fraction", range=(0, 1), reduction="fractions")
def fraction_to_stability(trajectory: LayerTrajectory) -> float | None:
    """First fraction of training from which agreement with the final routing stays at 0.9 or above."""
    if not _comparable(trajectory):
        return None
    settled = trajectory.fractions[-1]
    earlier = list(zip(trajectory.fractions, saturation_curve(trajectory), strict=True))[:-1]
    for fraction, agreed in reversed(earlier):
        if agreed < STABLE:
            break
        settled = fraction
    return settled


@metric("usage_variance", "lower", "share", range=(0, "1/2"), reduction="fractions", floor="marginals")
def usage_variance(trajectory: LayerTrajectory) -> float | None:
    """Standard deviation over the fractions of an expert's share of the load, averaged over experts."""
    counts_TE = trajectory.counts_TE
    if len(counts_TE) < 2 or not counts_TE.any(axis=1).all():
        return None
    return float((counts_TE / counts_TE.sum(axis=1, keepdims=True)).std(axis=0).mean())


def kendall_tau(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the last axis; NaN where one side has only ties."""
    sign_x = np.sign(x[..., :, None] - x[..., None, :])
    sign_y = np.sign(y[..., :, None] - y[..., None, :])
    both = (sign_x * sign_y).sum(axis=(-1, -2))
    untied = np.abs(sign_x).sum(axis=(-1, -2)) * np.abs(sign_y).sum(axis=(-1, -2))
    return np.where(untied > 0, both / np.sqrt(np.maximum(untied, 1)), np.nan)


@metric("usage_kendall_tau", "higher", range=(-1, 1), reduction="fractions")
def usage_kendall_tau(trajectory: LayerTrajectory) -> float | None:
    """Kendall's tau of the experts' usage ranks between consecutive fractions, averaged."""
    counts_TE = trajectory.counts_TE
    tau = kendall_tau(counts_TE[1:], counts_TE[:-1])
    return float(tau.mean()) if len(tau) and np.isfinite(tau).all() else None


def usage_kendall_interval(trajectory: LayerTrajectory, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile interval of usage_kendall_tau over bootstrapped documents; None where it has no value.

    The same documents are drawn at every fraction, as the text is the same.
    """
    counts_TGE = trajectory.counts_TGE[:, trajectory.counts_TGE.any(axis=(0, 2))]
    num_documents = counts_TGE.shape[1]
    if usage_kendall_tau(trajectory) is None or num_documents < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn_RG = rng.multinomial(num_documents, np.full(num_documents, 1 / num_documents), size=BOOTSTRAP_DRAWS)
    counts_RTE = np.moveaxis(drawn_RG @ counts_TGE, 1, 0)
    # One draw at a time: the pairs of all draws at once would take gigabytes at 256 experts.
    tau_R = np.array([kendall_tau(counts_TE[1:], counts_TE[:-1]).mean() for counts_TE in counts_RTE])
    tau_R = tau_R[np.isfinite(tau_R)]
    if not len(tau_R):
        return None
    low, high = np.quantile(tau_R, [0.025, 0.975])
    return float(low), float(high)


@metric("usage_kendall_tau_low", "none", range=(-1, 1), reduction="fractions")
def usage_kendall_tau_low(trajectory: LayerTrajectory) -> float | None:
    """Lower end of the 95 % interval of usage_kendall_tau over bootstrapped documents."""
    interval = usage_kendall_interval(trajectory)
    return None if interval is None else interval[0]


@metric("usage_kendall_tau_high", "none", range=(-1, 1), reduction="fractions")
def usage_kendall_tau_high(trajectory: LayerTrajectory) -> float | None:
    """Upper end of the 95 % interval of usage_kendall_tau over bootstrapped documents."""
    interval = usage_kendall_interval(trajectory)
    return None if interval is None else interval[1]

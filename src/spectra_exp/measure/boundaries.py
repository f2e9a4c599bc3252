"""How long routing goes on as in the domain before, where one domain follows another inside a sequence.

Letters: N tokens, H distances from a boundary, M domains, E experts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.tokens import TokenBatch

# Tokens after a boundary that are looked at.
WINDOW = 32


def since_boundary(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """[N] tokens since the last boundary between known domains in the token's sequence, 0 for the first one after it,
    −1 without one in the last `WINDOW`; and [N] the domain before that boundary, of use where there is one.
    """
    domains_N, sequences_N = batch.domain_ids_N, batch.sequence_ids_N
    place_N = torch.arange(len(domains_N), device=domains_N.device)
    starts_N, changes_N = torch.ones_like(place_N, dtype=torch.bool), torch.zeros_like(place_N, dtype=torch.bool)
    starts_N[1:] = sequences_N[1:] != sequences_N[:-1]
    changes_N[1:] = domains_N[1:] != domains_N[:-1]
    # The last start or change, whichever is later; a start is no boundary.
    last_N = torch.where(starts_N | changes_N, place_N, 0).cummax(dim=0).values
    since_N, before_N = place_N - last_N, domains_N[(last_N - 1).clamp_min(0)]
    counted_N = ~starts_N[last_N] & (since_N < WINDOW) & (domains_N >= 0) & (before_N >= 0)
    return torch.where(counted_N, since_N, -1), before_N


def lean_H(stats: LayerStatistics) -> np.ndarray | None:
    """[H] how much nearer the routing so far after a boundary is to the new domain than to the old one; NaN without a
    token.

    The squared distance of an assignment from the profile of the domain before the boundary less that from the profile
    of the domain after it, averaged over all boundaries and, with the places beside it, over three tokens. A profile is
    the share of each expert in the domain's assignments, windows after boundaries left out, so that a lagging window
    does not draw it to itself. None without boundaries, or where a domain at one has no such assignments.
    """
    if stats.after_HME is None or stats.before_HME is None or stats.settled_ME is None:
        return None
    after_HM, before_HM = stats.after_HME.sum(axis=2), stats.before_HME.sum(axis=2)
    total_M = stats.settled_ME.sum(axis=1)
    met_M = after_HM.any(axis=0) | before_HM.any(axis=0)
    if not met_M.any() or (total_M[met_M] == 0).any():
        return None
    profile_ME = stats.settled_ME / np.maximum(total_M, 1)[:, None]
    square_M = (profile_ME**2).sum(axis=1)
    nearer_H = 2 * ((stats.after_HME - stats.before_HME) * profile_ME).sum(axis=(1, 2))
    nearer_H = nearer_H + (before_HM - after_HM) @ square_M
    sum_H, count_H = (
        np.convolve(np.pad(values_H, 1, mode="edge"), np.ones(3), mode="valid")
        for values_H in (nearer_H, after_HM.sum(axis=1))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return sum_H / count_H


@metric("boundary_lag", "lower", "tokens", range=(0, WINDOW), floor="marginals", margin=1.0)
def boundary_lag(stats: LayerStatistics) -> float | None:
    """Tokens after a change of domain in a sequence until routing is nearer the new domain's profile; 32: not by then.

    Interpolated between the last token nearer the old one's and the first nearer the new one's, so that a switch at the
    n-th token after the change gives n.
    """
    lean = lean_H(stats)
    if lean is None:
        return None
    lean = lean[np.isfinite(lean)]
    nearer = np.flatnonzero(lean > 0)
    if not len(nearer):
        return float(WINDOW)
    first = int(nearer[0])
    return 0.0 if first == 0 else float(first + 0.5 - lean[first] / (lean[first] - lean[first - 1]))


def random_boundaries(stats: LayerStatistics, rng: np.random.Generator) -> LayerStatistics:
    """`stats` with what `boundary_lag` is made of as random routing with the layer's own loads would leave it."""
    if stats.after_HME is None or stats.before_HME is None or stats.settled_ME is None:
        return stats
    after_HM, before_HM = stats.after_HME.sum(axis=2), stats.before_HME.sum(axis=2)
    after_HME = rng.multinomial(after_HM, stats.share_E)
    before_HME = np.zeros_like(after_HME)
    for h, pool_E in enumerate(after_HME.sum(axis=1)):
        # The same assignments by the domain before.
        for m, size in enumerate(before_HM[h]):
            before_HME[h, m] = rng.multivariate_hypergeometric(pool_E, size)
            pool_E = pool_E - before_HME[h, m]
    settled_ME = rng.multinomial(stats.settled_ME.sum(axis=1), stats.share_E)
    return replace(stats, after_HME=after_HME, before_HME=before_HME, settled_ME=settled_ME)

"""Potentials per expert that balance a load: nudged by it, fitted to costs at once, or moved inside a sequence.

An expert of higher potential is chosen more: selection takes the k largest of g − C.
Shapes: B sequences, S tokens each, N real tokens, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectra_exp.routing.quantiles import quantile

# A load within this of its share is balanced; rounds after which the best so far is taken.
LOAD_ERROR = 1e-3
MOST_ROUNDS = 100
# All experts move at once, so none goes the whole way: of 0.3 to 1, 0.7 needed the fewest rounds (9 to 18, E 8 to 64).
STEP = 0.7


def nudged(potentials_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """The potentials moved against the load error: g − rate clip(c / mean c − 1, ±1), mean removed."""
    error_E = (counts_E / counts_E.mean().clamp(min=1e-9) - 1).clamp(-1, 1)
    moved_E = potentials_E - rate * error_E
    return moved_E - moved_E.mean()


def load_error(cost_NE: Tensor, potentials_E: Tensor, top_k: int) -> Tensor:
    """The largest |c / mean c − 1| of the loads c that the potentials give these costs."""
    chosen_NK = (potentials_E - cost_NE).topk(top_k, dim=-1).indices
    counts_E = torch.bincount(chosen_NK.flatten(), minlength=cost_NE.shape[1]).to(cost_NE.dtype)
    return (counts_E / counts_E.mean() - 1).abs().max()


def needed_potentials(cost_NE: Tensor, potentials_E: Tensor, top_k: int) -> Tensor:
    """What each expert's potential would have to be above to be among a token's k, all others as they are, [N, E].

    That is the k-th largest g − C of the others, plus its own cost: exact both for tokens that it has and for those
    that it has not, for which the (k+1)-th largest of all, as quantile balancing takes it, is too low.
    """
    ranked_NE = potentials_E - cost_NE
    best = ranked_NE.topk(top_k + 1, dim=-1).values
    last_N1, next_N1 = best[:, top_k - 1 : top_k], best[:, top_k:]
    return torch.where(ranked_NE >= last_N1, next_N1, last_N1) + cost_NE


def fitted(cost_NE: Tensor, potentials_E: Tensor, top_k: int) -> Tensor:
    """Potentials under which these tokens load all experts alike, from those given; the best of the rounds made.

    A round moves every expert's a part of the way to the quantile at which it would serve k/E of the tokens.
    """
    best_E = now_E = potentials_E
    least = load_error(cost_NE, now_E, top_k)
    for _ in range(MOST_ROUNDS):
        if least < LOAD_ERROR:
            break
        wanted_E = quantile(needed_potentials(cost_NE, now_E, top_k), top_k / cost_NE.shape[1])
        now_E = torch.lerp(now_E, wanted_E - wanted_E.mean(), STEP)
        error = load_error(cost_NE, now_E, top_k)
        if error < least:
            best_E, least = now_E, error
    return best_E


@torch.no_grad()
def sequence_offsets(
    cost_BSE: Tensor,
    mask_BS: Tensor | None,
    potentials_E: Tensor,
    top_k: int,
    rate: float,
    decay: float,
    first_BE: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What is added to the potentials at each token, [B, S, E], and after the last one, [B, E]; their mean is 0.

    o_{n+1} = decay o_n − rate (1[chosen at n] − k/E), from `first_BE` (None: 0); chosen are the k largest of
    g + o_n − C_n. What a token is given depends on the tokens before it alone. Padding leaves them as they are.
    """
    b, s, e = cost_BSE.shape
    offset_BE = cost_BSE.new_zeros(b, e) if first_BE is None else first_BE
    ranked_BSE, offsets_BSE = potentials_E - cost_BSE, torch.empty_like(cost_BSE)
    for n in range(s):
        offsets_BSE[:, n] = offset_BE
        chosen_BK = (ranked_BSE[:, n] + offset_BE).topk(top_k, dim=-1).indices
        moved_BE = (decay * offset_BE + rate * top_k / e).scatter_add(
            1, chosen_BK, offset_BE.new_full((), -rate).expand_as(chosen_BK)
        )
        offset_BE = moved_BE if mask_BS is None else torch.where(mask_BS[:, n, None], moved_BE, offset_BE)
    return offsets_BSE, offset_BE

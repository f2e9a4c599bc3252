"""Whether a model's prediction at a token depends on anything but the tokens up to it (docs/method.md 7).

Shapes: B sequences, S tokens each, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PERTURBATIONS = 20
# Logits of equal routing differ by rounding alone; one changed expert moves them by far more than this.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Causality:
    """`largest_change`: of a logit that should not have moved; causal when that is within TOLERANCE.

    What moved it, later tokens or other sequences, each on its own; not looked for, and None, in a causal model.
    `place`: its sequence and position.
    """

    largest_change: float
    largest_change_later_tokens: float | None = None
    largest_change_other_sequences: float | None = None
    place: tuple[int, int] | None = None

    @property
    def causal(self) -> bool:
        return self.largest_change <= TOLERANCE


@torch.no_grad()
def measure_causality(
    logits_of: Callable[[Tensor], Tensor], token_ids_BS: Tensor, vocabulary_size: int, seed: int = 0
) -> Causality:
    """Change the tokens after t and all other sequences, 20 times, and look at the logits up to t.

    `logits_of` maps ids [B, S] to logits [B, S, V] under the rule to be judged, without dropout; it must not move any
    state. Needs B >= 2 and S >= 2.
    """
    b, s = token_ids_BS.shape
    if b < 2 or s < 2:
        raise ValueError(f"causality needs two sequences of two tokens, not {b} of {s}")
    generator = torch.Generator().manual_seed(seed)
    places = [
        (
            int(torch.randint(b, (), generator=generator)),
            int(torch.randint(s - 1, (), generator=generator)),
            torch.randint(vocabulary_size, (b, s), generator=generator).to(token_ids_BS.device),
        )
        for _ in range(PERTURBATIONS)
    ]
    before = logits_of(token_ids_BS)

    def largest(change: Callable[[Tensor, int, int], Tensor]) -> tuple[float, tuple[int, int] | None]:
        """Over all perturbations, with its place; `change(noise, row, t)`: ids with some of them replaced by noise."""
        moved, place = 0.0, None
        for row, t, noise_BS in places:
            after = logits_of(change(noise_BS, row, t))
            change_by_S = (after[row, : t + 1].float() - before[row, : t + 1].float()).abs().amax(-1)
            # Of a logit that is not a number nothing is known, and max() would pass over it.
            change_by_S = change_by_S.nan_to_num(math.inf, math.inf)
            if float(change_by_S.max()) > moved:
                moved, place = float(change_by_S.max()), (row, int(change_by_S.argmax()))
        return moved, place

    def later(noise_BS: Tensor, row: int, t: int) -> Tensor:
        changed = token_ids_BS.clone()
        changed[row, t + 1 :] = noise_BS[row, t + 1 :]
        return changed

    def others(noise_BS: Tensor, row: int, t: int) -> Tensor:
        changed = noise_BS.clone()
        changed[row] = token_ids_BS[row]
        return changed

    def both(noise_BS: Tensor, row: int, t: int) -> Tensor:
        changed = noise_BS.clone()
        changed[row, : t + 1] = token_ids_BS[row, : t + 1]
        return changed

    by_both = largest(both)
    if Causality(by_both[0]).causal:
        return Causality(by_both[0], place=by_both[1])
    by_later, by_others = largest(later), largest(others)
    moved, place = max(by_both, by_later, by_others, key=lambda found: found[0])
    return Causality(moved, by_later[0], by_others[0], place)

"""Whether a model's prediction at a token depends on anything but the tokens up to it (docs/method.md 7).

Shapes: B sequences, S tokens each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PERTURBATIONS = 20
# Logits of equal routing differ by rounding alone; one changed expert moves them by far more than this.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Causality:
    """`largest_change`: of a logit that should not have moved; causal when that is within TOLERANCE."""

    largest_change: float
    largest_change_later_tokens: float
    largest_change_other_sequences: float

    @property
    def causal(self) -> bool:
        return self.largest_change <= TOLERANCE


@torch.no_grad()
def measure_causality(
    logits_of: Callable[[Tensor], Tensor], token_ids_BS: Tensor, vocabulary_size: int, seed: int = 0
) -> Causality:
    """Change tokens after t, and all other sequences, 20 times each, and look at the logits up to t.

    `logits_of` maps ids [B, S] to logits [B, S, V] under the rule to be judged, without dropout; it must not move any
    state. Needs B >= 2 and S >= 2.
    """
    b, s = token_ids_BS.shape
    if b < 2 or s < 2:
        raise ValueError(f"causality needs two sequences of two tokens, not {b} of {s}")
    generator = torch.Generator().manual_seed(seed)
    before = logits_of(token_ids_BS)
    changes = {"later": 0.0, "others": 0.0}
    for _ in range(PERTURBATIONS):
        row = int(torch.randint(b, (), generator=generator))
        t = int(torch.randint(s - 1, (), generator=generator))
        noise = torch.randint(vocabulary_size, (b, s), generator=generator).to(token_ids_BS.device)
        later = token_ids_BS.clone()
        later[row, t + 1 :] = noise[row, t + 1 :]
        others = noise.clone()
        others[row] = token_ids_BS[row]
        changes["later"] = max(changes["later"], _change(logits_of(later), before, row, t + 1))
        changes["others"] = max(changes["others"], _change(logits_of(others), before, row, s))
    return Causality(max(changes.values()), changes["later"], changes["others"])


def _change(after: Tensor, before: Tensor, row: int, upto: int) -> float:
    return float((after[row, :upto].float() - before[row, :upto].float()).abs().max())

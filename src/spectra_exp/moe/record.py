"""What one routed layer leaves behind in one forward pass.

Letters: N real (non-padding) tokens, E experts, D width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class RoutingRecord:
    """The executed routing of one layer, over the batch's real tokens in reading order."""

    layer: int  # index among the routed layers, 0..L-1
    chosen_NE: Tensor  # bool, executed assignments, after selection
    weights_NE: Tensor  # float32 combine weights, 0 where not chosen (detached)
    # float32, router's distribution before selection (detached); one column more where it may choose none; None: hash,
    # random
    probs_NE: Tensor | None
    representation_ED: Tensor | None  # expert representations for the Gram metrics; None: hash, random
    output_sum_ED: Tensor | None  # float32, per expert the sum over its tokens of its output
    losses: dict[str, Tensor]  # scalar loss terms before their coefficients, with their graph
    figures: dict[str, Tensor]  # scalar diagnostics (sinkhorn_residual, ...), detached
    hidden_Nd: Tensor | None = None  # what the layer got of the first tokens (detached), where asked for

"""What one routed layer leaves behind in one forward pass.

Letters: N real (non-padding) tokens, E experts, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.errors import SpectraError


@dataclass
class RoutingRecord:
    """The executed routing of one layer, over the batch's real tokens in reading order."""

    layer: int  # index among the routed layers, 0..L-1
    chosen_NE: Tensor  # bool, executed assignments, after selection
    weights_NE: Tensor  # float32 combine weights, 0 where not chosen (detached)
    # float32, router's distribution before selection (detached), ours given that no empty expert is chosen; one column
    # more where a stock router may choose none; None: hash, random
    probs_NE: Tensor | None
    representation_ED: Tensor | None  # expert representations for the Gram metrics; None: hash, random
    output_sum_ED: Tensor | None  # float32, per expert the sum over its tokens of its output
    losses: dict[str, Tensor]  # scalar loss terms before their coefficients, with their graph
    figures: dict[str, Tensor]  # scalar diagnostics (sinkhorn_residual, ...), detached
    hidden_Nd: Tensor | None = None  # what the layer got of the first tokens (detached), where asked for
    null_assignments: Tensor | None = (
        None  # how many fell to empty experts, which are not among E; None: there are none
    )
    unexecuted: Tensor | None = None  # how many of the assignments had no place among the experts; None: all had one


def check_executed(records: Sequence[RoutingRecord]) -> None:
    """Raise SpectraError when the records of one pass count assignments that were not executed."""
    # One look at the device for all layers.
    counted = [(record, record.unexecuted) for record in records if record.unexecuted is not None]
    if not counted:
        return
    for (record, _), left in zip(counted, torch.stack([number for _, number in counted]).tolist(), strict=True):
        if left:
            raise SpectraError(
                f"routed layer {record.layer}: {left} of {int(record.chosen_NE.sum())} assignments are more than its "
                "selection rule says that it makes, and are not executed; declare its bound where it is registered"
            )

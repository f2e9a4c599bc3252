"""What one forward pass tells its routed layers, and what they leave behind.

Backbones call `mlp(hidden)` and know nothing of masks or token ids, so these travel beside the call. Everything is
keyed by layer and written whole: running a layer again (gradient checkpointing) writes the same values once more.

Shapes: B sequences, S tokens each, E experts, D router dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.routing.base import State
from spectra_exp.routing.documents import Stretches

# Keeps the noise of neighbouring layers apart; any odd constant does.
LAYER_STRIDE = 7919


@dataclass
class RoutingContext:
    """One pass: its inputs, and per layer the record, the vectors handed on, state updates and decoding states."""

    mask_BS: Tensor | None = None
    token_ids_BS: Tensor | None = None
    previous_ids_BS: Tensor | None = None
    stretches: Stretches | None = None
    temperature: float = 1.0
    noise_seed: int = 0
    training_rule: bool = False
    keep_outputs: bool = False
    keep_tensors: bool = False
    # Tokens, from the first on, whose hidden states are kept.
    keep_hidden: int = 0
    # Whether all ranks make the pass together, as they do those of training.
    shared: bool = False
    ranks: Ranks = ALONE
    records: dict[int, RoutingRecord] = field(default_factory=dict)
    carries_BSED: dict[int, Tensor | None] = field(default_factory=dict)
    updates: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    new_states: dict[int, State] = field(default_factory=dict)
    tensors: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def has_tokens(self) -> bool:
        """Whether the pass has a real token; asks the device only when there is padding."""
        return self.mask_BS is None or bool(self.mask_BS.any())

    def batch(self, hidden: Tensor) -> Tensor:
        """Hidden states as [B, S, d]; some backbones hand them on flat, [B * S, d]."""
        if hidden.ndim == 3:
            return hidden
        assert self.token_ids_BS is not None
        return hidden.unflatten(0, self.token_ids_BS.shape)

    def separate_documents(self, document_ids_BS: Tensor) -> None:
        """Keep the documents of packed blocks apart: stretches of their own, and no previous id at a start."""
        assert self.previous_ids_BS is not None
        self.stretches = Stretches.of(document_ids_BS)
        self.previous_ids_BS = self.previous_ids_BS.where(self.stretches.position_BS > 0, -1)

    def layer_noise_seed(self, layer: int) -> int:
        """Seed of one layer's noise in this pass."""
        return (self.noise_seed * LAYER_STRIDE + layer) % (2**63)


class ContextHolder:
    """The one place that the layers of a model read the running pass from.

    The context of a training pass stays in place after it, because gradient checkpointing runs the layers again
    during the backward pass.
    """

    def __init__(self) -> None:
        self.current: RoutingContext | None = None

    @contextmanager
    def evaluation(self, context: RoutingContext) -> Iterator[RoutingContext]:
        """Use `context` for one pass that has no backward, and forget it after."""
        before, self.current = self.current, context
        try:
            yield context
        finally:
            self.current = before

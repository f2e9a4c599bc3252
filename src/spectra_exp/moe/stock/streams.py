"""Which tokens reach a model's sparse blocks: those of the innermost module around them that is given token ids.

Shapes: B sequences, S tokens each.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

IDS, MASK = "input_ids", "attention_mask"
Layer = TypeVar("Layer")


class TokenStream(Generic[Layer]):
    """The layers that see the same tokens, and the modules that these enter by, outermost first.

    A decoder has one; a model with an encoder two. A pass is one of the last of `entrances`, whoever calls it: the
    model, what it is wrapped in, or somebody who wants no head. Its ids, where it gets embeddings alone, are those that
    a module around it was given.
    """

    def __init__(self, entrances: Sequence[nn.Module], layers: Sequence[Layer]):
        self.entrances, self.layers = list(entrances), list(layers)
        self.ids_BS: Tensor | None = None
        self.mask_BS: Tensor | None = None

    @property
    def module(self) -> nn.Module:
        """The module of which each call is a pass."""
        return self.entrances[-1]

    def forget(self) -> None:
        """No ids are known any more."""
        self.ids_BS = self.mask_BS = None

    def enter(self, module: nn.Module, inputs: tuple, named: dict) -> None:
        """Take the ids and the padding mask that an entrance was called with, by name or by place."""
        given = _arguments(module, inputs, named)
        ids, mask = given.get(IDS), given.get(MASK)
        if isinstance(ids, Tensor):
            self.ids_BS = ids
        # Models hand on masks of other shapes, which no longer say what is padding.
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self.mask_BS = mask

    def real_BS(self) -> Tensor:
        """Which tokens of the pass count, bool: those that are not padding. It has ids."""
        ids_BS = self.ids_BS
        assert ids_BS is not None
        if self.mask_BS is None:
            return torch.ones_like(ids_BS, dtype=torch.bool)
        return self.mask_BS[:, -ids_BS.shape[1] :].bool()


def token_streams(model: nn.Module, layers: Sequence[tuple[str, Layer]]) -> list[TokenStream[Layer]]:
    """The streams of named layers in their order; the names are those of `model.named_modules()`."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[nn.Module, TokenStream[Layer]] = {}
    for name, layer in layers:
        parts = name.split(".") if name else []
        around = [modules[".".join(parts[:end])] for end in range(len(parts) + 1)]
        entrances = [module for module in around if IDS in _signature(module).parameters] or [model]
        if getattr(getattr(entrances[0], "config", None), "is_encoder_decoder", False):
            # Its own ids are the encoder's.
            entrances = entrances[-1:]
        found.setdefault(entrances[-1], TokenStream(entrances, [])).layers.append(layer)
    return list(found.values())


def _signature(module: nn.Module) -> inspect.Signature:
    # The class's: libraries put wrappers without names over an instance's forward.
    return inspect.signature(type(module).forward)


def _arguments(module: nn.Module, inputs: tuple, named: dict) -> dict[str, Any]:
    signature = _signature(module)
    if IDS not in signature.parameters:
        return ({IDS: inputs[0]} if inputs else {}) | named
    # What does not fit is the model's to complain about.
    places = [name for name in signature.parameters if name != "self"]
    return dict(zip(places, inputs, strict=False)) | named

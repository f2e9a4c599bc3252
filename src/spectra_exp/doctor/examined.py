"""A model under examination: its passes with the routing that they executed, on a small batch and on all of the text.

Shapes: B sequences, S tokens each, V vocabulary, E experts, L sparse layers, M = B S tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_exp.doctor.keeping import kept
from spectra_exp.doctor.options import switched_off
from spectra_exp.foundations.errors import ConfigError, SpectraError, first_line
from spectra_exp.moe.layer import RoutedLayer
from spectra_exp.moe.stock.watch import BlockWatch, Seen, finished, watch_blocks

# Of the small batch that most checks run on.
ROWS, LENGTH = 4, 64
PAD = 3
# Of all that a check draws.
SEED = 0
# The modes in which passes must repeat for a check to say something.
EVALUATION, TRAINING = "evaluation", "training"


class DoesNotApply(SpectraError):
    """A check has nothing to look at in this model; the message says why."""


@dataclass
class Pass:
    """One forward pass. `chosen_LBSE`: executed assignments, a tensor for each sparse layer, no expert at padding.

    `seen`: what the blocks of a stock model did, for the checks that need their logits; empty for our own models.
    """

    logits_BSV: Tensor
    chosen_LBSE: list[Tensor]
    output: Any
    seen: list[Seen]


def next_token_loss(logits_BSV: Tensor, ids_BS: Tensor) -> Tensor:
    """Mean nats of predicting each token from those before it."""
    return cross_entropy(logits_BSV[:, :-1].flatten(0, 1).float(), ids_BS[:, 1:].flatten())


class Examined:
    """The model, float32 and in evaluation mode, with what the checks ask of it.

    `batches`: ids [B, S] of real text without padding, int64. `dtype`: what the model came in. `trainer`: a Hugging
    Face Trainer whose settings are examined too. `own`: whether it is a model of this project, which leaves records of
    its own. For each sparse layer, in the order in which they run: `names`; `routers`, the router's parameters (those
    that only shift its selection are not trained); `experts`, the module that holds them. `plain`, `again`: two passes
    over the small batch. Raises ConfigError for a model without sparse blocks, and SpectraError for one whose logits
    are not finite.
    """

    # Ours or transformers': what it has beside a module's depends on `own`.
    model: Any

    def __init__(self, model: nn.Module, batches: Sequence[Tensor], dtype: torch.dtype, trainer: Any = None):
        if getattr(model.config, "is_encoder_decoder", False):
            raise ConfigError("model", f"{type(model).__name__} has an encoder", "give a decoder-only model")
        self.model, self.batches, self.dtype, self.trainer = model, list(batches), dtype, trainer
        if getattr(trainer, "model", model) is not model:
            raise ConfigError("trainer", "it trains another model than the one given", "give trainer.model")
        self.layers: list[RoutedLayer] = list(getattr(model, "routed_layers", []))
        self.watches: list[BlockWatch] = []
        if not self.layers:
            self.watches = watch_blocks(model, getattr(model.config, "num_experts_per_tok", None))
            if not self.watches:
                problem = f"{type(model).__name__} has no sparse block"
                raise ConfigError("model", problem, "it is dense: give a sparse one")
        self.own = bool(self.layers)
        if self.own:
            self.names = [f"routed layer {layer.layer}" for layer in self.layers]
        else:
            self.names = [watch.name for watch in self.watches]
        blocks: list[Any] = self.layers or [watch.block for watch in self.watches]
        self.experts: list[nn.Module] = [block.experts for block in blocks]
        self.routers = [[] if block.router is None else list(block.router.parameters()) for block in blocks]
        # Where selection biases are, once a check has asked.
        self.bias_places: dict[str, tuple[int, nn.Module, str]] | None = None
        self.ids_BS = self._small_batch()
        self.vocabulary_size: int = self.model.get_input_embeddings().num_embeddings
        largest = max(int(batch.max()) for batch in self.batches)
        if largest >= self.vocabulary_size:
            raise ConfigError(
                "batches",
                f"token id {largest} is beyond the model's vocabulary of {self.vocabulary_size}",
                "give ids of its own tokenizer",
            )
        self._parameters = inspect.signature(type(model).forward).parameters
        self._handles = [handle for watch in self.watches for handle in watch.attach()]
        try:
            self.plain, self.again = self.run(self.ids_BS), self.run(self.ids_BS)
            self._check_finite()
        except SpectraError:
            self.close()
            raise
        # Whatever a model's code may raise: it is somebody else's.
        except Exception as error:
            self.close()
            problem = f"{type(model).__name__} cannot be run on the text ({first_line(error)})"
            raise ConfigError("model", problem) from error
        # Changes are told in units of the logits' own spread.
        self.spread = max(float(self.plain.logits_BSV.float().std()), 1e-6)

    def _check_finite(self) -> None:
        if not bool(self.plain.logits_BSV.isfinite().all()):
            kind = type(self.model).__name__
            damaged = [name for name, p in self.model.named_parameters() if not bool(p.isfinite().all())]
            which = f"; nor are weights, {damaged[0]} the first of {len(damaged)}" if damaged else ""
            raise SpectraError(f"the logits of {kind} are not finite{which}: nothing else can be said")

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def run(self, ids_BS: Tensor, mask_BS: Tensor | None = None, **named: Any) -> Pass:
        """One pass without a gradient, in the model's present mode."""
        return self.traced(ids_BS, mask_BS, **({"use_cache": False} | named))

    def trained(self, ids_BS: Tensor, seed: int = SEED) -> Pass:
        """One pass in training mode without a gradient, from the same state each time."""
        with kept(self.model):
            self.model.train()
            torch.manual_seed(seed)
            return self.run(ids_BS)

    @property
    def num_tokens(self) -> int:
        """Tokens of all batches."""
        return sum(batch.numel() for batch in self.batches)

    @cached_property
    def loads_LE(self) -> np.ndarray:
        """int64: how many tokens of all batches each expert of each layer gets."""
        passes = (self.run(batch.to(self.model.device)).chosen_LBSE for batch in self.batches)
        return np.sum([[chosen.sum((0, 1)).cpu().numpy() for chosen in layers] for layers in passes], axis=0)

    def unrepeated(self, mode: str) -> float:
        """How far two passes over the small batch are apart that should be the same; TRAINING: of one seed."""
        if mode == EVALUATION:
            one, other = self.plain, self.again
        else:
            one, other = (self.trained(self.ids_BS) for _ in range(2))
        return self.change(one.logits_BSV, other.logits_BSV)[0]

    def traced(self, ids_BS: Tensor, mask_BS: Tensor | None = None, **named: Any) -> Pass:
        """One pass; positions are counted from the first token that is no padding."""
        self.begin()
        if mask_BS is not None:
            named |= {"attention_mask": mask_BS.long()}
            if "position_ids" in self._parameters:
                named |= {"position_ids": (mask_BS.long().cumsum(1) - 1).clamp(min=0)}
        output = self.model(input_ids=ids_BS, **named)
        seen = finished(self.watches) if self.watches else []
        return Pass(output.logits.detach(), self.chosen(output, seen, ids_BS, mask_BS), output, seen)

    def begin(self) -> None:
        """Forget the pass before."""
        for watch in self.watches:
            watch.begin()

    def chosen(self, output: Any, seen: Sequence[Seen], ids_BS: Tensor, mask_BS: Tensor | None) -> list[Tensor]:
        """Executed assignments of each layer, bool [B, S, E]."""
        real_BS = torch.ones_like(ids_BS, dtype=torch.bool) if mask_BS is None else mask_BS.bool()
        if seen:
            return [one.chosen_ME.view(*ids_BS.shape, -1) & real_BS[..., None] for one in seen]
        found = []
        for layer in self.layers:
            chosen_NE = output.routing.records[layer.layer].chosen_NE
            chosen_BSE = chosen_NE.new_zeros(*ids_BS.shape, chosen_NE.shape[1])
            chosen_BSE[real_BS] = chosen_NE
            found.append(chosen_BSE)
        return found

    def change(self, one_BSV: Tensor, other_BSV: Tensor) -> tuple[float, tuple[int, int]]:
        """The largest difference of logits in units of their spread, and its sequence and position."""
        apart_BS = (one_BSV.float() - other_BSV.float()).abs().amax(-1).nan_to_num(torch.inf, torch.inf)
        row, position = divmod(int(apart_BS.argmax()), apart_BS.shape[1])
        return float(apart_BS.max()) / self.spread, (row, position)

    def flips(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> list[float]:
        """For each layer the share of tokens whose experts differ."""
        return [float((a != b).any(-1).float().mean()) for a, b in zip(one, other, strict=True)]

    def flips_text(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> str:
        """The share of tokens that are routed otherwise, in words; the first layer where they are."""
        shares = self.flips(one, other)
        if not any(shares):
            return "no token is routed otherwise"
        first = next(i for i, share in enumerate(shares) if share)
        return f"{sum(shares) / len(shares):.1%} of tokens are routed otherwise, first in {self.names[first]}"

    def is_of_experts(self, tensor: Tensor) -> bool:
        """Whether a tensor has a value for each expert, or one more for the choice of none."""
        experts = self.plain.chosen_LBSE[0].shape[-1]
        return tensor.ndim > 0 and tensor.shape[-1] in (experts, experts + 1)

    @contextmanager
    def training(self) -> Iterator[None]:
        """A block in training mode with gradients."""
        self.model.train()
        with torch.enable_grad():
            yield

    def loss_pass(self, ids_BS: Tensor, mask_BS: Tensor | None = None, aux: bool | None = None, **named: Any) -> Pass:
        """A pass with labels. `aux`: ask for the auxiliary loss, for none, or leave it to the configuration."""
        labels_BS = ids_BS if mask_BS is None else ids_BS.masked_fill(~mask_BS.bool(), -100)
        if aux is not None and self.asks:
            named["output_router_logits"] = aux
        return self.traced(ids_BS, mask_BS, labels=labels_BS, **named)

    @property
    def asks(self) -> bool:
        """Whether a pass can be asked for the auxiliary loss, or for none; else it does what the model's code does."""
        return "output_router_logits" in self._parameters

    def language_loss(self, one: Pass, ids_BS: Tensor) -> Tensor:
        """The next-token loss alone, with its graph, of a pass that was asked for no auxiliary loss."""
        if self.own:
            return one.output.lm_loss
        if self.asks:
            return one.output.loss
        return next_token_loss(one.output.logits, ids_BS)

    def auxiliary(self, one: Pass) -> Tensor:
        """The auxiliary loss of a pass: of a stock model before its coefficient, of ours what is added to the loss.

        Raises DoesNotApply for a model that has none, or whose configuration gives it no weight.
        """
        output = one.output
        if self.own and output.terms:
            return output.loss - output.lm_loss
        found = None if self.own else getattr(output, "aux_loss", None)
        if not isinstance(found, Tensor):
            raise DoesNotApply("the model has no auxiliary loss")
        if off := switched_off(self.model):
            raise DoesNotApply(f"{off}: the auxiliary loss is switched off")
        return found

    def padded(self, left: bool) -> tuple[Tensor, Tensor, slice]:
        """The small batch with padding beside it, its mask, and where its tokens are."""
        pad_BP = torch.full_like(self.ids_BS[:, :PAD], getattr(self.model.config, "pad_token_id", None) or 0)
        mask_BS, blank_BP = torch.ones_like(self.ids_BS), torch.zeros_like(pad_BP)
        parts = [(pad_BP, blank_BP), (self.ids_BS, mask_BS)]
        ids, masks = zip(*(parts if left else parts[::-1]), strict=True)
        size = self.ids_BS.shape[1]
        return torch.cat(ids, 1), torch.cat(masks, 1), slice(PAD, PAD + size) if left else slice(size)

    def _small_batch(self) -> Tensor:
        if not self.batches:
            raise ConfigError("batches", "there is no batch", "give ids of at least two sequences of eight tokens")
        length = min(LENGTH, min(batch.shape[1] for batch in self.batches))
        ids_BS = torch.cat([batch[:, :length] for batch in self.batches])[:ROWS]
        if len(ids_BS) < 2 or length < 8:
            raise ConfigError(
                "batches", f"{len(ids_BS)} of {length} tokens are too few", "give 2 sequences of 8 or more"
            )
        return ids_BS.to(self.model.device)

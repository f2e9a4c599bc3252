"""A causal language model whose MLPs are routed layers, as a Hugging Face model.

`save_pretrained` and `AutoModelForCausalLM.from_pretrained` bring it back with identical logits. The backbone is a
stock Hugging Face model; only its MLPs are replaced.

Shapes: B sequences, S tokens each, V vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from spectra_exp.foundations.collective import ALONE, join, own_rank
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.attention import attention_for, keeps_documents_apart
from spectra_exp.moe.build import install_layers
from spectra_exp.moe.config import SpectraMoeConfig
from spectra_exp.moe.context import ContextHolder, RoutingContext
from spectra_exp.moe.initial_weights import initialise, seed_from
from spectra_exp.moe.layer import RoutedLayer
from spectra_exp.moe.next_token import causal_lm_loss, chunked_lm_loss, plain_head
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.moe.sharing import shared_parameters
from spectra_exp.moe.whole_weights import ONLY_HERE
from spectra_exp.routing.base import reordered_state
from spectra_exp.routing.temperature import temperature_at


@dataclass
class SpectraMoeOutput(ModelOutput):
    """loss: language-model loss plus the weighted router terms. lm_loss: next-token loss alone (nats).

    terms: mean over layers of each router term before its coefficient. coefficients: the weights used.
    routing: the pass's context, with one record per routed layer. hidden: the last hidden states [B, S, d] of a pass
    that formed no logits.
    """

    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    terms: dict[str, Tensor] | None = None
    coefficients: dict[str, float] | None = None
    routing: RoutingContext | None = None
    hidden: Tensor | None = None


class SpectraMoeForCausalLM(PreTrainedModel, GenerationMixin):
    """See the module's text. `set_step` tells it where in training it is (temperatures, warm-ups, noise)."""

    config_class = SpectraMoeConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    # The loss is a mean over the micro-batch; Trainer divides it by the accumulation steps.
    accepts_loss_kwargs = False
    routing_step: Tensor

    def __init__(self, config: SpectraMoeConfig):
        super().__init__(config)
        self.settings = MoeSettings.from_dict(config.moe)
        self.backbone = AutoModelForCausalLM.from_config(
            config.backbone, attn_implementation=_attention(config), trust_remote_code=False
        )
        self.holder = ContextHolder()
        self.routed_layers: list[RoutedLayer] = install_layers(self.backbone, self.settings, self.holder)
        self._tied_weights_keys = {
            f"backbone.{key}": f"backbone.{value}" for key, value in (self.backbone._tied_weights_keys or {}).items()
        }
        named = {name: module for name, module in self.named_modules() if isinstance(module, RoutedLayer)}
        self._shared_router_keys = shared_parameters(named, self.settings)
        # Saving reads these as patterns, so each matches one name alone.
        self._tied_weights_keys |= {exactly(key): exactly(value) for key, value in self._shared_router_keys.items()}
        # Saved with the model, so that a reloaded one routes at the temperature it was trained to.
        self.register_buffer("routing_step", torch.zeros((), dtype=torch.long))
        self._step: int | None = None
        self._pass_index = 0
        self._uncommitted: RoutingContext | None = None
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the parent's. Loading makes every weight trainable; shared experts stay as they are nevertheless."""
        kwargs.pop("trust_remote_code", None)
        loaded = super().from_pretrained(*args, trust_remote_code=False, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_shared()
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As the parent's, each weight under the name that it has here.

        Backbones of some families are saved under their first release's names, which a resumed training would not find.
        """
        super().save_pretrained(*args, **({"save_original_format": False} | kwargs))

    if TYPE_CHECKING:
        # The parent's is wrapped so that a type checker takes the first argument for the model.
        def to(self, *args: Any, **kwargs: Any) -> Self: ...  # type: ignore[override]

    def freeze_shared(self) -> None:
        """Take the shared experts of upcycled layers out of training."""
        for layer in self.routed_layers if self.settings.shared_is_frozen else []:
            if getattr(layer, "shared", None) is not None:
                layer.shared.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: `initialise` draws from-scratch weights, and loading brings the others."""

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """The tied parameters, by name; shared routers are tied whether or not the embeddings are."""
        return super().get_expanded_tied_weights_keys(all_submodels) | self._shared_router_keys

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Linear:
        return self.backbone.get_output_embeddings()

    @property
    def step(self) -> int:
        """Optimizer step that schedules are evaluated at."""
        if self._step is None:
            self._step = int(self.routing_step)
        return self._step

    def set_step(self, step: int) -> None:
        """Move schedules and routing noise to optimizer step `step` (0-based)."""
        self._step, self._pass_index = step, 0
        self.routing_step.fill_(step)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        routing: RoutingContext | None = None,
        document_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_logits: bool = True,
        **kwargs: Any,
    ) -> SpectraMoeOutput:
        """Logits [B, S, V], and losses when `labels` are given.

        `return_logits=False`: logits are not formed whole but, for the loss, in chunks, and the output has `hidden`
        instead; for a backbone whose head is more than a linear map they are formed and returned all the same.

        `document_ids` [B, S] of packed, unpadded blocks keep documents apart: neither attention nor recurrence crosses.
        `routing` presets what a pass does (its rule, what it keeps); by default the rule follows train()/eval().
        Gradient checkpointing must be non-reentrant.
        """
        self._commit()
        context = self._context(input_ids, attention_mask, past_key_values, routing)
        if document_ids is not None:
            if attention_mask is not None or past_key_values is not None:
                raise ValueError("document_ids go with whole, unpadded blocks: no attention_mask, no cache")
            if not keeps_documents_apart(self.config.backbone):
                raise ValueError(f"documents cannot be kept apart in {self.config.backbone.model_type}'s attention")
            context.separate_documents(document_ids)
            attention_mask = context.stretches.attention_mask()
            position_ids = context.stretches.position_BS
        self.holder.current = context
        head = None if return_logits else plain_head(self.backbone)
        body = self.backbone if head is None else self.backbone.base_model
        outputs = body(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=False if labels is not None else use_cache,
            position_ids=position_ids,
            **kwargs,
        )
        recomputes = self.training and torch.is_grad_enabled()
        if not recomputes:
            self.holder.current = None
        if outputs.past_key_values is not None:
            outputs.past_key_values.routing_states = context.new_states
            outputs.past_key_values.routing_last_ids = input_ids[:, -1:]
        result = SpectraMoeOutput(past_key_values=outputs.past_key_values, routing=context, terms={}, coefficients={})
        if head is None:
            result.logits = outputs.logits
        else:
            result.hidden = outputs.last_hidden_state
        if labels is not None:
            if head is None:
                lm_loss = causal_lm_loss(outputs.logits, labels)
            else:
                lm_loss = chunked_lm_loss(outputs.last_hidden_state, head, labels)
            result.lm_loss = lm_loss
            self._add_terms(result, context, lm_loss)
        if recomputes and context.training_rule:
            self._uncommitted = context
        return result

    def _commit(self) -> None:
        """Take the last training pass into running averages and counts.

        Not before its backward pass is over: gradient checkpointing runs the layers again there, and they must meet
        the state that the forward pass met.
        """
        context, self._uncommitted = self._uncommitted, None
        if context is not None and context.has_tokens:
            for layer in self.routed_layers:
                layer.commit(context)

    @staticmethod
    def _reorder_cache(cache: Any, beam_idx: Tensor) -> Any:
        """The cache with its sequences as beam search reorders them, the routers' own states included."""
        cache.reorder_cache(beam_idx)
        states = cache.routing_states
        cache.routing_states = {layer: reordered_state(state, beam_idx) for layer, state in states.items()}
        cache.routing_last_ids = cache.routing_last_ids.index_select(0, beam_idx)
        return cache

    def _context(self, input_ids: Tensor, attention_mask: Tensor | None, cache: Any, preset: RoutingContext | None):
        context = preset or RoutingContext(training_rule=self.training)
        mask = None
        if attention_mask is not None and attention_mask.ndim == 2:
            mask = attention_mask[:, -input_ids.shape[1] :].bool()
            mask = None if bool(mask.all()) else mask
        last = getattr(cache, "routing_last_ids", None)
        before = torch.full_like(input_ids[:, :1], -1) if last is None else last
        previous = torch.cat([before, input_ids[:, :-1]], dim=1)
        if mask is not None:
            shifted = torch.cat([torch.full_like(mask[:, :1], last is not None), mask[:, :-1]], dim=1)
            previous = previous.where(shifted, -1)
        context.mask_BS, context.token_ids_BS, context.previous_ids_BS = mask, input_ids, previous
        context.states = getattr(cache, "routing_states", None) or {}
        context.temperature = temperature_at(self.settings.temperature, self.step, self.settings.total_steps)
        if context.training_rule and self.training:
            # The first rank draws what a process alone draws, and the others noise of their own.
            own = [own_rank()] if own_rank() else []
            context.noise_seed = seed_from(self.config.routing_seed, self.step, self._pass_index, *own)
            self._pass_index += 1
        # Evaluation may run on one rank alone, so it never waits for others.
        trains = context.training_rule and self.training and torch.is_grad_enabled()
        context.ranks = join(input_ids, mask) if trains or context.shared else ALONE
        return context

    def _add_terms(self, result: SpectraMoeOutput, context: RoutingContext, loss: Tensor) -> None:
        """Add the weighted router terms to the language-model loss."""
        result.loss = loss
        records = [context.records[layer.layer] for layer in self.routed_layers]
        if not records or not context.has_tokens:
            return
        weights = self.routed_layers[0].router.loss_coefficients(self.step, self.settings.total_steps)
        # Each term per layer, then averaged: on concatenated layers imbalances would cancel.
        result.terms = terms = {
            name: torch.stack([r.losses[name] for r in records]).mean() for name in records[0].losses if name in weights
        }
        result.coefficients = {name: weights[name] for name in terms}
        for name, term in terms.items():
            loss = loss + weights[name] * term
        result.loss = loss

    def after_optimizer_step(self, learning_rate_scale: float) -> None:
        """Let routers answer the load of the step just made; `learning_rate_scale` is the schedule's factor."""
        self._commit()
        routed = [layer for layer in self.routed_layers if layer.step_counts_E is not None]
        for layer in routed:
            layer.after_step(learning_rate_scale)
        routers = [layer.router for layer in routed]
        for router in routers:
            router.agree(routers)


def _attention(config: SpectraMoeConfig) -> str:
    """The attention asked for, or the plain one where the backbone lacks it."""
    wanted = config._attn_implementation or "sdpa"
    return attention_for(config.backbone) if wanted == "sdpa" else wanted


def exactly(name: str) -> str:
    """A pattern that matches `name` alone."""
    return f"^{re.escape(name)}$"


def new_model(backbone: PreTrainedConfig, settings: MoeSettings, seed: int) -> SpectraMoeForCausalLM:
    """A model from scratch whose weights depend on `seed` and parameter names alone."""
    config = SpectraMoeConfig(backbone=backbone, moe=replace(settings).to_dict(), routing_seed=seed)
    model = SpectraMoeForCausalLM(config)
    initialise(model, seed)
    model.tie_weights()
    return model


def load_checkpoint(folder: Path) -> SpectraMoeForCausalLM:
    """The model that a run saved in `folder`; no code of the folder is run, and nothing pickled is read.

    Raises SpectraError for a folder of another model.
    """
    said = SpectraMoeConfig.get_config_dict(folder, **ONLY_HERE)[0].get("model_type")
    if said != SpectraMoeConfig.model_type:
        raise SpectraError(f"{folder}: its config.json is of model_type '{said}', which is no model of a run")
    return SpectraMoeForCausalLM.from_pretrained(folder, use_safetensors=True, **ONLY_HERE)


AutoModelForCausalLM.register(SpectraMoeConfig, SpectraMoeForCausalLM)

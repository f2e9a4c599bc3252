"""The configuration of our models as Hugging Face saves and loads it; importing this registers the model type."""

from __future__ import annotations

import importlib
from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig


class SpectraMoeConfig(PreTrainedConfig):
    """`backbone`: a Hugging Face configuration; `moe`: MoeSettings as plain values; `routing_seed`: seed of all
    routing noise."""

    model_type = "spectra_moe"
    sub_configs = {"backbone": AutoConfig}
    has_no_defaults_at_init = True

    def __init__(self, backbone: Any = None, moe: Any = None, routing_seed: int = 0, **kwargs: Any):
        # Whoever has a configuration may ask AutoModelForCausalLM for its model next: this registers the class; with
        # transformers' Auto classes it would be in the middle of the model's own imports.
        importlib.import_module("spectra_exp.moe.model")
        if isinstance(backbone, dict):
            backbone = AutoConfig.for_model(**backbone)
        self.backbone, self.moe, self.routing_seed = backbone, moe, routing_seed
        for key in ("vocab_size", "hidden_size", "num_hidden_layers", "bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(key, getattr(backbone, key, None))
        kwargs.setdefault("tie_word_embeddings", getattr(backbone, "tie_word_embeddings", False))
        super().__init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The backbone's configuration: what caches and generation need to know."""
        return self if self.backbone is None else self.backbone


AutoConfig.register(SpectraMoeConfig.model_type, SpectraMoeConfig)

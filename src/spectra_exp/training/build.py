"""The model of an experiment."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import LlamaConfig

from spectra_exp.config.schema import Experiment
from spectra_exp.data.corpus import Corpus
from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.reroute import reroute
from spectra_exp.moe.schema import ModelConfig, RerouteConfig, SourceModelConfig, UpcycleConfig
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.moe.source import load_source, source_folder
from spectra_exp.moe.upcycle import upcycle
from spectra_exp.moe.widen import widened
from spectra_exp.training.optimizers import family


def build_model(experiment: Experiment, corpus: Corpus) -> SpectraMoeForCausalLM:
    """The model of an experiment with its initial weights."""
    model = _made(experiment, corpus)
    counts_V = np.zeros(model.config.backbone.vocab_size, dtype=np.int64)
    counted_V = corpus.train_token_counts_V[: len(counts_V)]
    counts_V[: len(counted_V)] = counted_V
    for layer in model.routed_layers:
        layer.router.set_token_counts(counts_V)
    if isinstance(experiment.model, SourceModelConfig) and experiment.model.freeze == "all_but_router":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(family(name) == "router")
    return model


def _made(experiment: Experiment, corpus: Corpus) -> SpectraMoeForCausalLM:
    settings, seed = _settings(experiment), experiment.seed
    match experiment.model:
        case UpcycleConfig() as made:
            return upcycle(load_source(source_folder(made)), settings, seed, made.upcycle_noise)
        case RerouteConfig() as made:
            source = load_source(source_folder(made))
            return reroute(source, settings, seed, made.renormalize, made.keep_router_weights)
        case made:
            return new_model(_backbone(made, corpus), settings, seed)


def _settings(experiment: Experiment) -> MoeSettings:
    """Routing as configured; of a model that has a source, the source decides what the experts are."""
    made = experiment.model
    shape: dict[str, Any] = dict(expert_size=0)
    if isinstance(made, ModelConfig):
        shape = dict(
            expert_size=made.expert_size,
            gated=made.gated_experts,
            activation=made.activation,
            dropout=made.dropout,
            num_shared=made.num_shared,
            num_null=made.null_experts,
            null_kind=made.null_kind,
        )
    elif isinstance(made, UpcycleConfig):
        shape |= dict(num_shared=made.num_shared, first_dense=made.first_k_dense_replace)
    settings = MoeSettings(
        num_experts=made.num_experts,
        top_k=made.top_k,
        router=experiment.router,
        osr=experiment.osr,
        selection=experiment.selection,
        temperature=experiment.temperature,
        losses=experiment.losses,
        total_steps=experiment.trainer.max_steps,
        **shape,
    )
    if isinstance(made, ModelConfig) and made.equal_to != "none":
        settings.expert_size = widened(settings, made.hidden_size, made.equal_to)
    return settings


def _backbone(shape: ModelConfig, corpus: Corpus) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary_size or corpus.vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.expert_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.max_positions,
        attention_dropout=shape.dropout,
        tie_word_embeddings=shape.tie_embeddings,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=corpus.eos_token_id,
        pad_token_id=corpus.eos_token_id,
    )

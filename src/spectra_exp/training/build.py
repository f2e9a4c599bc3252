"""The model of an experiment."""

from __future__ import annotations

import torch
from transformers import LlamaConfig

from spectra_exp.config.schema import Experiment
from spectra_exp.data.corpus import Corpus
from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.routers.hash import HashRouter


def build_model(experiment: Experiment, corpus: Corpus) -> SpectraMoeForCausalLM:
    """The model of an experiment with its initial weights."""
    shape = experiment.model
    backbone = LlamaConfig(
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
    settings = MoeSettings(
        num_experts=shape.num_experts,
        top_k=shape.top_k,
        expert_size=shape.expert_size,
        router=experiment.router,
        osr=experiment.osr,
        selection=experiment.selection,
        temperature=experiment.temperature,
        losses=experiment.losses,
        gated=shape.gated_experts,
        activation=shape.activation,
        dropout=shape.dropout,
        total_steps=experiment.trainer.max_steps,
    )
    model = new_model(backbone, settings, experiment.seed)
    for layer in model.routed_layers:
        if isinstance(layer.router, HashRouter):
            counts = torch.zeros(model.config.backbone.vocab_size, dtype=torch.long)
            counts[: len(corpus.train_token_counts_V)] = torch.from_numpy(corpus.train_token_counts_V.copy())
            layer.router.set_token_counts(counts.numpy())
    return model

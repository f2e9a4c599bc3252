"""Dense to sparse: each MLP of a trained model becomes E routed experts, copies of it, and shared ones beside them.

With k >= 2 and no noise the model computes the dense model's function: the chosen weights sum to 1 over equal experts,
and (routed + sum of shared) / (1 + num_shared) of equal outputs is that output. *Source:* Komatsuzaki et al. 2023
(Sparse Upcycling); docs/method.md 6.

Shapes: E experts, n rows, d hidden size.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.config import SpectraMoeConfig
from spectra_exp.moe.experts import BIASES, Experts
from spectra_exp.moe.families import Site, activation_name, dense_sites, dropout_of
from spectra_exp.moe.initial_weights import initialise, seed_from
from spectra_exp.moe.layer import MoeLayer
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.settings import MoeSettings

# An expert and the MLP that it was copied from differ by the order of float32 sums alone.
TOLERANCE = 1e-4
PROBE_ROWS = 8


def upcycled_settings(source: PreTrainedModel, settings: MoeSettings) -> MoeSettings:
    """The settings with what the source's MLPs decide: width, gate, biases, activation, dropout."""
    first = dense_sites(source)[0]
    weights = first.weights()
    return replace(
        settings,
        origin="upcycle",
        expert_size=weights["up"].shape[0],
        gated="gate" in weights,
        biases=[name for name in BIASES if name in weights],
        activation=activation_name(source.config, first.layout),
        dropout=dropout_of(source.config, first.layout),
    )


def upcycle(source: PreTrainedModel, settings: MoeSettings, seed: int, noise: float) -> SpectraMoeForCausalLM:
    """The model with the source's weights, copied experts and new routers, which depend on `seed` and names alone.

    `noise`: standard deviation of the noise on each expert's matrix over the matrix's own. Raises ConfigError for an
    MLP that does more than its layout says.
    """
    settings = upcycled_settings(source, settings)
    config = SpectraMoeConfig(backbone=copy.deepcopy(source.config), moe=settings.to_dict(), routing_seed=seed)
    model = SpectraMoeForCausalLM(config)
    initialise(model, seed, within=".router")
    copy_backbone(source, model)
    sites = dense_sites(source)[settings.first_dense :] if model.routed_layers else []
    with torch.no_grad():
        for layer, site in zip(model.routed_layers, sites, strict=True):
            _fill(layer, site)
            _check_same(layer.experts, site, source.config.model_type)
            if noise:
                _add_noise(layer, noise, seed)
    model.tie_weights()
    return model


def copy_backbone(source: PreTrainedModel, model: SpectraMoeForCausalLM) -> None:
    """Give the model's backbone every tensor that it has in common with the source; ours alone are left."""
    ours = {id(tensor) for layer in model.routed_layers for tensor in layer.state_dict(keep_vars=True).values()}
    wanted = {name for name, tensor in model.backbone.state_dict(keep_vars=True).items() if id(tensor) not in ours}
    state = {name: tensor for name, tensor in source.state_dict().items() if name in wanted}
    lacking = sorted(wanted - set(state))
    if lacking:
        raise ConfigError("model.source", f"its weights lack {lacking[0]}", "save the model again with save_pretrained")
    model.backbone.load_state_dict(state, strict=False)


def _fill(layer: MoeLayer, site: Site) -> None:
    for name, weight in site.weights().items():
        for experts in (layer.experts, layer.shared):
            if experts is not None:
                getattr(experts, name).copy_(weight.expand_as(getattr(experts, name)))


def _check_same(experts: Experts, site: Site, model_type: str) -> None:
    """Refuse an MLP whose function its copied weights do not give: it does something that no layout says."""
    generator = torch.Generator().manual_seed(0)
    rows_nd = torch.randn(PROBE_ROWS, experts.hidden_size, generator=generator)
    chosen_nE = torch.zeros(PROBE_ROWS, experts.num_experts, dtype=torch.bool)
    chosen_nE[:, 0] = True
    was_training = site.block.training
    site.block.eval()
    expected_nd = site.run(rows_nd)
    site.block.train(was_training)
    copied_nd = experts(rows_nd, chosen_nE, chosen_nE.float())[0]
    if not torch.allclose(copied_nd, expected_nd, rtol=TOLERANCE, atol=TOLERANCE * float(expected_nd.abs().max())):
        raise ConfigError(
            "model.source",
            f"an MLP of model_type '{model_type}' is not the function of its parts {site.layout} "
            f"(off by {float((copied_nd - expected_nd).abs().max()):.2g})",
            "correct its row in moe/families.py",
        )


def _add_noise(layer: MoeLayer, noise: float, seed: int) -> None:
    """Make the routed experts differ, each by noise of its own; biases and shared experts stay."""
    for name, weight in layer.experts.named_parameters():
        if name in BIASES:
            continue
        generator = torch.Generator().manual_seed(seed_from(seed, layer.layer, name))
        weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))

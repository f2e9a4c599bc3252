"""Dense to sparse: each MLP of a trained model becomes E routed experts, copies of it, and shared ones beside them.

With k >= 2 and no noise the model computes the dense model's function: the chosen weights sum to 1 over equal experts,
and (routed + sum of shared) / (1 + num_shared) of equal outputs is that output. *Source:* Komatsuzaki et al. 2023
(Sparse Upcycling); docs/method.md 6.

Shapes: E experts, n rows, d hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.config import SpectraMoeConfig
from spectra_exp.moe.experts import BIASES, Experts
from spectra_exp.moe.families import Layout, Site, activation_name, dense_sites, dropout_of
from spectra_exp.moe.initial_weights import initialise, seed_from
from spectra_exp.moe.layer import MoeLayer
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.settings import MoeSettings

# An expert and the MLP that it was copied from differ by the order of float32 sums alone.
TOLERANCE = 1e-4
PROBE_ROWS = 8
OTHER_SOURCE = "give a source of another family, or correct its row in moe/families.py"


def check_upcycles(empty: PreTrainedModel, first_dense: int) -> None:
    """Raise ConfigError for a model, given without weights, whose MLPs (from layer `first_dense` on) no experts are.

    One MLP of each kind is tried with random weights, which says before a run what building its model would find.
    """
    model_type = empty.config.model_type
    sites = dense_sites(empty)[first_dense:]
    if not sites:
        return
    made = expert_shape(sites, empty.config)
    for site in {_kind(site): site for site in reversed(sites)}.values():
        block = copy.deepcopy(site.block).to_empty(device="cpu").eval()
        tried = replace(site, block=block)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _told(site.layout, model_type):
            torch.default_generator.manual_seed(0)
            for parameter in block.get_submodule(site.layout.mlp).parameters():
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            for buffer in block.get_submodule(site.layout.mlp).buffers():
                buffer.zero_()
            shape = made["expert_size"], made["gated"], made["activation"], 0.0, made["biases"]
            expert = Experts(1, empty.config.hidden_size, *shape)
            _fill(expert, tried)
            _check_same(expert, tried, model_type)


def _kind(site: Site) -> tuple:
    """What tells the MLPs of one model apart, besides their weights and places."""
    mlp = site.block.get_submodule(site.layout.mlp)
    numbers = (int, float, str, bool, type(None))
    own = {name: value for name, value in vars(mlp).items() if isinstance(value, numbers) and "layer_id" not in name}
    return repr(mlp), *sorted(own.items(), key=lambda item: item[0])


@contextmanager
def _told(layout: Layout, model_type: str) -> Iterator[None]:
    """A block in which what an MLP raises that is not made as its layout says becomes one line."""
    try:
        yield
    except ConfigError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        problem = f"an MLP of model_type '{model_type}' cannot be run as its parts {layout} ({reason})"
        raise ConfigError("model.source", problem, OTHER_SOURCE) from error


def expert_shape(sites: list[Site], config: PreTrainedConfig) -> dict[str, Any]:
    """What the MLPs of a model decide of its experts: width, gate, biases, activation, dropout."""
    layout, model_type = sites[0].layout, config.model_type
    with _told(layout, model_type):
        weights, *others = (site.weights() for site in sites)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        for other in others:
            if {name: tuple(weight.shape) for name, weight in other.items()} != shapes:
                problem = f"the MLPs of model_type '{model_type}' differ in width or parts from layer to layer"
                raise ConfigError("model.source", problem, OTHER_SOURCE)
    return dict(
        expert_size=weights["up"].shape[0],
        gated="gate" in weights,
        biases=[name for name in BIASES if name in weights],
        activation=activation_name(config, layout),
        dropout=dropout_of(config, layout),
    )


def upcycle(source: PreTrainedModel, settings: MoeSettings, seed: int, noise: float) -> SpectraMoeForCausalLM:
    """The model with the source's weights, copied experts and new routers, which depend on `seed` and names alone.

    `noise`: standard deviation of the noise on each expert's matrix over the matrix's own. Raises ConfigError for an
    MLP that does more than its layout says.
    """
    sites = dense_sites(source)[settings.first_dense :]
    settings = replace(settings, origin="upcycle", **expert_shape(sites, source.config))
    config = SpectraMoeConfig(backbone=copy.deepcopy(source.config), moe=settings.to_dict(), routing_seed=seed)
    model = SpectraMoeForCausalLM(config)
    initialise(model, seed, within=".router")
    copy_backbone(source, model)
    with torch.no_grad():
        layers = [layer for layer in model.routed_layers if isinstance(layer, MoeLayer)]
        # A dense model has no routed layers.
        for layer, site in zip(layers, sites if layers else [], strict=True):
            for experts in filter(None, (layer.experts, layer.shared)):
                _fill(experts, site)
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
    # Two tensors of the source may be one here, which then holds the one that was copied last.
    copied = model.backbone.state_dict()
    other = next((name for name, tensor in state.items() if not torch.equal(copied[name], tensor)), None)
    if other is not None:
        raise ConfigError("model.source", f"{other} cannot be kept apart from another weight", "tie them in the source")
    # What ends a text, and how it is sampled, goes on with the weights.
    model.generation_config = copy.deepcopy(source.generation_config)


def _fill(experts: Experts, site: Site) -> None:
    for name, weight in site.weights().items():
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
            OTHER_SOURCE,
        )


def _add_noise(layer: MoeLayer, noise: float, seed: int) -> None:
    """Make the routed experts differ, each by noise of its own; biases and shared experts stay."""
    for name, weight in layer.experts.named_parameters():
        if name in BIASES:
            continue
        generator = torch.Generator().manual_seed(seed_from(seed, layer.layer, name))
        weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))

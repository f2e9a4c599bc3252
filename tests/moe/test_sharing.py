"""One router for all layers, and a temperature for all layers: shared parameters, states of one's own."""

from __future__ import annotations

import re

import pytest
import torch
from moe_cases import backbone_of, ids_of, model_of, train_pass

from spectra_exp.moe.accounting import model_size
from spectra_exp.moe.model import SpectraMoeForCausalLM, exactly
from spectra_exp.routing.base import routers
from spectra_exp.routing.temperature import TemperatureConfig
from spectra_exp.runs.fingerprints import weights_hash
from spectra_exp.training.optimizers import family

LEARNED = [n for n, cls in routers().items() if cls.learned and n != "dense" and not cls.needs_source]
LAYERS = 11  # above ten, so that the name of layer 1 begins that of layer 10


def shared_model(name: str, tied: bool = True, layers: int = LAYERS, router: dict | None = None, **settings):
    backbone = backbone_of(num_hidden_layers=layers, tie_word_embeddings=tied)
    return model_of(name, backbone=backbone, router={"shared": True} | (router or {}), **settings)


def router_parameters(model) -> list[set[int]]:
    return [{id(p) for p in layer.router.parameters()} for layer in model.routed_layers]


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load(name, tied, tmp_path):
    model = shared_model(name, tied)
    train_pass(model, ids_of())
    train_pass(model, ids_of(seed=1), 1)
    model.eval().save_pretrained(tmp_path)
    loaded, info = SpectraMoeForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for m in (model, loaded):
        first, *others = router_parameters(m)
        assert first and all(other == first for other in others)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids_of()).logits, loaded(input_ids=ids_of()).logits)
    assert all(torch.equal(b, dict(loaded.named_buffers())[n]) for n, b in model.named_buffers())
    # The file holds the shared router once.
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = [key for key in file.keys() if ".router." in key]  # noqa: SIM118
    parameters = {n for n, _ in model.named_parameters()}
    assert [k for k in stored if k in parameters] == [k for k in stored if ".layers.0." in k and k in parameters]


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_count_once_and_train_by_all_layers(name):
    alone, shared = shared_model(name, router={"shared": False}, layers=3), shared_model(name, layers=3)
    once = {id(p) for p in alone.routed_layers[0].router.parameters()}
    one = sum(p.numel() for p in alone.routed_layers[1].router.parameters() if id(p) not in once)
    whole = sum(p.numel() for p in alone.routed_layers[0].router.parameters())
    assert sum(p.numel() for p in alone.parameters()) - sum(p.numel() for p in shared.parameters()) == 2 * one
    # Planted fault: a sum over layers counts it three times.
    assert sum(p.numel() for layer in shared.routed_layers for p in layer.router.parameters()) == 3 * whole
    train_pass(shared, ids_of())
    together = [p.grad.clone() for p in shared.routed_layers[0].router.parameters()]
    for layer in shared.routed_layers[1:]:
        for parameter in layer.router.parameters():
            parameter.requires_grad_(True)
    assert all(g.abs().max() > 0 for g in together)


def test_the_first_layer_starts_as_it_does_alone():
    alone, shared = (weights_hash(shared_model("spectra", router={"shared": s}, layers=3)) for s in (False, True))
    assert set(shared) < set(alone)
    assert all(alone[name] == value for name, value in shared.items())


def test_states_stay_the_layers_own():
    model = shared_model("spectra", layers=3, osr={"potentials": "hard", "training": "potentials"})
    for step in range(3):
        train_pass(model, ids_of(seed=step), step)
    potentials = [layer.router.hard_potentials_E for layer in model.routed_layers]
    assert not torch.equal(potentials[0], potentials[1])
    averages = [layer.router.representation.value for layer in model.routed_layers]
    assert not torch.equal(averages[0], averages[1])


def test_layers_that_do_not_share_have_their_own():
    parameters = router_parameters(shared_model("switch", router={"shared": False}))
    assert len(set.union(*parameters)) == sum(map(len, parameters))


def test_a_part_that_all_layers_share_is_one(tmp_path):
    """RMoE's GRU: counted once, its operations at each use, one in the file; projections and logits stay apart."""
    model = shared_model("rmoe", router={"shared": False, "width": 6}, layers=3)
    routers = [layer.router for layer in model.routed_layers]
    assert len({id(p) for r in routers for p in r.gru.parameters()}) == 4
    assert len({id(r.projection.weight) for r in routers}) == len({id(r.linear.weight) for r in routers}) == 3
    gru, own = 2 * 3 * 6 * 6 + 2 * 3 * 6, 16 * 6 + 6 * 4
    router_weights = {n: p for n, p in model.named_parameters() if ".router." in n}
    assert sum(p.numel() for p in router_weights.values()) == gru + 3 * own
    size = model_size(model, 8)
    assert size.router_flops_per_token == 3 * 2 * (2 * 3 * 6 * 6 + own)
    # Planted fault: a sum over layers counts the GRU three times.
    assert sum(p.numel() for r in routers for p in r.parameters()) == 3 * (gru + own)
    train_pass(model, ids_of())
    model.eval().save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path)
    assert len({id(layer.router.gru.weight_hh_l0) for layer in loaded.routed_layers}) == 1
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids_of()).logits, loaded(input_ids=ids_of()).logits)


SHARING = [
    ("global", False, 1),
    ("layer", False, LAYERS),
    ("expert", False, LAYERS),
    ("token", False, LAYERS),
    ("global", True, 1),
    ("layer", True, LAYERS),
    ("expert", True, 1),
    ("token", True, 1),
]


@pytest.mark.parametrize(("learned", "shared", "distinct"), SHARING)
def test_learned_temperatures(learned, shared, distinct, tmp_path):
    model = shared_model("switch", router={"shared": shared}, temperature=TemperatureConfig(value=2.0, learned=learned))
    assert len({id(layer.router.learned_temperature.offset) for layer in model.routed_layers}) == distinct
    names = [n for n, _ in model.named_parameters() if "learned_temperature" in n]
    assert names and {family(n) for n in names} == {"router"}
    with torch.no_grad():
        for i, layer in enumerate(model.routed_layers):
            layer.router.learned_temperature.offset += 0.1 * i
    model.eval().save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path)
    assert len({id(layer.router.learned_temperature.offset) for layer in loaded.routed_layers}) == distinct
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids_of()).logits, loaded(input_ids=ids_of()).logits)


def test_load_averages_stay_float32_in_a_bfloat16_model(tmp_path):
    shared_model("switch", layers=2, router={"load_ema_strength": 0.1}).save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.routed_layers[0].load_average.value.dtype == torch.float32
    assert loaded.routed_layers[0].router.linear.weight.dtype == torch.float32


def test_a_tied_name_matches_itself_alone():
    """Planted fault: a bare name as a pattern also finds names that it begins or resembles."""
    names = ["layers.1.router.weight", "layers.1.router.weight_ih", "layers.1xrouter.weight"]
    names.append("a." + names[0])
    assert [n for n in names if re.search(exactly(names[0]), n)] == names[:1]
    assert len([n for n in names if re.search(names[0], n)]) == 4

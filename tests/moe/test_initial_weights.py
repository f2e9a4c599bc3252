"""Initial weights depend on the seed and on parameters' names alone, so that variants start equal.

Letters: V vocabulary.
"""

from __future__ import annotations

import math

import pytest
import torch
from moe_cases import ROUTERS, VOCABULARY, ids_of, model_of
from torch import nn

VARIANTS = {
    "spectra": dict(name="spectra"),
    "no_gru": dict(name="spectra", router={"sequence": "linear", "carry": "none"}),
    "no_expression": dict(name="spectra", router={"expression": "running_mean"}),
    "no_repulsion": dict(name="spectra", osr={"repulsion_weight": 0.0}),
    "switch": dict(name="switch"),
    "hash": dict(name="hash"),
    "dense": dict(name="dense"),
}


def _parameters(variant: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(model_of(seed=seed, **VARIANTS[variant]).named_parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_share_their_initial_weights(variant):
    torch.manual_seed(hash(variant) % 1000)  # the global state plays no part
    reference, found = _parameters("spectra"), _parameters(variant)
    shared = reference.keys() & found.keys()
    assert len(shared) > 10 and all(torch.equal(reference[name], found[name]) for name in shared)
    if variant == "no_gru":
        assert any("expression.linear" in name for name in shared)
    if variant != "dense":
        assert any("experts" in name for name in shared)
    other = _parameters(variant, seed=1)
    differ = [name for name in found if "norm" not in name and "bias" not in name and "scale" not in name]
    assert all(not torch.equal(found[name], other[name]) for name in differ)


def test_drawing_all_weights_in_one_row_would_not_share_them():
    """The wrong version: one seed, then module after module; one more draw in a router shifts all that follow."""

    def in_one_row(variant):
        model = model_of(**VARIANTS[variant])
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
        return dict(model.named_parameters())

    full, linear = in_one_row("spectra"), in_one_row("no_gru")
    shared = [name for name in full if name in linear and full[name].ndim == 2]
    assert any(not torch.equal(full[name], linear[name]) for name in shared)


def test_experts_and_layers_start_apart():
    parameters = _parameters("spectra")
    ups = [parameters[f"backbone.model.layers.{layer}.mlp.experts.up"] for layer in (0, 1)]
    assert not torch.equal(*ups) and not torch.equal(ups[0][0], ups[0][1])
    assert float(ups[0].detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_first_loss_is_that_of_a_model_that_knows_nothing(name):
    model, ids = model_of(name), ids_of(8, 32)
    assert float(model(input_ids=ids, labels=ids).lm_loss.detach()) == pytest.approx(math.log(VOCABULARY), rel=0.05)

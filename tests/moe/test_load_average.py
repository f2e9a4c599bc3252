"""EMA load filtering: scores lowered by a running average of each expert's load. Letters: N tokens, E experts."""

from __future__ import annotations

import pytest
import torch
from moe_cases import ids_of, model_of, train_pass

from spectra_exp.routing.base import routers

FILTERED = [
    name for name, cls in routers().items() if cls.learned and cls.selections()[0] == "topk" and not cls.needs_source
]


def filtered(name: str, strength: float = 0.5):
    return model_of(name, router={"load_ema_strength": strength})


def test_off_by_default_and_then_absent():
    model = model_of("switch")
    assert model.routed_layers[0].load_average is None
    assert not [n for n in model.state_dict() if "load_average" in n]
    assert all(torch.equal(p, dict(filtered("switch").named_parameters())[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FILTERED)
def test_lowers_scores_for_selection_alone(name, training):
    layer = filtered(name).routed_layers[0]
    scores_NE = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.6, 0.5, 0.3]])
    assert layer.select(scores_NE, training).tolist() == [[True, True, False, False], [False, True, True, False]]
    layer.load_average.move(torch.tensor([2.0, 1.5, 0.5, 0.0]))
    # Less 1, 0.75, 0.25, 0: -0.1 0.05 0.45 0.1 and -0.8 -0.15 0.25 0.3.
    assert layer.select(scores_NE, training).tolist() == [[False, False, True, True], [False, False, True, True]]
    # Planted fault: strength taken for a share of the score would keep the first.
    shares_NE = scores_NE * (1 - 0.5 * layer.load_average.value)
    assert shares_NE.topk(2).indices[0].sort().values.tolist() != [2, 3]


@pytest.mark.parametrize("name", FILTERED)
def test_moves_by_the_relative_load_of_each_step(name):
    """By what was executed, which is not what a router of two rules counts for itself."""
    model = filtered(name, 5.0)
    layer, seen = model.routed_layers[0], []
    leave = layer._leave_record
    layer._leave_record = lambda *of: (seen.append(of[3].sum(0) / of[3].sum(0).float().mean()), leave(*of))
    for step in range(2):
        train_pass(model, ids_of(seed=step), step)
    torch.testing.assert_close(layer.load_average.value, 0.99 * seen[0] + 0.01 * seen[1])
    torch.testing.assert_close(layer.load_average.value.mean(), torch.tensor(1.0))


def test_weights_are_those_of_the_scores_as_they_were():
    model = filtered("switch", 2.0).eval()
    layer = model.routed_layers[0]
    plain = model(input_ids=ids_of()).routing.records[0]
    layer.load_average.move(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    found = model(input_ids=ids_of()).routing.records[0]
    assert not torch.equal(plain.chosen_NE, found.chosen_NE)
    assert torch.equal(plain.probs_NE, found.probs_NE)
    kept = found.probs_NE * found.chosen_NE
    torch.testing.assert_close(found.weights_NE, kept / kept.sum(-1, keepdim=True))


def test_it_balances():
    """A router that sends all to expert 0 learns to spread within a few steps; without it, it does not."""

    def load_of_first(strength: float) -> float:
        model = filtered("switch", strength) if strength else model_of("switch")
        layer = model.routed_layers[0]
        with torch.no_grad():
            layer.router.linear.weight.zero_()
        original = layer.router.logits
        layer.router.logits = lambda inputs: original(inputs) + torch.tensor([1.0, 0.9, 0.0, 0.0])
        for step in range(3):
            train_pass(model, ids_of(seed=step), step)
        return float(model.eval()(input_ids=ids_of()).routing.records[0].chosen_NE[:, 0].float().mean())

    assert load_of_first(0.0) == 1 and load_of_first(1.0) == 0

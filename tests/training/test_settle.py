"""Load-driven state settles after the last step: nearer to an even load, nothing else moved, saved with the run.

Shapes: E experts.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from spectra_exp.measure.balance import coefficient_of_variation
from spectra_exp.moe.context import RoutingContext
from spectra_exp.routing.potentials import nudged
from spectra_exp.routing.routers import spectra as routers_spectra
from spectra_exp.routing.routers.spectra import SpectraRouter
from spectra_exp.training.callbacks.settle import settle
from spectra_exp.training.execute import execute
from spectra_exp.training.session import Session

BATCHES = 40
# Of so many steps, those batches are the fifth that the default allows.
TRAINED = 200


@pytest.fixture
def session(planned) -> Session:
    p = planned("osr.settle_steps=100")
    return Session(p.experiment, p.corpus, p.folder, p.device)


@torch.no_grad()
def imbalance(session: Session) -> float:
    """Mean load CV over the run's training batches together, by the rule that selected there."""
    counts_LE = torch.zeros(len(session.model.routed_layers), session.model.settings.num_experts)
    session.model.eval()
    for index in range(len(session.blocks) // session.experiment.trainer.batch_size):
        context = RoutingContext(training_rule=True)
        session._route_training_batch(index, context)
        counts_LE += torch.stack([context.updates[layer.layer]["load_counts"] for layer in session.model.routed_layers])
    session.model.train()
    return float(coefficient_of_variation(counts_LE.numpy()).mean())


def state_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def route(session: Session):
    """The session's own way, over the few blocks of a short run again and again."""
    size = session.experiment.trainer.batch_size
    return lambda i, context: session._route_training_batch(i % (len(session.blocks) // size), context)


def test_the_load_evens_out_and_only_the_potentials_move(session) -> None:
    before, uneven = state_of(session.model), imbalance(session)
    assert settle(session.model, route(session), TRAINED) == BATCHES
    moved = {n for n, v in session.model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved and all(name.endswith("hard_potentials_E") for name in moved)
    assert imbalance(session) < 0.5 * uneven
    assert session.model.training


def test_planted_fault_potentials_that_move_the_wrong_way(session, monkeypatch) -> None:
    uneven = imbalance(session)
    monkeypatch.setattr(
        routers_spectra, "nudged", lambda potentials_E, counts_E, rate: nudged(potentials_E, counts_E, -rate)
    )
    settle(session.model, route(session), TRAINED)
    assert imbalance(session) > uneven


@pytest.mark.parametrize("override", ["ablation=no_osr", "osr=paper", "baseline=switch_top2"])
def test_what_has_no_fitted_potentials_does_not_settle(planned, override) -> None:
    p = planned(override)
    session = Session(p.experiment, p.corpus, p.folder, p.device)
    assert settle(session.model, route(session), TRAINED) == 0


@pytest.mark.parametrize(("share", "wanted", "made"), [(0.2, 100, 40), (1, 100, 100), (1, 500, 200), (0.5, 500, 100)])
def test_at_most_its_share_of_the_steps_of_training_is_settled_over(planned, share, wanted, made) -> None:
    p = planned(f"osr.settle_steps={wanted}", f"osr.settle_share={share}")
    session = Session(p.experiment, p.corpus, p.folder, p.device)
    assert settle(session.model, route(session), TRAINED) == made


def test_a_short_run_settles_for_a_fifth_of_its_steps_and_saves_what_it_scored(planned, monkeypatch) -> None:
    indices = []
    own = SpectraRouter.settle
    monkeypatch.setattr(
        SpectraRouter, "settle", lambda self, counts_E, index: (indices.append(index), own(self, counts_E, index))[1]
    )
    p = planned()
    assert execute(p, "") == "completed"
    steps, layers = p.experiment.trainer.max_steps, p.experiment.model.num_layers
    assert p.experiment.osr.settle_steps > steps
    assert indices == [index for index in range(1, round(0.2 * steps) + 1) for _ in range(layers)]
    saved = AutoModelForCausalLM.from_pretrained(p.folder.path / "checkpoints" / f"step-{steps:08d}")
    scored = Session(p.experiment, p.corpus, p.folder, p.device).evaluator.run(saved.eval()).losses["val_loss"]
    assert scored == p.folder.read_summary()["metrics"]["val_loss"]

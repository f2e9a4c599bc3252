"""Gradient checkpointing runs each layer twice: the same loss and gradients, and state that moves once."""

from __future__ import annotations

import pytest
import torch
from moe_cases import ROUTED, ids_of, model_of
from torch.utils.checkpoint import CheckpointError

from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.routers.spectra import SpectraRouter

# State that training passes read and move at once is where a second run goes wrong first.
SETTINGS = {name: dict(name=name) for name in ROUTED} | {
    "switch quota": dict(name="switch", selection={"rule": "quota"}),
    "spectra quota": dict(name="spectra", selection={"rule": "quota"}),
    "hard": dict(name="spectra", osr={"potentials": "hard", "training": "potentials"}),
    "quantile potentials": dict(name="spectra", osr={"potentials": "quantile", "training": "potentials"}),
    "online": dict(name="spectra", osr={"potentials": "hard", "training": "potentials", "online_rate": 0.1}),
    "soft": dict(name="spectra", osr={"potentials": "soft", "training": "potentials"}),
    "running_mean": dict(name="spectra", router={"expression": "running_mean"}),
    "dropout": dict(name="switch", dropout=0.3),
}


def _train(settings: dict, checkpointing: bool, steps: int = 3):
    """Losses, gradients of the last step, buffers, and the counts that each step answered."""
    model = model_of(**settings)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    counts = []
    after_step = model.routed_layers[0].router.after_step
    model.routed_layers[0].router.after_step = lambda c, scale: (counts.append(c.clone()), after_step(c, scale))
    torch.manual_seed(0)
    losses = []
    for step in range(steps):
        model.set_step(step)
        model.zero_grad()
        for micro_batch in range(2):
            ids = ids_of(2, 10, seed=2 * step + micro_batch)
            loss = model(input_ids=ids, labels=ids).loss / 2
            loss.backward()
            losses.append(loss.detach())
        model.after_optimizer_step(1.0)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, {n: b.clone() for n, b in model.named_buffers()}, counts


@pytest.mark.parametrize("setting", SETTINGS)
def test_everything_is_as_without(setting):
    losses, gradients, buffers, counts = _train(SETTINGS[setting], False)
    twice_losses, twice_gradients, twice_buffers, twice_counts = _train(SETTINGS[setting], True)
    assert torch.equal(torch.stack(losses), torch.stack(twice_losses))
    assert gradients.keys() == twice_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(twice_gradients[name], gradient, atol=1e-7, rtol=1e-5)
    assert all(torch.equal(buffer, twice_buffers[name]) for name, buffer in buffers.items())
    assert len(counts) == 3 and all(torch.equal(a, b) for a, b in zip(counts, twice_counts, strict=True))


def test_running_averages_move_once_per_pass():
    _, _, buffers, _ = _train(SETTINGS["soft"], True)
    updates = [b for n, b in buffers.items() if n.endswith("updates")]
    assert updates and all(u == 6 for u in updates)


def test_layers_that_commit_themselves_would_move_twice(monkeypatch):
    """The wrong version: state moved in the layer's own forward pass."""
    forward, commit = SpectraRouter.forward, SpectraRouter.commit

    def committing(self, inputs):
        output = forward(self, inputs)
        commit(self, output.updates)
        return output

    monkeypatch.setattr(SpectraRouter, "forward", committing)
    monkeypatch.setattr(SpectraRouter, "commit", lambda self, updates: None)
    moved = {}
    for checkpointing in (False, True):
        _, _, buffers, _ = _train(SETTINGS["hard"], checkpointing, steps=1)
        moved[checkpointing] = {int(b) for n, b in buffers.items() if n.endswith("updates")}
    assert moved == {False: {2}, True: {4}}


def test_state_moved_before_the_backward_pass_would_change_the_second_run(monkeypatch):
    """The wrong version (found here): committing when the forward pass ends, while the second run is still to come."""
    forward = SpectraMoeForCausalLM.forward

    def hasty(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        self._commit()
        return output

    monkeypatch.setattr(SpectraMoeForCausalLM, "forward", hasty)
    for setting in ("soft", "running_mean"):
        # Another state routes tokens elsewhere, and the second run's tensors no longer fit the first's.
        with pytest.raises(CheckpointError):
            _train(SETTINGS[setting], True)
    _train(SETTINGS["hard"], True)


def test_the_trainer_spelling_does_the_same():
    model = model_of("spectra")
    assert model.supports_gradient_checkpointing
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing

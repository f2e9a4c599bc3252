"""H6 in worlds where the gain grows with the model, shrinks, and cannot be told."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis_worlds import LUCK, Run, Told, is_spectra, jitter, outcomes, retold, study_of, verdicts_on
from made_studies import given

from spectra_exp.reporting.hypotheses import parts, samples, scaling
from spectra_exp.reporting.material import Material

ACTIVE = {"64": 100_000, "128": 400_000, "256": 3_200_000}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    def sized(job) -> dict:
        return {"parameters": {"total": 5_000_000, "active": ACTIVE[given(job)["model.hidden_size"]]}}

    with study_of(
        tmp_path_factory.mktemp("sizes"), "scaling_model", "seed=0..4", "osr=causal", figures=sized
    ) as material:
        yield material


def growing(slope: float, noise: float = 0.003, at_start: float = 0.0) -> Told:
    """Gains that grow by `slope` nats for each e-fold of active parameters; larger models have lower losses."""

    def figures(run: Run) -> dict[str, float]:
        size = math.log(run["active_parameters"] / 100_000)
        gain = at_start + slope * size if is_spectra(run) else 0.0
        return {"val_loss": 5.0 + LUCK[run["seed"]] * (1 + size) - 0.3 * size - gain + jitter(run, "loss", noise)}

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (growing(0.02), "supported"),
        (growing(0.02, at_start=-0.5), "supported"),
        (growing(-0.02), "contradicted"),
        # A gain that is large and the same at every size does not grow.
        (growing(0.0, at_start=0.5), "inconclusive"),
        (growing(0.02, noise=0.1), "inconclusive"),
    ],
)
def test_model_scaling(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("H6", retold(world, figures)) == {"causal": verdict}


def test_the_slope_is_in_nats_per_e_fold(world: Material) -> None:
    found = verdicts_on("H6", retold(world, growing(0.02, noise=1e-6)))["causal"]
    assert found.figures.startswith("gain over 3 sizes: +0.02000 [") and "nats per e-fold" in found.figures


@pytest.mark.parametrize(
    "facts, reason",
    [
        (lambda run: None if run["active_parameters"] == 400_000 else {}, "fewer than 3 sizes"),
        (lambda run: {"active_parameters": 1}, "fewer than 3 sizes that differ"),
        (lambda run: {"active_parameters": None}, "active parameters not known"),
        (lambda run: None if run["seed"] > 1 else {}, "n<3: 2 seeds"),
        (lambda run: {"causal": False} if run["active_parameters"] == 400_000 else {}, "causal at seed 0"),
        (lambda run: {"max_steps": 900} if run["active_parameters"] == 400_000 else {}, "differ in max steps"),
        (
            lambda run: {"batches": "x"} if run["active_parameters"] == 400_000 and is_spectra(run) else {},
            "other batches",
        ),
    ],
)
def test_what_gives_no_verdict(world: Material, facts: Told, reason: str) -> None:
    found = verdicts_on("H6", retold(world, growing(0.02), facts))["causal"]
    assert found.verdict == "not tested" and reason in found.reason
    assert (found.command == "make scaling OSR=causal") == (reason in ("fewer than 3 sizes", "n<3: 2 seeds"))


def test_planted_fault_the_wrong_sign(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_side(what, found, claimed, unit):
        return parts.sloped(what, found, "lower", unit)

    monkeypatch.setattr(scaling, "sloped", other_side)
    assert outcomes("H6", retold(world, growing(0.02))) == {"causal": "contradicted"}


def test_planted_fault_losses_that_saw_the_future(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "not_causal", lambda *arguments: None)
    assert outcomes("H6", retold(world, growing(0.02), lambda run: {"causal": False})) == {"causal": "supported"}


def test_planted_fault_gains_of_other_seeds(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(section, size, rule, real=scaling._gains):
        found = real(section, size, rule)
        own, switch = (section.values(row, "val_loss") for row in (size.method, size.against))
        [key] = found.values
        return samples.Sample({key: {seed: switch[(seed + 1) % 5] - own[seed] for seed in own}}, ())

    monkeypatch.setattr(scaling, "_gains", shuffled)
    assert outcomes("H6", retold(world, growing(0.02))) == {"causal": "inconclusive"}

"""T1 to T4 in worlds where they are true, false, and cannot be told."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis_worlds import LUCK, Run, Told, jitter, outcomes, retold, study_of, verdicts_on

from spectra_exp.reporting.hypotheses import parts, samples, temperature
from spectra_exp.reporting.hypotheses.temperature import degrees_of
from spectra_exp.reporting.material import Material
from spectra_exp.runs.best_long import CONSTANTS
from spectra_exp.runs.history import History
from spectra_exp.runs.stored import StoredRun

SCHEDULES = ("cosine", "exponential", "step", "linear")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with study_of(tmp_path_factory.mktemp("temperature"), "temperature", "seed=0..4") as material:
        yield material


def losses(noise: float = 0.003, **by_name: float) -> Told:
    """Validation losses by temperature, 0.3 above the lowest where none is given; luck is the seed's."""

    def figures(run: Run) -> dict[str, float]:
        return {"val_loss": 4.0 + LUCK[run["seed"]] + by_name.get(run["temperature"], 0.3) + jitter(run, "loss", noise)}

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (losses(t1_5=0.0, t2_0=0.1), "supported"),
        (losses(t1_5=0.1, t2_0=0.0), "supported"),
        # Both inside, and no telling which.
        (losses(t1_5=0.0, t2_0=0.0), "supported"),
        (losses(t0_5=0.0), "contradicted"),
        (losses(t3_0=0.0, t2_0=0.1), "contradicted"),
        # As good outside as inside, or outside better than only one of the two.
        (losses(t1_5=0.0, t1_0=0.0), "inconclusive"),
        (losses(t1_0=0.0, t1_5=0.0, t2_0=0.3), "inconclusive"),
        (losses(0.5, t1_5=0.0), "inconclusive"),
    ],
)
def test_best_constant(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("T1", retold(world, figures)) == {"": verdict}


def test_the_best_constant_is_named_with_its_mean(world: Material) -> None:
    found = verdicts_on("T1", retold(world, losses(noise=1e-6, t3_0=0.0, t2_0=0.1)))[""]
    mean = 4.0 + sum(LUCK.values()) / 5
    assert found.figures.startswith(f"lowest mean val_loss: {mean:.3f} at 3; val_loss, 2 − 0.5: −0.2000 [")
    assert found.reason == "significant the other way: 3 below every one inside"


RANKED = {"cosine": 0.0, "exponential": 0.05, "step": 0.1, "linear": 0.15}


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (losses(**RANKED), "supported"),
        (losses(**RANKED, t1_5=-0.1), "contradicted"),
        (losses(**RANKED, t1_5=0.0), "inconclusive"),
        # In order all in all, and one pair the other way; then none in order; then no telling.
        (losses(cosine=-0.2, exponential=0.1, step=0.05, linear=0.2), "contradicted"),
        (losses(cosine=0.0, exponential=0.0, step=0.0, linear=0.0), "inconclusive"),
        (losses(cosine=0.15, exponential=0.1, step=0.05, linear=0.0), "contradicted"),
        (losses(0.5, **RANKED), "inconclusive"),
    ],
)
def test_scheduling(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("T2", retold(world, figures)) == {"": verdict}


def ginis(noise: float = 0.002, **by_name: float) -> Told:
    falling = dict(zip(CONSTANTS, (0.35, 0.28, 0.20, 0.16, 0.12, 0.10, 0.08, 0.06), strict=True)) | by_name

    def figures(run: Run) -> dict[str, float]:
        own = falling.get(run["temperature"], 0.9)
        return {"load_gini": own + jitter(run, "gini", noise)}

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (ginis(), "supported"),
        (ginis(t0_5=0.29), "contradicted"),
        (ginis(t1_0=0.26), "contradicted"),
        (ginis(t1_0=0.14), "contradicted"),
        (ginis(t2_0=0.16), "contradicted"),
        (ginis(t0_5=0.3), "inconclusive"),
        (ginis(t0_7=0.20, t1_5=0.28, t3_0=0.2, t10_0=0.5, t5_0=0.4), "inconclusive"),
        (ginis(noise=0.1), "inconclusive"),
    ],
)
def test_load_imbalance(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("T3", retold(world, figures)) == {"": verdict}


def test_a_gini_that_rises_contradicts_by_its_trend(world: Material) -> None:
    rising = dict(zip(CONSTANTS, (0.3, 0.31, 0.2, 0.32, 0.33, 0.34, 0.35, 0.36), strict=True))
    found = verdicts_on("T3", retold(world, ginis(**rising)))[""]
    # 1 − 6·(1 + 1 + 4)/(8·63): 1 has rank 1 in place of 3, and the two before it move up by one.
    assert "Spearman +0.9286, 8 points" in found.figures
    assert "significant the other way: load_gini over temperature" in found.reason


# T4 reads histories, so they are written: entropy at 10 % and 100 %, and decoys that must not be taken for it.

Fall = Callable[[float], float]


def write_entropies(world: Material, fall: Fall, noise: float = 0.003) -> None:
    degrees = degrees_of()
    for run_id, run in world.collected.by_run.items():
        history = History()
        own = fall(degrees[run["temperature"]]) if run["temperature"] in degrees else -9.0
        start = 1.5 + LUCK[run["seed"]] / 10
        for fraction, value in (
            (0.0, 9.0),
            (0.1, start),
            (0.25, 0.2),
            (0.5, 9.0),
            (1.0, start - own + jitter(run, "h", noise)),
        ):
            history.add(
                round(250 * fraction), fraction, "validation", {"routing_entropy": value, "routing_entropy_norm": 0.1}
            )
            history.add(round(250 * fraction), fraction, "validation", {"routing_entropy": fraction * 9}, 0)
            history.add(round(250 * fraction), fraction, "validation_training_rule", {"routing_entropy": fraction * 9})
            history.add(round(250 * fraction), fraction, "train", {"routing_entropy": fraction * 9})
        history.save(world.collected.runs_folder / run_id / "history.parquet")


@pytest.mark.parametrize(
    "fall, noise, verdict",
    [
        (lambda t: 0.3 - 0.1 * math.log(t), 0.003, "supported"),
        (lambda t: 0.3 + 0.1 * math.log(t), 0.003, "contradicted"),
        (lambda t: -0.3 - 0.1 * math.log(t), 0.003, "contradicted"),
        (lambda t: 0.3, 0.003, "inconclusive"),
        (lambda t: 0.3 - 0.1 * math.log(t), 1.5, "inconclusive"),
    ],
)
def test_entropy_fall(world: Material, fall: Fall, noise: float, verdict: str) -> None:
    write_entropies(world, fall, noise)
    assert outcomes("T4", retold(world, lambda run: {})) == {"": verdict}


def test_the_fall_is_from_a_tenth_to_the_end(world: Material) -> None:
    write_entropies(world, lambda t: 0.3 - 0.1 * math.log(t), 1e-6)
    found = verdicts_on("T4", retold(world, lambda run: {}))[""]
    mean = 0.3 - 0.1 * sum(map(math.log, degrees_of().values())) / len(CONSTANTS)
    assert found.figures.startswith(f"fall of routing_entropy, mean over the constants: +{mean:.4f} [")
    assert (
        re.search(r"the fall over temperature: −0\.10000? \[", found.figures)
        and "nats per e-fold of T" in found.figures
    )


def test_unreadable_histories_are_left_out_and_too_few_give_no_verdict(world: Material) -> None:
    write_entropies(world, lambda t: 0.3 - 0.1 * math.log(t))
    histories = {s: path / "history.parquet" for s, path in folders(world, "t3_0").items()}
    histories[0].write_bytes(b"PAR1 cut off")
    found = verdicts_on("T4", retold(world, lambda run: {}))[""]
    assert found.verdict == "supported" and "n 4, without its pair: seed 0" in found.figures
    histories[1].unlink()
    short = History()
    short.add(30, 0.1, "validation", {"routing_entropy": 1.0})
    short.save(histories[2])
    found = verdicts_on("T4", retold(world, lambda run: {}))[""]
    assert found.verdict == "not tested" and found.reason.startswith("n<3: 2 seeds")
    assert str(histories[0]) in found.reason and found.command == "make temperature"


def folders(world: Material, name: str) -> dict[int, Path]:
    runs = world.collected.by_run.items()
    return {run["seed"]: world.collected.runs_folder / run_id for run_id, run in runs if run["temperature"] == name}


def test_an_evaluation_far_from_a_tenth_is_none(tmp_path: Path) -> None:
    history = History()
    history.add(20, 0.2, "validation", {"routing_entropy": 1.0})
    history.add(100, 1.0, "validation", {"routing_entropy": 0.5})
    history.save(tmp_path / "history.parquet")
    assert "no routing_entropy at 10%" in temperature.entropy_between(StoredRun(tmp_path))
    history.add(11, 0.11, "validation", {"routing_entropy": 0.75})
    history.save(tmp_path / "history.parquet")
    assert temperature.entropy_between(StoredRun(tmp_path)) == pytest.approx(0.25)


TRUE = {
    "T1": losses(t1_5=0.0),
    "T2": losses(**RANKED),
    "T3": ginis(),
    "T4": lambda run: {},
}


@pytest.fixture
def true_world(world: Material) -> Material:
    write_entropies(world, lambda t: 0.3 - 0.1 * math.log(t))
    return world


@pytest.mark.parametrize("name", TRUE)
def test_what_gives_no_verdict(true_world: Material, name: str) -> None:
    def found(facts: Told) -> tuple[str, str, str]:
        verdict = verdicts_on(name, retold(true_world, TRUE[name], facts))[""]
        return verdict.verdict, verdict.reason, verdict.command

    assert found(lambda run: {})[0] == "supported"
    assert found(lambda run: None if run["temperature"] == "t5_0" else {}) == (
        "not tested",
        "no finished run of t5_0",
        "make temperature",
    )
    few, reason, command = found(lambda run: None if run["temperature"] == "t5_0" and run["seed"] > 1 else {})
    assert (few, command) == ("not tested", "make temperature") and "n<3: 2 seeds" in reason
    odd, reason, command = found(lambda run: {"max_steps": 9} if run["temperature"] == "t5_0" else {})
    assert (odd, command) == ("not tested", "") and "t0_5 and t5_0 may not be compared" in reason
    leaky = found(lambda run: {"causal": False} if run["temperature"] == "t5_0" else {})
    assert leaky[0] == ("not tested" if name in ("T1", "T2") else "supported")


def test_planted_fault_the_wrong_sign(true_world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_side(what, a, b, claimed, *rest, **more):
        return parts.compared(what, a, b, "higher" if claimed == "lower" else "lower", *rest, **more)

    monkeypatch.setattr(samples, "compared", other_side)
    for name, figures in TRUE.items():
        assert outcomes(name, retold(true_world, figures)) != {"": "supported"}, name


def test_planted_fault_the_trend_the_other_way(true_world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temperature, "RANKING", (*SCHEDULES[:1], *SCHEDULES[:0:-1]))
    assert outcomes("T2", retold(true_world, losses(**RANKED))) != {"": "supported"}
    monkeypatch.setattr(temperature, "degrees_of", lambda real=degrees_of: {k: 1 / v for k, v in real().items()})
    assert outcomes("T3", retold(true_world, ginis())) == {"": "contradicted"}
    assert outcomes("T4", retold(true_world, lambda run: {})) == {"": "contradicted"}


def test_planted_fault_losses_that_saw_the_future(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "not_causal", lambda *arguments: None)
    for name in ("T1", "T2"):
        assert outcomes(name, retold(world, TRUE[name], lambda run: {"causal": False})) == {"": "supported"}


def test_planted_fault_arms_of_other_seeds(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(section, row, metric, real=samples.test_values):
        values = real(section, row, metric)
        shift = CONSTANTS.index(row.key["temperature"]) if row.key["temperature"] in CONSTANTS else 0
        return {seed: values[(seed + shift) % 5] for seed in values}

    monkeypatch.setattr(samples, "test_values", shuffled)
    for name in ("T1", "T2"):
        assert outcomes(name, retold(world, TRUE[name])) == {"": "inconclusive"}

"""Seeds added until comparisons are decided: which are made, what is said, and what cannot be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from study_cases import TINY, StandIn, finish

from spectra_exp.cli import command
from spectra_exp.foundations.files import write_json
from spectra_exp.statistics.looks import look
from spectra_exp.studies import command as commands
from spectra_exp.studies.job import Job
from spectra_exp.studies.ledger import read_launches

CELLS = "baseline=switch_top2,hash,random,switch_top1"
WORDS = ["run", "ablations=baselines", CELLS, *TINY, "launch.view=false"]
# Added to the reference's loss: far better, the same for practice, and a difference of which nothing can be said.
SHIFTS = {"switch_top2": (0.0, 0.0), "hash": (-0.5, 0.01), "random": (0.0, 0.001), "switch_top1": (0.02, 0.03)}


def loss(baseline: str, seed: int) -> float:
    shift, noise = SHIFTS[baseline]
    return 3.0 + 0.1 * seed + shift + noise * np.random.default_rng([len(baseline), seed]).standard_normal()


def baseline_of(job: Job) -> str:
    return job.experiment.choices["baseline"]


def complete(job: Job) -> str:
    """Leave a run that may be compared."""
    value = loss(baseline_of(job), job.experiment.seed)
    finish(job, val_loss=value, val_perplexity=float(np.exp(value)))
    path = job.planned.folder.summary
    summary = json.loads(path.read_text())
    summary["fingerprints"]["batches"] = f"b{job.experiment.seed}"
    write_json(path, summary | {"causal": True})
    return "completed"


@pytest.fixture
def engine(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn([], complete)
    monkeypatch.setattr(commands, "make_engine", lambda typed, task: made)
    return made


def seeds_made(outputs: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in sorted((outputs / "runs").glob("*/summary.json")):
        summary = json.loads(path.read_text())
        found.setdefault(summary["baseline"], []).append(summary["seed"])
    return {name: sorted(seeds) for name, seeds in found.items()}


def test_seeds_are_added_where_a_comparison_is_undecided(outputs: Path, engine: StandIn, capsys) -> None:
    asked = [*WORDS, "launch.until_decided=val_loss:0.02", "launch.max_seeds=7"]
    assert command(asked) == 0
    made = seeds_made(outputs)
    assert made["switch_top2"] == made["switch_top1"] == list(range(7))
    assert made["random"] == [0, 1, 2] and made["hash"] == [0, 1, 2]
    err = capsys.readouterr().err
    assert "look at 3 seeds: " in err and "look at 7 seeds: " in err and "look at 10" not in err
    assert "Random − Switch top-2: equivalent (" in err and "Switch top-1 − Switch top-2: undecided (" in err
    # What is said is what the sequential test of these pairs says.
    pairs = [loss("hash", seed) - loss("switch_top2", seed) for seed in range(3)]
    seen = look(pairs, 7, 0.02)
    assert (
        f"Hash − Switch top-2: better ({np.mean(pairs):+.4g} [{seen.low:+.4g}, {seen.high:+.4g}], 3 of at most 7" in err
    )
    # One launch, whose design the tables find, and that goes on without making anything again.
    ((launch,), skipped) = read_launches(outputs)
    assert not skipped and (launch.design.metric, launch.design.margin, launch.design.max_seeds) == (
        "val_loss",
        0.02,
        7,
    )
    assert len(launch.runs) == 20 and "launch.until_decided=val_loss:0.02" in launch.command
    engine.batches.clear()
    assert (
        command(asked) == 0
        and engine.batches == []
        and capsys.readouterr().err.splitlines()[-3:] == err.splitlines()[-3:]
    )


def test_a_launch_that_was_cut_goes_on_with_what_is_missing(outputs: Path, engine: StandIn) -> None:
    asked = [*WORDS, "launch.until_decided=val_loss:0.02", "launch.max_seeds=5", "seed=4"]
    cut = []

    def once(job: Job) -> str:
        if job.experiment.seed == 7 and baseline_of(job) == "switch_top2" and not cut:
            cut.append(job)
            raise KeyboardInterrupt
        return complete(job)

    engine.behaviour = once
    assert command(asked) == 130
    engine.batches.clear()
    assert command(asked) == 0
    made = seeds_made(outputs)
    assert made["switch_top1"] == made["switch_top2"] == [4, 5, 6, 7, 8]
    assert engine.batches == [["seed=7", "seed=8"]]


def test_a_pair_that_failed_does_not_count_and_the_status_says_so(outputs: Path, engine: StandIn, capsys) -> None:
    def failing(job: Job) -> str:
        bad = baseline_of(job) == "hash" and job.experiment.seed == 1
        return finish(job, "failed") if bad else complete(job)

    engine.behaviour = failing
    asked = [*WORDS, "launch.until_decided=val_loss:0.02", "launch.max_seeds=5"]
    assert command(asked) == 1
    # Three pairs, at the second look.
    assert seeds_made(outputs)["hash"] == [0, 1, 2, 3, 4] and "3 of at most 5 seeds" in capsys.readouterr().err


@pytest.mark.parametrize("decided", ["val_loss", "val_perplexity:0.1"])
def test_losses_of_models_that_are_not_causal_decide_nothing(
    outputs: Path, engine: StandIn, decided: str, capsys
) -> None:
    def peeking(job: Job) -> str:
        complete(job)
        path = job.planned.folder.summary
        write_json(path, json.loads(path.read_text()) | {"causal": baseline_of(job) != "hash"})
        return "completed"

    engine.behaviour = peeking
    cells = CELLS.replace(",switch_top1", "")
    asked = ["run", "ablations=baselines", cells, *TINY, "launch.view=false", f"launch.until_decided={decided}"]
    assert command(asked) == 0
    # And no figures of what is no evidence.
    lines = capsys.readouterr().err.splitlines()
    assert seeds_made(outputs)["hash"] == [0, 1, 2] and "Hash − Switch top-2: not causal" in lines


def test_a_second_design_over_the_same_rows_is_refused(outputs: Path, engine: StandIn, capsys) -> None:
    asked = ["run", "ablations=baselines", "baseline=switch_top2,hash", *TINY, "launch.view=false"]
    decided, most = "launch.until_decided=val_loss:0.02", "launch.max_seeds=3"
    first = [*asked, decided, most]
    assert command(first) == 0
    engine.batches.clear()
    for other in (
        [decided, "launch.max_seeds=5"],
        ["launch.until_decided=val_loss:0.05", most],
        [decided, most, "seed=1"],
    ):
        assert command([*asked, *other]) == 2
        err = capsys.readouterr().err
        assert "was launched with val_loss:0.02 launch.max_seeds=3 seed=0 before" in err.splitlines()[-1]
    assert engine.batches == [] and command(first) == 0


def test_differences_without_spread_are_undecided_and_say_why(outputs: Path, engine: StandIn, capsys) -> None:
    def alike(job: Job) -> str:
        complete(job)
        path = job.planned.folder.summary
        shift = 0.5 if baseline_of(job) == "hash" else 0.0
        write_json(path, json.loads(path.read_text()) | {"metrics": {"val_loss": 3.0 + shift}})
        return "completed"

    engine.behaviour = alike
    asked = ["run", "ablations=baselines", "baseline=switch_top2,hash", *TINY, "launch.view=false"]
    assert command([*asked, "launch.until_decided=val_loss", "launch.max_seeds=3"]) == 0
    assert "Hash − Switch top-2: undecided (zero variance)" in capsys.readouterr().err


BAD = [
    ("launch.until_decided=val_los:0.02", "did you mean 'val_loss'"),
    ("launch.until_decided=val_loss:abc", "'abc' is not a number"),
    ("launch.until_decided=val_loss:", "'' is not a number"),
    ("launch.until_decided=val_loss:0", "greater than 0"),
    ("launch.until_decided=val_loss:nan", "finite"),
    ("launch.until_decided=val_perplexity", "declares no region"),
    ("launch.until_decided=val_loss:0.02 seed=0..4", "launch.max_seeds is how many at most"),
    ("launch.until_decided=val_loss:0.02 launch.max_seeds=2", "must be at least 3"),
    ("launch.until_decided=val_loss:0.02 launch.max_seeds=101", "must be at most 100"),
    ("launch.until_decided=val_loss:0.01,val_loss:0.02", "several values were given"),
    ("launch.until_decided=val_loss:0.02 baseline=hash", "the reference row (baseline=switch_top2)"),
    ("launch.until_decided=val_loss:0.02 baseline=switch_top2", "nothing was launched to compare"),
]


@pytest.mark.parametrize("line, said", BAD)
def test_what_cannot_be_decided_is_one_line_before_any_run(outputs: Path, line: str, said: str, capsys) -> None:
    words = line.split()
    cells = [] if any(word.startswith("baseline=") for word in words) else [CELLS]
    assert command(["run", "ablations=baselines", *cells, *TINY, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err, err
    assert not list((outputs / "runs").glob("*"))


@pytest.mark.parametrize(
    "words, said",
    [
        (["run", "launch.until_decided=val_loss:0.02"], "has no effect on a single run"),
        (["run", "-m", "seed=0,1", "launch.until_decided=val_loss:0.02"], "has no effect without a study"),
        (["run", "sweeps=scaling_model", "launch.until_decided=val_loss:0.02"], "has no reference row"),
    ],
)
def test_it_needs_a_study_with_a_reference_row(outputs: Path, words: list[str], said: str, capsys) -> None:
    assert command([*words, *TINY]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1

"""How many seeds a study needs: from its own pairs, from others', and what is said where there are none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_studies import given, make_study
from statsmodels.stats.power import TTestPower
from test_by_document import leave_documents

from spectra_exp.cli import command
from spectra_exp.reporting import seed_plan as seed_plan_module
from spectra_exp.reporting.seed_plan import seed_plan
from spectra_exp.runs.stored import stored_runs
from spectra_exp.statistics.crossed import crossed_difference
from spectra_exp.studies.definition import load_study

BASELINES = ["baseline=switch_top2,hash,random"]
LOSS = {
    "switch_top2": [3.0, 3.1, 3.2, 3.3, 3.4],
    "hash": [3.02, 3.09, 3.23, 3.31, 3.38],
    "random": [3.1, 3.26, 3.22, 3.41, 3.57],
}


def figures(job):
    own = LOSS[given(job)["baseline"]][job.experiment.seed]
    timings = {"wall_s": 100.0, "session_steps": 250, "step_time_ms": 300.0}
    return {"metrics": {"val_loss": own, "load_cv": 0.1 + 0.0 * own}, "timings": timings}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three baselines under five seeds, with scores of documents for two of them."""
    outputs = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        make_study(outputs, "baselines", figures, ("seed=0..4", *BASELINES))
    for number, run in enumerate(stored_runs(outputs / "runs")):
        if run.summary["baseline"] != "random":
            leave_documents(run.path, 0.01 * number, number + 1)
    return outputs


@pytest.fixture(autouse=True)
def no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a checkout without reference results."""
    monkeypatch.setattr(seed_plan_module, "reference_archive", lambda: tmp_path / "none.parquet")


def differences(name: str) -> np.ndarray:
    return np.array(LOSS[name]) - np.array(LOSS["switch_top2"])


def test_seeds_follow_from_the_spread_of_the_pairs(world: Path) -> None:
    plan = seed_plan(load_study("baselines"), 0.05, typed=BASELINES, outputs=world)
    assert plan.source == "its finished pairs" and plan.tests == 2 and plan.runs == 3
    by = {one.label.partition(" −")[0]: one for one in plan.comparisons}
    assert list(by) == ["Hash", "Random"]
    for name, one in by.items():
        sd = differences(name.lower()).std(ddof=1)
        needed = TTestPower().solve_power(0.05 / sd, alpha=0.05, power=0.8)
        assert one.spread.sd == pytest.approx(sd) and one.seeds.seen == max(3, math.ceil(needed))
        assert one.pairs == 5 and one.seeds.upper > one.seeds.seen
    pooled = np.sqrt(np.mean([differences(name).var(ddof=1) for name in ("hash", "random")]))
    assert plan.spread.sd == pytest.approx(pooled) and plan.spread.df == 4
    strict = TTestPower().solve_power(0.05 / pooled, alpha=0.025, power=0.8)
    assert plan.corrected.seen == math.ceil(strict) > plan.seeds.seen


def test_time_is_that_of_the_measured_runs_and_what_has_finished_is_not_left(world: Path) -> None:
    plan = seed_plan(load_study("baselines"), 0.05, typed=BASELINES, outputs=world)
    assert plan.seconds == pytest.approx(300) and plan.seeds.seen > 5
    assert plan.seconds_left == pytest.approx(300 * (plan.seeds.seen - 5))


def test_text_is_enough_where_more_narrows_no_interval(world: Path) -> None:
    plan = seed_plan(load_study("baselines"), 0.05, typed=BASELINES, outputs=world)
    hashed, random = plan.comparisons
    runs = {
        (run.summary["baseline"], run.summary["seed"]): run.scores("documents") for run in stored_runs(world / "runs")
    }
    tokens = runs["hash", 0]["tokens"].to_numpy()
    losses = (runs["hash", s]["loss"] - runs["switch_top2", s]["loss"] for s in range(5))
    assert hashed.enough_tokens == crossed_difference(np.array(list(losses)), tokens).enough_tokens > 0
    assert random.enough_tokens is None and "rescore" in random.note


def test_the_command_prints_it_and_gives_it_to_programs(world: Path, capsys) -> None:
    words = ["study", "plan", "baselines", *BASELINES, f"outputs={world}"]
    assert command([*words, "metric=val_loss", "detect=0.02", "power=0.9"]) == 0
    out = capsys.readouterr().out
    assert "a difference of 0.02 found with power 0.9" in out and "3 runs a seed" in out and "Random − Switch" in out
    # The region of the metric unless given.
    assert command([*words, "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["detect"] == 0.02 and told["seeds"]["seen"] <= told["seeds"]["upper"] and len(told["comparisons"]) == 2


def test_before_any_run_the_pairs_of_others_tell(world: Path, tmp_path: Path, monkeypatch) -> None:
    core, baselines = load_study("core"), load_study("baselines")
    one = ["ablation=none,no_gru", "osr=causal"]
    plan = seed_plan(core, 0.05, typed=one, outputs=world)
    assert plan.source == "pairs of other studies" and not plan.comparisons and plan.runs == 2
    longer = seed_plan(baselines, 0.05, typed=[*BASELINES, "trainer.max_steps=500"], outputs=world)
    assert longer.source == "its finished pairs of other settings" and longer.tests == 2
    # None of these have been made, and they are twice as long.
    assert longer.seconds_left == pytest.approx(longer.seeds.seen * 3 * (25 + 500 * 0.3))
    # By name, or the project's own reference results.
    assert command(["archive", str(tmp_path / "kept.parquet"), f"outputs={world}"]) == 0
    named = seed_plan(core, 0.05, typed=one, outputs=tmp_path, runs=[str(tmp_path / "kept.parquet")])
    assert named.spread == plan.spread
    monkeypatch.setattr(seed_plan_module, "reference_archive", lambda: tmp_path / "kept.parquet")
    found = seed_plan(baselines, 0.05, typed=BASELINES, outputs=tmp_path)
    assert found.source == "the reference results' pairs of it" and found.spread == plan.spread
    assert seed_plan(core, 0.05, typed=one, outputs=tmp_path).source == "the reference results' pairs of other studies"


def test_what_cannot_be_planned_is_one_line(world: Path, tmp_path: Path, capsys) -> None:
    here, empty = f"outputs={world}", f"outputs={tmp_path}"
    for words, status, said in (
        (["baselines", empty], 1, "no two seeds of a pair of rows have finished, and there are no reference results"),
        (["baselines", here, "metric=val_los"], 2, "did you mean 'val_loss'"),
        (["baselines", here, *BASELINES, "metric=load_cv"], 1, "no spread in load_cv (zero variance)"),
        (["baselines", here, "metric=val_perplexity"], 2, "detect: is missing"),
        (["baselines", here, "detect=0"], 2, "must be greater than 0"),
        (["baselines", here, "power=1"], 2, "must be at most 0.999"),
        (["basline", here], 2, "did you mean 'baselines'"),
        ([here], 2, "study: is missing"),
        (["baselines", here, "runs=nothing.parquet"], 2, "there is no 'nothing.parquet'"),
        (["baselines", here, f"runs={'x' * 5000}"], 2, "there is no 'xxx"),
        (["baselines", here, "trainer.max_step=3"], 2, "trainer.max_steps"),
    ):
        assert command(["study", "plan", *words]) == status, words
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err, err

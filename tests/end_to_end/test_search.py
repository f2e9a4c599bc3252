"""Searches through the command line: quick ones on a stand-in for training, and one on real runs."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from small_run import DATA, MODEL

from spectra_exp import cli
from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations import stopping
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.lock import RunLock
from spectra_exp.runs.plan import Plan
from spectra_exp.runs.summary_head import summary_head
from spectra_exp.studies import search
from spectra_exp.studies.job import Job

SMALL = [
    *MODEL,
    *DATA,
    "trainer.batch_size=4",
    "trainer.max_steps=3",
    "logger.progress=false",
]
EPSILON = "osr.sinkhorn_epsilon=tag(log, interval(0.05, 5))"
REPULSION = "osr.repulsion_weight=interval(0, 1)"


def bowl(epsilon: float, repulsion: float) -> dict[str, float]:
    """Lowest, 0, at epsilon 0.4 and repulsion 0.3."""
    return {"val_loss": math.log(epsilon / 0.4) ** 2 + 4 * (repulsion - 0.3) ** 2}


def trade_off(epsilon: float, repulsion: float) -> dict[str, float]:
    return {"load_cv": epsilon, "expert_overlap": (1 - repulsion) ** 2, "val_loss": (2 - epsilon) ** 2 + repulsion}


class StandIn:
    """In place of an engine: no training, but the summary of each run with the figures of a known function."""

    def __init__(self, figures: Callable[[float, float], dict[str, float]]):
        self.figures = figures
        self.launched = 0

    def launch(self, jobs: list[Job]) -> list[str]:
        return [self._run(job.planned) for job in jobs]

    def _run(self, planned: Plan) -> str:
        """The run's status; `lost` is a failure that could not even be written down."""
        self.launched += 1
        osr = planned.experiment.osr
        outcome = self.figures(osr.sinkhorn_epsilon, osr.repulsion_weight)
        if outcome == "lost":
            return "failed"
        end = {"metrics": outcome, "status": "completed"} if isinstance(outcome, dict) else outcome_of(outcome)
        head = summary_head(planned, {"code_version": "none"}, "now")
        with planned.folder.hold():
            write_json(planned.folder.summary, head | end)
        return end["status"]


def outcome_of(status: str) -> dict[str, str]:
    return {"status": status, "error": f"made to be {status}"}


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """A function that searches with a stand-in and returns (exit status, engine)."""
    prepare_environment()
    cache = tmp_path_factory.getbasetemp() / "search_cache"
    cache.mkdir(exist_ok=True)

    def run(figures: Callable[[float, float], dict[str, float]], *typed: str, outputs: str = "out"):
        engine = StandIn(figures)
        monkeypatch.setattr(search, "make_engine", lambda typed, task: engine)
        folder = tmp_path / outputs
        folder.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(cache)
        chosen = [] if any(o.startswith("search=") for o in typed) else ["search=single"]
        return cli.main(["-m", "hydra/sweeper=optuna", *chosen, *SMALL, f"outputs={folder}", *typed]), engine

    return run


def table(folder: Path, name: str = "single") -> list[dict[str, str]]:
    with (folder / "tables" / f"search_{name}.csv").open() as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


@pytest.mark.slow
def test_tpe_nears_the_known_optimum_and_random_search_does_not(launch, tmp_path):
    assert launch(bowl, EPSILON, REPULSION, "hydra.sweeper.n_trials=30", outputs="tpe")[0] == 0
    random = ("hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=30")
    assert launch(bowl, EPSILON, REPULSION, *random, outputs="random")[0] == 0
    tpe, chance = table(tmp_path / "tpe"), table(tmp_path / "random")
    assert len(tpe) == len(chance) == 30
    best = min(tpe, key=lambda row: float(row["val_loss"]))
    assert best["pareto"] == "yes" and sum(row["pareto"] == "yes" for row in tpe) == 1
    assert float(best["val_loss"]) < 0.1
    # The same ten trials to start with; after them TPE tries better points than chance does.
    assert numbers(tpe[:10], "val_loss") == numbers(chance[:10], "val_loss")
    assert sum(numbers(tpe[10:], "val_loss")) < 0.5 * sum(numbers(chance[10:], "val_loss"))


def test_a_metric_that_is_better_high_is_maximised(launch, tmp_path):
    figures = lambda epsilon, repulsion: {"val_accuracy": repulsion}  # noqa: E731
    assert launch(figures, REPULSION, "search.objectives=[val_accuracy]", "hydra.sweeper.n_trials=5")[0] == 0
    rows = table(tmp_path / "out")
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert [row["trial"] for row in rows if row["pareto"]] == [best["trial"]]


def test_the_pareto_front_is_that_of_its_definition(launch, tmp_path, capfd):
    assert launch(trade_off, EPSILON, REPULSION, "search=pareto", "hydra.sweeper.n_trials=15")[0] == 0
    rows = table(tmp_path / "out", "pareto")
    names = ("load_cv", "expert_overlap", "val_loss")
    points = {row["trial"]: [float(row[name]) for name in names] for row in rows}
    front = {
        a
        for a, p in points.items()
        if not any(all(x <= y for x, y in zip(q, p, strict=True)) and q != p for q in points.values())
    }
    assert {row["trial"] for row in rows if row["pareto"] == "yes"} == front
    assert 2 <= len(front) < 15
    text = (tmp_path / "out" / "tables" / "search_pareto.md").read_text()
    assert sum("yes |" in line for line in text.splitlines()) == len(front)
    out, _ = capfd.readouterr()
    assert "Pareto front of 15 trials" in out and out.strip().endswith("search_pareto.md")


def test_failed_trials_are_failed_and_the_search_goes_on(launch, tmp_path, capfd):
    # 6 experts of 4 is refused by a rule; the others end in every way there is.
    ends = iter(["failed", "diverged", "not_run", {}, "lost"])

    def figures(epsilon, repulsion):
        return next(ends, bowl(epsilon, repulsion))

    typed = (EPSILON, "model.top_k=2,6", "hydra.sweeper.n_trials=14")
    assert launch(figures, *typed)[0] == 0
    rows = table(tmp_path / "out")
    assert len(rows) == 14
    reasons = [row["reason"] for row in rows if row["state"] == "failed"]
    ends = ("failed: made", "diverged: made", "not run: made")
    for part in (*ends, "val_loss is not defined", "no summary", "model.top_k"):
        assert any(part in reason for reason in reasons), part
    assert all(row["val_loss"] for row in rows if row["state"] == "complete")
    assert not any(row["pareto"] for row in rows if row["state"] == "failed")
    _, err = capfd.readouterr()
    assert sum(line.startswith("error: trial ") for line in err.splitlines()) == len(reasons)
    assert "Traceback" not in err


def test_a_search_whose_every_trial_failed_says_so(launch, tmp_path):
    assert launch(lambda *_: "failed", EPSILON, "hydra.sweeper.n_trials=3")[0] == 1
    assert [row["state"] for row in table(tmp_path / "out")] == ["failed"] * 3


def test_the_plugins_own_failure_rate_still_ends_a_search(launch, tmp_path, capfd):
    assert launch(lambda *_: "failed", EPSILON, "hydra.sweeper.n_trials=3", "hydra.sweeper.max_failure_rate=0")[0] == 1
    assert len(table(tmp_path / "out")) == 1
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_killed_and_launched_again_it_ends_as_one_that_was_not(launch, tmp_path):
    typed = (EPSILON, REPULSION, "hydra.sweeper.n_trials=14")
    assert launch(bowl, *typed, outputs="whole")[0] == 0
    calls = 0

    def killed_in_the_twelfth(epsilon, repulsion):
        nonlocal calls
        calls += 1
        if calls == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return bowl(epsilon, repulsion)

    child = os.fork()
    if child == 0:
        launch(killed_in_the_twelfth, *typed, outputs="killed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = tmp_path / "killed"
    left = optuna.load_study("single", f"sqlite:///{folder}/search/single.db").get_trials()
    assert [trial.state.name for trial in left] == ["COMPLETE"] * 11 + ["RUNNING"]
    status, engine = launch(bowl, *typed, outputs="killed")
    assert status == 0 and engine.launched == 3
    assert table(folder) == table(tmp_path / "whole")


def test_again_runs_nothing_and_more_trials_go_on(launch, tmp_path, capfd):
    assert launch(bowl, EPSILON, "hydra.sweeper.n_trials=3")[1].launched == 3
    first = table(tmp_path / "out")
    status, engine = launch(bowl, EPSILON, "hydra.sweeper.n_trials=3")
    assert (status, engine.launched) == (0, 0) and table(tmp_path / "out") == first
    assert "asks for no more" in capfd.readouterr().err
    assert launch(bowl, EPSILON, "hydra.sweeper.n_trials=5")[1].launched == 2
    assert [row["run_id"] for row in table(tmp_path / "out")[:3]] == [row["run_id"] for row in first]
    # Its points were distinct: a sampler seeded anew would have tried the first two again.
    assert len(set(numbers(table(tmp_path / "out"), "osr.sinkhorn_epsilon"))) == 5


def test_a_run_that_exists_is_read_and_not_made_again(launch, tmp_path):
    assert launch(bowl, EPSILON, "hydra.sweeper.n_trials=3")[1].launched == 3
    status, engine = launch(bowl, EPSILON, "hydra.sweeper.n_trials=3", "search.name=other")
    assert (status, engine.launched) == (0, 0)
    assert table(tmp_path / "out", "other") == table(tmp_path / "out")


def test_asked_to_stop_it_stops_and_goes_on_with_the_same_trial(launch, tmp_path):
    calls = 0

    def stopped_in_the_third(epsilon, repulsion):
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            return "stopped"
        return bowl(epsilon, repulsion)

    typed = (EPSILON, "hydra.sweeper.n_trials=4")
    try:
        assert launch(stopped_in_the_third, *typed)[0] == cli.INTERRUPTED
    finally:
        stopping.ask(None)
    assert len(table(tmp_path / "out")) == 2
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert launch(bowl, *typed)[0] == 0
    assert len(runs) == 3 and {path.name for path in (tmp_path / "out" / "runs").iterdir()} > runs
    assert len(table(tmp_path / "out")) == len(list((tmp_path / "out" / "runs").iterdir())) == 4


def test_on_failure_stop_ends_it_and_the_trial_is_tried_again(launch, tmp_path):
    typed = (EPSILON, "hydra.sweeper.n_trials=2", "launch.on_failure=stop")
    assert launch(lambda *_: "failed", *typed)[0] == 1
    assert table(tmp_path / "out") == []
    status, engine = launch(bowl, *typed)
    assert (status, engine.launched) == (0, 2)


def test_another_search_under_the_same_name_is_refused(launch, tmp_path, capfd):
    assert launch(bowl, EPSILON, "hydra.sweeper.n_trials=1")[0] == 0
    changes = ([REPULSION], [EPSILON, "trainer.max_steps=4"], [EPSILON, "search.objectives=[val_accuracy]"])
    for changed in changes:
        drop = {o.split("=")[0] for o in changed}
        kept = [o for o in SMALL if o.split("=")[0] not in drop]
        outputs = f"outputs={tmp_path / 'out'}"
        assert cli.main(["-m", "search=single", *kept, outputs, *changed, "hydra.sweeper.n_trials=2"]) == 2
        assert "search.name" in capfd.readouterr().err
    assert len(table(tmp_path / "out")) == 1


def test_two_launches_at_once(launch, tmp_path, capfd):
    with RunLock(tmp_path / "out" / "search" / "single"):
        assert launch(bowl, EPSILON)[0] == 1
    assert "in use by process" in capfd.readouterr().err


@pytest.mark.parametrize(
    "sampler, option, name",
    [
        ("nsgaii", "population_size=4", "pareto"),
        ("motpe", "n_startup_trials=4", "pareto"),
        ("cmaes", "seed=3", "single"),
    ],
)
def test_other_samplers_of_the_plugin_go_on_too(launch, tmp_path, sampler, option, name):
    typed = (f"hydra/sweeper/sampler={sampler}", f"hydra.sweeper.sampler.{option}", f"search={name}", EPSILON)
    figures = trade_off if name == "pareto" else bowl
    assert launch(figures, *typed, "hydra.sweeper.n_trials=5")[0] == 0
    assert launch(figures, *typed, "hydra.sweeper.n_trials=9", "hydra.sweeper.n_jobs=2")[0] == 0
    rows = table(tmp_path / "out", name)
    assert len(rows) == len({row["run_id"] for row in rows}) == 9


def test_the_knobs_of_spectra_are_all_searched(launch, tmp_path):
    typed = ("search=spectra", "hydra.sweeper.n_trials=2", "osr.repulsion_weight=0.25")
    assert launch(bowl, *typed)[0] == 0
    rows = table(tmp_path / "out", "spectra")
    assert {"osr.sinkhorn_epsilon", "osr.potential_rate", "temperature.value"} <= rows[0].keys()
    assert "osr.repulsion_weight" not in rows[0]


@pytest.mark.parametrize(
    "typed, said",
    [
        (["search=single"], "search: no key has an interval"),
        (["search=none", EPSILON], "add search=single"),
        (["search=sngle", EPSILON], "did you mean 'single'"),
        (["osr.sinkhorn_epsilonn=interval(0.1,1)"], "did you mean 'osr.sinkhorn_epsilon'"),
        (["osr.sinkhorn_epsilon=interval(0,1)"], "osr.sinkhorn_epsilon: 0.0 was given; must be greater than 0"),
        (["osr.sinkhorn_epsilon=tag(log, interval(0,1))"], "no logarithm"),
        (["osr.sinkhorn_epsilon=interval(1,0.5)"], "smaller end first"),
        (["model.top_k=interval(1,4)"], "model.top_k: '1.0' is not a whole number"),
        (["model.dropout=interval(0,1.5)"], "model.dropout: 1.5 was given; must be at most 0.9"),
        (["router=switch,swich", "osr=none"], "did you mean 'switch'"),
        (["selection=glob(*)"], "cannot be searched"),
        (["launch.retries=0,1"], "launch.retries"),
        (["study=a,b"], "makes no difference"),
        (["seed=0,1", EPSILON], "give one seed"),
        ([EPSILON, "model.top_k=9"], "model.top_k"),
        ([EPSILON, "osr.repulsion=1"], "osr.repulsion"),
        ([EPSILON, "search.objectives=[val_los]"], "did you mean 'val_loss'"),
        ([EPSILON, "search.objectives=[routing_entropy]"], "search.objectives"),
        ([EPSILON, "search.objectives=[]"], "search.objectives"),
        ([EPSILON, "search.name=a/b"], "search.name"),
        ([EPSILON, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: 0 was given; must be at least 1"),
        ([EPSILON, "hydra.sweeper.n_trials=many"], "hydra.sweeper.n_trials"),
        ([EPSILON, "hydra.sweeper.n_trials=5,10"], "hydra.sweeper.n_trials"),
        ([EPSILON, "hydra.sweeper.n_jobs=0"], "must be at least 1"),
        ([EPSILON, "hydra.sweeper.n_trial=3"], "hydra.sweeper.n_trial"),
        ([EPSILON, "hydra.sweeper.direction=maximize"], "search.objectives"),
        ([EPSILON, "hydra/sweeper/sampler=grid"], "needs no search"),
        ([EPSILON, "hydra/sweeper/sampler=tpee"], "did you mean 'tpe'"),
        ([EPSILON, "hydra/sweeper/sampler=cmaes", "search=pareto"], "one objective"),
        ([EPSILON, "hydra.sweeper.sampler.n_startup=3"], "hydra.sweeper.sampler.n_startup"),
        ([EPSILON, "hydra.sweeper.storage=nonsense"], "hydra.sweeper.storage: nonsense cannot be opened"),
    ],
)
def test_bad_input_is_one_line_before_the_first_trial(launch, tmp_path, capfd, typed, said):
    status, engine = launch(bowl, *typed)
    lines = capfd.readouterr().err.strip().splitlines()
    assert status == 2 and engine.launched == 0
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], lines


def test_a_search_needs_multirun_and_its_keys_need_a_search(tmp_path, capfd):
    prepare_environment()
    for typed, said in (
        (["search=single", EPSILON], "add -m"),
        (["hydra.sweeper.n_trials=3"], "add -m"),
        (["-m", "hydra/sweeper=optuna", EPSILON], "add search=single"),
        (["-m", "hydra/sweeper=basic", "search=single", EPSILON], "hydra/sweeper"),
        (["-m", EPSILON], "or search them"),
        (["search.seed=3"], "search.seed: 3 would have no effect"),
    ):
        assert cli.main([*typed, f"outputs={tmp_path}"]) == 2
        assert said in capfd.readouterr().err, typed


@pytest.mark.slow
def test_two_real_runs_side_by_side_to_the_table(tmp_path):
    typed = ["search=pareto", EPSILON, "hydra.sweeper.n_trials=2", "launch=parallel", "launch.jobs=2"]
    assert cli.main(["-m", "hydra/sweeper=optuna", *SMALL, f"outputs={tmp_path}", *typed]) == 0
    rows = table(tmp_path, "pareto")
    assert [row["state"] for row in rows] == ["complete"] * 2
    for row in rows:
        summary = RunFolder(tmp_path / "runs", row["run_id"]).read_summary()
        assert {name: float(row[name]) for name in ("load_cv", "expert_overlap", "val_loss")}.items() <= (
            summary["metrics"].items()
        )
        assert summary["studies"] == ["pareto"]

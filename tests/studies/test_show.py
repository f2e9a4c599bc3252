"""The runs of a study listed without running any, with the time that the rest should take."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from study_cases import TINY, finish, hold_elsewhere

from spectra_exp.foundations.files import write_json
from spectra_exp.runs.config_file import setting
from spectra_exp.runs.progress import ProgressWriter
from spectra_exp.studies import __main__ as command
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.job import Job
from spectra_exp.studies.ledger import write_launch
from spectra_exp.studies.show import shown_runs, total_seconds
from spectra_exp.studies.state import SIZES, Speed, expected_seconds, measured_speeds

SMALL = [*TINY, "seed=0", "trainer.max_steps=10"]


def shown(*typed: str, study: str = "c_repulsion"):
    replaced = {line.partition("=")[0] for line in typed}
    return shown_runs(load_study(study), [*(o for o in SMALL if o.partition("=")[0] not in replaced), *typed])


def finish_in(job: Job, seconds: float, steps: int = 10) -> None:
    """Leave the summary of a run that took so long for so many steps."""
    finish(job)
    summary = job.planned.folder.read_summary()
    write_json(job.planned.folder.summary, summary | {"timings": {"wall_s": seconds, "session_steps": steps}})


def test_it_lists_what_a_launch_would_run_and_runs_nothing(outputs, capsys):
    assert command.main(["show", "c_repulsion", "--json", *SMALL]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"] == "c_repulsion" and told["question"] and told["hypothesis"]
    assert len(told["runs"]) == 6 and {run["state"] for run in told["runs"]} == {"missing"}
    assert told["seconds_left"] is None
    expected = [run.job for run in shown()]
    for run, job in zip(told["runs"], expected, strict=True):
        assert (run["run_id"], run["overrides"], run["seed"]) == (job.run_id, job.overrides, 0)
        assert run["cell_id"] == job.planned.identity.cell_id
    assert len({run["cell_id"] for run in told["runs"]}) == 6
    assert not (outputs / "runs").exists() and not (outputs / "studies").exists()


def test_the_ids_are_those_of_the_launch(outputs):
    launch = write_launch(load_study("c_repulsion"), SMALL, [run.job for run in shown()])
    ids = [run["run_id"] for run in json.loads(launch.read_text())["runs"]]
    assert ids == [run.job.run_id for run in shown()]


def test_lines_that_are_one_run_are_listed_as_one(outputs):
    runs = shown("ablation=no_all,cumulative_1", study="core")
    assert len(runs) == 1 and [line[-1] for line in runs[0].as_json()["also"]] == ["seed=0"]
    assert "ablation=cumulative_1" in runs[0].as_json()["also"][0]


def test_the_time_left_is_that_of_the_runs_most_alike(outputs):
    runs = shown()
    finish_in(runs[0].job, 20.0)
    # Other runs of the same router and model take as long as the one that is known.
    assert [run.seconds for run in shown()] == [0.0] + [20.0] * 5
    finish_in(runs[1].job, 40.0)
    assert [run.seconds for run in shown()] == [0.0, 0.0] + [30.0] * 4
    assert total_seconds(shown()) == 120.0
    # Twice the steps take twice the time.
    assert {run.seconds for run in shown("trainer.max_steps=20")} == {60.0}
    # Another seed of a cell that has run: the cell itself tells most.
    assert [run.seconds for run in shown("seed=1")][:3] == [20.0, 40.0, 30.0]


def test_a_running_run_needs_what_is_left_of_it(outputs):
    jobs = [run.job for run in shown()]
    finish_in(jobs[0], 20.0)
    with hold_elsewhere(jobs[1], 600) as holder:
        ProgressWriter(jobs[1].planned.folder.path, 10).update(4, {"loss": 1.0})
        found = shown()[1]
        holder.kill()
    assert found.state.state == "running" and found.seconds == pytest.approx(12.0)


def test_ended_runs_need_no_more_and_failed_ones_the_whole(outputs):
    jobs = [run.job for run in shown()]
    finish_in(jobs[0], 20.0)
    for job, end in zip(jobs[1:], ("diverged", "not_run", "failed"), strict=False):
        finish(job, end)
    states = [(run.state.state, run.seconds) for run in shown()]
    assert states[:4] == [("done", 0.0), ("diverged", 0.0), ("not_run", 0.0), ("failed", 20.0)]


def test_the_nearest_kind_of_run_is_asked_first(outputs):
    run = shown()[0]
    experiment = run.job.experiment
    own = tuple(setting(asdict(experiment), key) for key in SIZES)
    speeds = [
        Speed("spectra", "tiny", "mine", 10, 1.0, 0.0, own),
        Speed("spectra", "tiny", "other", 10, 3.0, 0.0, own),
        Speed("switch", "tiny", "third", 10, 9.0, 0.0, own),
        Speed("switch", "tiny", "fourth", 10, 100.0, 0.0, (1, *own[1:])),
    ]
    assert expected_seconds(speeds, "mine", experiment) == 10.0
    assert expected_seconds(speeds, "new", experiment) == 20.0
    assert expected_seconds(speeds[2:], "new", experiment) == 90.0
    assert expected_seconds(speeds[3:], "new", experiment) is None


def test_a_run_of_a_few_steps_says_how_long_a_step_takes_and_not_its_start(outputs):
    """A run of 5 steps in 16 s, of which a step is 0.1 s: 300 steps are 46 s, not 16 minutes."""
    experiment = shown("trainer.max_steps=300")[0].job.experiment
    own = tuple(setting(asdict(experiment), key) for key in SIZES)
    smoke = Speed("spectra", "tiny", "smoke", 5, 0.1, 15.5, own)
    assert expected_seconds([smoke], "new", experiment) == pytest.approx(45.5)
    # A longer one of another router is the better witness.
    whole = Speed("switch", "tiny", "whole", 300, 0.2, 10.0, own)
    assert expected_seconds([smoke, whole], "new", experiment) == pytest.approx(70.0)


def test_the_time_of_a_step_is_kept_apart_from_the_rest_of_a_run(outputs):
    job = shown()[0].job
    finish(job)
    timings = {"wall_s": 20.0, "session_steps": 10, "step_time_ms": 500.0}
    write_json(job.planned.folder.summary, job.planned.folder.read_summary() | {"timings": timings})
    (speed,) = measured_speeds(outputs / "runs")
    assert (speed.step_s, speed.beside_s, speed.seconds(100)) == (0.5, 15.0, 65.0)


def test_only_finished_runs_have_a_speed(outputs):
    jobs = [run.job for run in shown()]
    finish_in(jobs[0], 20.0)
    finish(jobs[1], "failed")
    finish(jobs[2])
    (outputs / "runs" / "no-run-at-all").mkdir()
    assert [s.step_s for s in measured_speeds(outputs / "runs")] == [2.0]


def test_the_table_names_runs_their_changes_and_the_total(outputs, capsys):
    assert command.main(["show", "c_repulsion", *SMALL]) == 0
    assert "6 runs; left, one job at a time: unknown" in capsys.readouterr().out
    finish_in(shown()[0].job, 20.0)
    assert command.main(["show", "c_repulsion", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "osr.repulsion_weight=0.8" in out and "6 runs; left, one job at a time: 1 min 40 s" in out


@pytest.mark.parametrize(
    "typed, said",
    [(["c_repulsionn"], "did you mean 'c_repulsion'"), (["c_repulsion", "trainer.max_step=3"], "trainer.max_steps")],
)
def test_a_typo_is_one_line(outputs, capsys, typed, said):
    assert command.main(["show", *typed]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line

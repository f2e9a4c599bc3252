"""How studies stand: each run counted once, in the state that its folder shows."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from study_cases import TINY, finish, hold_elsewhere, jobs_of, leave_held

from spectra_exp.runs.progress import ProgressWriter
from spectra_exp.runs.summary import read_summary
from spectra_exp.studies import __main__ as command
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.ledger import write_launch
from spectra_exp.studies.state import STATES
from spectra_exp.studies.status import all_statuses, print_status

STUDY = "c_repulsion"


def launched(*lines: str, study: str = STUDY):
    jobs = jobs_of(*lines)
    write_launch(load_study(study), [*TINY, "seed=0"], jobs)
    return jobs


def status_of(outputs, study: str = STUDY):
    (found,) = [status for status in all_statuses(outputs)[0] if status.study == study]
    return found


def counts(outputs, study: str = STUDY) -> dict[str, int]:
    return {state: count for state, count in status_of(outputs, study).counts().items() if count}


def printed(outputs) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        print_status(console, outputs)
    return capture.get()


def started(job, step: int = 3) -> None:
    """The folder of a run that noted its progress."""
    folder = job.planned.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    writer = ProgressWriter(folder, 10)
    writer.update(step, {"loss": 4.25, "load_cv": 0.5})


def test_before_any_launch_every_study_is_missing_whole(outputs):
    statuses, skipped = all_statuses(outputs)
    assert [s.study for s in statuses] == list(study_files()) and skipped == {}
    for status in statuses:
        assert status.launched is None and status.counts()["missing"] == status.expected
    # Five seeds of 32 runs.
    assert status_of(outputs, "b_sinkhorn").expected == 160
    assert "to go on" not in printed(outputs)


def test_each_state_is_counted_as_what_it_is(outputs):
    jobs = launched(*(f"seed={seed}" for seed in range(8)))
    for job, end in zip(jobs, ("completed", "failed", "diverged", "not_run", "stopped"), strict=False):
        finish(job, end)
    started(jobs[5])
    leave_held(jobs[5])
    with hold_elsewhere(jobs[6], 600) as holder:
        started(jobs[6])
        found = counts(outputs)
        running = [s for s in status_of(outputs).states if s.state == "running"]
        text = printed(outputs)
        holder.kill()
    assert found == {
        "done": 1,
        "failed": 1,
        "diverged": 1,
        "not_run": 1,
        "interrupted": 2,
        "running": 1,
        "missing": 1,
    }
    assert [(s.run_id, s.progress.step, s.progress.loss) for s in running] == [(jobs[6].run_id, 3, 4.25)]
    assert f"running  {jobs[6].run_id}  3/10  loss 4.250  CV 0.50" in text
    for end, job in zip(("failed", "diverged", "not run"), jobs[1:4], strict=True):
        assert f"{end}  {job.run_id}  made to be {end.replace(' ', '_')}" in text
    # The holder was killed: its run is no longer running, and is resumed by the next launch.
    assert counts(outputs)["interrupted"] == 3


def test_a_killed_run_that_left_nothing_is_missing(outputs):
    jobs = launched("seed=0")
    leave_held(jobs[0])
    assert counts(outputs) == {"missing": 1}


def test_only_the_first_line_of_an_error_is_shown(outputs):
    (job,) = launched("seed=0")
    finish(job, "failed")
    path = job.planned.folder.summary
    summary = read_summary(path)
    path.write_text(json.dumps(summary | {"error": "first\nsecond"}))
    assert [s.error for s in status_of(outputs).states] == ["first"]


def test_two_launches_of_one_study_have_a_row_each_and_a_shared_run_counts_in_both(outputs):
    first = launched("seed=0", "seed=1")
    launched("seed=1", "seed=2", study="core")
    finish(first[1])
    assert counts(outputs) == counts(outputs, "core") == {"done": 1, "missing": 1}
    jobs = jobs_of("seed=5")
    write_launch(load_study(STUDY), ["seed=5"], jobs)
    rows = [s for s in all_statuses(outputs)[0] if s.study == STUDY]
    assert sorted(len(s.states) for s in rows) == [1, 2]


def test_what_still_waits_is_no_missing_run(outputs):
    constants = ("t0_5", "t0_7", "t1_0", "t1_5", "t2_0", "t3_0", "t5_0", "t10_0")
    lines = [f"router=temperature seed=0 temperature={t}" for t in (*constants, "best_long")]
    launched(*lines, study="temperature")
    assert counts(outputs, "temperature") == {"missing": 8, "waiting": 1}


def test_a_finished_study_has_nothing_to_go_on_with_and_an_unfinished_one_says_how(outputs):
    jobs = launched("seed=0", "seed=1")
    for job in jobs:
        finish(job)
    assert "to go on" not in printed(outputs)
    finish(jobs[0], "failed")
    assert f"to go on: python train.py sweeps={STUDY} " in printed(outputs)


def test_json_tells_the_same_and_names_what_was_left_out(outputs, capsys):
    jobs = launched("seed=0", "seed=1")
    finish(jobs[0], "diverged")
    (outputs / "studies" / "broken.json").write_text("{")
    assert command.main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = [s for s in told["studies"] if s["study"] == STUDY]
    assert {state: row[state] for state in STATES if row[state]} == {"diverged": 1, "missing": 1}
    assert row["expected"] == 2 and [run["run_id"] for run in row["runs"]] == [job.run_id for job in jobs]
    assert row["runs"][0]["error"] == "made to be diverged"
    assert list(told["skipped"]) == ["broken.json"]
    assert command.main(["status"]) == 0
    assert "left out broken.json" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["{", '{"schema": 1}'])
def test_a_damaged_summary_is_a_run_to_be_made_again(outputs, damage):
    (job,) = launched("seed=0")
    finish(job)
    job.planned.folder.summary.write_text(damage)
    assert counts(outputs) == {"interrupted": 1}


@pytest.mark.parametrize("error", [None, ""])
def test_a_failed_run_without_a_reason_is_still_told(outputs, error, capsys):
    jobs = launched("seed=0")
    finish(jobs[0], "failed")
    path = jobs[0].planned.folder.summary
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": error}))
    assert command.main(["status", "--json"]) == 0
    told = [run for study in json.loads(capsys.readouterr().out)["studies"] for run in study["runs"]]
    assert [run["error"] for run in told if run["state"] == "failed"] == ["no reason was kept"]


@pytest.mark.parametrize("damage", [{"launched": None}, {"study": ["a"]}, {"typed": [3]}])
def test_a_launch_with_values_of_the_wrong_kind_is_left_out_alone(outputs, damage):
    launched("seed=0")
    (path,) = (outputs / "studies").glob("*.json")
    (outputs / "studies" / "bad.json").write_text(json.dumps(json.loads(path.read_text()) | damage))
    statuses, skipped = all_statuses(outputs)
    assert list(skipped) == ["bad.json"] and any(s.launched for s in statuses)

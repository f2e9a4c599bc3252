"""Each job comes to one end, whatever happens to it: waiting, held by others, failing, crashing, stopped."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
from study_cases import StandIn, age, finish, hold_elsewhere, jobs_of, leave_held, name

from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.stopping import tell_to_stop, told_to_stop
from spectra_exp.runs.best_long import CONSTANTS
from spectra_exp.studies.command import make_missing
from spectra_exp.studies.job import check_twice
from spectra_exp.studies.launch import CRASHED, run_jobs
from spectra_exp.studies.launchers import Broken, own_signals


def test_finished_runs_are_not_launched_again(outputs):
    jobs = jobs_of("seed=0", "seed=1", "seed=2")
    finish(jobs[1])
    engine = StandIn(jobs)
    assert run_jobs(jobs, engine) == {"completed": 3}
    assert engine.batches == [["seed=0", "seed=2"]]
    again = StandIn(jobs_of("seed=0", "seed=1", "seed=2"))
    assert run_jobs(again.jobs, again) == {"completed": 3}
    assert again.batches == []


def test_force_launches_finished_runs_once(outputs):
    for job in jobs_of("seed=0", "seed=1"):
        finish(job)
    jobs = jobs_of("force=true seed=0", "force=true seed=1")
    engine = StandIn(jobs)
    assert run_jobs(jobs, engine) == {"completed": 2}
    assert engine.batches == [["seed=0", "seed=1"]]


def test_a_failed_job_leaves_the_others_alone_and_is_launched_again_next_time(outputs):
    def fails(job):
        return finish(job, "failed" if name(job) == "seed=1" else "completed")

    jobs = jobs_of("seed=0", "seed=1", "seed=2")
    assert run_jobs(jobs, StandIn(jobs, fails)) == {"completed": 2, "failed": 1}
    jobs = jobs_of("seed=0", "seed=1", "seed=2")
    engine = StandIn(jobs)
    assert run_jobs(jobs, engine) == {"completed": 3}
    assert engine.batches == [["seed=1"]]


def test_one_run_asked_for_in_two_ways_is_one_job(outputs):
    jobs = jobs_of("osr=paper ablation=no_all seed=0", "osr=paper ablation=cumulative_1 seed=0")
    assert len(jobs) == 1
    assert jobs[0].also == [[*jobs[0].overrides[:-2], "ablation=cumulative_1", "seed=0"]]


def test_the_same_line_twice_and_no_line_are_refused():
    with pytest.raises(ConfigError, match="twice"):
        check_twice([["seed=0"], ["seed=1"], ["seed=0"]])
    with pytest.raises(ConfigError, match="no job"):
        check_twice([])


def test_a_run_that_another_process_makes_is_waited_for(outputs, capsys):
    jobs = jobs_of("seed=0", "seed=1")
    other = hold_elsewhere(jobs[0], 2.0)
    engine = StandIn(jobs)
    assert run_jobs(jobs, engine) == {"completed": 2}
    assert other.wait() == 0
    # The other process left nothing behind, so the run was made here, after the free one.
    assert engine.batches == [["seed=1"], ["seed=0"]]
    assert "another process" in capsys.readouterr().err


def test_best_long_waits_for_the_constants(outputs):
    lines = [f"router=temperature seed=0 temperature={t}" for t in ("best_long", *CONSTANTS)]
    jobs = jobs_of(*lines)
    assert jobs[0].planned is None
    losses = dict(zip((f"temperature={t}" for t in CONSTANTS), (5, 4, 3, 2, 3, 4, 5, 6), strict=True))
    engine = StandIn(jobs, lambda job: finish(job, val_loss=losses.get(name(job), 1)))
    assert run_jobs(jobs, engine) == {"completed": 9}
    assert engine.batches[0] == list(losses) and engine.batches[1] == ["temperature=best_long"]
    assert jobs[0].planned.experiment.temperature.value == 1.5


def test_best_long_says_what_it_still_waits_for(outputs):
    jobs = jobs_of(*(f"router=temperature seed=0 temperature={t}" for t in ("best_long", *CONSTANTS)))
    engine = StandIn(jobs, lambda job: finish(job, "failed" if "t2_0" in name(job) else "completed", val_loss=2))
    assert run_jobs(jobs, engine) == {"completed": 7, "failed": 1, "waiting": 1}
    assert ["t2_0" in str(job.waits) for job in jobs if job.waits] == [True]


def test_best_long_alone_is_refused_before_anything_runs(outputs):
    with pytest.raises(ConfigError, match="best_long"):
        jobs_of("router=temperature seed=0 temperature=best_long")


class Crashes(StandIn):
    """A worker dies over the jobs named, and takes the batch's other running job down with it."""

    def __init__(self, jobs, culprits, bystander=None, until=99):
        super().__init__(jobs)
        self.culprits, self.bystander, self.until = culprits, bystander, until

    def launch(self, batch):
        if len(self.batches) < self.until and any(name(job) in self.culprits for job in batch):
            self.batches.append([name(job) for job in batch])
            for job in batch:
                if name(job) in self.culprits or name(job) == self.bystander:
                    leave_held(job)
            raise Broken("a worker process died")
        return super().launch(batch)


def test_a_job_that_kills_its_worker_fails_alone(outputs, capsys):
    jobs = jobs_of("seed=0", "seed=1", "seed=2")
    engine = Crashes(jobs, {"seed=1"}, bystander="seed=0")
    assert run_jobs(jobs, engine) == {"completed": 2, "failed": 1}
    # All; those that were not running; then the two suspects, each alone.
    assert engine.batches == [["seed=0", "seed=1", "seed=2"], ["seed=2"], ["seed=0"], ["seed=1"]]
    summary = jobs[1].planned.folder.read_summary()
    assert (summary["status"], summary["error"]) == ("failed", CRASHED)
    assert CRASHED in capsys.readouterr().err


def test_a_crash_that_does_not_come_back_costs_nothing(outputs):
    jobs = jobs_of("seed=0", "seed=1")
    engine = Crashes(jobs, {"seed=1"}, until=1)
    assert run_jobs(jobs, engine) == {"completed": 2}


def test_retries_give_a_crashing_job_more_attempts_alone(outputs):
    jobs = jobs_of("launch.retries=2 seed=0", "launch.retries=2 seed=1")
    engine = Crashes(jobs, {"seed=1"})
    assert run_jobs(jobs, engine) == {"completed": 1, "failed": 1}
    assert engine.batches[2:] == [["seed=1"]] * 3


def test_what_ended_before_the_crash_stays_ended(outputs):
    jobs = jobs_of("force=true seed=0", "force=true seed=1", "force=true seed=2")
    for job in jobs:
        finish(job)
        age(job.planned.folder.summary, 3600)

    class EndsThenCrashes(StandIn):
        def launch(self, batch):
            if not self.batches:
                self.batches.append([])
                finish(jobs[0])
                finish(jobs[1], "failed")
                raise Broken("a worker process died")
            return super().launch(batch)

    engine = EndsThenCrashes(jobs)
    assert run_jobs(jobs, engine) == {"completed": 2, "failed": 1}
    assert engine.batches == [[], ["seed=2"]]


def test_a_launch_told_to_stop_starts_no_more(outputs):
    jobs = jobs_of("seed=0", "seed=1", "seed=2")

    def fails(job):
        if told_to_stop():
            return "not started"
        if name(job) == "seed=1":
            tell_to_stop()
            return finish(job, "failed")
        return finish(job)

    assert run_jobs(jobs, StandIn(jobs, fails)) == {"completed": 1, "failed": 1, "not started": 1}
    assert not told_to_stop()
    jobs = jobs_of("seed=0", "seed=1", "seed=2")
    assert run_jobs(jobs, StandIn(jobs)) == {"completed": 3}


def test_a_signal_ends_the_loop(outputs):
    jobs = jobs_of("seed=0", "seed=1")

    def stopped(job):
        if stopping.asked():
            return "not started"
        stopping.ask("SIGTERM")
        return finish(job, "stopped")

    try:
        assert run_jobs(jobs, StandIn(jobs, stopped)) == {"stopped": 1, "not started": 1}
    finally:
        stopping.ask(None)


def test_a_launch_that_is_stopped_does_not_blame_what_still_waits(outputs, capsys):
    jobs = jobs_of(*(f"router=temperature seed=0 temperature={t}" for t in ("best_long", *CONSTANTS)))

    def stopped(job):
        stopping.ask("SIGTERM")
        return finish(job, "stopped")

    try:
        with pytest.raises(KeyboardInterrupt):
            make_missing(jobs, StandIn(jobs, stopped), "study")
    finally:
        stopping.ask(None)
    assert "error" not in capsys.readouterr().err


def test_a_finished_run_learns_which_studies_it_is_part_of(outputs):
    for study in ("first", "second"):
        jobs = jobs_of(f"study={study} seed=0")
        run_jobs(jobs, StandIn(jobs))
    assert jobs[0].planned.folder.read_summary()["studies"] == ["first", "second"]


def test_a_ray_that_does_not_start_leaves_the_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with suppress(RuntimeError), own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RuntimeError("no Ray")
    after = signal.signal(signal.SIGTERM, before)
    assert after == before

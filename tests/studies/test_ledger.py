"""What a launch leaves behind for `status`: every run it asked for, under every line that asked for it."""

from __future__ import annotations

import json
import shlex

import pytest
from study_cases import TINY, jobs_of

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.ledger import read_launch, read_launches, write_launch

TYPED = [*TINY, "seed=0,1", "launch.retries=1", "force=true", "hydra.verbose=true"]


def written(*lines: str, typed: list[str] = TYPED):
    jobs = jobs_of(*lines)
    return jobs, write_launch(load_study("core"), typed, jobs)


def test_a_launch_reads_back_as_it_was_written(outputs):
    jobs, path = written("osr=paper ablation=no_all seed=0", "osr=paper ablation=cumulative_1 seed=0", "seed=1")
    launch = read_launch(path)
    assert launch.study == "core" and path.parent == outputs / "studies"
    # How it was launched is no part of what was asked for; the command has all of it but what would begin anew.
    assert launch.typed == [*TINY, "seed=0,1"]
    again = [part for part in TYPED if part != "force=true"]
    assert shlex.split(launch.command) == ["python", "train.py", "ablations=core", *again]
    assert [(r.run_id, r.cell_id, r.seed, r.overrides) for r in launch.runs] == [
        (j.run_id, j.planned.identity.cell_id, j.experiment.seed, j.overrides) for j in jobs
    ]
    assert [r.also for r in launch.runs] == [[[*TINY, "osr=paper", "ablation=cumulative_1", "seed=0"]], []]


def test_a_run_that_waits_for_others_has_no_id_yet(outputs):
    constants = ("t0_5", "t0_7", "t1_0", "t1_5", "t2_0", "t3_0", "t5_0", "t10_0")
    _, path = written(*(f"router=temperature seed=0 temperature={t}" for t in (*constants, "best_long")))
    ids = [(run.run_id is None, run.cell_id is None) for run in read_launch(path).runs]
    assert ids == [(False, False)] * 8 + [(True, True)]


def test_the_same_runs_are_one_file_and_others_another(outputs):
    first = written("seed=0", "seed=1")[1]
    assert written("seed=0", "seed=1", typed=[*TYPED, "launch.on_failure=stop"])[1] == first
    assert "launch.on_failure=stop" in read_launch(first).command
    assert written("seed=0", "seed=2")[1] != first
    assert len(read_launches(outputs)[0]) == 2


def test_launches_come_oldest_first_and_a_bad_file_is_named_with_its_reason(outputs):
    paths = [written(f"seed={seed}")[1] for seed in (0, 1)]
    contents = [json.loads(path.read_text()) for path in paths]
    for path, content, day in zip(paths, contents, ("02", "01"), strict=True):
        path.write_text(json.dumps(content | {"launched": f"2026-01-{day}T00:00:00+00:00"}))
    folder = outputs / "studies"
    (folder / "cut.json").write_text(paths[0].read_text()[:100])
    (folder / "future.json").write_text(json.dumps(contents[0] | {"schema": 99}))
    (folder / "foreign.json").write_text("[1]")
    launches, skipped = read_launches(outputs)
    assert [launch.runs[0].seed for launch in launches] == [1, 0]
    assert skipped.keys() == {"cut.json", "future.json", "foreign.json"}
    assert "schema 99" in skipped["future.json"] and "not a study's launch" in skipped["cut.json"]
    with pytest.raises(SpectraError, match="cut.json"):
        read_launch(folder / "cut.json")

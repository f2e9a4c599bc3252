"""Every study seen through at two steps, each run to its end, in one process as a launch of it goes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spectra_exp import cli
from spectra_exp.config.compose import prepare_environment
from spectra_exp.runs.summary import read_summary
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.ledger import read_launches
from spectra_exp.studies.status import all_statuses

SMALL = [
    "seed=0",
    "trainer.max_steps=2",
    "trainer.batch_size=2",
    "trainer.accumulation=1",
    "data.train_words=5000",
    "data.validation_words=2000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=512",
    "data.probe_tokens=256",
]
SIZES = {"model.num_layers": 2, "model.hidden_size": 16, "model.num_heads": 2, "model.expert_size": 16}
# What a study varies is left as it is, but for lengths of context that no test has time for.
OWN = {"scaling_model": [], "e_context": ["data.sequence_length=16,32", "data.document_words=2000"]}
# Sweep B is a whole grid of one piece of code: its corners.
SLICES = {"b_sinkhorn": ["osr.sinkhorn_epsilon=0.03,0.2", "osr.sinkhorn_iterations=2,8"]}


# Of each kind one; the rest takes minutes and is for make test-full.
USUAL = ("a_quota", "core")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def typed_for(name: str) -> list[str]:
    sizes = [] if name == "scaling_model" else [f"{key}={value}" for key, value in SIZES.items()]
    length = [] if name == "e_context" else ["data.sequence_length=16"]
    return [*SMALL, *sizes, *length, *OWN.get(name, []), *SLICES.get(name, [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.full) for n in study_files()])
def test_every_study_is_seen_through(tmp_path: Path, cache: Path, monkeypatch, capsys, name: str) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)
    study, typed = load_study(name), typed_for(name)
    assert cli.main([study.choice, *typed]) == 0, capsys.readouterr().err
    (launch,), _ = read_launches(tmp_path)
    summaries = [read_summary(path) for path in tmp_path.glob("runs/*/summary.json")]
    assert Counter(s["status"] for s in summaries) == {"completed": len(launch.runs)}
    assert all(s["studies"] == [name] and s["causal"] is not None for s in summaries)
    if name not in (*SLICES, *OWN):
        assert len(launch.runs) == study.runs.get("osr=paper", study.runs.get("any"))
    # Nothing is left, and another launch makes nothing.
    (status,) = [s for s in all_statuses(tmp_path)[0] if s.study == name]
    expected = len(launch.runs)
    assert status.counts()["done"] == expected
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/summary.json")}
    assert cli.main([study.choice, *typed]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/summary.json")} == before
    assert len(study_jobs(study, typed)) >= expected


@pytest.mark.slow
def test_lengths_that_do_not_fit_are_recorded_as_not_run_with_the_reason(tmp_path: Path, cache, monkeypatch) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)
    typed = [*typed_for("e_context"), "ablation=none", "trainer.time_budget_s=0.001", "trainer.max_steps=40"]
    typed.remove("trainer.max_steps=2")
    assert cli.main(["sweeps=e_context", *typed]) == 0
    summaries = [read_summary(path) for path in tmp_path.glob("runs/*/summary.json")]
    assert {s["status"] for s in summaries} == {"not_run"} and len(summaries) == 2
    assert all("more than trainer.time_budget_s" in s["error"] for s in summaries)

"""Whole studies of runs that never ran, written by the project's own writers, so that tests can predict every cell."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.files import write_json, write_text
from spectra_exp.measure import METRICS
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs import plan as plan_module
from spectra_exp.runs.history import History
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.routing_files import save_snapshot
from spectra_exp.runs.summary_head import summary_head
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import Job, make_jobs
from spectra_exp.studies.ledger import write_launch
from spectra_exp.training.execute import _plain

CORPUS = SimpleNamespace(
    vocabulary_size=2048,
    fingerprint="d" * 16,
    evaluation_fingerprint="e" * 16,
    final=None,
    eval_unigram_cross_entropy=5.5,
)
DOMAINS = ("code", "math", "science", "literature")
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
LAYERS, EXPERTS = 2, 8

Figures = Callable[[Job], dict[str, Any]]


@contextlib.contextmanager
def no_data() -> Iterator[None]:
    """Plans without tokenising anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "load_corpus", lambda *arguments: CORPUS)
        patch.setattr(plan_module, "_LOADED", {})
        prepare_environment()
        yield


def make_study(
    outputs: Path,
    study: str,
    figures: Figures,
    typed: tuple[str, ...] = (),
    curves: bool | Callable[[Job], bool] = False,
) -> list[Job]:
    """Launch `study` with what was typed and leave a completed run for each job.

    `figures`: changes to a job's summary, by job; its `metrics` are added to made-up ones, and None leaves the run
    unmade. `curves`: also history and routing snapshots, or which jobs have them. SPECTRA_OUTPUTS must be `outputs`.
    """
    with no_data():
        found = load_study(study)
        jobs = make_jobs(study_jobs(found, list(typed)))
        for job in jobs:
            changes = figures(job) if job.planned is not None else None
            if changes is not None:
                write_run(job, changes, curves(job) if callable(curves) else curves)
        write_launch(found, list(typed), jobs)
    return jobs


def given(job: Job) -> dict[str, str]:
    """The job's overrides, by key."""
    return dict(part.split("=", 1) for part in job.overrides)


def write_run(job: Job, changes: dict[str, Any], curves: bool) -> None:
    """The folder of a completed run with these figures."""
    folder, experiment = job.planned.folder, job.planned.experiment
    seed = experiment.seed
    head = summary_head(job.planned, {"code_version": code_version()}, "2026-01-01T00:00:00+00:00")
    # A completed run made all the steps of its configuration.
    steps = changes.get("max_steps", experiment.trainer.max_steps)
    config = _plain(replace(experiment, trainer=replace(experiment.trainer, max_steps=steps)))
    head |= {
        "status": "completed",
        "steps": steps,
        "floors": {"load_cv": 0.01, "routing_consistency": 0.3},
        "parameters": {"total": 2_500_000, "active": 1_200_000},
        "flops_per_token": 1.5e6,
        "causal": True,
        "causal_training": True,
        "finished": "2026-01-01T00:02:00+00:00",
        "timings": {"step_time_ms": 300.0, "tokens_per_second": 6000.0, "peak_memory_mb": 900.0, "wall_s": 100.0},
        "initial_weights": {"embed": f"2048x128:{seed}"},
    }
    head["fingerprints"] |= {"batches": f"b{seed}", "initial_weights": f"w{seed}"}
    changes = dict(changes)
    head["fingerprints"] |= changes.pop("fingerprints", {})
    metrics = made_up_metrics(seed) | changes.pop("metrics", {})
    head |= {"metrics": metrics} | changes
    write_json(folder.summary, head)
    write_text(folder.config, yaml.safe_dump(config, sort_keys=False))
    write_text(folder.log, "2026-01-01 00:00:00 INFO spectra_exp: training begins\n")
    if curves:
        write_curves(job, metrics)


def made_up_metrics(seed: int) -> dict[str, float]:
    """Some value for every metric there is."""
    rng = np.random.default_rng(seed)
    found = {name: round(0.2 + 0.01 * rng.random(), 6) for name in METRICS}
    # The first of two experts has half of the weight, the largest of four domains a quarter, or more; an expert works.
    found |= {"routing_confidence": 0.5, "domain_purity": 0.5, "order_purity": 0.6, "effective_experts": 1.5}
    loss = 4.0 + 0.1 * seed
    return found | {
        "val_loss": loss,
        "train_loss": loss - 0.1,
        "val_perplexity": math.exp(loss),
        "val_accuracy": 0.2,
        **{f"val_loss_{domain}": loss + 0.01 * i for i, domain in enumerate(DOMAINS)},
        **{f"val_perplexity_{domain}": math.exp(loss + 0.01 * i) for i, domain in enumerate(DOMAINS)},
    }


def write_curves(job: Job, metrics: dict[str, float]) -> None:
    """History and snapshots that end at the summary's figures."""
    folder, steps = job.planned.folder, job.planned.experiment.trainer.max_steps
    rng = np.random.default_rng(job.experiment.seed)
    history = History()
    for step in range(10, steps + 1, 10):
        done = step / steps
        loss = metrics["train_loss"] + 3 * (1 - done) ** 2
        norms = {f"grad_norm_{group}": 1.0 - 0.5 * done for group in ("router", "experts", "other")}
        others = {"load_cv_batch": 0.5 - 0.3 * done, "temperature": 1.0}
        history.add(step, done, "train", {"train_loss": loss} | others | norms)
    for fraction in FRACTIONS:
        step = round(fraction * steps)
        for layer in ("all", *range(LAYERS)):
            values = {name: metrics[name] * (2 - fraction) for name in METRICS if name in metrics}
            history.add(step, fraction, "validation", values, layer)
        losses = {k: v + 3 * (1 - fraction) ** 2 for k, v in metrics.items() if k.startswith("val_")}
        history.add(step, fraction, "validation", losses)
        save_snapshot(folder.routing, made_snapshot(rng, step, fraction))
    history.save(folder.history)


def made_snapshot(rng: np.random.Generator, step: int, fraction: float) -> RoutingSnapshot:
    """Random routing of 512 tokens in 4 documents of 4 domains, 64 probe tokens, k 2."""
    share = rng.dirichlet(np.full(EXPERTS, 5.0), size=(LAYERS, 4))
    counts = np.stack([[rng.multinomial(256, share[layer, g]) for g in range(4)] for layer in range(LAYERS)])
    probe = np.stack([[rng.permutation(EXPERTS)[:2] for _ in range(64)] for _ in range(LAYERS)])
    weights = np.full((LAYERS, 64, 2), 0.5, dtype=np.float32)
    return RoutingSnapshot(step, fraction, 2, 512, counts, counts, probe.astype(np.int16), weights)

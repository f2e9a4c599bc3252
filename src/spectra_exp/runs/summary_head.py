"""What a run's summary says before its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectra_exp.config.names import own_settings, run_label
from spectra_exp.config.resolved import resolved_experiment
from spectra_exp.config.tree import train_words
from spectra_exp.runs.plan import Plan
from spectra_exp.runs.provenance import stored_compositions
from spectra_exp.runs.summary import SCHEMA


def summary_head(planned: Plan, made_by: dict[str, Any], started: str) -> dict[str, Any]:
    """The summary of a run that has not trained yet; `made_by`: its `code_version`."""
    experiment, corpus = planned.experiment, planned.corpus
    # The set behind the summary's figures.
    scored = corpus.final or corpus
    resolved, compositions = resolved_experiment(experiment), stored_compositions(Path(experiment.outputs))
    label = run_label(resolved, own_settings(resolved, compositions))
    compositions.save()
    groups = ("router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
    return {
        "schema": SCHEMA,
        "run_id": planned.identity.run_id,
        "cell_id": planned.identity.cell_id,
        "name": planned.identity.run_id.rsplit("-s", 1)[0],
        "label": label,
        "studies": [experiment.study] if experiment.study else [],
        "status": "failed",
        "error": None,
        "seed": experiment.seed,
        **{group: experiment.choices[group] for group in groups},
        "command": " ".join([*train_words(), *experiment.overrides]),
        "steps": 0,
        "max_steps": experiment.trainer.max_steps,
        "metrics": {},
        "metrics_by_layer": {},
        "metrics_training_rule": {},
        "floors": {},
        "parameters": {},
        "flops_per_token": None,
        "size_as_measured": False,
        "causal": None,
        "causal_training": None,
        "timings": {},
        "fingerprints": {
            "data": corpus.fingerprint,
            "evaluation": scored.evaluation_fingerprint,
            "code": made_by["code_version"],
        },
        "unigram_loss": scored.eval_unigram_cross_entropy,
        "started": started,
    }

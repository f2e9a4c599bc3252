"""What a run's summary says before its training, and the name of its method."""

from __future__ import annotations

from typing import Any

from spectra_exp.config.schema import Experiment
from spectra_exp.runs.plan import Plan

SCHEMA = 1
# Groups whose typed keys make another method of it.
METHOD_GROUPS = ("router", "osr", "selection", "temperature", "losses")


def summary_head(planned: Plan, made_by: dict[str, Any], started: str) -> dict[str, Any]:
    """The summary of a run that has not trained yet; `made_by`: its `code_version`."""
    experiment, corpus = planned.experiment, planned.corpus
    # The set behind the summary's figures.
    scored = corpus.final or corpus
    groups = ("router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
    return {
        "schema": SCHEMA,
        "run_id": planned.identity.run_id,
        "cell_id": planned.identity.cell_id,
        "name": planned.identity.run_id.rsplit("-s", 1)[0],
        "label": label(experiment),
        "studies": [experiment.study] if experiment.study else [],
        "status": "failed",
        "error": None,
        "seed": experiment.seed,
        **{group: experiment.choices[group] for group in groups},
        "command": " ".join(["python train.py", *experiment.overrides]),
        "steps": 0,
        "max_steps": experiment.trainer.max_steps,
        "metrics": {},
        "metrics_by_layer": {},
        "metrics_training_rule": {},
        "floors": {},
        "parameters": {},
        "flops_per_token": None,
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


def label(experiment: Experiment) -> str:
    """Readable name of the method, from the options chosen."""
    choices = experiment.choices
    parts = [choices["router"]]
    if choices["baseline"] != "none":
        parts = [choices["baseline"].replace("_", " ")]
    elif choices["osr"] != "none":
        parts.append(f"({choices['osr']})")
    parts += [choices["ablation"]] if choices["ablation"] != "none" else []
    parts += [f"T={choices['temperature']}"] if choices["temperature"] != "t1_0" else []
    typed = [o for o in experiment.overrides if o.partition(".")[0] in METHOD_GROUPS and "." in o.partition("=")[0]]
    typed += [o for o in experiment.overrides if o.partition("=")[0] == "selection"]
    return " ".join([*parts, *typed])

"""Scores of finished runs on downstream tasks: found, made by the harness, and kept by task and by item."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsFloat

import pandas as pd
import yaml
from transformers.utils import logging as transformers_logging

from spectra_exp.config.compose import load_experiment
from spectra_exp.data.corpus import Corpus, load_corpus
from spectra_exp.data.documents import digest
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.downstream.tasks import SCORE, chance_of, check_known, local_task, task_digest, task_files, task_names
from spectra_exp.foundations.errors import ConfigError, SpectraError, nearest
from spectra_exp.moe.model import SpectraMoeForCausalLM, load_checkpoint
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.limits import chosen_device
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import change_summary, change_with_file

# The figure of a task that counts, the first that it has: normalised by the length of the choices where there is that.
PREFERRED = ("acc_norm", "acc", "exact_match", "pass@1", "f1", "mcc")
# Resamples behind the standard error of a figure that is no mean.
BOOTSTRAP = 1000
# Fields of an item whose text several items can share.
PASSAGES = ("passage", "context", "article", "story", "paragraph")


def find_runs(given: str, runs: Path) -> list[RunFolder]:
    """The folders that `run=` names, each once. Raises ConfigError for a name without one."""
    found: dict[str, RunFolder] = {}
    for name in filter(None, (part.strip() for part in given.split(","))):
        if any(letter in name for letter in "*?["):
            names = sorted(p.name for p in runs.iterdir() if fnmatch.fnmatch(p.name, name)) if runs.is_dir() else []
            folders = [RunFolder(runs, n) for n in names if RunFolder(runs, n).status() == "completed"]
            if not folders:
                problem = f"no completed run in {runs} matches '{name}'"
                raise ConfigError("run", problem, "see `spectra-exp study status`")
        else:
            path = Path(name).expanduser().resolve() if "/" in name else runs / name
            if not path.is_dir():
                known = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                close = nearest(path.name, known)
                hint = f"did you mean '{close}'? " if close else ""
                raise ConfigError("run", f"there is no run {path}", f"{hint}`ls {path.parent}` lists {len(known)} runs")
            folders = [RunFolder(path.parent, path.name)]
        found |= {folder.path.as_posix(): folder for folder in folders}
    for folder in found.values():
        if (status := folder.status()) != "completed":
            raise ConfigError("run", f"{folder.run_id} is {status}", "finish it first by the same command")
    return list(found.values())


@dataclass(frozen=True)
class Wanted:
    """One task: what the harness is given, and what makes two scores of it comparable."""

    name: str
    spec: str | dict[str, Any]
    settings: dict[str, Any]
    chance: float | None


def wanted_tasks(options: EvaluateOptions, harness_names: Callable[[], list[str]]) -> list[Wanted]:
    """The tasks with their settings. Raises ConfigError before any model is loaded."""
    found = []
    names = task_names(options.tasks)
    if set(names) - set(task_files()):
        check_known(names, harness_names())
    shared = {"limit": options.limit, "fewshot": options.fewshot, "max_length": options.max_length}
    for name in names:
        if name in task_files():
            spec = local_task(name, options.data)
            found.append(Wanted(name, spec, shared | {"content": task_digest(spec)}, chance_of(spec, options.limit)))
        else:
            content = f"lm_eval {metadata.version('lm_eval')}"
            found.append(Wanted(name, name, shared | {"content": content}, None))
    return found


def left_to_score(folder: RunFolder, wanted: list[Wanted], force: bool) -> list[Wanted]:
    """The tasks that the run has no score of by the same settings."""
    have = folder.read_summary().get("downstream") or {}
    return [task for task in wanted if force or have.get(task.name, {}).get("settings") != task.settings]


def load_run(folder: RunFolder, outputs: Path) -> tuple[SpectraMoeForCausalLM, Corpus]:
    """A finished run's last model and its corpus."""
    checkpoint = folder.latest_checkpoint()
    if checkpoint is None:
        raise SpectraError(f"{folder.path}: no checkpoint to evaluate")
    typed = yaml.safe_load((folder.hydra / "overrides.yaml").read_text(encoding="utf-8"))
    experiment = load_experiment([o for o in typed if not o.startswith(("outputs=", "hydra"))])
    corpus = load_corpus(experiment.data, outputs / "cache")
    if corpus.fingerprint != folder.read_summary()["fingerprints"]["data"]:
        raise SpectraError(f"{folder.path}: its data are no longer what it was trained on, so its tokenizer is lost")
    return load_checkpoint(checkpoint), corpus


def score_tasks(
    folder: RunFolder,
    tasks: list[Wanted],
    options: EvaluateOptions,
    outputs: Path,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, dict[str, Any]], dict[str, pd.DataFrame | None]]:
    """What the harness finds, by task: all its figures, the one that counts with its standard error, and chance; and
    the same by item, None where that is no mean over items."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from spectra_exp.downstream.language_model import SpectraLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    device = chosen_device(options.device)
    model, corpus = load_run(folder, outputs)
    length = options.max_length or corpus.sequence_length
    language_model = SpectraLM(
        model, corpus.load_tokenizer(), corpus.eos_token, options.batch_size, length, device, progress
    )
    found, items = {}, {}
    own = all(isinstance(task.spec, dict) for task in tasks)
    for task in tasks:
        # The harness's own progress bars.
        with contextlib.redirect_stderr(io.StringIO()):
            results = lm_eval.simple_evaluate(
                model=language_model,
                tasks=[task.spec],
                limit=options.limit,
                num_fewshot=options.fewshot,
                task_manager=TaskManager(include_defaults=not own),
                log_samples=True,
                bootstrap_iters=BOOTSTRAP,
                confirm_run_unsafe_code=options.run_code,
            )
        found[task.name] = _figures(task, results)
        items[task.name] = item_scores(task.name, found[task.name]["figure"], results)
    return found, items


def _figures(task: Wanted, results: dict[str, Any]) -> dict[str, Any]:
    """One task's entry; of a group of tasks, the harness's own aggregate."""
    name = task.name
    own = (results.get("groups") or {}).get(name) or results["results"][name]
    figures = {
        key.removesuffix(",none").replace(",", "_"): float(value)
        for key, value in own.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in ("alias", "sample_len")
    }
    plain = {key.partition("_stderr")[0] for key in figures}
    counts = next((m for m in PREFERRED if m in plain or any(k.startswith(f"{m}_") for k in plain)), None)
    chosen = next((k for k in figures if k == counts or counts and k.startswith(f"{counts}_")), None)
    if chosen is None:
        raise SpectraError(f"{name}: the harness gave none of {', '.join(PREFERRED)}, only {', '.join(figures)}")
    samples = results.get("n-samples", {}).get(name, {}).get("effective")
    return {
        "score": figures[chosen],
        "error": figures.get(f"{counts}_stderr{chosen.removeprefix(counts)}"),
        "figure": chosen,
        "items": samples,
        "chance": task.chance,
        "figures": figures,
        "settings": task.settings,
    }


def item_scores(task: str, figure: str, results: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows of `items` of one task, out of what the harness returns with its samples.

    figure: such as acc_norm, or with a filter's name acc_norm_strict. `group`: equal for items with one passage, else
    an item's own. None where the figure is no mean over items.
    """
    rows: list[dict[str, Any]] = []
    for name, samples in sorted((results.get("samples") or {}).items()):
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            scored = _by_filter(sample)
            # Other filters have samples of their own.
            if figure not in scored:
                continue
            # A figure over all items has several values of each here.
            if not isinstance(scored[figure], SupportsFloat) or not math.isfinite(scored[figure]):
                return None
            text = next((str(sample["doc"][key]) for key in PASSAGES if sample["doc"].get(key)), None)
            group = f"{name} {sample['doc_id']}" if text is None else digest(text)[:16]
            rows.append({"task": task, "item": len(rows), "group": group, "score": float(scored[figure])})
    return pd.DataFrame(rows).astype({"item": "int32"}) if rows else None


def _by_filter(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What a sample holds by name, the name of a filter after it."""
    name = sample.get("filter", "none")
    return {key if name == "none" else f"{key}_{name}": value for key, value in sample.items()}


def with_items(folder: RunFolder, found: Mapping[str, pd.DataFrame | None]) -> pd.DataFrame:
    """The rows of items of a run after these tasks were scored: in place of earlier ones of the same tasks."""
    earlier = StoredRun(folder.path).scores("items")
    kept = [] if earlier is None else [earlier[~earlier["task"].isin(list(found))]]
    parts = [part for part in (*kept, *found.values()) if part is not None and len(part)]
    rows = pd.concat(parts) if parts else pd.DataFrame({"task": [], "item": [], "group": [], "score": []})
    return rows.sort_values(["task", "item"], ignore_index=True)


def keep_scores(
    folder: RunFolder,
    scores: dict[str, dict[str, Any]],
    items: Mapping[str, pd.DataFrame | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """The run's summary with the scores beside its earlier ones; `downstream_score` is their unweighted mean.

    `items`: the scores by item, of the same tasks. A run that was changed since it ended does not get them.
    """
    with folder.hold(timeout=60):
        summary = folder.read_summary()
        tasks = (summary.get("downstream") or {}) | scores
        metrics = summary["metrics"] | {f"downstream_{name}": entry["score"] for name, entry in tasks.items()}
        metrics[SCORE] = sum(entry["score"] for entry in tasks.values()) / len(tasks)
        # None where the harness's own task does not say how many choices it has.
        floors = summary["floors"] | {f"downstream_{name}": entry["chance"] for name, entry in tasks.items()}
        chances = [entry["chance"] for entry in tasks.values()]
        floors[SCORE] = None if None in chances else sum(chances) / len(chances)
        prints = summary["fingerprints"] | {"downstream": tasks_fingerprint(tasks)}
        changes = {"downstream": tasks, "metrics": metrics, "floors": floors, "fingerprints": prints}
        if items and StoredRun(folder.path).changed_files is None:
            write = partial(with_items(folder, items).to_parquet, compression="zstd", index=False)
            change_with_file(folder.summary, folder.items, write, changes)
            return folder.read_summary()
        return change_summary(folder.summary, changes)


def tasks_fingerprint(tasks: dict[str, dict[str, Any]]) -> str:
    """32 hex digits that are equal for two runs just when their scores are of the same tasks in the same way."""
    return digest(*(f"{name}={sorted(tasks[name]['settings'].items())}" for name in sorted(tasks)))[:32]

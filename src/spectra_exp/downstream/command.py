"""`spectra-exp downstream`: finished runs on downstream tasks, by lm-evaluation-harness.

Scores land in each run's summary and, as their mean, in tables 10 and 11.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from spectra_exp.config.verb import Verb
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.downstream.tasks import SCORE, task_files
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.shell import DONE
from spectra_exp.runs.folder import RunFolder

T = TypeVar("T")


def evaluate(options: EvaluateOptions) -> int:
    """0 when every run has its scores. Raises SpectraError."""
    if not options.run:
        raise ConfigError("run", "no run was given", "give run=ID, a folder, or a pattern such as run='spectra-*'")
    if find_spec("lm_eval") is None:
        raise ConfigError("downstream", "the package lm_eval is not installed", "pip install 'spectra-exp[downstream]'")
    outputs = options.folder.resolve()
    # Read when the libraries are imported.
    os.environ.setdefault("HF_DATASETS_CACHE", str(outputs / "cache" / "datasets"))
    if not options.online:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if options.run_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    from datasets.utils import logging as datasets_logging

    from spectra_exp.downstream.scores import find_runs, keep_scores, left_to_score, score_tasks, wanted_tasks

    datasets_logging.disable_progress_bar()
    folders = find_runs(options.run, outputs / "runs")
    wanted = wanted_tasks(options, _harness_names)
    for folder in folders:
        tasks = left_to_score(folder, wanted, options.force)
        if tasks:
            # Its own file: the harness's bars on standard error are taken away.
            with Progress(console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()) as bar:
                line = bar.add_task(folder.run_id)
                work = partial(score_tasks, folder, tasks, options, outputs, partial(_show, bar, line))
                scores, items = _missing_data_told(options.online, work)
            keep_scores(folder, scores, items)
        Console(highlight=False).print(table_of(folder))
    return DONE


def _show(bar: Progress, line: TaskID, done: int, total: int) -> None:
    bar.update(line, completed=done, total=total)


def _harness_names() -> list[str]:
    from lm_eval.tasks import TaskManager

    return TaskManager().all_tasks


def _missing_data_told(online: bool, score: Callable[[], T]) -> T:
    """What `score()` returns; data sets that are not on this machine, or not to be had, are told in one line."""
    from datasets.exceptions import DatasetNotFoundError

    from spectra_exp.foundations.errors import hub_errors

    try:
        return score()
    except (DatasetNotFoundError, *hub_errors()) as error:
        elsewhere = "`hf download --repo-type dataset NAME` where there is a network, and copy HF_HOME here"
        raise ConfigError(
            "tasks",
            f"a data set is not on this machine ({' '.join(str(error).split())})",
            f"the hub was not reached; {elsewhere}" if online else f"online=true downloads it; or {elsewhere}",
        ) from error


def table_of(folder: RunFolder) -> Table:
    """The run's scores beside chance."""
    summary = folder.read_summary()
    table = Table(title=folder.run_id, title_justify="left", box=box.SIMPLE)
    for column in ("task", "figure", "score", "± error", "by chance", "items"):
        table.add_column(column, justify="left" if column in ("task", "figure") else "right")
    for name, entry in sorted(summary["downstream"].items()):
        chance, error = ("" if entry[name] is None else f"{entry[name]:.3f}" for name in ("chance", "error"))
        table.add_row(name, entry["figure"], f"{entry['score']:.3f}", error, chance, str(entry["items"] or ""))
    table.add_row("mean", "", f"{summary['metrics'][SCORE]:.3f}")
    return table


def _tasks_help() -> str:
    return f"local tasks: {', '.join(task_files())}; those of lm-evaluation-harness by their own names"


main = Verb(
    "downstream",
    EvaluateOptions,
    evaluate,
    "Scores finished runs on downstream tasks; the mean score is in the tables of sizes.",
    ("run=RUN_ID data=FOLDER", "run='spectra-*' tasks=hellaswag,piqa,arc_easy online=true"),
    more=_tasks_help,
)

"""The local tasks, `downstream/*.yaml`: what each reads, and the harness's own beside them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from spectra_exp.config.tree import named_files, project_root, read_yaml
from spectra_exp.data.documents import digest
from spectra_exp.foundations.errors import ConfigError, nearest

# The word for all local tasks, and what their names begin with: the harness has some of the same data sets.
LOCAL, PREFIX = "local", "local_"
# The run's figure that is the mean of its tasks' scores.
SCORE = "downstream_score"


def task_files() -> dict[str, Path]:
    """The file of each local task by its name, `local_<file>`."""
    return {f"{PREFIX}{name}": path for name, path in named_files("downstream").items()}


def task_names(given: str) -> list[str]:
    """The tasks that `tasks=` names, `local` written out, each once."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise ConfigError("tasks", "no task was given", "give tasks=local or names separated by commas")
    found = []
    local = task_files()
    if not local and any(name == LOCAL or name.startswith(PREFIX) for name in names):
        problem = f"there are no local tasks: {project_root() / 'downstream'} has no .yaml"
        raise ConfigError("tasks", problem, "set SPECTRA_ROOT to a checkout, or give those of lm-evaluation-harness")
    for name in names:
        found += list(local) if name == LOCAL else [name]
    return list(dict.fromkeys(found))


def local_task(name: str, data: str | None) -> dict[str, Any]:
    """The task's declaration with the place of its file in the folder `data`. Raises ConfigError."""
    declared = read_yaml(task_files()[name])
    (split, file), *_ = declared["dataset_kwargs"]["data_files"].items()
    if data is None:
        raise ConfigError("data", f"{name} reads {file} and no folder is named", "give data=FOLDER, or other tasks")
    path = Path(data).expanduser() / file
    if not path.is_file():
        raise ConfigError("data", f"there is no {path}", "name the folder that holds it")
    _check_items(path, re.findall(r"{{(\w+)}}", declared["doc_to_text"]))
    declared["dataset_kwargs"]["data_files"] = {split: str(path.resolve())}
    return declared


def _check_items(path: Path, texts: list[str]) -> None:
    """Raise ConfigError for the first line that is no item: its `texts`, choices, and the place of the right one."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            item = json.loads(line)
            good = all(isinstance(item[name], str) for name in texts) and 0 <= item["answer"] < len(item["choices"])
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            wanted = ", ".join([*(f'"{name}": ...' for name in texts), '"choices": [...], "answer": 0'])
            raise ConfigError("data", f"line {number} of {path} is no item", f"write {{{wanted}}}")


def chance_of(task: dict[str, Any], limit: int | None = None) -> float:
    """The accuracy of guessing at the first `limit` items of a local task."""
    (path,) = task["dataset_kwargs"]["data_files"].values()
    items = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()[:limit]]
    return sum(1 / len(item["choices"]) for item in items) / len(items)


def task_digest(task: dict[str, Any]) -> str:
    """16 hex digits over a local task's declaration and its file's content, whatever the folder."""
    (path,) = task["dataset_kwargs"]["data_files"].values()
    without_place = task | {"dataset_kwargs": {}}
    content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return digest(json.dumps(without_place, sort_keys=True), content)[:16]


def check_known(names: list[str], harness: list[str]) -> None:
    """Raise ConfigError for a name that neither the project nor the harness (its names: `harness`) has."""
    for name in names:
        if name in task_files() or name in harness:
            continue
        close = nearest(name, [*task_files(), *harness])
        hint = f"did you mean '{close}'? " if close else ""
        raise ConfigError("tasks", f"unknown name '{name}'", f"{hint}local: {', '.join(task_files())}")

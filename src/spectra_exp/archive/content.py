"""What of a run an archive holds, part by part, and the run read back from it.

summary         with its seal: the hashes of the run's files
config          differences from the defaults of its version of the code
environment     versions, machine, threads, commit
history         figures over all layers, and what is drawn by layer; evaluations, and training at 60 steps at most
routing         counts by layer, domain and expert at each snapshot
documents       scores by document and, in `items`, by item of a downstream task
analysis        the numbers behind the pictures that are made of weights
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from spectra_exp.archive.places import without_names, without_places
from spectra_exp.archive.trees import changed_texts
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import json_text
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.config_file import check_config
from spectra_exp.runs.history import TRAIN, History
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import SEAL, Summary, summary_problem

if TYPE_CHECKING:
    import pandas as pd

# Metrics whose curves are drawn layer by layer.
BY_LAYER = ("load_cv",)
# Curves of training that follow from the configuration, or from others times a coefficient, and nothing draws.
DERIVED = r"learning_rate_\w+|\w+_weighted"
MOST_STEPS = 60
PARTS = ("summary", "config", "environment", "history", "routing", "documents", "items", "analysis")
SCORES = ("documents", "items")
# Parts of the interpretation whose pictures no file of a run but its weights gives.
OF_WEIGHTS = ("expert_map", "landscape")
# Groups and keys of a configuration that change no result and can name people and machines.
LEFT_OUT = ("logger", "launch", "outputs", "hydra")
NO_LOG = "An archive keeps no log.\n"


def run_parts(stored: StoredRun) -> dict[str, Any]:
    """The parts of a run as plain values, without places and names; `config` whole.

    Of an archived run those that it has. Raises SpectraError for a run without summary or configuration, or with a file
    that cannot be read.
    """
    if isinstance(stored, ArchivedRun):
        return stored.parts
    if problem := stored.changed_files:
        raise SpectraError(problem)
    if problems := stored.examine():
        raise SpectraError("; ".join(f"{path.name}: {problem}" for path, problem in problems.items()))
    summary, config = stored.required_summary, stored.config
    if config is None:
        raise SpectraError("it has no config.yaml")
    parts: dict[str, Any] = {"summary": _summary(summary), "config": plain_config(config)}
    if text := stored.text(stored.folder.environment):
        parts["environment"] = json.loads(text)
    if stored.history is not None and not stored.history.empty:
        parts["history"] = history_tree(stored.history)
    if stored.snapshots:
        parts["routing"] = [_snapshot(snapshot) for snapshot in stored.snapshots.values()]
    for name in SCORES:
        if (scores := stored.scores(name)) is not None:
            parts[name] = _columns(scores)
    if data := _analysis(stored.folder.analysis):
        parts["analysis"] = data
    return changed_texts(parts, without_places)


def _summary(summary: Summary) -> dict[str, Any]:
    words = str(summary.get("command") or "").split(" ")
    kept = [word for word in words if word.partition("=")[0].partition(".")[0] not in LEFT_OUT]
    own = {"command": " ".join(kept)} if "command" in summary else {}
    error = {"error": without_names(str(summary["error"]))} if summary.get("error") else {}
    return {**summary, **own, **error, **({SEAL: summary.seal} if summary.seal is not None else {})}


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what changes no result and can name people and machines."""
    # A reader may rely on there being the key.
    return {key: value for key, value in config.items() if key not in LEFT_OUT} | {"outputs": ""}


def history_tree(history: pd.DataFrame) -> dict[str, Any]:
    """The rows that are kept: `times`, lists of [steps, fractions]; `curves`, by split, layer and metric the place of
    its times and its values."""
    kept = history[(history["layer"] == "all") | history["metric"].isin(BY_LAYER)]
    kept = kept[(kept["split"] != TRAIN) | ~kept["metric"].str.fullmatch(DERIVED)]
    trained = kept["split"] == TRAIN
    kept = kept[~trained | kept["step"].isin(_chosen_steps(sorted(kept["step"][trained].unique().tolist())))]
    times: dict[tuple[tuple[int, ...], tuple[float, ...]], int] = {}
    curves: dict[str, Any] = {}
    for (split, layer, metric), rows in kept.groupby(["split", "layer", "metric"], sort=False):
        own = tuple(rows["step"].tolist()), tuple(rows["fraction"].tolist())
        place = times.setdefault(own, len(times))
        curves.setdefault(split, {}).setdefault(layer, {})[metric] = [place, rows["value"].tolist()]
    return {"times": [[list(steps), list(fractions)] for steps, fractions in times], "curves": curves}


def _chosen_steps(steps: list[int]) -> list[int]:
    """All of the steps, or evenly spread ones, the last among them."""
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[round((i + 1) * len(steps) / MOST_STEPS) - 1] for i in range(MOST_STEPS)]


def _snapshot(snapshot: RoutingSnapshot) -> dict[str, Any]:
    counts_LME = snapshot.domain_counts_LME
    if not np.array_equal(counts_LME.sum(axis=1), snapshot.counts_LE):
        # Of a set without domains.
        counts_LME = snapshot.counts_LE[:, None, :]
    head = {"step": snapshot.step, "fraction": snapshot.fraction, "top_k": snapshot.top_k}
    tokens = {"num_tokens": snapshot.num_tokens, "num_domains": snapshot.domain_counts_LME.shape[1]}
    return head | tokens | {"counts": counts_LME.tolist()}


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    """The table by column: its type and its values."""
    return {name: [str(frame[name].dtype), frame[name].tolist()] for name in frame}


def _analysis(folder: Path) -> dict[str, str]:
    """The text of each file of numbers behind a picture that is made of weights, by its path in the folder."""
    found = {}
    for part in OF_WEIGHTS:
        for path in sorted((folder / part).glob("*")):
            if path.suffix in (".csv", ".json"):
                found[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
    return found


class ArchivedRun(StoredRun):
    """A run of an archive, read like a folder's. `part` gives its parts as `run_parts` made them, None for none.

    `analysis`: numbers behind pictures by file. It is never stale: its archive says by which code it was made.
    """

    def __init__(self, archive: Path, run_id: str, part: Callable[[str], Any]):
        super().__init__(archive / run_id)
        self._part = part

    @property
    def parts(self) -> dict[str, Any]:
        """Every part that there is."""
        return {name: tree for name in PARTS if (tree := self._part(name)) is not None}

    @property
    def is_there(self) -> bool:
        return True

    def is_stale(self) -> bool:
        return False

    @cached_property
    def summary(self) -> Summary | None:
        content = self._part("summary")
        if problem := summary_problem(content):
            self.problems[self.folder.summary] = problem
            return None
        found = Summary(content)
        found.seal = found.pop(SEAL, None)
        return found

    @cached_property
    def config(self) -> dict[str, Any] | None:
        try:
            return check_config(self.folder.config, self._part("config"))
        except SpectraError as error:
            self._problem(self.folder.config, error)
            return None

    @cached_property
    def history(self) -> pd.DataFrame | None:
        tree = self._part("history")
        if tree is None:
            return None
        history = History()
        for split, layers in tree["curves"].items():
            for layer, metrics in layers.items():
                for metric, (place, values) in metrics.items():
                    for step, fraction, value in zip(*tree["times"][place], values, strict=True):
                        history.add(step, fraction, split, {metric: value}, layer)
        return history.frame()

    @cached_property
    def snapshots(self) -> dict[int, RoutingSnapshot]:
        return {tree["step"]: _read_snapshot(tree) for tree in self._part("routing") or ()}

    @cached_property
    def changed_files(self) -> str | None:
        # The hash of each part was compared when the archive was opened.
        return None if self.summary is not None else self.problems[self.folder.summary]

    @property
    def processor(self) -> str | None:
        """The name of the processor that it ran on."""
        return ((self._part("environment") or {}).get("machine") or {}).get("cpu")

    @property
    def analysis(self) -> dict[str, str]:
        """The text of files of an interpretation, by path."""
        return self._part("analysis") or {}

    def scores(self, name: str) -> pd.DataFrame | None:
        import pandas as pd

        columns = self._part(name)
        if columns is None:
            return None
        return pd.DataFrame({key: pd.Series(values, dtype=kind) for key, (kind, values) in columns.items()})

    def examine(self) -> dict[Path, str]:
        _ = self.summary, self.config
        return self.problems

    def text(self, path: Path, limit: int | None = None) -> str:
        if path == self.folder.config:
            return yaml.safe_dump(self.config, sort_keys=False) if self.config is not None else ""
        if path == self.folder.environment and (environment := self._part("environment")) is not None:
            return json_text(environment)
        return NO_LOG if path == self.folder.log else ""


def _read_snapshot(tree: Mapping[str, Any]) -> RoutingSnapshot:
    """The snapshot with its documents merged by domain and without probe tokens."""
    counts_LME = np.array(tree["counts"], dtype=np.int64)
    layers = len(counts_LME)
    domains = counts_LME
    if counts_LME.shape[1] != tree["num_domains"]:
        domains = np.zeros((layers, tree["num_domains"], counts_LME.shape[2]), dtype=np.int64)
    return RoutingSnapshot(
        tree["step"],
        tree["fraction"],
        tree["top_k"],
        tree["num_tokens"],
        domains,
        counts_LME,
        np.zeros((layers, 0, 0), dtype=np.int16),
        np.zeros((layers, 0, 0), dtype=np.float32),
    )

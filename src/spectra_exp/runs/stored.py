"""The one reader of run folders: whatever a folder holds, as far as it can be read, and what is wrong with the rest.

Tables, figures, the report, the interpretation, sharing and the studies read runs through `StoredRun` alone. Nothing in
a folder makes it fail: `refusal` says why no figure of the run may be used, `problems` what could not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import regular
from spectra_exp.measure.others import figure
from spectra_exp.measure.ranges import Sizes
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.config_file import read_config, setting
from spectra_exp.runs.contradictions import history_contradiction, summary_contradiction
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import read_history
from spectra_exp.runs.provenance import by_other_code
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths
from spectra_exp.runs.scores import DOCUMENTS, ITEMS, read_scores
from spectra_exp.runs.summary import Summary, check_files, summary_edited

if TYPE_CHECKING:
    import pandas as pd

FOLDERS = (".hydra", "routing", "checkpoints", "analysis")
FILES = ("summary.json", "config.yaml", "environment.json", "history.parquet", DOCUMENTS, ITEMS, "train.log")
# How many files a line names.
NAMED = 3


class StoredRun:
    """The run in the folder `path`, read file by file as it is asked for, each file once.

    `problems`: what is wrong with a file that cannot be used, by path; it grows as files are read, and `examine` reads
    all. A file that is not there is no problem: a run that goes on has no summary yet.
    """

    def __init__(self, path: Path):
        self.path, self.run_id = path, path.name
        self.folder = RunFolder(path.parent, path.name)
        self.problems: dict[Path, str] = {}

    @cached_property
    def summary(self) -> Summary | None:
        """The summary, None where there is none that can be read."""
        if not self.folder.summary.exists():
            return None
        try:
            return self.folder.read_summary()
        except SpectraError as error:
            self._problem(self.folder.summary, error)
            return None

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The resolved configuration, None where there is none that can be read."""
        if not self.folder.config.exists():
            return None
        try:
            return read_config(self.folder.config)
        except SpectraError as error:
            self._problem(self.folder.config, error)
            return None

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The history's rows in their order, None where there is none that can be read."""
        if not self.folder.history.exists():
            return None
        try:
            return read_history(self.folder.history)
        except SpectraError as error:
            self._problem(self.folder.history, error)
            return None

    @cached_property
    def curves(self) -> dict[tuple[str, str, str], dict[int, float]]:
        """The history's values by step, of each (split, metric, layer), those that cannot be among them."""
        found: dict[tuple[str, str, str], dict[int, float]] = {}
        if self.history is not None:
            columns = (self.history[name].tolist() for name in ("split", "metric", "layer", "step", "value"))
            for split, metric, layer, step, value in zip(*columns, strict=True):
                found.setdefault((split, metric, layer), {})[step] = value
        return found

    def curve(self, split: str, metric: str, layer: str = "all") -> dict[int, float]:
        """The metric's values by step that are finite and within its range; empty without any."""
        possible, values = figure(metric).range, self.curves.get((split, metric, layer), {})
        return {step: value for step, value in values.items() if possible.holds(value, self.sizes)}

    @cached_property
    def snapshots(self) -> dict[int, RoutingSnapshot]:
        """The whole routing snapshots by step, all of the layers and experts that most of them have."""
        found: dict[int, RoutingSnapshot] = {}
        paths = snapshot_paths(self.folder.routing)
        for step, path in paths.items():
            try:
                found[step] = load_snapshot(path)
            except SpectraError as error:
                self._problem(path, error)
        shapes = Counter(snapshot.counts_LE.shape for snapshot in found.values())
        usual = max(shapes, key=lambda shape: (shapes[shape], shape), default=(0, 0))
        for step in [step for step, snapshot in found.items() if snapshot.counts_LE.shape != usual]:
            layers, experts = found.pop(step).counts_LE.shape
            wanted = f"{usual[0]} layers of {usual[1]} experts"
            self.problems[paths[step]] = f"of {layers} layers of {experts} experts, where the others are of {wanted}"
        return found

    def scores(self, name: str) -> pd.DataFrame | None:
        """The rows of `documents` or `items`, scores one by one, None where there are none that can be read."""
        file = self.path / f"{name}.parquet"
        try:
            return read_scores(file)
        except FileNotFoundError:
            return None
        except SpectraError as error:
            self._problem(file, error)
            return None

    @cached_property
    def sizes(self) -> Sizes:
        """What the possible ranges of the run's figures follow from; what is not known stays None."""
        experts, top_k = (setting(self.config or {}, f"model.{key}") for key in ("num_experts", "top_k"))
        summary: Mapping[str, Any] = self.summary or {}
        domains = sum(name.startswith("val_loss_") for name in summary.get("metrics") or {})
        return Sizes(experts, top_k, domains if domains > 1 else None)

    @property
    def is_there(self) -> bool:
        """Whether there is a run, or what is left of one."""
        return self.path.is_dir()

    @property
    def required_summary(self) -> Summary:
        """The summary. Raises SpectraError, which says why, where there is none that can be read."""
        if self.summary is None:
            raise SpectraError(f"{self.run_id}: {self.problems.get(self.folder.summary, 'no summary yet')}")
        return self.summary

    def is_stale(self) -> bool:
        """Whether a run with a summary is by other code than today's."""
        assert self.summary is not None
        return by_other_code(self.summary["fingerprints"].get("code"))

    @cached_property
    def refusal(self) -> str | None:
        """Why no figure of the run may be used, or None for a completed run whose files agree with each other."""
        if self.summary is not None and self.summary["status"] != "completed":
            return f"status is {self.summary['status']}"
        return self.changed_files or self.contradiction

    @cached_property
    def contradiction(self) -> str | None:
        """What in the run's figures cannot be, or does not agree, in words, or None."""
        assert self.summary is not None
        problem = summary_contradiction(self.summary, self.config)
        if problem is None and self.history is not None:
            problem = history_contradiction(self.summary, self.history)
        return problem

    @cached_property
    def lost_documents(self) -> bool:
        """Whether all that is not as the finished run left it is that the scores of its documents are gone."""
        summary = self.summary
        if summary is None or summary["status"] != "completed" or summary.get("run_id") != self.run_id:
            return False
        gone = not self.folder.documents.exists() and self._differing == [DOCUMENTS]
        return gone and not summary_edited(summary)

    @cached_property
    def _differing(self) -> list[str]:
        """`check_files` of the folder, which reads all of it."""
        assert self.summary is not None
        return check_files(self.path, self.summary)

    @cached_property
    def changed_files(self) -> str | None:
        """Why the files are not those that the run left when it ended, in words, or None."""
        if not self.path.is_dir():
            return "not a run's folder"
        summary = self.summary
        if summary is None:
            return self.problems.get(self.folder.summary, "no summary yet")
        if summary.get("run_id") != self.run_id:
            return f"its summary is that of {summary.get('run_id')}; a copy?"
        if summary_edited(summary):
            return "its summary.json was edited"
        if changed := self._differing:
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            remedy = f" (`spectra-exp rescore run={self.run_id}` writes it again)" if self.lost_documents else ""
            files = f"{', '.join(changed[:NAMED])}{more}{remedy}"
            return f"edited, missing or added since the run wrote its summary: {files}"
        return None

    def examine(self) -> dict[Path, str]:
        """`problems` after every file was read, or known by its hash to be as the run wrote it."""
        for name in (*FOLDERS, *FILES):
            path = self.path / name
            kind = "folder" if name in FOLDERS else "file"
            if path.exists() and not (path.is_dir() if kind == "folder" else path.is_file()):
                self.problems[path] = f"not a {kind}"
        _ = self.summary, self.config, self.history, self.scores("documents"), self.scores("items")
        summary: Mapping[str, Any] = self.summary or {}
        sealed = self.refusal is None and self.summary is not None and self.summary.seal is not None
        left = snapshot_paths(self.folder.routing) if sealed else self.snapshots
        routed = any(layers for layers in (summary.get("metrics_by_layer") or {}).values())
        if self.folder.routing.is_dir() and not left and routed:
            self.problems.setdefault(self.folder.routing, "no routing snapshot is left in it")
        return self.problems

    def require(self, name: str) -> None:
        """Raise SpectraError, which names the file, where a file called `name`, or one in a folder of that name, is
        known to be damaged."""
        wanted = self.path / name
        for path, problem in self.problems.items():
            if wanted in (path, *path.parents):
                raise SpectraError(f"{path}: {problem}")

    def text(self, path: Path, limit: int | None = None) -> str:
        """The text of a file of the folder, empty without one; its end alone where it is longer than `limit` bytes."""
        try:
            content = regular(path).read_bytes()
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.problems.setdefault(path, f"not readable ({error.strerror})")
            return ""
        if limit is None or len(content) <= limit:
            return content.decode("utf-8", errors="replace")
        kept = content[-limit:].partition(b"\n")[2]
        return f"... {len(content) - len(kept)} bytes before this\n{kept.decode('utf-8', errors='replace')}"

    def _problem(self, path: Path, error: SpectraError) -> None:
        # The first word about a file is the one that is kept.
        self.problems.setdefault(path, str(error).removeprefix(f"{path}: "))


def stored_runs(runs_folder: Path) -> list[StoredRun]:
    """Everything that lies in the folder of all runs, by name; nothing where there is none."""
    return [StoredRun(path) for path in sorted(runs_folder.iterdir())] if runs_folder.is_dir() else []

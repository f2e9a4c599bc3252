"""Routing snapshots on disk: `routing/step-XXXXXXXX.npz`, what each expert served and where probe tokens went."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import atomic_path, regular
from spectra_exp.measure.snapshot import RoutingSnapshot

_DTYPES = {
    "counts_LE": np.int64,
    "domain_counts_LME": np.int64,
    "document_counts_LGE": np.int64,
    "probe_experts_LPK": np.int16,
    "probe_weights_LPK": np.float32,
}
_NAME = re.compile(r"step-(\d{8,})\.npz")


def snapshot_path(folder: str | os.PathLike[str], step: int) -> Path:
    """Where the snapshot of `step` lies in a run's routing folder."""
    return Path(folder) / f"step-{step:08d}.npz"


def snapshot_paths(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """The snapshots in `folder` by step, ascending; empty when there is no folder."""
    paths = Path(folder).glob("step-*.npz")
    found = {int(match[1]): path for path in paths if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def save_snapshot(folder: str | os.PathLike[str], snapshot: RoutingSnapshot) -> Path:
    """The snapshot's path, written whole or not at all; beside its fields the file holds `counts_LE`.

    Raises ValueError when a number does not fit the file's dtype, such as an expert's id beyond int16.
    """
    arrays = snapshot.to_arrays() | {"counts_LE": snapshot.counts_LE}
    exact: dict[str, Any] = {name: _exact(name, values) for name, values in arrays.items()}
    path = snapshot_path(folder, snapshot.step)
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        np.savez_compressed(file, **exact)
    return path


def load_snapshot(path: str | os.PathLike[str]) -> RoutingSnapshot:
    """The snapshot at `path`; raises SpectraError, which names the file, when it is damaged or foreign."""
    try:
        with np.load(regular(path), allow_pickle=False) as archive:
            arrays = dict(archive)
        snapshot = RoutingSnapshot.from_arrays(arrays)
        if problem := _impossible(snapshot, arrays["counts_LE"]) or _of_another_step(path, snapshot):
            raise ValueError(problem)
        return snapshot
    except Exception as error:  # damage surfaces as almost any error of zipfile, zlib or numpy's header reader
        raise SpectraError(f"{path}: not a whole routing snapshot ({first_line(error)}); run the run again") from error


def _of_another_step(path: str | os.PathLike[str], snapshot: RoutingSnapshot) -> str | None:
    """That the file's name says another step than its content, in words, or None."""
    named = _NAME.fullmatch(Path(path).name)
    return f"it is of step {snapshot.step}" if named and int(named[1]) != snapshot.step else None


def _impossible(snapshot: RoutingSnapshot, counts_LE: np.ndarray) -> str | None:
    """What of a snapshot no run writes, in words, or None: arrays that do not fit together, counts below zero."""
    documents, domains = snapshot.document_counts_LGE, snapshot.domain_counts_LME
    experts, weights = snapshot.probe_experts_LPK, snapshot.probe_weights_LPK
    if any(array.ndim != 3 for array in (documents, domains, experts, weights)):
        return "an array has not three dimensions"
    layers, num_experts = len(documents), documents.shape[2]
    if {len(domains), len(experts), len(weights)} != {layers} or domains.shape[2] != num_experts:
        return "its arrays are of different layers or experts"
    if experts.shape != weights.shape or counts_LE.shape != (layers, num_experts):
        return "its arrays do not fit together"
    if (documents < 0).any() or (domains < 0).any() or not np.array_equal(counts_LE, snapshot.counts_LE):
        return "its counts contradict each other"
    if ((experts < -1) | (experts >= num_experts)).any():
        return "a probe token has an expert that there is not"
    counted = (snapshot.step + 1, snapshot.top_k, snapshot.num_tokens)
    if not all(isinstance(number, int) and number > 0 for number in counted):
        return "its step, k or number of tokens cannot be"
    if not isinstance(snapshot.fraction, (int, float)) or not 0 <= snapshot.fraction <= 1:
        return "its fraction of the steps cannot be"
    return None


def _exact(name: str, values: np.ndarray) -> np.ndarray:
    """`values` in the file's dtype; a number that the dtype cannot hold is an error, not a wrapped one."""
    stored = values.astype(_DTYPES.get(name, values.dtype))
    if stored.dtype.kind == "i" and not np.array_equal(stored, values):
        raise ValueError(f"{name}: a value does not fit in {stored.dtype.name}")
    return stored

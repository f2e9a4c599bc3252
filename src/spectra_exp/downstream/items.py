"""What a model scored on each item of a task, kept in the run's folder as items.parquet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

import pandas as pd

from spectra_exp.data.documents import digest
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.stored import StoredRun

# Fields of an item whose text several items can share.
PASSAGES = ("passage", "context", "article", "story", "paragraph")


def item_scores(task: str, figure: str, results: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows of `items` of one task, out of what the harness returns with its samples.

    figure: such as acc_norm, or with a filter's name acc_norm_strict. `group`: equal for items with one passage, else
    an item's own. None where the figure is no mean over items.
    """
    rows: list[dict[str, Any]] = []
    for name, samples in sorted((results.get("samples") or {}).items()):
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            scored = _figures(sample)
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


def _figures(sample: Mapping[str, Any]) -> dict[str, Any]:
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

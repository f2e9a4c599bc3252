"""Which runs may be compared: the same data, evaluation and length, and for a seed the same batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# What `pairing` says of a cell whose runs pair with the others.
PAIRED = "ok"
# The losses of text that tables are about.
LOSSES = ("val_loss",)
# By the beginning of the name: what seeing later tokens would improve, and is evidence between causal models alone.
PREDICTIONS = ("val_loss", "val_perplexity", "val_accuracy", "train_loss", "downstream_", "gap_closure")
GROUP_KEYS = ("data_fingerprint", "evaluation_fingerprint", "max_steps")


def is_prediction(metric: str) -> bool:
    """Whether seeing later tokens would improve the metric."""
    return metric.startswith(PREDICTIONS)


def pairing_columns(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's summary decides whether it may be compared with another."""
    prints = summary["fingerprints"]
    return {
        "data_fingerprint": prints.get("data"),
        "evaluation_fingerprint": prints.get("evaluation"),
        "max_steps": summary.get("max_steps"),
        "weights_by_name": summary.get("initial_weights") or {},
        "batches": prints.get("batches"),
    }


def comparable_groups(runs: pd.DataFrame) -> dict[str, int]:
    """The group's number of each run id: runs of one group share `GROUP_KEYS`; group 1 has the most runs."""
    keys = {row["run_id"]: tuple(str(row[key]) for key in GROUP_KEYS) for row in runs.to_dict("records")}
    sizes = Counter(keys.values())
    order = sorted(sizes, key=lambda key: (-sizes[key], key))
    return {run_id: order.index(key) + 1 for run_id, key in keys.items()}


def pairing(runs: pd.DataFrame) -> dict[tuple[int, str], str]:
    """For each (comparable_group, cell_id): "ok", or why its runs do not pair with the others of their seed.

    Every cell of a group must have seen the same batches at a seed. Where they disagree, the cells that differ
    from more than half of the runs are named; without such a majority all of them are. At a seed they must also
    have begun from the same weights: the runs of a cell in all of them, other cells in every parameter that exists
    in both with the same shape.
    """
    problems: dict[tuple[int, str], set[str]] = {
        (int(group), str(cell)): set() for group, cell in runs[["comparable_group", "cell_id"]].to_numpy()
    }
    for (group, seed), same_seed in runs.groupby(["comparable_group", "seed"]):
        usual = _majority(same_seed["batches"].tolist())
        usual_weights = _usual_weights(same_seed["weights_by_name"])
        for cell, own in same_seed.groupby("cell_id"):
            found = problems[int(group), str(cell)]
            batches = set(own["batches"])
            if any(not value for value in batches):
                found.add(f"no hash of the batches at seed {seed}")
            elif batches != {usual}:
                found.add(f"other batches at seed {seed}")
            if len(set(own["initial_weights"])) > 1:
                found.add(f"two initial weights at seed {seed}")
            odd = _odd_weights(own["weights_by_name"], usual_weights)
            if odd:
                found.add(f"other initial weights at seed {seed} ({odd})")
    return {key: "; ".join(sorted(found)) or PAIRED for key, found in problems.items()}


def _usual_weights(weights: Iterable[dict[str, str]]) -> dict[tuple[str, str], str | None]:
    """The hash that most runs share, by parameter name and shape; None without a majority."""
    hashes: dict[tuple[str, str], list[str]] = {}
    for by_name in weights:
        for key, content in _by_shape(by_name).items():
            hashes.setdefault(key, []).append(content)
    return {key: _majority(values) for key, values in hashes.items()}


def _odd_weights(weights: Iterable[dict[str, str]], usual: dict[tuple[str, str], str | None]) -> str | None:
    """The first parameter, by name, in which a run differs from the others; None when there is none."""
    for by_name in weights:
        for key, content in sorted(_by_shape(by_name).items()):
            if content != usual[key]:
                return key[0]
    return None


def _majority(values: list[Any]) -> Any:
    """The value that more than half of `values` share, or None."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def pair_problem(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """Why two runs of one seed, as rows of `Collected.runs`, may not be compared, or None.

    Both must have been scored on the same data and set after as many steps, have seen the same batches, and have
    begun from the same weights in every parameter that both have with the same shape.
    """
    for key in GROUP_KEYS:
        if a[key] != b[key]:
            return f"other {key.replace('_fingerprint', '').replace('_', ' ')}"
    if not a["batches"] or not b["batches"]:
        return "no hash of the batches"
    if a["batches"] != b["batches"]:
        return "other batches"
    shapes_a, shapes_b = _by_shape(a["weights_by_name"]), _by_shape(b["weights_by_name"])
    odd = sorted(key[0] for key in shapes_a.keys() & shapes_b.keys() if shapes_a[key] != shapes_b[key])
    return f"other initial weights ({odd[0]})" if odd else None


def _by_shape(weights: dict[str, str]) -> dict[tuple[str, str], str]:
    """The hash of each parameter's first values by its name and shape."""
    split = ((name, *shaped.partition(":")) for name, shaped in weights.items())
    return {(name, shape): content for name, shape, _, content in split}

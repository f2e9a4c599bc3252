"""`make tables`: every table as a declaration, computed from the run folders and written whole.

python -m spectra_exp.analysis.tables [--outputs DIR] [--study NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.analysis.collect import METHOD_COLUMNS, TRAINING_RULE, Collected, collect
from spectra_exp.analysis.pairing import GROUP_KEYS, comparable_groups, pairing
from spectra_exp.analysis.render import count_text, interval_text, markdown_table, print_table
from spectra_exp.analysis.statistics import mean_interval
from spectra_exp.errors import SpectraError
from spectra_exp.runs.atomic import write_text

if TYPE_CHECKING:
    import pandas as pd

# The order of the columns; a metric that is not here comes after these, by name.
METRIC_ORDER = (
    "val_loss", "val_perplexity", "val_accuracy",
    "load_cv", "max_vio", "load_gini", "expert_entropy_norm", "expert_entropy", "unused_rate", "collapse_rate",
    "load_cv_batch", "max_vio_batch",
    "expert_overlap", "coactivation", "gram_orthogonality", "gram_rms", "output_gram_orthogonality",
    "expert_similarity",
    "routing_entropy", "routing_entropy_norm", "routing_confidence", "score_gap",
    "routing_consistency", "router_saturation", "usage_variance", "usage_kendall_tau", "fraction_to_stability",
    "sequential_overlap", "layer_mutual_information",
    "domain_purity", "domain_mutual_information", "silhouette", "expert_diversity",
    "quota_short_rate", "dropped_rate", "train_loss",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A part of a table narrow enough to read: its title and the metrics beside each method."""

    title: str
    metrics: tuple[str, ...]
    with_size: bool = False  # also the seeds, causality and active parameters


@dataclass(frozen=True)
class TableSpec:
    """A table with a row per cell (a configuration without its seed): file name, title, shown panels.

    The CSV holds every metric that occurs; the panels are what the Markdown and the terminal show.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


ROUTING_METRICS = TableSpec(
    name="routing_metrics",
    title="Routing metrics: mean over seeds ± half the 95 % t interval",
    panels=(
        Panel("Loss and balance", ("val_loss", "load_cv", "max_vio"), with_size=True),
        Panel(
            "Specialization and stability",
            ("expert_overlap", "gram_orthogonality", "routing_consistency", "sequential_overlap"),
        ),
    ),
)
TABLES = (ROUTING_METRICS,)


def cell_table(collected: Collected) -> pd.DataFrame:
    """A row per comparable group and cell: the method, n, flags, sizes, then each metric's columns.

    For a metric: `<metric>` the display cell, `_mean`, `_ci_low`, `_ci_high`, `_n` over seeds, and `_floor` the
    mean chance floor. Missing values are None.
    """
    import pandas as pd

    runs = collected.runs.assign(comparable_group=collected.runs["run_id"].map(comparable_groups(collected.runs)))
    reasons = pairing(runs)
    by_seed = _by_seed(runs, collected.values)
    metrics = ordered(collected.values["metric"].unique())
    rows = []
    for (group, cell_id), cell in runs.groupby(["comparable_group", "cell_id"]):
        row = _identity(cell, reasons[group, cell_id])
        for metric in metrics:
            row |= _metric_columns(metric, by_seed.get((group, cell_id, metric), []))
        rows.append(row)
    table = pd.DataFrame(rows, dtype=object)
    return table.sort_values(["comparable_group", "label", "cell_id"], ignore_index=True)


def ordered(metrics: Iterable[str]) -> list[str]:
    """Metric names as METRIC_ORDER has them, the rest by name; a training-rule figure follows its metric."""
    known = {name: place for place, name in enumerate(METRIC_ORDER)}

    def place(name: str) -> tuple[int, str, bool]:
        base = name.removesuffix(TRAINING_RULE)
        return known.get(base, len(known)), base, name != base

    return sorted(metrics, key=place)


def write_table(spec: TableSpec, cells: pd.DataFrame, folder: Path) -> list[Path]:
    """The paths of the table's CSV and Markdown files in `folder`, each written whole."""
    csv, markdown = folder / f"{spec.name}.csv", folder / f"{spec.name}.md"
    write_text(csv, cells.to_csv(index=False, lineterminator="\n"))
    parts = [f"# {spec.title}\n"]
    for group, rows in cells.groupby("comparable_group"):
        parts.append(f"## {_group_title(int(group), rows)}\n")
        for title, headers, body in _panels(spec, rows):
            parts += [f"**{title}**\n", markdown_table(headers, body)]
        parts += [f"- {note}\n" for note in _notes(rows)]
    write_text(markdown, "\n".join(parts))
    return [csv, markdown]


def print_cells(spec: TableSpec, cells: pd.DataFrame) -> None:
    """Print what the Markdown file shows."""
    for group, rows in cells.groupby("comparable_group"):
        print(_group_title(int(group), rows))
        for title, headers, body in _panels(spec, rows):
            print_table(title, headers, body)
        for note in _notes(rows):
            print(f"  {note}")


def _identity(cell: pd.DataFrame, reason: str) -> dict[str, Any]:
    method = {column: _agreed(cell[column]) for column in METHOD_COLUMNS}
    return {
        "comparable_group": int(cell["comparable_group"].iloc[0]),
        **method,
        "cell_id": cell["cell_id"].iloc[0],
        "n": cell["seed"].nunique(),
        "stale": bool(cell["stale"].any()),
        "pairing": reason,
        **{
            column: _agreed(cell[column])
            for column in ("causal", "causal_training", "active_parameters", "total_parameters", "flops_per_token")
        },
        **{column: _agreed(cell[column]) for column in GROUP_KEYS},
    }


def _agreed(column: pd.Series) -> Any:
    """The one value that all runs of a cell share, None without any, the values side by side if they differ."""
    found = list(dict.fromkeys(column.dropna().tolist()))
    return found[0] if len(found) == 1 else " / ".join(sorted(map(str, found))) or None


def _by_seed(runs: pd.DataFrame, values: pd.DataFrame) -> dict[tuple[int, str, str], list[tuple[float, float]]]:
    """(group, cell, metric) → (value, floor) of each seed. The seed is the unit: its runs are averaged first."""
    keys = ["comparable_group", "cell_id", "metric", "seed"]
    means = values.merge(runs[["run_id", "comparable_group", "cell_id", "seed"]], on="run_id").groupby(keys).mean(
        numeric_only=True
    )
    found: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    for (group, cell_id, metric, _), value, floor in means.itertuples():
        found.setdefault((group, cell_id, metric), []).append((value, floor))
    return found


def _metric_columns(metric: str, by_seed: Sequence[tuple[float, float]]) -> dict[str, Any]:
    interval = mean_interval(value for value, _ in by_seed)
    floor = mean_interval(floor for _, floor in by_seed)
    return {
        metric: interval_text(interval),
        f"{metric}_mean": interval.mean if interval else None,
        f"{metric}_ci_low": interval.low if interval else None,
        f"{metric}_ci_high": interval.high if interval else None,
        f"{metric}_n": interval.n if interval else 0,
        f"{metric}_floor": floor.mean if floor else None,
    }


def _panels(spec: TableSpec, rows: pd.DataFrame) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, headers and body of each panel, without the metrics that no row has; empty panels are left out."""
    shown = []
    for panel in spec.panels:
        metrics = [m for m in panel.metrics if m in rows and (rows[m] != "").any()]
        if not metrics and not panel.with_size:
            continue
        size = ["n", "causal", "active"] if panel.with_size else []
        body = [
            [str(row["label"]), *(_size_cells(row) if panel.with_size else []), *(row[m] for m in metrics)]
            for row in rows.to_dict("records")
        ]
        shown.append((panel.title, ["label", *size, *metrics], body))
    return shown


def _size_cells(row: dict[str, Any]) -> list[str]:
    causal = {True: "yes", False: "no", None: ""}.get(row["causal"], str(row["causal"]))
    active = row["active_parameters"]
    return [str(row["n"]), causal, active if isinstance(active, str) else count_text(active)]


def _group_title(group: int, rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    data, evaluation = (str(first[key])[:8] for key in GROUP_KEYS[:2])
    return f"Group {group}: {first['max_steps']} steps, data {data}, evaluation {evaluation}"


def _notes(rows: pd.DataFrame) -> list[str]:
    """What a reader of the table must know about its rows."""
    notes = []
    stale = rows.loc[rows["stale"].astype(bool), "label"].tolist()
    if stale:
        notes.append(f"Stale, run by other code than today's (refresh=stale runs them again): {', '.join(stale)}.")
    unpaired = rows[rows["pairing"] != "ok"]
    notes += [f"Not paired: {row['label']}: {row['pairing']}." for row in unpaired.to_dict("records")]
    return notes


def _chosen(runs_folder: Path, study: str | None) -> Collected:
    """The runs to tabulate; stderr names what was left out. Raises SpectraError when nothing remains."""
    collected = collect(runs_folder)
    for name, reason in collected.skipped.items():
        print(f"left out {runs_folder / name}: {reason}", file=sys.stderr)
    if collected.runs.empty:
        raise SpectraError(f"{runs_folder}: no completed run to tabulate; train one first: python train.py")
    return collected if study is None else collected.of_study(study)


def default_outputs() -> Path:
    """The folder that train.py writes to: SPECTRA_OUTPUTS, else `outputs` in the checkout."""
    checkout = Path(__file__).resolve().parents[3]
    return Path(os.environ.get("SPECTRA_OUTPUTS", checkout / "outputs"))


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the tables are written, 1 with one line on stderr when there is nothing to write."""
    parser = argparse.ArgumentParser(prog="python -m spectra_exp.analysis.tables", description="Tables of all runs.")
    parser.add_argument("--outputs", type=Path, default=default_outputs(), help="folder of runs/ and tables/")
    parser.add_argument("--study", help="only the runs of this study")
    options = parser.parse_args(arguments)
    try:
        cells = cell_table(_chosen(options.outputs / "runs", options.study))
        for spec in TABLES:
            paths = write_table(spec, cells, options.outputs / "tables")
            print_cells(spec, cells)
            print("\n".join(str(path) for path in paths))
    except SpectraError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The two CSV files of a table: narrow for readers, and long for programs, a row for each figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spectra_exp.reporting.collect import INFERENCE, TRAINING_RULE, base_name
from spectra_exp.reporting.tables.spec import Table

if TYPE_CHECKING:
    import pandas as pd

LONG = (
    "section",
    "row",
    "metric",
    "rule",
    "mean",
    "low",
    "high",
    "n",
    "floor",
    "difference",
    "p",
    "p_corrected",
    "verdict",
    "test",
    "difference_low",
    "difference_high",
)
# A long file's column → how the name of the frame's column goes on after the metric's.
OF_METRIC = {"mean": "_mean", "low": "_ci_low", "high": "_ci_high", "n": "_n", "floor": "_floor"}
OF_TEST = {
    "difference": "_difference",
    "p": "_p",
    "p_corrected": "_p_corrected",
    "verdict": "_verdict",
    "test": "_test",
    "difference_low": "_difference_ci_low",
    "difference_high": "_difference_ci_high",
}
# Of tables whose rows are tests: a long file's column → the frame's.
TESTED = {
    "row": "comparison",
    "mean": "mean",
    "n": "n_pairs",
    "p_corrected": "p_holm",
    "difference_low": "ci_low",
    "difference_high": "ci_high",
}


def narrow_frame(table: Table) -> pd.DataFrame:
    """What a reader wants: what names a row and stands beside it, and one column for each metric that is printed.

    A cell holds mean and interval; how many seeds it is over stands in it where these are fewer than the row's `n`.
    """
    frame = table.frame.copy()
    metrics = _metrics(table)
    printed = {header for part in table.parts for grid in part.grids for header in grid.headers}
    for metric in metrics:
        counts = frame[f"{metric}_n"]
        rows = frame[f"{metric.rpartition(': ')[0]}: n" if ": " in metric else "n"] if "n" in frame else counts
        frame[metric] = [
            f"{text} (n = {int(n)})" if text and n and n < of else text
            for text, n, of in zip(frame[metric], counts, rows, strict=True)
        ]
    numbers = {metric + end for metric in metrics for end in OF_METRIC.values()}
    numbers |= {metric.rpartition(": ")[2] + end for metric in metrics for end in OF_TEST.values()}
    unprinted = {metric for metric in metrics if metric not in printed}
    return frame[[c for c in frame.columns if c not in numbers | unprinted]]


def long_frame(table: Table) -> pd.DataFrame:
    """Every figure that the table has in a row of its own, columns `LONG`; what a table does not give is empty.

    `rule`: under which the figure was measured: that of inference, of training, or another one of inference by name.
    `floor`: what chance gives. The difference is from the table's reference row, with a 95 % interval where it has one.
    """
    import pandas as pd

    rows = [row for record in table.frame.to_dict("records") for row in _rows_of(table, record)]
    return pd.DataFrame(rows, columns=list(LONG), dtype=object)


def _metrics(table: Table) -> list[str]:
    columns = set(table.frame.columns)
    return [c for c in table.frame.columns if {c + end for end in ("_mean", "_n", "_ci_low")} <= columns]


def _rows_of(table: Table, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "claim" in record:
        yield {key: record[key] for key in ("section", "verdict", "test")} | {
            "row": " ".join(filter(None, [record["name"], record["rule"]])),
            "metric": record["claim"],
        }
    elif "metric" in record:
        yield _of_test(record)
    else:
        yield from (row for row in _of_metrics(table, record) if row["n"])


def _of_metrics(table: Table, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for column in _metrics(table):
        method, _, metric = column.rpartition(": ")
        figures = {key: record.get(column + end) for key, end in OF_METRIC.items()}
        # Where two methods stand side by side, the difference is the first one's from the second.
        tests = {key: record.get(metric + end) for key, end in OF_TEST.items()}
        yield {
            "section": record.get("section"),
            "row": _row_name(record, method),
            "metric": base_name(metric),
            "rule": _rule(metric),
            **figures,
            **(tests if not method or method in table.methods else {}),
        }


def _of_test(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: record.get(TESTED.get(key, key)) for key in LONG}
    return row | {"metric": base_name(record["metric"]), "rule": _rule(record["metric"])}


def _row_name(record: dict[str, Any], method: str) -> str:
    """The label, or what a row is of where it has none."""
    if "label" in record:
        return record["label"]
    keys = [key for key, value in record.items() if "." in key and ":" not in key and value is not None]
    settings = [f"{key} {record[key]}" for key in keys]
    named = [method or record.get("method"), record.get("osr"), record.get("part"), *settings]
    return ", ".join(str(name) for name in named if name)


def _rule(metric: str) -> str:
    if metric.endswith(TRAINING_RULE):
        return "training"
    return metric.partition(INFERENCE)[2] or "inference"

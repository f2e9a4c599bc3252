"""A run's history: tidy rows of what was measured when, kept in memory and saved whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import atomic_path, regular

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = ("step", "fraction", "split", "layer", "metric", "value")

# Splits: what the evaluations during training score, the larger set at the end where there is one, and what random
# routing would score.
TRAIN, VALIDATION, FINAL, CHANCE = "train", "validation", "final", "chance"
# Suffix of a split that was scored under the training rule, where that differs from the inference rule.
TRAINING_RULE = "_training_rule"

_Key = tuple[int, str, str, str]


class History:
    """Rows (step, fraction, split, layer, metric, value), one for each step, split, layer and metric.

    `fraction` is the share of the run's steps done, 0..1. `layer` is "all" or a layer's number as text. A row
    added again replaces the earlier one. The order is by step, split, layer ("all" first, then by number) and
    metric, whatever the order of adding, so that a resumed run saves the same file as an uninterrupted one.
    """

    def __init__(self) -> None:
        self._rows: dict[_Key, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        step: int,
        fraction: float,
        split: str,
        values: Mapping[str, float] | Iterable[Mapping[str, Any]],
        layer: int | str = "all",
    ) -> None:
        """Add what was measured at `step`: metric → value for one `layer`, or rows with layer, metric and value."""
        if isinstance(values, Mapping):
            values = [{"layer": layer, "metric": metric, "value": value} for metric, value in values.items()]
        for row in values:
            key = int(step), str(split), str(row["layer"]), str(row["metric"])
            self._rows[key] = (float(fraction), float(row["value"]))

    def truncate_after(self, step: int) -> None:
        """Drop the rows of steps greater than `step`: what a run did after the checkpoint it resumes from."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] <= step}

    def frame(self) -> pd.DataFrame:
        """The rows as a table in their fixed order: step int64, fraction and value float64, the rest text."""
        return self._table().to_pandas()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as parquet to `path`, whole or not at all."""
        with atomic_path(path) as temporary:
            self.write(temporary)

    def write(self, path: Path) -> None:
        """Write the rows as parquet to `path`, which nobody reads yet."""
        import pyarrow.parquet as pq

        pq.write_table(self._table(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """The history saved at `path`; raises SpectraError, which names the file, when it cannot be read."""
        table = _read_table(Path(path))
        history = cls()
        for step, fraction, split, layer, metric, value in zip(
            *(table.column(name).to_pylist() for name in COLUMNS), strict=True
        ):
            history._rows[step, split, layer, metric] = (fraction, value)
        return history

    def _table(self) -> pa.Table:
        import pyarrow as pa

        ordered = sorted(self._rows.items(), key=lambda item: _order(item[0]))
        rows = [
            (step, fraction, split, layer, metric, value) for (step, split, layer, metric), (fraction, value) in ordered
        ]
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _schema(), strict=True)]
        return pa.Table.from_arrays(arrays, schema=_schema())


def read_history(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of the history at `path` as `History.frame` gives them, without the means to add to them.

    Raises SpectraError, which names the file, when it cannot be read or holds rows that no run writes.
    """
    file = Path(path)
    frame = _read_table(file).to_pandas()
    layers = [layer for layer in frame["layer"].unique() if layer != "all" and not str(layer).isdecimal()]
    if layers:
        raise SpectraError(f"{file}: not a run's history (a layer is called {layers[0]!r})")
    if frame.isna()[["step", "split", "layer", "metric"]].any(axis=None) or (frame["step"] < 0).any():
        raise SpectraError(f"{file}: not a run's history (rows without a step or a name)")
    return frame


def _read_table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(regular(file)).read()
    except (OSError, pa.ArrowException) as error:
        raise SpectraError(f"{file}: not readable as a run's history ({first_line(error)}); delete it") from error
    if table.schema.remove_metadata() != _schema():
        columns = ", ".join(table.column_names)
        raise SpectraError(f"{file}: not a run's history (its columns: {columns}); delete it")
    return table


def _schema() -> pa.Schema:
    import pyarrow as pa

    types = (pa.int64(), pa.float64(), pa.string(), pa.string(), pa.string(), pa.float64())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def _order(key: _Key) -> tuple[int, str, tuple[int, int, str], str]:
    step, split, layer, metric = key
    place = (1, int(layer), "") if layer.isdecimal() else (0, 0, layer)
    return step, split, place, metric

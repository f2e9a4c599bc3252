from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_bytes
from spectra_exp.runs.history import COLUMNS, History


def _rows(layers: int) -> list[dict[str, str | float]]:
    return [{"layer": str(layer), "metric": "load_cv", "value": 0.1 * layer} for layer in range(layers)]


def _measure(history: History, steps: range) -> None:
    for step in steps:
        history.add(step, step / 20, "train", {"train_loss": 5.0 - step, "grad_norm_router": 0.1})
        if step % 5 == 0:
            history.add(step, step / 20, "eval", {"val_loss": np.float32(4.5)})
            history.add(step, step / 20, "eval", _rows(12))


def _bytes(history: History, path: Path) -> bytes:
    history.save(path)
    return path.read_bytes()


def test_round_trip_keeps_types_and_order(tmp_path: Path) -> None:
    history = History()
    _measure(history, range(1, 11))
    path = tmp_path / "history.parquet"
    history.save(path)
    frame = pd.read_parquet(path)
    assert tuple(frame.columns) == COLUMNS
    assert frame["step"].dtype == np.int64 and frame["value"].dtype == frame["fraction"].dtype == np.float64
    assert frame["step"].is_monotonic_increasing
    layers = frame[(frame.step == 5) & (frame.split == "eval")]["layer"].tolist()
    assert layers == ["all", *map(str, range(12))]  # by number, not as text: 2 before 10
    pd.testing.assert_frame_equal(History.load(path).frame(), history.frame())


def test_resumed_history_is_byte_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = History()
    _measure(whole, range(1, 21))

    cut = History()
    _measure(cut, range(1, 14))  # killed at 13, checkpoint at 10
    cut.save(tmp_path / "cut.parquet")
    resumed = History.load(tmp_path / "cut.parquet")
    resumed.truncate_after(10)
    assert resumed.frame()["step"].max() == 10
    _measure(resumed, range(11, 21))
    assert _bytes(resumed, tmp_path / "a") == _bytes(whole, tmp_path / "b")


def test_truncation_drops_rows_that_the_resumed_run_will_not_make_again(tmp_path: Path) -> None:
    history = History()
    history.add(10, 0.5, "train", {"train_loss": 1.0})
    history.add(11, 0.55, "train", {"spike": 9.0})
    history.truncate_after(10)
    assert history.frame()["metric"].tolist() == ["train_loss"]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 50),
            st.sampled_from(["train", "eval"]),
            st.sampled_from(["all", "0", "3", "11"]),
            st.sampled_from(["a", "b"]),
            st.floats(),
        ),
        max_size=40,
        unique_by=lambda row: row[:4],
    ),
    data=st.data(),
)
def test_order_of_adding_does_not_matter(rows: list, data: st.DataObject) -> None:
    def built(ordered: list) -> pd.DataFrame:
        history = History()
        for step, split, layer, metric, value in ordered:
            history.add(step, step / 50, split, {metric: value}, layer=layer)
        return history.frame()

    pd.testing.assert_frame_equal(built(rows), built(data.draw(st.permutations(rows))))


def test_a_row_added_again_replaces_the_first_and_nan_survives(tmp_path: Path) -> None:
    history = History()
    history.add(1, 0.1, "eval", {"val_loss": 3.0})
    history.add(1, 0.1, "eval", {"val_loss": float("nan")}, layer="all")
    assert len(history) == 1
    history.save(tmp_path / "h")
    assert math.isnan(History.load(tmp_path / "h").frame()["value"].item())


def test_an_empty_history_round_trips(tmp_path: Path) -> None:
    History().save(tmp_path / "h")
    assert len(History.load(tmp_path / "h")) == 0


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "folder", "other columns"])
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "history.parquet"
    history = History()
    _measure(history, range(1, 11))
    if damage == "folder":
        path.mkdir()
    elif damage == "other columns":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif damage != "missing":
        whole = _bytes(history, tmp_path / "whole")
        write_bytes(path, {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not parquet"}[damage])
    with pytest.raises(SpectraError) as caught:
        History.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)

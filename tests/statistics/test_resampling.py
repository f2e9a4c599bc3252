"""Intervals over documents: known means, documents as the unit, coverage on data with a document effect."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_exp.statistics.resampling import (
    against_chance,
    columns,
    curve_over_pairs,
    difference_over_documents,
    mean_over_documents,
    percentile_interval,
)


def test_means_and_differences_are_over_tokens_and_nan_does_not_count() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, 7.0, 2.0])
    documents = np.array([0, 0, 1, 1, 2, 2])
    marked = np.array([1, 0, 1, 1, 0, 0])
    assert mean_over_documents(values, documents, 0).mean == pytest.approx(18 / 5)
    assert mean_over_documents(values, documents, 0).n == 3
    assert difference_over_documents(values, marked, documents, 0).mean == pytest.approx(3.0 - 4.0)
    assert difference_over_documents(values, np.ones(6), documents, 0) is None
    assert mean_over_documents(np.full(3, np.nan), np.arange(3), 0) is None


def test_two_documents_give_a_mean_without_bounds() -> None:
    found = mean_over_documents(np.array([1.0, 2.0]), np.array([0, 1]), 0)
    assert (found.mean, found.low, found.high) == (1.5, None, None)
    assert columns(found, "loss") == {"loss": 1.5, "loss_low": None, "loss_high": None}
    assert columns(None, "loss") == {"loss": None, "loss_low": None, "loss_high": None}
    mean, low, _ = curve_over_pairs(np.array([[0.0, 1.0], [2.0, 3.0]]), 0)
    assert mean.tolist() == [1.0, 2.0] and np.isnan(low).all()


def test_where_resamples_have_no_value_there_are_no_bounds() -> None:
    drawn = np.linspace(0, 1, 100)
    assert percentile_interval(0.5, drawn, 10).low == pytest.approx(0.025)
    drawn[:20] = np.nan
    assert percentile_interval(0.5, drawn, 10).low is None
    assert percentile_interval(np.nan, drawn, 10) is None


def test_intervals_hold_the_truth_as_often_as_they_say_because_documents_are_the_unit() -> None:
    """With tokens as units, which is the fault planted at the end, a document effect makes them far too narrow."""
    rng, size = np.random.default_rng(0), 20
    documents = np.repeat(np.arange(40), size)
    held = {"documents": 0, "tokens": 0}
    for seed in range(60):
        values = np.repeat(rng.normal(size=40), size) + rng.normal(size=40 * size)
        for unit, ids in (("documents", documents), ("tokens", np.arange(len(values)))):
            found = mean_over_documents(values, ids, seed) if unit == "documents" or seed < 10 else None
            if found is not None:
                held[unit] += found.low <= 0 <= found.high
    assert held["documents"] >= 52 and held["tokens"] <= 7


def test_a_difference_within_documents_is_not_blurred_by_what_documents_have_of_their_own() -> None:
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(30), 40)
    marked = np.tile([True, False], 600)
    values = np.repeat(rng.normal(scale=5, size=30), 40) + 0.5 * marked + rng.normal(scale=0.1, size=1200)
    found = difference_over_documents(values, marked, documents, 0)
    assert 0.45 < found.low < 0.5 < found.high < 0.55


def test_p_values_count_draws_as_large_and_are_never_zero() -> None:
    assert against_chance(1.0, [0.0] * 99)["p"] == 1 / 100
    assert against_chance(0.5, [0.0] * 49 + [0.5] * 50)["p"] == 51 / 100
    assert against_chance(0.5, [0.1] * 18)["p"] is None
    assert against_chance(None, [0.1] * 50)["p"] is None

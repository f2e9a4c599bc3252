from __future__ import annotations

import math

import pytest

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure import METRICS, MetricTable, get_metric
from spectra_exp.measure.base import metric
from spectra_exp.measure.others import figure
from spectra_exp.measure.ranges import Sizes


def test_a_table_averages_layers_and_leaves_out_what_is_not_defined():
    table = MetricTable({"a": [1.0, None, 3.0], "b": [None, None, None]})
    assert table["0", "a"] == 1.0 and table["all", "a"] == 2.0
    assert ("1", "a") not in table and ("all", "b") not in table
    assert table.get(("1", "a")) is None
    assert table.all() == {"a": 2.0}
    assert table.by_layer() == {"a": [1.0, None, 3.0], "b": [None, None, None]}
    assert len(table) == 3
    assert table.rows() == [
        {"layer": "0", "metric": "a", "value": 1.0},
        {"layer": "2", "metric": "a", "value": 3.0},
        {"layer": "all", "metric": "a", "value": 2.0},
    ]


def test_tables_merge():
    merged = MetricTable({"a": [1.0], "b": [2.0]}).merged(MetricTable({"b": [5.0], "c": [3.0]}))
    assert merged.all() == {"a": 1.0, "b": 5.0, "c": 3.0}


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered twice"):
        metric("load_cv", "lower", range=(0, 1))(lambda stats: 0.0)


def test_an_unknown_metric_names_the_nearest():
    assert get_metric("max_vio") is METRICS["max_vio"]
    with pytest.raises(ConfigError, match="did you mean 'max_vio'"):
        get_metric("max_voi")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("load_cv", [0.0, math.sqrt(7)], [-0.01, 2.66, 500.0, math.nan, math.inf]),
        ("max_vio", [0.0, 7.0], [-1.0, 7.1]),
        ("expert_entropy", [0.0, math.log(8)], [2.1]),
        ("load_gini", [0.875], [0.9, 1.0]),
        ("domain_purity", [0.25, 1.0], [0.2]),
        ("order_purity", [0.5, 1.0], [0.4]),
        ("expert_similarity_weight_mean", [-1 / 7, 1.0], [-0.2]),
        ("load_cv_floor", [0.01], [3.0]),
        ("val_loss", [0.0, 99.0], [-5.0, 1e308]),
        ("val_loss_code", [4.0], [-0.1]),
        ("val_accuracy", [1.0], [9.0]),
        ("val_perplexity", [1.0], [0.5, 1e308]),
        ("of_nobody", [-5.0, 1e30], [1e308, math.nan]),
    ],
)
def test_a_figure_knows_its_range(name, inside, outside):
    sizes = Sizes(experts=8, domains=4)
    assert all(figure(name).range.holds(value, sizes) for value in inside)
    assert not any(figure(name).range.holds(value, sizes) for value in outside)


def test_sizes_that_are_not_known_give_the_widest_range_and_unknown_bounds_are_refused():
    assert METRICS["load_cv"].range.holds(100.0, Sizes()) and not METRICS["load_cv"].range.holds(500.0, Sizes())
    with pytest.raises(ValueError, match="no bound is called 'log F'"):
        metric("of_no_use", "lower", range=(0, "log F"))

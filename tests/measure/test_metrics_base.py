from __future__ import annotations

import pytest

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure import METRICS, MetricTable, get_metric
from spectra_exp.measure.base import metric


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
        metric("load_cv", "lower")(lambda stats: 0.0)


def test_an_unknown_metric_names_the_nearest():
    assert get_metric("max_vio") is METRICS["max_vio"]
    with pytest.raises(ConfigError, match="did you mean 'max_vio'"):
        get_metric("max_voi")

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import layer_of, record_of, routings, statistics_of, tokens_of

from spectra_exp.measure import METRICS, compute_floors, compute_metrics, describe_metrics

# Names that other people's scripts read: a contract.
NAMES = {
    "load_cv",
    "load_cv_batch",
    "max_vio",
    "max_vio_batch",
    "load_gini",
    "expert_entropy",
    "expert_entropy_norm",
    "unused_rate",
    "collapse_rate",
    "expert_overlap",
    "coactivation",
    "gram_orthogonality",
    "gram_rms",
    "gram_welch_floor",
    "output_gram_orthogonality",
    "routing_entropy",
    "routing_entropy_norm",
    "routing_confidence",
    "score_gap",
    "routing_consistency",
    "router_saturation",
    "usage_variance",
    "usage_kendall_tau",
    "fraction_to_stability",
    "sequential_overlap",
    "layer_mutual_information",
    "domain_purity",
    "domain_mutual_information",
    "expert_diversity",
    "quota_short_rate",
    "dropped_rate",
    "executed_k",
    "no_expert_rate",
    "effective_experts",
}


def test_every_name_of_the_contract_is_registered():
    assert set(METRICS) >= NAMES


def test_every_metric_is_described_in_one_line():
    rows = describe_metrics()
    assert [r["name"] for r in rows] == sorted(METRICS)
    for row in rows:
        assert row["direction"] in ("lower", "higher", "none")
        assert 10 < len(row["meaning"]) < 120 and not row["meaning"].endswith(".")
    floors = {r["name"]: r["floor"] for r in rows}
    assert floors["gram_rms"] == "gram_welch_floor" and floors["max_vio_batch"] == "max_vio_batch_floor"
    assert floors["dropped_rate"] == ""


@settings(max_examples=40, deadline=None)
@given(routings(), st.randoms(use_true_random=False))
def test_the_names_of_the_experts_do_not_matter(case, random):
    records, tokens, top_k = case
    order = list(range(records[0].chosen_NE.shape[1]))
    random.shuffle(order)
    renamed = [
        record_of(r.chosen_NE[:, order], r.layer, weights_NE=r.weights_NE[:, order], probs_NE=r.probs_NE[:, order])
        for r in records
    ]
    table = compute_metrics(statistics_of(records, tokens, top_k))
    other = compute_metrics(statistics_of(renamed, tokens, top_k))
    assert set(table) == set(other)
    for key, value in table.items():
        assert math.isfinite(value)
        assert other[key] == pytest.approx(value, abs=1e-6), key


@settings(max_examples=40, deadline=None)
@given(routings())
def test_the_batch_size_changes_only_the_batch_metrics(case):
    records, tokens, top_k = case
    starts = [0, *(np.flatnonzero(np.diff(tokens.sequence_ids_N)) + 1), len(tokens.token_ids_N)]
    batches = [slice(a, b) for a, b in pairwise(starts)]
    one = compute_metrics(statistics_of(records, tokens, top_k))
    many = compute_metrics(statistics_of(records, tokens, top_k, batches=batches))
    for (layer, name), value in one.items():
        if METRICS[name].reduction == "sum":
            assert many[layer, name] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=25, deadline=None)
@given(routings())
def test_floors_are_finite_and_stand_beside_their_metrics(case):
    records, tokens, top_k = case
    layers = statistics_of(records, tokens, top_k)
    values, floors = compute_metrics(layers), compute_floors(layers)
    names = {m.floor_name for m in METRICS.values() if m.floor}
    for (layer, name), value in floors.items():
        assert math.isfinite(value) and name in names
        assert layer == "all" or (layer, name.removesuffix("_floor")) in values


@pytest.mark.parametrize("wild", [np.nan, np.inf])
def test_a_diverged_router_is_not_defined_rather_than_nan(wild):
    stats = layer_of([[0], [1]], 2, top_k=1)
    broken = replace(stats, representation_ED=np.full((2, 3), wild), entropy_sum=wild)
    table = compute_metrics([broken])
    assert not {("0", name) for name in ("gram_orthogonality", "gram_rms", "routing_entropy")} & set(table)
    assert table["0", "load_cv"] == 0.0


def test_random_and_hash_routers_have_loads_but_no_distribution():
    table = compute_metrics([layer_of([[0], [1]], 2, top_k=1)]).all()
    assert "load_cv" in table and "routing_confidence" in table
    assert not {"routing_entropy", "score_gap", "gram_orthogonality", "gram_welch_floor"} & set(table)


def test_uniform_probabilities_have_full_entropy():
    probs_NE = torch.full((4, 8), 1 / 8)
    chosen_NE = torch.eye(8, dtype=torch.bool)[:4]
    table = compute_metrics(statistics_of([record_of(chosen_NE, probs_NE=probs_NE)], tokens_of(4), 1)).all()
    assert table["routing_entropy_norm"] == pytest.approx(1.0) and table["score_gap"] == 0.0

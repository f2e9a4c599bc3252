from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from routing_cases import layer_of, record_of, statistics_of, tokens_of

from spectra_exp.measure import METRICS, compute_floors, compute_metrics, compute_stability, compute_stability_floors
from spectra_exp.measure.base import metric
from spectra_exp.measure.floors import uniform_balance
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.measure.stability import expert_sets

NUM_EXPERTS, TOP_K, NUM_TOKENS = 8, 2, 4000


@pytest.mark.parametrize(
    ("num_tokens", "max_vio", "cv", "gini"), [(65_536, 0.024, 0.010, 0.006), (2_048, 0.142, 0.058, 0.033)]
)
def test_uniform_floors_equal_the_stated_figures(num_tokens, max_vio, cv, gini):
    floor = uniform_balance(num_tokens, 64, 8)
    assert floor["max_vio"] == pytest.approx(max_vio, rel=0.03)
    assert floor["load_cv"] == pytest.approx(cv, rel=0.04)
    assert floor["load_gini"] == pytest.approx(gini, rel=0.05)


def test_a_batch_without_an_expert_spoils_no_floor():
    """One assignment in two batches: by its share of the tokens neither has one."""
    records, tokens = [record_of(torch.eye(64, 4, dtype=torch.bool) & (torch.arange(64) == 0)[:, None])], tokens_of(64)
    stats = statistics_of(records, tokens, 2, batches=[slice(0, 32), slice(32, 64)])
    floors = compute_floors(stats).all()
    assert floors["load_cv_floor"] > 0 and "load_cv_batch_floor" not in floors
    assert all(np.isfinite(list(floors.values())))


def _random_layers(skew: float, top_k: int = TOP_K, batches=None):
    """Two layers of random routing, some experts likelier than others, that knows nothing of the text."""
    generator = torch.Generator().manual_seed(0)
    records = []
    for layer in range(2):
        bias = skew * torch.randn(NUM_EXPERTS, generator=generator)
        noise = -torch.log(-torch.log(torch.rand(NUM_TOKENS, NUM_EXPERTS, generator=generator)))
        probs = torch.softmax(bias + noise, dim=1)
        chosen = torch.zeros(NUM_TOKENS, NUM_EXPERTS, dtype=torch.bool)
        chosen.scatter_(1, probs.topk(top_k, dim=1).indices, True)
        records.append(record_of(chosen, layer, weights_NE=probs * chosen, probs_NE=probs))
    documents = torch.arange(NUM_TOKENS) // 50
    ids = (300 * torch.rand(NUM_TOKENS, generator=generator) ** 3).long().tolist()
    tokens = tokens_of(NUM_TOKENS, ids, documents.tolist(), (documents % 4).tolist())
    return statistics_of(records, tokens, top_k, probes=500, batches=batches)


MARGINALS = ("sequential_overlap", "expert_overlap", "coactivation", "expert_diversity")


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_random_routing_sits_on_its_floors_whatever_its_loads(skew):
    layers = _random_layers(skew)
    values, floors = compute_metrics(layers).all(), compute_floors(layers).all()
    for name in MARGINALS:
        assert values[name] == pytest.approx(floors[f"{name}_floor"], rel=0.04), name
    for name in ("domain_mutual_information", "layer_mutual_information"):
        assert values[name] == pytest.approx(floors[f"{name}_floor"], abs=2e-3), name
    assert values["domain_purity"] == pytest.approx(floors["domain_purity_floor"], rel=0.05)


def test_a_skewed_random_router_would_pass_as_consistent_beside_a_uniform_floor():
    stats = _random_layers(2.0)[0]
    value = METRICS["sequential_overlap"].function(stats)
    planted = TOP_K / NUM_EXPERTS
    assert value > 1.5 * planted
    assert value == pytest.approx(compute_floors([stats])["0", "sequential_overlap_floor"], rel=0.03)


def test_overlap_floor_is_k_sum_of_squared_shares():
    stats = _random_layers(1.0)[0]
    expected = TOP_K * float((stats.share_E**2).sum())
    assert compute_floors([stats])["0", "sequential_overlap_floor"] == pytest.approx(expected)


def test_batch_floors_follow_the_batches_own_tokens():
    sizes = [slice(0, 1000), slice(1000, 2000), slice(2000, 4000)]
    floors = compute_floors(_random_layers(0.0, batches=sizes)).all()
    one, two = (uniform_balance(n, NUM_EXPERTS, TOP_K)["max_vio"] for n in (1000, 2000))
    assert floors["max_vio_batch_floor"] == pytest.approx((2 * one + two) / 3)
    assert floors["max_vio_batch_floor"] > 1.3 * floors["max_vio_floor"]


def test_whole_documents_are_permuted_not_tokens():
    # Each document keeps to one expert of its own choosing: with 12 documents chance alone tells domains apart.
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(12), 100)
    sets = rng.integers(0, 4, 12)[documents, None].tolist()
    stats = layer_of(sets, 4, 1, documents=documents.tolist(), domains=(documents % 3).tolist())
    floor = compute_floors([stats])["0", "domain_mutual_information_floor"]
    assert floor > 0.1
    told_apart = layer_of(
        (documents % 3)[:, None].tolist(), 4, 1, documents=documents.tolist(), domains=(documents % 3).tolist()
    )
    assert METRICS["domain_mutual_information"].function(told_apart) == pytest.approx(np.log(3))
    assert compute_floors([told_apart])["0", "domain_mutual_information_floor"] < 0.5
    token_domains = rng.permutation(documents % 3)
    by_token = layer_of(sets, 4, 1, documents=list(range(1200)), domains=token_domains.tolist())
    planted = METRICS["domain_mutual_information"].function(by_token)
    assert planted < 0.02


def test_two_orders_of_words_change_documents_between_the_two_alone():
    # A third domain keeps to expert 2, which the two never use: exchanged with theirs, it would be told apart.
    documents = np.repeat(np.arange(60), 20)
    domains = documents % 3
    rng = np.random.default_rng(0)
    experts = np.where(domains == 0, 2, rng.integers(0, 2, len(documents)))
    stats = layer_of(experts[:, None].tolist(), 3, 1, documents=documents.tolist(), domains=domains.tolist())
    assert ("0", "order_purity_floor") not in compute_floors([stats])
    pair = replace(stats, reversed_domains=(1, 2))
    floor = compute_floors([pair])["0", "order_purity_floor"]
    assert METRICS["order_purity"].function(pair) == pytest.approx(floor, abs=0.03) and floor < 0.55
    planted = compute_floors([replace(stats, reversed_domains=(0, 1))])["0", "order_purity_floor"]
    assert planted > 0.55
    # Told apart, far above the floor.
    apart = replace(
        layer_of(domains[:, None].tolist(), 3, 1, documents=documents.tolist(), domains=domains.tolist()),
        reversed_domains=(1, 2),
    )
    assert METRICS["order_purity"].function(apart) == 1.0 and compute_floors([apart])["0", "order_purity_floor"] < 0.7


def test_documents_not_in_the_evaluation_take_no_part_in_the_permutation():
    stats = layer_of([[0], [1]] * 20, 2, 1, documents=[0] * 20 + [1] * 20, domains=[0] * 20 + [1] * 20)
    unseen = replace(
        stats,
        domains_G=np.concatenate([stats.domains_G, np.full(50, -1)]),
        counts_GE=np.concatenate([stats.counts_GE, np.zeros((50, 2), dtype=np.int64)]),
    )
    name = ("0", "domain_purity_floor")
    assert compute_floors([unseen])[name] == compute_floors([stats])[name]


def test_ragged_sets_keep_their_sizes_in_the_null():
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(NUM_TOKENS, NUM_EXPERTS, generator=generator) < torch.linspace(0.05, 0.6, NUM_EXPERTS)
    ids = torch.randint(0, 40, (NUM_TOKENS,), generator=generator).tolist()
    layers = statistics_of([record_of(chosen)], tokens_of(NUM_TOKENS, ids), TOP_K)
    values, floors = compute_metrics(layers).all(), compute_floors(layers).all()
    for name in MARGINALS:
        assert values[name] == pytest.approx(floors[f"{name}_floor"], rel=0.05), name


def test_the_uniform_floor_of_ones_own_metric_is_its_value_under_even_random_routing():
    def overlap(stats):
        """Share of adjacent tokens' experts that both use."""
        return stats.overlap_sum / stats.num_adjacent / TOP_K

    def busiest(stats):
        """The busiest expert's share."""
        return float(stats.share_E.max())

    for function in (overlap, busiest):
        metric(function.__name__, "lower", range=(0, 1), floor="uniform")(function)
    try:
        floors = compute_floors(_random_layers(1.5)).all()
    finally:
        for function in (overlap, busiest):
            METRICS.pop(function.__name__)
    assert floors["overlap_floor"] == pytest.approx(TOP_K / NUM_EXPERTS, rel=0.01)
    assert floors["busiest_floor"] == pytest.approx(1 / NUM_EXPERTS, rel=0.1)


def test_floors_are_the_same_every_time_and_differ_with_the_seed():
    layers = _random_layers(0.5)
    assert compute_floors(layers).rows() == compute_floors(layers).rows()
    assert compute_floors(layers, seed=1).rows() != compute_floors(layers).rows()


def test_nothing_assigned_has_no_floor():
    assert not compute_floors([layer_of([[], []], 3, top_k=1)])


def test_one_expert_has_floors_without_its_undefined_metrics():
    floors = compute_floors([layer_of([[0], [0]], 1, top_k=1)]).all()
    assert floors["load_cv_floor"] == 0.0 and "expert_entropy_norm_floor" not in floors


def _random_snapshots(probabilities_TE, num_tokens=3000):
    rng = np.random.default_rng(0)
    snapshots = []
    for t, p_E in enumerate(probabilities_TE):
        scores = np.log(p_E) + rng.gumbel(size=(num_tokens, len(p_E)))
        experts_PK = np.argsort(-scores, axis=1)[:, :TOP_K]
        counts_E = expert_sets(experts_PK, len(p_E)).sum(axis=0)
        fraction = (t + 1) / len(probabilities_TE)
        experts = experts_PK[None].astype(np.int16)
        counts = counts_E[None, None]
        snapshots.append(RoutingSnapshot(t, fraction, TOP_K, num_tokens, counts, counts, experts, experts * 0.0))
    return snapshots


def test_random_routing_is_as_consistent_as_its_floor_says():
    snapshots = _random_snapshots([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.7]])
    values, floors = compute_stability(snapshots).all(), compute_stability_floors(snapshots).all()
    for name in ("routing_consistency", "router_saturation"):
        assert values[name] == pytest.approx(floors[f"{name}_floor"], rel=0.02)
    shares = [s.counts_LE[0] / s.counts_LE[0].sum() for s in snapshots]
    consecutive = TOP_K * np.mean([shares[0] @ shares[1], shares[1] @ shares[2]])
    with_final = TOP_K * np.mean([shares[0] @ shares[2], shares[1] @ shares[2]])
    assert floors["routing_consistency_floor"] == pytest.approx(consecutive)
    assert floors["router_saturation_floor"] == pytest.approx(with_final)


def test_unchanging_random_usage_varies_as_its_floor_says():
    snapshots = _random_snapshots([[0.4, 0.3, 0.2, 0.1]] * 5)
    value, floor = compute_stability(snapshots).all(), compute_stability_floors(snapshots).all()
    assert value["usage_variance"] == pytest.approx(floor["usage_variance_floor"], rel=0.5)
    moving = _random_snapshots([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    assert compute_stability(moving).all()["usage_variance"] > 5 * floor["usage_variance_floor"]


def test_a_single_snapshot_has_no_floor():
    assert not compute_stability_floors(_random_snapshots([[0.5, 0.3, 0.2]]))


@pytest.mark.parametrize("top_k", [1, 3])
def test_the_uniform_floor_is_of_as_many_experts_as_tokens_had(top_k):
    chosen = torch.rand(NUM_TOKENS, NUM_EXPERTS).argsort(1) < top_k
    stats = statistics_of([record_of(chosen)], tokens_of(NUM_TOKENS), 2)
    floors = compute_floors(stats)
    assert floors["all", "load_cv_floor"] == uniform_balance(NUM_TOKENS, NUM_EXPERTS, top_k)["load_cv"]


def test_the_uniform_floor_of_unequal_numbers_is_what_drawing_them_gives():
    rng = np.random.default_rng(0)
    sizes = np.repeat([0, 1, 8], [1000, 2500, 500])
    chosen = [np.argsort(rng.random((NUM_TOKENS, NUM_EXPERTS)), 1).argsort(1) < sizes[:, None] for _ in range(60)]
    loads = np.stack([c.sum(0) for c in chosen])
    stats = statistics_of([record_of(torch.from_numpy(chosen[0]))], tokens_of(NUM_TOKENS), 2)
    drawn = float((loads.std(1) / loads.mean(1)).mean())
    assert compute_floors(stats)["all", "load_cv_floor"] == pytest.approx(drawn, rel=0.1)
    nobody = statistics_of([record_of(torch.zeros(9, NUM_EXPERTS, dtype=torch.bool))], tokens_of(9), 2)
    assert "load_cv_floor" not in compute_floors(nobody).all()

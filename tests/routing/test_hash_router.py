"""Letters: E experts, K experts per token, V vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from router_cases import HIDDEN, VOCABULARY, ids_of, inputs_of

from spectra_exp.routing.routers.hash import HashConfig, HashRouter, balanced_assignment
from spectra_exp.routing.selection import select_topk


def _chosen(kind: str, top_k: int = 2, **fields):
    router = HashRouter(HIDDEN, 4, top_k, HashConfig(kind=kind), VOCABULARY)
    router.set_token_counts(np.arange(VOCABULARY)[::-1].copy())
    return select_topk(router(inputs_of(3, 7, **fields)).scores_NE, top_k)


def test_balanced_by_hand():
    """Counts 10, 6, 5, 4, 1 over 2 experts: 10 -> 0, 6 -> 1, 5 -> 1 (6 < 10), 4 -> 0 (10 < 11), 1 -> 1 (11 < 14)."""
    experts = balanced_assignment(np.array([5, 10, 4, 1, 6]), 2, 1)
    assert experts[:, 0].tolist() == [1, 0, 0, 1, 1]
    # The order in which ids happen to stand would be another, worse deal.
    assert experts[:, 0].tolist() != [0, 1, 0, 1, 1]


def test_balanced_with_two_experts_each_by_hand():
    """Counts 9, 4, 3 over 3 experts, K 2: {0,1}; then {2,0}; then {2,1}: loads 13, 12, 7."""
    experts = balanced_assignment(np.array([9, 4, 3]), 3, 2)
    assert [sorted(row) for row in experts.tolist()] == [[0, 1], [0, 2], [1, 2]]


def test_balanced_evens_out_the_training_load():
    counts_V = (1000 / np.arange(1, 501)).astype(int)
    experts_VK = balanced_assignment(counts_V, 8, 2)
    load_E = np.bincount(experts_VK.flatten(), weights=np.repeat(counts_V, 2), minlength=8)
    assert load_E.std() / load_E.mean() < 0.02
    by_id = np.bincount(np.arange(500) % 8, weights=counts_V, minlength=8)
    assert by_id.std() / by_id.mean() > 0.3
    assert all(len(set(row)) == 2 for row in experts_VK.tolist())
    # Ids never seen in training spread too.
    unseen = np.bincount(balanced_assignment(np.zeros(80, dtype=int), 8, 1)[:, 0], minlength=8)
    assert unseen.tolist() == [10] * 8


@pytest.mark.parametrize("kind", ["balanced", "random", "bigram"])
def test_deterministic_and_by_id_alone(kind):
    assert torch.equal(_chosen(kind), _chosen(kind, seed=9, noise_seed=77, training=True))
    assert (_chosen(kind).sum(1) == 2).all()
    if kind != "bigram":
        by_id = dict(zip(ids_of(3, 7).flatten().tolist(), _chosen(kind).tolist(), strict=True))
        assert [by_id[i] for i in ids_of(3, 7).flatten().tolist()] == _chosen(kind).tolist()


def test_kinds_differ():
    kinds = [_chosen(kind) for kind in ("balanced", "random", "bigram")]
    assert not any(torch.equal(kinds[i], kinds[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_only_bigram_uses_the_previous_id():
    other = dict(previous_ids_BS=torch.zeros(3, 7, dtype=torch.long))
    assert torch.equal(_chosen("random"), _chosen("random", **other))
    assert torch.equal(_chosen("balanced"), _chosen("balanced", **other))
    assert not torch.equal(_chosen("bigram"), _chosen("bigram", **other))


def test_every_expert_counts_the_same():
    router = HashRouter(HIDDEN, 4, 2, HashConfig(), VOCABULARY)
    output = router(inputs_of(3, 7))
    assert output.probs_NE is None and output.logits_NE is None and router.flops_per_token() == 0
    assert torch.equal(output.weights_NE, torch.ones(21, 4)) and not list(router.parameters())

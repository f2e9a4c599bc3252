"""Loss-free, Sinkhorn and random routing. Letters: N real tokens, E experts, K experts per token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from router_cases import EXPERTS, HIDDEN, ids_of, inputs_of, layer_of, normal, router_of, run_layer, settings_of
from scipy.stats import chisquare

from spectra_exp.routing.selection import select_topk
from spectra_exp.routing.sinkhorn import sinkhorn


def skewed(seed: int = 0) -> torch.Tensor:
    """512 tokens with one direction in common, which favours some experts."""
    return normal(8, 64, HIDDEN, seed=seed) + 1.5 * normal(HIDDEN, seed=77)


def imbalance(chosen_NE: torch.Tensor) -> float:
    load = chosen_NE.sum(0).double()
    return float(load.std(unbiased=False) / load.mean())


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_loss_free_scores_by_hand(score):
    router = router_of(settings_of("loss_free", score=score))
    router.bias_E.copy_(torch.tensor([0.5, 0.0, -0.5, 0.0]))
    inputs = inputs_of()
    logits = router.linear(inputs.hidden_BSd).flatten(0, 1)
    plain = torch.sigmoid(logits) if score == "sigmoid" else torch.softmax(logits, -1)
    output = router(inputs)
    torch.testing.assert_close(output.weights_NE, plain)
    torch.testing.assert_close(output.scores_NE, plain + router.bias_E)
    torch.testing.assert_close(output.probs_NE, plain / plain.sum(-1, keepdim=True))


def test_loss_free_bias_moves_by_the_sign_of_the_error():
    """Loads 9, 3, 0, 0 (mean 3): over, exact, under, under, whatever the size of the error or the learning rate."""
    router = router_of(settings_of("loss_free"))
    for scale in (1.0, 0.1):
        router.after_step(torch.tensor([9.0, 3.0, 0.0, 0.0]), scale)
    torch.testing.assert_close(router.bias_E, 2e-3 * torch.tensor([-1.0, 0.0, 1.0, 1.0]))


def _balance(rate: float) -> float:
    router = router_of(settings_of("loss_free", bias_rate=abs(rate)))
    for seed in range(150):
        chosen = select_topk(router(inputs_of(8, 64, hidden_BSd=skewed(seed))).scores_NE, 2)
        router.after_step(chosen.sum(0).float(), 1.0)
        if rate < 0:
            router.bias_E.neg_()
    return imbalance(select_topk(router(inputs_of(8, 64, hidden_BSd=skewed(999))).scores_NE, 2))


@torch.no_grad()
def test_loss_free_balances_fresh_data():
    router = router_of(settings_of("loss_free"))
    before = imbalance(select_topk(router(inputs_of(8, 64, hidden_BSd=skewed(999))).scores_NE, 2))
    assert before > 0.4 and _balance(0.01) < 0.35 * before
    # Planted fault: a bias that is turned the other way.
    assert _balance(-0.01) > 0.35 * before


@torch.no_grad()
def test_sinkhorn_selects_by_the_plan_in_training_and_by_softmax_after():
    router = router_of(settings_of("sinkhorn", epsilon=0.5, iterations=50))
    hidden = skewed()
    logits = router.linear(hidden).flatten(0, 1)
    trained = router(inputs_of(8, 64, hidden_BSd=hidden, training=True))
    evaluated = router(inputs_of(8, 64, hidden_BSd=hidden))
    plan = sinkhorn(-logits, 0.5, 50)
    torch.testing.assert_close(trained.scores_NE.exp(), plan.plan_NE)
    torch.testing.assert_close(evaluated.scores_NE.exp(), torch.softmax(logits, -1))
    for output in (trained, evaluated):
        torch.testing.assert_close(output.weights_NE, torch.softmax(logits, -1))
        assert torch.equal(output.probs_NE, output.weights_NE)
    assert trained.figures["sinkhorn_residual"] < 1e-3 and not evaluated.figures
    balanced, plain = (imbalance(select_topk(o.scores_NE, 2)) for o in (trained, evaluated))
    assert balanced < 0.4 * plain


@torch.no_grad()
def test_sinkhorn_at_inference_looks_at_the_batch():
    change = {}
    for inference in ("softmax", "sinkhorn"):
        router = router_of(settings_of("sinkhorn", inference=inference))
        whole = router(inputs_of(8, 64, hidden_BSd=skewed())).scores_NE[:64]
        alone = router(inputs_of(1, 64, hidden_BSd=skewed()[:1])).scores_NE
        change[inference] = float((whole - alone).abs().max())
    assert change["softmax"] < 1e-4 < 0.05 < change["sinkhorn"]
    softmax, batch = (router_of(settings_of("sinkhorn", inference=i)) for i in ("softmax", "sinkhorn"))
    assert batch.flops_per_token() > softmax.flops_per_token()


def test_sinkhorn_plan_has_no_gradient_and_the_weights_have():
    router = router_of(settings_of("sinkhorn"))
    output = router(inputs_of(training=True))
    assert not output.scores_NE.requires_grad and output.weights_NE.requires_grad


def random_layer(seed: int = 0, top_k: int = 2):
    return layer_of(settings_of("random", top_k), seed)


@torch.no_grad()
def test_random_is_uniform_over_sets_of_experts():
    layer = random_layer()
    ids = torch.randint(50, (64, 128), generator=torch.Generator().manual_seed(1))
    _, record = run_layer(layer, torch.zeros(64, 128, HIDDEN), False, ids=ids)
    assert torch.equal(record.weights_NE, record.chosen_NE * 0.5)
    # One draw per pair of position and id; equal pairs repeat it.
    position = torch.arange(128).expand(64, -1)
    _, first = np.unique((position * 50 + ids).flatten().numpy(), return_index=True)
    sets = (record.chosen_NE[first].long() * 2 ** torch.arange(EXPERTS)).sum(-1)
    counts = np.unique(sets.numpy(), return_counts=True)[1]
    assert len(counts) == 6 and len(first) > 4000
    assert chisquare(counts).pvalue > 1e-3


def test_random_depends_on_position_id_and_salt_and_nothing_else():
    router, ids = router_of(settings_of("random")), ids_of(3, 7)
    scores = router(inputs_of()).scores_NE
    assert torch.equal(router(inputs_of(seed=5, noise_seed=99, training=True, temperature=3.0)).scores_NE, scores)
    assert not torch.equal(router_of(settings_of("random"), seed=1)(inputs_of()).scores_NE, scores)
    same = router(inputs_of(token_ids_BS=torch.full_like(ids, 4))).scores_NE.view(3, 7, EXPERTS)
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0, 0], same[0, 1])
    changed = ids.clone()
    changed[:, 4] += 1
    moved = (router(inputs_of(token_ids_BS=changed)).scores_NE != scores).any(-1).view(3, 7)
    assert moved[:, 4].all() and moved.sum() == 3


def test_random_decodes_as_it_routes_in_one_pass():
    router, ids = router_of(settings_of("random")), ids_of(3, 7)
    whole, state, parts = router(inputs_of()).scores_NE.view(3, 7, EXPERTS), None, []
    for begin, end in ((0, 3), (3, 4), (4, 7)):
        output = router(inputs_of(3, end - begin, token_ids_BS=ids[:, begin:end], state=state))
        state = output.state
        parts.append(output.scores_NE.view(3, end - begin, EXPERTS))
    assert torch.equal(torch.cat(parts, dim=1), whole) and torch.equal(state, torch.full((1, 3), 7))
    # Planted fault: a chunk that counts from 0 again.
    again = router(inputs_of(3, 3, token_ids_BS=ids[:, 4:])).scores_NE.view(3, 3, EXPERTS)
    assert not torch.equal(again, whole[:, 4:])


def test_random_at_k_one_weighs_one():
    _, record = run_layer(random_layer(top_k=1), normal(3, 7, HIDDEN), True)
    assert torch.equal(record.weights_NE, record.chosen_NE.float())

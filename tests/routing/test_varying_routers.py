"""Routers by which tokens differ in their number of experts, each with its wrong versions.

Letters: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

import logging

import pytest
import torch
from moe_cases import ids_of, model_of, settled, train_pass
from router_cases import EXPERTS, HIDDEN, inputs_of, layer_of, normal, router_of, run_layer, settings_of

from spectra_exp.foundations.collective import ALONE
from spectra_exp.moe import layer as layer_module
from spectra_exp.moe.accounting import model_size
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.routers.expert_threshold import ExpertThresholdRouter
from spectra_exp.routing.routers.remoe import shares
from spectra_exp.routing.selection import select_threshold

VARYING = ["remoe", "expert_threshold"]
each = pytest.mark.parametrize("name", VARYING)


def coefficients(model) -> list[float]:
    return [layer.router.coefficient.item() for layer in model.routed_layers]


def skewed(seed: int) -> torch.Tensor:
    """Tokens with one direction in common, which favours some experts."""
    return normal(8, 64, HIDDEN, seed=seed) + 1.5 * normal(HIDDEN, seed=77)


# ReMoE


def test_the_balanced_l1_by_hand():
    """Three tokens, K = 1: loads 2, 1, 0, 0 of four experts weigh 8/3, 4/3, 0, 0."""
    gates_NE = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    router = router_of(settings_of("remoe", top_k=1))
    assert router.balanced_l1(gates_NE, ALONE).item() == pytest.approx((3.0 * 8 / 3 + 0.5 * 4 / 3) / 3)


def test_gates_are_weights_as_they_are(monkeypatch):
    """The output is the gates' sum of the experts; the wrong version divides by their sum."""
    layer, hidden_BSd = layer_of(settings_of("remoe")), normal(3, 7, HIDDEN)
    output, record = run_layer(layer, hidden_BSd, False)
    gates_NE = layer.router(inputs_of(hidden_BSd=hidden_BSd)).logits_NE.relu()
    assert torch.equal(record.weights_NE, gates_NE) and torch.equal(record.chosen_NE, gates_NE > 0)
    assert record.chosen_NE.sum(1).unique().numel() > 1
    right = layer_module.assignment_weights
    monkeypatch.setattr(layer_module, "assignment_weights", lambda w, c, _: right(w, c, True))
    assert not torch.allclose(run_layer(layer, hidden_BSd, False)[0], output, atol=1e-3)


def test_one_coefficient_for_all_layers_moves_by_the_sparsity_of_all():
    """One layer above K and one below move it as their sum says; the wrong version lets each answer its own."""
    model = model_of("remoe", router={"l1_start": 0.01})
    low, high = (layer.router for layer in model.routed_layers)
    low.step_taken, high.step_taken = torch.tensor([10, 10]), torch.tensor([35, 10])
    for router in (low, high):
        router.agree([low, high])
    assert coefficients(model) == pytest.approx([0.012, 0.012])  # 45 of 20 tokens, K = 2: too many
    for router in (low, high):
        router.agree([router])
    assert coefficients(model) == pytest.approx([0.01, 0.0144])
    low.step_taken = high.step_taken = torch.tensor([20, 10])
    low.agree([low, high])
    assert coefficients(model) == pytest.approx([0.01, 0.0144])


def test_the_coefficient_follows_the_number_of_experts():
    """Up by the factor after a step with more than K per token, down after one with fewer; the gates answer it."""
    model = model_of("remoe", router={"l1_start": 0.001}, num_experts=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    taken, moved = [], []
    for step in range(32):
        model.set_step(step)
        optimizer.zero_grad()
        ids = ids_of(4, 16, seed=step)
        output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        optimizer.step()
        before = coefficients(model)[0]
        model.after_optimizer_step(1.0)
        records = output.routing.records.values()
        taken.append(sum(r.chosen_NE.sum().item() for r in records) / sum(len(r.chosen_NE) for r in records))
        moved.append(coefficients(model)[0] / before)
    assert moved == pytest.approx([1.2 if k > 2 else 1 / 1.2 if k < 2 else 1.0 for k in taken])
    assert taken[0] > 3.0 and min(taken) < 2.0 and len(set(coefficients(model))) == 1


def test_the_coefficient_answers_what_was_executed():
    """A load filter that leaves every token without an expert lowers it, though the gates are open."""
    model = model_of("remoe", router={"load_ema_strength": 10.0, "l1_start": 0.01})
    train_pass(model, ids_of())
    before = coefficients(model)[0]
    train_pass(model, ids_of(), 1)
    model.eval()
    record = model(input_ids=ids_of()).routing.records[0]
    assert not record.chosen_NE.any() and (record.probs_NE > 0).any()
    assert coefficients(model)[0] == pytest.approx(before / 1.2)


def test_shares_of_gates_are_a_distribution_with_a_gradient_everywhere():
    gates_NE = torch.tensor([[0.0, 0.0], [3.0, 1.0]], requires_grad=True)
    torch.testing.assert_close(shares(gates_NE), torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    shares(gates_NE)[:, 0].sum().backward()
    assert gates_NE.grad.isfinite().all()


# Expert threshold


@torch.no_grad()
def thresholds_after(*steps: list[torch.Tensor], **options) -> torch.Tensor:
    router = router_of(settings_of("expert_threshold", **options))
    for micro_batches in steps:
        for hidden_BSd in micro_batches:
            router.commit(router(inputs_of(*hidden_BSd.shape[:2], hidden_BSd=hidden_BSd, training=True)).updates)
        router.after_step(torch.ones(EXPERTS), 1.0)
    return router.threshold_E


def test_the_threshold_is_what_the_top_share_of_a_step_reaches():
    """By the tokens of all its micro-batches; the wrong version, by the last one's, differs."""
    hidden_BSd = skewed(3)
    whole_E = thresholds_after([hidden_BSd])
    scores_NE = router_of(settings_of("expert_threshold"))(inputs_of(8, 64, hidden_BSd=hidden_BSd)).weights_NE
    assert ((scores_NE > whole_E).sum(0) == 512 * 2 // EXPERTS).all()
    torch.testing.assert_close(thresholds_after(list(hidden_BSd.split([3, 5]))), whole_E)
    assert not torch.allclose(thresholds_after([hidden_BSd[3:]]), whole_E, atol=1e-4)


def test_the_first_step_counts_whole_and_later_ones_are_averaged():
    one_E, other_E = thresholds_after([skewed(1)]), thresholds_after([skewed(2)])
    both_E = thresholds_after([skewed(1)], [skewed(2)], decay=0.75)
    torch.testing.assert_close(both_E, 0.75 * one_E + 0.25 * other_E)
    torch.testing.assert_close(thresholds_after([skewed(1)], [skewed(2)], decay=0.0), other_E)


@torch.no_grad()
def test_thresholds_balance_fresh_data_at_k(monkeypatch):
    def load_E() -> torch.Tensor:
        router = router_of(settings_of("expert_threshold"))
        router.threshold_E.copy_(thresholds_after(*([skewed(seed)] for seed in range(8))))
        output = router(inputs_of(8, 64, hidden_BSd=skewed(99)))
        return select_threshold(output.scores_NE, 2).double().sum(0) / 512

    balanced_E = load_E()
    assert balanced_E.sum() == pytest.approx(2.0, abs=0.2) and balanced_E.std() / balanced_E.mean() < 0.15
    # Planted fault: the threshold added where it is to be taken off.
    forward = ExpertThresholdRouter.forward

    def flipped(self, inputs):
        output = forward(self, inputs)
        output.scores_NE = output.weights_NE + self.threshold_E - 1
        return output

    monkeypatch.setattr(ExpertThresholdRouter, "forward", flipped)
    wrong_E = load_E()
    assert wrong_E.std() / wrong_E.mean() > 0.5


# Both


@each
def test_state_moves_in_training_alone_and_stays_float32(name):
    model = model_of(name)
    before = {n: b.clone() for n, b in model.named_buffers() if ".router." in n}
    model.eval()(input_ids=ids_of(), labels=ids_of())
    model.after_optimizer_step(1.0)
    assert before and all(torch.equal(dict(model.named_buffers())[n], b) for n, b in before.items())
    train_pass(model.train(), ids_of())
    moved = {n: b for n, b in model.named_buffers() if n in before}
    assert any(not torch.equal(b, before[n]) for n, b in moved.items())
    model.to(torch.bfloat16)
    cast = dict(model.named_buffers())
    assert all(cast[n].dtype == b.dtype and torch.equal(cast[n], b) for n, b in moved.items())


@each
def test_tokens_without_an_expert_pass_the_layer_by(name, tmp_path):
    model = settled(model_of(name))
    with torch.no_grad():
        for layer in model.routed_layers:
            if name == "remoe":
                layer.router.linear.weight.zero_()
            else:
                layer.router.threshold_E.fill_(2.0)
    context = RoutingContext(keep_outputs=True)
    model(input_ids=ids_of(), use_cache=False, routing=context)
    assert not any(record.chosen_NE.any() for record in context.records.values())
    # The experts learn nothing, and every weight has a gradient all the same, as several processes need.
    loss = train_pass(model.train(), ids_of(seed=4))
    assert loss.isfinite()
    gradients = [p.grad for n, p in model.named_parameters() if ".experts." in n]
    assert all(g is not None and not g.any() for g in gradients)


@each
def test_active_parameters_and_flops_follow_the_measured_number(name):
    """The wrong version takes K, or all E."""
    model = model_of(name)
    expert = 2 * 3 * 8 * 16
    plain = model_size(model_of("switch"), 32)
    found = [model_size(model, 32, executed_k=k) for k in (0.0, 1.5, 2.0, 4.0)]
    assert [size.active - plain.active for size in found] == [round((k - 2) * expert) for k in (0, 1.5, 2, 4)]
    assert [s.flops_per_token - found[2].flops_per_token for s in found] == pytest.approx(
        [2 * (k - 2) * expert for k in (0, 1.5, 2, 4)]
    )
    assert model_size(model, 32).active == found[3].active  # nothing declares a bound


@each
def test_a_resumed_model_goes_on_bit_for_bit(name, tmp_path):
    model = model_of(name)
    for step in range(2):
        train_pass(model, ids_of(seed=step), step)
    model.save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path).train()
    state = {n: b for n, b in model.named_buffers() if ".router." in n}
    assert all(torch.equal(dict(loaded.named_buffers())[n], b) for n, b in state.items())
    assert torch.equal(train_pass(model, ids_of(seed=5), 2), train_pass(loaded, ids_of(seed=5), 2))
    assert all(torch.equal(dict(loaded.named_buffers())[n], b) for n, b in model.named_buffers())


def test_a_step_without_any_expert_is_told_once(caplog, tmp_path):
    from spectra_exp.runs.folder import RunFolder
    from spectra_exp.training.recorder import Recorder

    model = model_of("remoe")
    with torch.no_grad():
        model.routed_layers[1].router.linear.weight.zero_()
    recorder = Recorder(RunFolder(tmp_path, "run"), 4, 1)
    with caplog.at_level(logging.WARNING):
        for step in range(2):
            recorder.begin_step()
            recorder.take_batch(ids_of(), model(input_ids=ids_of(), labels=ids_of()))
            recorder.end_step()
            row = recorder.write_training_row(step, {})
    assert [r.message for r in caplog.records if "no token has an expert" in r.message] == [
        "routed layer 1: no token has an expert there, so that all pass it by; training goes on"
    ]
    assert 0 < row["executed_k"] <= 2 and row["load_cv_batch"] >= 0

"""Rules that other implementations got wrong (docs/method.md 1): each with its wrong version, which fails the check.

Letters: N tokens, E experts, K experts per token, L layers.
"""

from __future__ import annotations

import pytest
import torch
from moe_cases import ids_of, model_of, settled, train_pass
from router_cases import EXPERTS, HIDDEN, layer_of, normal, run_layer, settings_of

from spectra_exp.moe.layer import MoeLayer
from spectra_exp.routing.losses import load_balance_loss
from spectra_exp.routing.selection import assignment_weights, select_quota, select_topk
from spectra_exp.routing.sinkhorn import sinkhorn


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_uniform_router_scores_one_whatever_k(top_k):
    """Wrong version: the share of tokens, N in place of N k, which scores k."""
    n = 6 * EXPERTS
    probs_NE = torch.full((n, EXPERTS), 1 / EXPERTS)
    chosen_NE = torch.zeros(n, EXPERTS, dtype=torch.bool)
    for j in range(top_k):
        chosen_NE[torch.arange(n), (torch.arange(n) + j) % EXPERTS] = True
    assert float(load_balance_loss(probs_NE, chosen_NE)) == pytest.approx(1)
    wrong = EXPERTS * (chosen_NE.float().mean(0) * probs_NE.mean(0)).sum()
    assert float(wrong) == pytest.approx(top_k)


def test_load_balance_is_per_layer_then_averaged():
    """Wrong version: layers concatenated, where two collapsed layers that miss each other's experts look balanced."""
    probs = [torch.eye(2)[[i] * 8] for i in (0, 1)]
    chosen = [p.bool() for p in probs]
    right = torch.stack([load_balance_loss(p, c) for p, c in zip(probs, chosen, strict=True)]).mean()
    wrong = load_balance_loss(torch.cat(probs), torch.cat(chosen))
    assert float(right) == 2 and float(wrong) == 1
    # And so does the model: the mean of each layer's own term.
    model = model_of("switch", router={"jitter": 0.0})
    output = model(input_ids=ids_of(), labels=ids_of())
    records = [output.routing.records[i] for i in range(2)]
    terms = [load_balance_loss(r.probs_NE, r.chosen_NE) for r in records]
    torch.testing.assert_close(output.terms["load_balance"].detach(), torch.stack(terms).mean())
    pooled = load_balance_loss(torch.cat([r.probs_NE for r in records]), torch.cat([r.chosen_NE for r in records]))
    assert abs(float(pooled - output.terms["load_balance"])) > 1e-4


def test_the_loss_free_bias_stays_out_of_the_weights():
    """Wrong version: weights from the biased scores."""
    layer = layer_of(settings_of("loss_free"))
    layer.router.bias_E.copy_(torch.tensor([3.0, -3.0, 0.0, 0.5]))
    _, record = run_layer(layer, normal(3, 7, HIDDEN), True)
    plain_NE = torch.sigmoid(layer.router.linear(normal(3, 7, HIDDEN))).flatten(0, 1).detach()
    biased_NE = plain_NE + layer.router.bias_E
    assert torch.equal(record.chosen_NE, select_topk(biased_NE, 2))
    torch.testing.assert_close(record.weights_NE, assignment_weights(plain_NE, record.chosen_NE, True))
    wrong_NE = assignment_weights(biased_NE, record.chosen_NE, True)
    assert (record.weights_NE - wrong_NE).abs().max() > 0.1


MOVING = {
    "loss_free": (dict(name="loss_free"), "bias_E"),
    "quantile": (dict(name="quantile"), "bias_E"),
    "quantile histogram": (dict(name="quantile", router={"estimator": "histogram"}), "bias_E"),
    "quantile potentials": (
        dict(name="spectra", osr={"potentials": "quantile", "training": "potentials", "sinkhorn_inference": "dual"}),
        "hard_potentials_E",
    ),
    "potentials": (
        dict(name="spectra", osr={"potentials": "hard", "training": "potentials", "sinkhorn_inference": "dual"}),
        "hard_potentials_E",
    ),
    "load average": (dict(name="switch", router={"load_ema_strength": 0.1}), "load_average.updates"),
}


def moving(model, name: str) -> list[torch.Tensor]:
    return [b.clone() for n, b in model.named_buffers() if n.endswith(name)]


@pytest.mark.parametrize("case", MOVING)
def test_load_driven_state_moves_once_per_step_and_never_in_evaluation(case):
    """Wrong version: a move in each micro-batch, as it would be without gathering the step's counts."""
    settings, buffer = MOVING[case]
    model = model_of(**settings)
    answered = []
    for layer in model.routed_layers:
        after_step = layer.router.after_step
        layer.router.after_step = lambda c, s, f=after_step: (answered.append(c.clone()), f(c, s))
    before = moving(model, buffer)
    micro_batches = [ids_of(2, 10, seed=i) for i in range(3)]
    model.set_step(0)
    for ids in micro_batches:
        model(input_ids=ids, labels=ids).loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(moving(model, buffer), before, strict=True))
    model.after_optimizer_step(1.0)
    after = moving(model, buffer)
    assert len(before) == len(after) == len(answered) == 2
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(c.sum() == 3 * 2 * 10 * 2 for c in answered)
    if case == "loss_free":
        assert all((b.abs() <= 1e-3 + 1e-9).all() for b in after)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids_of(), labels=ids_of())
    model.after_optimizer_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(moving(model, buffer), after, strict=True))
    # The wrong version: the model told after every micro-batch that a step is over.
    wrong = model_of(**settings)
    for ids in micro_batches:
        wrong(input_ids=ids, labels=ids).loss.backward()
        wrong.after_optimizer_step(1.0)
    assert any(not torch.equal(a, b) for a, b in zip(moving(wrong, buffer), after, strict=True))


@pytest.mark.parametrize("case", MOVING)
def test_gradient_checkpointing_moves_state_once(case, monkeypatch):
    """Wrong version: counts taken in the layer's own pass, which checkpointing runs twice."""
    settings, buffer = MOVING[case]

    def counts(checkpointing: bool) -> tuple[float, list[torch.Tensor]]:
        model = model_of(**settings)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        total = []
        after_step = model.routed_layers[0].router.after_step
        model.routed_layers[0].router.after_step = lambda c, s: (total.append(float(c.sum())), after_step(c, s))
        train_pass(model, ids_of())
        return total[0], moving(model, buffer)

    (plain, state), (twice, twice_state) = counts(False), counts(True)
    assert plain == twice and all(torch.equal(a, b) for a, b in zip(state, twice_state, strict=True))

    select = MoeLayer.select

    def counting(self, scores_NE, training_rule):
        chosen_NE = select(self, scores_NE, training_rule)
        self.step_counts_E = chosen_NE.sum(0).float() + (0 if self.step_counts_E is None else self.step_counts_E)
        return chosen_NE

    monkeypatch.setattr(MoeLayer, "select", counting)
    monkeypatch.setattr(MoeLayer, "commit", lambda self, context: None)
    assert counts(True)[0] == 2 * counts(False)[0]


@pytest.mark.parametrize("name", ["switch", "spectra", "loss_free", "sinkhorn"])
def test_evaluation_drops_no_token(name):
    """Wrong version: the capacity of training, which turns assignments away in evaluation."""
    layer = layer_of(settings_of(name, rule="quota"))
    layer.settings.selection.capacity_factor = 1.0
    # One token over and over: training's capacity cannot serve it everywhere.
    hidden = normal(1, 1, HIDDEN).expand(3, 7, -1) + 0.01 * normal(3, 7, HIDDEN, seed=1)
    _, record = run_layer(layer, hidden, False)
    assert (record.chosen_NE.sum(1) == 2).all()
    wrong_NE = select_quota(record.probs_NE, 2, 1.0)
    assert wrong_NE.sum(0).max() <= 11 < record.chosen_NE.sum(0).max()


@pytest.mark.parametrize("name", ["switch", "spectra", "loss_free", "sinkhorn", "random"])
@pytest.mark.parametrize("training", [True, False])
def test_padded_and_unpadded_documents_route_alike(name, training):
    """Wrong version: padding that is routed as if it were text."""
    settings = dict(name=name)
    if name == "spectra":
        settings["osr"] = {"training": "potentials", "potentials": "hard", "sinkhorn_inference": "dual"}
    model = settled(model_of(**settings))
    ids = ids_of(3, 8)
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[:, :3] = 0
    padded = torch.cat([torch.zeros(3, 3, dtype=torch.long), ids], dim=1)

    def chosen(**batch):
        from spectra_exp.moe.context import RoutingContext

        context = RoutingContext(training_rule=training)
        with torch.no_grad():
            model(use_cache=False, routing=context, **batch)
        return torch.stack([context.records[layer].chosen_NE for layer in (0, 1)])

    plain = chosen(input_ids=ids)
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    assert torch.equal(chosen(input_ids=padded, attention_mask=mask, position_ids=position_ids), plain)
    # The wrong version has the padding among its tokens, and (for most) other choices for the real ones.
    wrong = chosen(input_ids=padded)
    assert wrong.shape[1] == 33 and not torch.equal(wrong.view(2, 3, 11, -1)[:, :, 3:].flatten(1, 2), plain)


def test_sinkhorn_is_float32_in_the_log_domain_with_a_cap():
    """Wrong versions: half precision, which overflows, and no cap, which need not end."""
    cost = 40 * normal(64, EXPERTS)
    half = torch.exp(-cost.half() / 0.5)
    assert not half.isfinite().all() or (half.sum(1) == 0).any()
    plan = sinkhorn(cost.half(), 0.5, 3)
    assert plan.plan_NE.dtype == torch.float32 and plan.plan_NE.isfinite().all()
    torch.testing.assert_close(plan.plan_NE.sum(1), torch.ones(64))
    # Balance is out of reach in a few iterations here: the cap ends it, and the residual says how far off it is.
    residuals = [float(sinkhorn(cost, 0.5, i).residual) for i in (1, 3, 30)]
    assert residuals[0] > residuals[-1] and residuals[1] > 0.01
    with torch.autocast("cpu", torch.bfloat16):
        layer = layer_of(settings_of("sinkhorn"))
        _, record = run_layer(layer, normal(3, 7, HIDDEN), True)
    assert record.figures["sinkhorn_residual"].dtype == torch.float32

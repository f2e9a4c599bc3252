"""The rules of training and of inference, and the state behind them (docs/method.md 1.5-1.8).

Letters: N tokens, E experts, K experts per token.
"""

from __future__ import annotations

import pytest
import torch
from router_cases import EXPERTS, HIDDEN, inputs_of, normal, reset, router_of, settings_of

from spectra_exp.routing.osr import OsrConfig, gram, osr_cost
from spectra_exp.routing.routers.spectra import SpectraConfig, SpectraRouter
from spectra_exp.routing.selection import select_topk
from spectra_exp.routing.sinkhorn import sinkhorn

POTENTIALS_E = torch.tensor([0.3, -0.1, 0.0, -0.2])


def _router(**osr) -> SpectraRouter:
    return router_of(settings_of("spectra", osr=OsrConfig(**osr)))


def _cost(router: SpectraRouter, **fields):
    return router(inputs_of(**fields)).tensors["cost"]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("potentials", ["soft", "hard"])
def test_rules_of_inference(potentials, temperature):
    results = {}
    for rule in ("false", "true", "dual"):
        router = _router(sinkhorn_inference=rule, potentials=potentials, sinkhorn_epsilon=0.2)
        router.hard_potentials_E.copy_(POTENTIALS_E if potentials == "hard" else POTENTIALS_E.flip(0))
        router.soft_potentials.move(POTENTIALS_E if potentials == "soft" else POTENTIALS_E.flip(0))
        cost_NE = _cost(router)
        epsilon = 0.2 * temperature
        expected = {
            "false": torch.softmax(-cost_NE / epsilon, -1),
            "true": sinkhorn(cost_NE, epsilon, 3).plan_NE,
            "dual": torch.softmax((POTENTIALS_E - cost_NE) / epsilon, -1),
        }
        output = router(inputs_of(temperature=temperature))
        torch.testing.assert_close(output.probs_NE, expected[rule])
        assert torch.equal(output.weights_NE, output.probs_NE)
        torch.testing.assert_close(output.scores_NE.exp(), output.probs_NE)
        torch.testing.assert_close(output.logits_NE, -cost_NE / epsilon)
        assert ("sinkhorn_residual" in output.figures) == (rule == "true")
        results[rule] = output.probs_NE
    assert not torch.allclose(results["false"], results["true"], atol=1e-3)
    assert not torch.allclose(results["false"], results["dual"], atol=1e-3)


def test_rules_of_training():
    plans, chosen = [], []
    for rule in ("plan", "potentials"):
        router = _router(training=rule, potentials="hard")
        router.hard_potentials_E.copy_(POTENTIALS_E * 3)
        output = router(inputs_of(training=True))
        cost_NE = output.tensors["cost"].detach()
        torch.testing.assert_close(output.weights_NE, sinkhorn(cost_NE, 0.05, 3).plan_NE)
        assert torch.equal(output.probs_NE, output.weights_NE)
        expected = sinkhorn(cost_NE, 0.05, 3).plan_NE if rule == "plan" else POTENTIALS_E * 3 - cost_NE
        chosen.append(select_topk(output.scores_NE, 2))
        assert torch.equal(chosen[-1], select_topk(expected, 2))
        # The load that inference would execute, whatever selects in training.
        assert torch.equal(
            output.updates["load_counts"], select_topk(POTENTIALS_E * 3 - cost_NE, 2).sum(0).to(torch.float32)
        )
        plans.append(output.weights_NE)
    assert torch.equal(*plans) and not torch.equal(*chosen)


def test_training_by_potentials_selects_what_dual_inference_selects():
    router = _router(training="potentials", potentials="hard", sinkhorn_inference="dual", repulsion_weight=0.0)
    router.hard_potentials_E.copy_(POTENTIALS_E)
    trained, evaluated = router(inputs_of(training=True)), router(inputs_of())
    assert torch.equal(select_topk(trained.scores_NE, 2), select_topk(evaluated.scores_NE, 2))


def test_stopped_gradient_reaches_the_router_too():
    gradients = []
    for kind in ("through", "stopped"):
        router = _router(sinkhorn_grad=kind, sinkhorn_epsilon=0.5)
        (router(inputs_of(training=True)).weights_NE * normal(21, EXPERTS)).sum().backward()
        gradients.append(router.expression.linear.weight.grad)
    assert all(g.abs().max() > 1e-4 for g in gradients) and not torch.allclose(*gradients, rtol=1e-2)


def test_softmax_solver_plans_nothing():
    router = _router(solver="softmax", repulsion_weight=0.0, saturation_weight=0.0, potentials="hard")
    output = router(inputs_of(training=True))
    torch.testing.assert_close(output.probs_NE, torch.softmax(output.tensors["similarity"] / 0.05, -1))
    router.after_step(torch.tensor([9.0, 0.0, 0.0, 0.0]), 1.0)
    assert not router.hard_potentials_E.any()


def test_hard_potentials_move_by_the_clipped_load_error():
    """Counts 6, 1, 1, 0 (mean 2): errors 1 (clipped from 2), -0.5, -0.5, -1; their mean is taken out."""
    router = _router(potentials="hard", potential_rate=0.1)
    router.after_step(torch.tensor([6.0, 1.0, 1.0, 0.0]), 1.0)
    expected = torch.tensor([-0.1, 0.05, 0.05, 0.1]) - 0.025
    torch.testing.assert_close(router.hard_potentials_E, expected)
    router.after_step(torch.tensor([6.0, 1.0, 1.0, 0.0]), 0.5)  # half the rate late in the schedule
    torch.testing.assert_close(router.hard_potentials_E, expected * 1.5)
    router.after_step(torch.ones(4), 1.0)
    torch.testing.assert_close(router.hard_potentials_E, expected * 1.5)
    slower = _router(potentials="hard", potential_rate=0.1, potential_decay=0.5)
    slower.after_step(torch.tensor([6.0, 1.0, 1.0, 0.0]), 0.25)  # a quarter of the learning rate, half the step
    torch.testing.assert_close(slower.hard_potentials_E, expected * 0.5)
    soft = _router(potentials="soft")
    soft.after_step(torch.tensor([6.0, 1.0, 1.0, 0.0]), 1.0)
    assert not soft.hard_potentials_E.any()


def test_soft_potentials_start_from_the_first_batch():
    router = _router(potentials="soft")
    first = router(inputs_of(training=True))
    expected = sinkhorn(first.tensors["cost"].detach(), 0.05, 3).potentials_E
    assert not router.potentials_E().any()
    router.commit(first.updates)
    torch.testing.assert_close(router.potentials_E(), expected)
    second = router(inputs_of(seed=1, training=True))
    router.commit(second.updates)
    later = sinkhorn(second.tensors["cost"].detach(), 0.05, 3).potentials_E
    torch.testing.assert_close(router.potentials_E(), 0.99 * expected + 0.01 * later)


def test_representation_in_evaluation_is_the_running_average():
    router = _router()
    first, second = (router(inputs_of(seed=seed, training=True)) for seed in (0, 1))
    for output in (first, second):
        router.commit(output.updates)
    average = 0.99 * first.representation_ED + 0.01 * second.representation_ED
    evaluated = router(inputs_of(seed=7))
    torch.testing.assert_close(evaluated.representation_ED, average)
    torch.testing.assert_close(
        evaluated.tensors["cost"], osr_cost(evaluated.tensors["similarity"], gram(average), 0.5, 0.5, 0.7)
    )
    # In training it is the batch's own mean, so the same inputs have another cost.
    trained = router(inputs_of(seed=7, training=True))
    assert not torch.allclose(trained.representation_ED, average, atol=1e-3)


def test_repulsion_is_in_the_cost_or_not():
    with_it, without = _router(saturation_weight=0.0), _router(saturation_weight=0.0, repulsion_weight=0.0)
    output = without(inputs_of())
    torch.testing.assert_close(output.tensors["cost"], -output.tensors["similarity"])
    assert (_cost(with_it) - _cost(without)).abs().max() > 1e-3


def test_carry_adds_the_previous_layers_vectors():
    carry = normal(3, 7, EXPERTS, 16, seed=8)
    router = _router()
    alone, carried = router(inputs_of()), router(inputs_of(carry_BSED=carry))
    assert not torch.allclose(alone.carry_BSED, carried.carry_BSED, atol=1e-2)
    torch.testing.assert_close(carried.carry_BSED.norm(dim=-1), torch.ones(3, 7, EXPERTS))
    settings = settings_of("spectra", osr=OsrConfig(), carry="none")
    deaf = router_of(settings)
    assert torch.equal(deaf(inputs_of(carry_BSED=carry)).scores_NE, deaf(inputs_of()).scores_NE)


def test_similarity_is_the_cosine():
    output = _router()(inputs_of())
    assert output.tensors["similarity"].abs().max() <= 1 + 1e-6 and output.tensors["similarity"].std() > 0.1


def test_losses_switch_off_with_their_coefficients():
    off = settings_of(
        "spectra", osr=OsrConfig(so_lambda_max=0.0), entropy_coef=0.0, ortho_coef=0.0, speciality_coef=0.0
    )
    router = router_of(off)
    assert not router(inputs_of(training=True)).losses and not router.loss_coefficients(0, 100)
    on = _router(so_warmup_steps=4)
    assert set(on(inputs_of(training=True)).losses) == {"representation_ortho", "projector_ortho", "speciality"}
    coefficients = [on.loss_coefficients(step, 1000)["representation_ortho"] for step in (0, 1, 3, 500)]
    assert coefficients == pytest.approx([0.25e-3, 0.5e-3, 1e-3, 1e-3])


def test_a_running_mean_has_no_orthogonality_to_train():
    router = router_of(settings_of("spectra", expression="running_mean"))
    output = router(inputs_of(training=True))
    assert set(output.losses) == {"speciality"} and "routing_mean" in output.updates
    router.commit(output.updates)
    torch.testing.assert_close(router.expression.mean.value, output.updates["routing_mean"])


def _skewed_batch(seed: int) -> torch.Tensor:
    """512 tokens from 6 clusters, half of them from one."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.multinomial(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), 512, True, generator=generator)
    return (normal(6, HIDDEN, seed=100)[cluster] + 0.3 * torch.randn(512, HIDDEN, generator=generator))[None]


def _imbalance(potentials: str, inference: str, rate: float = 0.05) -> float:
    """CV of the top-2 load on fresh data of E = 8 experts, after 200 passes that train the potentials alone."""
    osr = OsrConfig(
        potentials=potentials,
        sinkhorn_inference=inference,
        training="potentials",
        potential_rate=abs(rate),
        sinkhorn_epsilon=0.1,
        sinkhorn_iterations=20,
        repulsion_weight=0.0,
    )
    osr.potential_rate = rate
    router = SpectraRouter(HIDDEN, 8, 2, SpectraConfig(dim=4, sequence="linear"), osr)
    reset(router)
    with torch.no_grad():
        for seed in range(200):
            output = router(inputs_of(1, 512, hidden_BSd=_skewed_batch(seed), training=True))
            router.commit(output.updates)
            # The rate decays over the last half, as the learning rate does.
            router.after_step(output.updates["load_counts"], min(1.0, (200 - seed) / 100))
        chosen = select_topk(router(inputs_of(1, 512, hidden_BSd=_skewed_batch(999))).scores_NE, 2)
    load_E = chosen.sum(0).double()
    return float(load_E.std(unbiased=False) / load_E.mean())


def test_potentials_balance_skewed_clusters():
    plain = _imbalance("hard", "false")
    hard, soft = _imbalance("hard", "dual"), _imbalance("soft", "dual")
    assert plain > 0.4, "the toy is not skewed"
    assert hard < 0.25 * plain and soft < 0.6 * plain, (plain, hard, soft)
    # Planted fault: potentials that move towards the load make it worse.
    assert _imbalance("hard", "dual", rate=-0.05) > plain

"""Two processes on the halves of a batch train as one process on the whole.

Two real gloo processes run all cases once (`parallel_cases.py`); the same cases then run here, in one process.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from moe_cases import ids_of, model_of
from parallel_cases import GLOBAL, MODELS, PLANS, RANKS, SWITCH, on_rank, results

from spectra_exp.foundations.collective import ALONE, join, total_over_ranks
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.losses import load_balance_loss, load_balance_of_counts

SAME = dict(atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(on_rank, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone() -> dict:
    return results()


def differing(one: dict, other: dict, **tolerance) -> list[str]:
    """Names of the tensors in which two trained models differ."""
    return [n for n, value in one.items() if not torch.allclose(value.float(), other[n].float(), **tolerance)]


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANS)
def test_plan_and_gradient_are_those_of_one_process(case, ranks, alone):
    rows_NE = torch.cat([rank[case]["rows"] for rank in ranks])
    torch.testing.assert_close(rows_NE, alone[case]["rows"], atol=1e-5, rtol=1e-5)
    for rank in ranks:
        torch.testing.assert_close(rank[case]["whole"], alone[case]["whole"], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_sum_without_gradient_gives_the_plan_and_another_gradient(ranks, alone):
    wrong = torch.cat([rank["planted gradient"]["rows"] for rank in ranks])
    plan, gradient = (wrong - alone["log through number"]["rows"]).abs().chunk(2, dim=1)
    assert plan.max() < 1e-5 and gradient.max() > 1e-2


@pytest.mark.slow
def test_a_count_of_one_rank_gives_another_plan(ranks, alone):
    wrong = torch.cat([rank["planted count"]["rows"] for rank in ranks])
    assert (wrong - alone["log through number"]["rows"]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in MODELS if name != "micro_batch"] + ["checkpointing"])
def test_weights_gradients_and_state_are_those_of_one_process(case, ranks, alone):
    """All weights after two optimizer steps, the last gradients, potentials, biases and running averages."""
    first, second = (rank[case] for rank in ranks)
    assert not differing(first, second, atol=0, rtol=0)
    assert not differing(first, alone[case], **SAME)
    assert any(
        n.endswith(("potentials_E", "bias_E", "value", "router.linear.weight", "router.down.weight")) for n in first
    )


@pytest.mark.slow
def test_state_has_moved(alone):
    for case, name in [
        ("hard potentials", "hard_potentials_E"),
        ("soft potentials", "soft_potentials.value"),
        ("loss_free", "bias_E"),
        ("quantile", "bias_E"),
        ("quantile histogram", "bias_E"),
        ("bip", "bias_E"),
        ("remoe", "coefficient"),
        ("expert_threshold", "threshold_E"),
        ("load average", "load_average.value"),
        ("plan", "expression.mean.value"),
    ]:
        assert all(v.abs().max() > 1e-3 for n, v in alone[case].items() if n.endswith(name)), name


@pytest.mark.slow
def test_loads_of_one_micro_batch_give_another_router_gradient(ranks, alone):
    """The wrong version of `global_batch` is `micro_batch`, whose gradient no averaging mends."""
    router = "gradient of backbone.model.layers.0.mlp.router.linear.weight"
    assert router in differing(ranks[0]["micro_batch"], alone["micro_batch"], atol=1e-3, rtol=1e-2)
    assert router not in differing(ranks[0]["global_batch"], alone["global_batch"], **SAME)


@pytest.mark.slow
def test_running_averages_weigh_ranks_by_their_real_tokens(ranks, alone):
    averages = [n for n in alone["padded"] if n.endswith(("representation.value", "soft_potentials.value"))]
    assert len(averages) == 4
    for name in averages:
        assert torch.equal(ranks[0]["padded"][name], ranks[1]["padded"][name])
        torch.testing.assert_close(ranks[0]["padded"][name], alone["padded"][name], **SAME)
    wrong = differing(ranks[0]["planted mean"], alone["padded"], atol=1e-3, rtol=1e-2)
    assert any(n.endswith("representation.value") for n in wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, case, name",
    [
        ("planted counts", "loss_free", "bias_E"),
        ("planted quantile", "quantile", "bias_E"),
        ("planted dual", "bip", "bias_E"),
        ("planted potential counts", "hard potentials", "hard_potentials_E"),
    ],
)
def test_loads_of_one_rank_would_tell_the_ranks_apart(fault, case, name, ranks, alone):
    apart = differing(ranks[0][fault], ranks[1][fault], atol=1e-4, rtol=0)
    wrong = differing(ranks[0][fault], alone[case], atol=1e-4, rtol=0)
    assert any(n.endswith(name) for n in apart) and any(n.endswith(name) for n in wrong)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["monitor", "monitor without domains"])
def test_a_monitor_sees_the_tokens_of_all_ranks(case, ranks, alone):
    expected = alone[case]
    assert {"load_cv", "expert_overlap", "routing_entropy", "output_gram_orthogonality"} <= set(expected["metrics"])
    for rank in ranks:
        assert rank[case]["metrics"] == pytest.approx(expected["metrics"], rel=1e-6, abs=1e-9)
        assert torch.equal(rank[case]["batches"], expected["batches"])
        assert torch.equal(rank[case]["words"], expected["words"])
    # The wrong version: each rank's own tokens.
    own = [rank["own monitor"] for rank in ranks]
    assert own[0]["metrics"]["load_cv"] != pytest.approx(own[1]["metrics"]["load_cv"], rel=1e-3)
    assert torch.equal(own[0]["words"] + own[1]["words"], alone["monitor"]["words"])


@pytest.mark.slow
def test_a_monitor_of_ranks_that_saw_nothing(ranks):
    assert {rank["one monitor"] for rank in ranks} == {
        f"RoutingMonitor has seen no pass in evaluation mode: {ids_of().numel()}"
    }


@pytest.mark.slow
def test_a_rank_without_tokens_is_refused_on_every_rank(ranks):
    for rank in ranks:
        assert rank["refused"].startswith("1 of 2 ranks have only padding") and "\n" not in rank["refused"]


@pytest.mark.slow
def test_one_rank_evaluates_alone(ranks):
    assert all(rank["evaluation"] for rank in ranks)


class Untouchable:
    """A mask that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(name)


def test_a_process_alone_counts_and_sends_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(dist, "all_reduce", Untouchable())
    ids, counts_E = ids_of(), torch.arange(4.0)
    assert join(ids, Untouchable()) is ALONE and total_over_ranks(counts_E) is counts_E
    assert ALONE.sum(counts_E) is counts_E and ALONE.mean(counts_E) is counts_E and ALONE.tokens(counts_E) == 4
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    try:
        assert join(ids, Untouchable()) is ALONE and total_over_ranks(counts_E) is counts_E
    finally:
        dist.destroy_process_group()


def test_scopes_agree_in_one_process_without_accumulation():
    losses = []
    for settings in (MODELS["micro_batch"], MODELS["global_batch"]):
        losses.append(model_of(**settings)(input_ids=ids_of(), labels=ids_of()).loss)
    assert torch.equal(*losses)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_counts_the_step_so_far(checkpointing):
    model = model_of("switch", router=SWITCH, losses=GLOBAL)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    for step in range(2):
        model.set_step(step)
        counts_LE, local = [0, 0], []
        for micro_batch in range(3):
            ids = ids_of(2, 10, seed=3 * step + micro_batch)
            output = model(input_ids=ids, labels=ids)
            output.loss.backward()
            records = [output.routing.records[layer] for layer in (0, 1)]
            counts_LE = [c + r.chosen_NE.sum(0) for c, r in zip(counts_LE, records, strict=True)]
            pairs = zip(records, counts_LE, strict=True)
            expected = torch.stack([load_balance_of_counts(r.probs_NE, c) for r, c in pairs]).mean()
            torch.testing.assert_close(output.terms["load_balance"].detach(), expected)
            local.append(torch.stack([load_balance_loss(r.probs_NE, r.chosen_NE) for r in records]).mean())
        # The wrong version, the last micro-batch's own loads, is another loss.
        assert (local[-1] - expected).abs() > 1e-6
        model.after_optimizer_step(1.0)


def test_the_scope_is_saved_and_older_settings_load(tmp_path):
    model = model_of("switch", losses=GLOBAL)
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).settings.losses == GLOBAL
    older = model.settings.to_dict()
    del older["losses"]
    assert MoeSettings.from_dict(older).losses.balance_scope == "micro_batch"

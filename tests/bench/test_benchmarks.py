"""The benchmarks measure what they say: the same work beside each other, on sizes that take no time here."""

from __future__ import annotations

from time import process_time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spectra_exp.bench.benchmarks import layer, optimizer, routers, step
from spectra_exp.bench.floor import ExpertsFloor, Shape, make_case
from spectra_exp.bench.peers import TransformersExperts, masked_loop
from spectra_exp.bench.timing import AsOthersRun, interleaved, ratio
from spectra_exp.routing.selection import select_topk

SMALL = {True: Shape(64, 8, 12, 4, 2, gated=True), False: Shape(64, 8, 12, 4, 2, gated=False)}


def flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("gated", [True, False])
def test_the_floor_has_the_work_of_our_experts_and_of_the_peers(gated):
    case = make_case(SMALL[gated])
    subjects, floor = layer.layer_subjects(case), ExpertsFloor(case)
    # The gradient of an assignment's weight is a dot product, which no peer counts as one.
    dots = 2 * int(case.chosen_NE.sum()) * case.shape.hidden_size
    assert flops(subjects["ours"]) - dots == flops(floor.both) == 3 * flops(floor.forward)
    assert flops(subjects["ours, forward"]) == flops(floor.forward)
    peers = layer.peer_subjects(case, "small")
    # torch counts none for grouped products.
    for name in ("masked_loop", "transformers_eager"):
        assert flops(peers[name]) == pytest.approx(flops(floor.both), rel=0.01)
    # Planted fault: a floor that leaves one expert out.
    floor.products = floor.products[: -(3 if gated else 2)]
    assert flops(floor.both) < flops(subjects["ours"])


def test_all_peers_compute_what_ours_does():
    case = make_case(SMALL[True])
    assert layer.largest_error(case) < 1e-6
    peer = TransformersExperts(case, "eager")
    with torch.no_grad():
        peer.experts.gate_up_proj.copy_(torch.cat([case.experts.gate, case.experts.up], dim=1))
        peer.experts.down_proj.copy_(case.experts.down)
        theirs = peer(case.tokens_Nd, case.weights_NE)
    torch.testing.assert_close(theirs, masked_loop(case, case.tokens_Nd, case.weights_NE), atol=1e-6, rtol=1e-4)
    case.chosen_NE = select_topk(torch.randn(64, 4), 2)
    assert layer.largest_error(case) < 1e-6


def test_exp10_and_transformers_model_are_of_one_size(monkeypatch):
    for name, value in dict(LAYERS=1, HIDDEN=48, VOCABULARY=100, WIDTH=96, LENGTH=16).items():
        monkeypatch.setattr(step, name, value)
    ours, theirs = (
        sum(p.numel() for p in make().parameters()) for make in (step.exp10, step.transformers_of_the_same_size)
    )
    assert ours == theirs
    subjects = step.step_subjects()
    # Attention is not in the floor; the head of a sequence's last token is not in ours.
    assert flops(subjects["floor"]) == pytest.approx(flops(subjects["ours"]), rel=0.1)


def test_a_router_is_timed_with_its_losses_and_gradients():
    subject = routers.spectra(SMALL[True], "min_gru", length=32)
    seen = []
    for parameter in subject.router.parameters():
        parameter.register_hook(lambda gradient: seen.append(bool(gradient.any())))
    subject()
    assert all(seen) and len(seen) == len(list(subject.router.parameters()))
    assert "speciality" in subject.router.loss_coefficients(100, 300)


def test_muons_floor_has_its_products(monkeypatch):
    monkeypatch.setattr(optimizer, "MATRICES", ((2, 12, 8), (2, 8, 12), (1, 8, 8)))
    muon = optimizer.MuonAdamW([{"params": optimizer.layer_parameters(), "kind": "muon"}], lr=0.01)
    assert flops(muon.step) == flops(optimizer.NewtonSchulzFloor())
    assert optimizer._difference_from_torch() < 1e-4


def test_what_is_arranged_for_others_is_not_timed():
    work = AsOthersRun(lambda: None)
    seconds = interleaved({"theirs": work}, 2, process_time)["theirs"]
    assert max(seconds) < 1e-3
    with work.arranged():
        pass


def test_turns_are_taken_and_the_first_round_does_not_count():
    order, seconds, now = [], iter([9.0, 9.0, 2.0, 1.0, 6.0, 2.0]), [0.0]

    def take_time(name: str) -> None:
        order.append(name)
        now[0] += next(seconds)

    times = interleaved({name: lambda name=name: take_time(name) for name in "ab"}, 2, lambda: now[0])
    assert order == list("ababab") and times == {"a": [2.0, 6.0], "b": [1.0, 2.0]}
    assert ratio(times, "a", "b") == 2.5

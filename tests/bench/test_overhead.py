"""The profile behind table 9: every part gets its own time and operations, and a slow part is seen as slow."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from spectra_exp.archive.sources import read_sources
from spectra_exp.bench.overhead import METHODS, PARTS, Cost, main, read_profile
from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.parts import part
from spectra_exp.reporting.tables.overhead import overhead_table
from spectra_exp.routing.routers import spectra as spectra_module
from spectra_exp.runs.plan import plan
from spectra_exp.training.build import build_model

SMALL = [
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.expert_size=64",
    "model.num_experts=4",
    "data.sequence_length=16",
    "data.train_words=4000",
    "data.validation_words=2000",
    "data.vocabulary_size=300",
    "data.evaluation_tokens=256",
    "data.probe_tokens=64",
    "trainer.batch_size=4",
]
TOKENS = 4 * 16


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    return tmp_path


def cost_of(method: str) -> Cost:
    planned = plan(load_experiment([*METHODS[method], *SMALL]))
    model = build_model(planned.experiment, planned.corpus).train()
    ids = torch.randint(0, 300, (4, 16))
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        model(input_ids=ids, labels=ids).loss.backward()
    return read_profile(profiled.events())


def test_the_experts_operations_are_those_of_their_products(outputs: Path) -> None:
    for method in METHODS:
        cost = cost_of(method)
        # Three matrices of 32 x 64, forward and two products backward, two operations a weight, k = 2, two layers.
        products = 3 * 32 * 64 * 2 * TOKENS * 2 * 3 * 2
        elementwise = 2 * 64 * 2 * TOKENS * 2 * 8
        assert products <= cost.flops["experts"] <= products + elementwise


def test_every_part_of_spectra_is_found_and_switch_has_a_router_alone(outputs: Path) -> None:
    assert set(cost_of("SPECTRA (paper)").ms) == set(PARTS)
    assert set(cost_of("Switch top-2").ms) == {"router", "selection", "dispatch", "experts"}
    assert cost_of("SPECTRA (causal)").flops["sequence"] > cost_of("SPECTRA (causal)").flops["similarity"]


def test_planted_slowness_is_seen_in_its_own_part(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cost_of("SPECTRA (causal)")
    cost = spectra_module.osr_cost

    def slow(*arguments):
        time.sleep(0.2)
        return cost(*arguments)

    monkeypatch.setattr(spectra_module, "osr_cost", slow)
    after = cost_of("SPECTRA (causal)")
    # Two layers; what else the part takes varies with the machine.
    assert after.ms["cost"] - before.ms["cost"] > 300
    assert abs(after.ms["sinkhorn"] - before.ms["sinkhorn"]) < 100


def test_an_operation_counts_for_the_innermost_part_and_its_gradient_with_it() -> None:
    a, b = torch.randn(2, 8, 8, requires_grad=True).unbind(0)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        with part("router"):
            outer = a @ b
            with part("gram"):
                inner = outer @ b
        (inner @ b).sum().backward()
    flops, product = read_profile(profiled.events()).flops, 2 * 8**3
    # Forward, and the gradients of both factors; the last product is in no part.
    assert flops == {"router": 3 * product, "gram": 3 * product}


def test_the_command_leaves_what_table_9_prints(outputs: Path) -> None:
    (gap,) = overhead_table(read_sources(outputs).profile).gaps
    assert gap.command == "spectra-exp overhead"
    assert main(["repeats=2", *SMALL]) == 0
    content = json.loads((outputs / "bench" / "overhead.json").read_text())
    assert set(content["methods"]) == set(METHODS) and content["tokens"] == TOKENS
    table = overhead_table(read_sources(outputs).profile)
    assert not table.gaps and len(table.parts) == len(METHODS)
    for method, own in table.frame.groupby("method"):
        total = own[own["part"] == "Total of the routed layers"].iloc[0]
        parts = own[own["part"] != "Total of the routed layers"]
        assert parts["ms_mean"].sum() == pytest.approx(total["ms_mean"])
        assert parts["percent"].sum() == pytest.approx(100) and total["percent"] == pytest.approx(100)
        routed = parts[~parts["part"].isin(["Experts", "Dispatch and combine"])]
        assert routed["ms_mean"].sum() == pytest.approx(sum(content["methods"][method]["routing_ms"]) / 2)


def test_a_damaged_profile_is_a_gap_with_its_reason(outputs: Path) -> None:
    (outputs / "bench").mkdir()
    (outputs / "bench" / "overhead.json").write_text('{"schema": 1, "meth')
    (gap,) = overhead_table(read_sources(outputs).profile).gaps
    assert "cannot be read" in gap.reason
    (outputs / "bench" / "overhead.json").write_text('{"schema": 0}')
    assert "not a profile of schema 1" in overhead_table(read_sources(outputs).profile).gaps[0].reason


def test_bad_input_is_one_line(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeats=0"]) == 2 and main(["model.num_expert=3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "num_experts" in lines[1]

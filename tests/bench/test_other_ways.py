"""Other implementations beside ours: timed where they are there and right, else named with the reason."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from spectra_exp.bench.benchmarks import attention, step, tiny_step
from spectra_exp.bench.benchmarks.peers import peer_figures
from spectra_exp.bench.benchmarks.updates import operations_of, update_figures
from spectra_exp.bench.command import table_of
from spectra_exp.bench.floor import Shape
from spectra_exp.bench.registry import Figure
from spectra_exp.bench.ways import Way, compared

TINY = {"tiny": Shape(64, 16, 32, 4, 2, gated=True)}


def known(figures) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def way(values: list[float]):
    return lambda: Way(lambda: None, lambda: torch.tensor(values))


def failing() -> Way:
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def missing() -> Way:
    import no_such_package  # noqa: F401


def test_a_way_that_fails_or_differs_is_told_and_not_timed():
    ways = {"plain": way([1.0, 2.0]), "same": way([1.0, 2.001]), "other": way([1.0, 2.1]), "nan": way([1.0, torch.nan])}
    found = known(compared("x", ways | {"failing": failing, "missing": missing}, 1, 1, 0.01))
    assert {name for name, figure in found.items() if figure.value is not None} == {"x_plain", "x_same", "x_same_speed"}
    assert found["x_other"].unit == "not timed: its result is 0.045 of ||plain|| away from it"
    assert found["x_nan"].unit.startswith("not timed")
    assert found["x_failing"].unit == "RuntimeError: operation not permitted"
    assert found["x_missing"].unit == "not installed: No module named 'no_such_package'"
    with pytest.raises(RuntimeError, match="not permitted"):
        list(compared("x", {"plain": failing}, 1, 1, 0.01))


def test_what_could_not_be_measured_is_neither_met_nor_missed():
    figure = Figure("x", None, "not installed", 1.0)
    assert figure.met is None and figure.as_json()["value"] is None
    assert table_of([figure]).columns[1]._cells == [""]


def weighted(tokens, matrices, weights_A, token_A, expert_A):
    """What a library computes, by its documentation: gate [E, f, d], up, down [E, d, f]."""
    gate, up, down = matrices
    rows = tokens[token_A.long()].float()[:, :, None]
    inner = nn.functional.silu(gate[expert_A.long()].float() @ rows) * (up[expert_A.long()].float() @ rows)
    outputs = (down[expert_A.long()].float() @ inner)[:, :, 0] * weights_A[:, None]
    return torch.zeros(tokens.shape).index_add(0, token_A.long(), outputs).to(tokens.dtype)


class Liger:
    """Stands in for liger_kernel.ops.LigerFusedMoEFunction."""

    @staticmethod
    def apply(x, gate_up, down, index_NK, weights_NK):
        assert index_NK.dtype == torch.int32
        token_A = torch.arange(len(x))[:, None].expand_as(index_NK).flatten()
        gate, up = gate_up.chunk(2, dim=1)
        return weighted(x, (gate, up, down), weights_NK.flatten(), token_A, index_NK.flatten())


class Swapped(Liger):
    """A wrong layout: up before gate."""

    @staticmethod
    def apply(x, gate_up, down, index_NK, weights_NK):
        return Liger.apply(x, torch.cat(gate_up.chunk(2, dim=1)[::-1], dim=1), down, index_NK, weights_NK)


class HalfGradient(Liger):
    """A right output whose weights' gradient is half of what it should be."""

    @staticmethod
    def apply(x, gate_up, down, index_NK, weights_NK):
        return Liger.apply(x, gate_up, (down + down.detach()) / 2, index_NK, weights_NK)


def sonic(x, scores_A, token_A, expert_A, w1, b1, w2, b2, E, stream_id, activation_type, is_inference_mode_enabled):
    """Stands in for sonicmoe.moe_general_routing_inputs."""
    assert b1 is b2 is None and activation_type.value == "swiglu" and (token_A.diff() >= 0).all()
    assert is_inference_mode_enabled is not torch.is_grad_enabled()
    rows, down = w1.permute(2, 0, 1), w2.permute(2, 0, 1)
    return weighted(x, (rows[:, ::2], rows[:, 1::2], down), scores_A, token_A, expert_A), None


def install(monkeypatch, liger) -> None:
    activations = Enum("ActivationType", {"SWIGLU": "swiglu"})
    stand_ins = {
        "liger_kernel": {},
        "liger_kernel.ops": {"LigerFusedMoEFunction": liger},
        "sonicmoe": {"moe_general_routing_inputs": sonic},
        "sonicmoe.enums": {"ActivationType": activations},
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def test_libraries_that_compute_what_ours_do_are_timed(monkeypatch):
    install(monkeypatch, Liger)
    found = known(peer_figures(TINY, "cpu", 1))
    for library in ("liger", "sonicmoe"):
        assert found[f"peers_tiny_balanced_{library}_error"].value < 0.01
        assert found[f"peers_tiny_skewed_{library}"].value > 0 < found[f"peers_tiny_skewed_{library}_forward"].value


@pytest.mark.parametrize("wrong, least", [(Swapped, 0.1), (HalfGradient, 0.4)])
def test_a_library_that_computes_something_else_is_told_and_not_timed(wrong, least, monkeypatch):
    install(monkeypatch, wrong)
    found = known(peer_figures(TINY, "cpu", 1))
    error = found["peers_tiny_balanced_liger_error"]
    assert error.value > least and error.met is False
    assert found["peers_tiny_balanced_liger"].value is None
    assert "not timed" in found["peers_tiny_balanced_liger"].unit
    assert "peers_tiny_balanced_liger_forward" not in found and "peers_tiny_balanced_sonicmoe_forward" in found


def test_libraries_that_are_not_there_or_fail_are_told(monkeypatch):
    install(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "sonicmoe", None)
    found = known(peer_figures(TINY, "cpu", 1))
    assert found["peers_tiny_skewed_liger"].unit.startswith("AttributeError: ")
    assert found["peers_tiny_skewed_sonicmoe"].unit.startswith("not installed: ")
    assert found["peers_tiny_skewed_transformers"].value > 0


def test_updates_are_timed_and_their_operations_counted():
    found = known(update_figures(TINY, "cpu", 1))
    rules = ("quantile_exact", "quantile_histogram", "potentials_hard", "quantile_in_the_pass")
    assert found.keys() == {f"update_tiny_{rule}" for rule in rules}
    assert found["update_tiny_quantile_in_the_pass"].unit == "us a layer, 3 operations, 0 waits"
    assert [figure.target for figure in found.values()] == [50.0, 50.0, 50.0, None]
    values = torch.randn(8, 4)
    # Views are no work.
    assert operations_of(lambda: values.T[1:].sort(dim=0).values + 1, "cpu") == "2 operations, 0 waits"


@pytest.fixture
def small_exp10(monkeypatch):
    """exp10 in a size that takes no time."""
    for name, value in dict(LAYERS=1, HIDDEN=48, HEADS=4, VOCABULARY=100, WIDTH=96, LENGTH=16).items():
        monkeypatch.setattr(step, name, value)
    return step.exp10()


@pytest.mark.parametrize(
    "fault, timed", [({}, True), ({"is_causal": False, "attention_mask": None}, False), ({"scaling": 0.1}, False)]
)
def test_attention_is_timed_where_it_gives_the_gradients_of_the_fused_one(fault, timed, small_exp10, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    fused = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def other(module, query, key, value, attention_mask, **kwargs):
        inputs = {"attention_mask": attention_mask, **kwargs} | fault
        return fused(module, query, key, value, **inputs)

    def use(model, request):
        model.backbone.set_attn_implementation("sdpa")
        if request.asked != "sdpa":
            model.backbone.model.layers[0].self_attn.config._attn_implementation = "other"

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "other", other)
    monkeypatch.setattr(attention, "use_attention", use)
    ids = torch.randint(0, 100, (2, 16))
    found = known(attention.attention_figures(small_exp10, ids, "cpu", 1))
    assert found["attention_sdpa"].value > 0
    assert (found["attention_flash_attention_2"].value is not None) is timed


def test_attention_that_cannot_work_is_told(small_exp10):
    found = known(attention.attention_figures(small_exp10, torch.randint(0, 100, (2, 16)), "cpu", 1))
    assert found["attention_flash_attention_2"].value is None
    assert "it needs a GPU" in found["attention_flash_attention_2"].unit


class Halved(nn.Module):
    """A compiler's fault: a model with half the loss."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        output = self.model(**inputs)
        output.loss = output.loss / 2
        return output


@pytest.mark.parametrize("compiler, timed", [(lambda model: model, True), (Halved, False)])
def test_a_compiled_step_is_timed_where_it_gives_the_plain_one_s_gradients(compiler, timed, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiler(model))
    monkeypatch.setattr(tiny_step, "REPEATS", 1)
    found = known(tiny_step.tiny_step_figures(["switch"], "cpu", 1))
    assert found["tiny_switch_plain"].value > 0
    assert (found["tiny_switch_compiled"].value is not None) is timed
    assert found["tiny_switch_captured"].value is None and found["tiny_switch_captured"].unit


@pytest.fixture
def graphs(monkeypatch):
    """CUDA's streams and graphs without CUDA: what is captured is done, and a replay does nothing or `replay`."""
    made = SimpleNamespace(replay=lambda: None, captured=0, waits=[])

    @contextmanager
    def capture(graph):
        made.captured += 1
        yield

    @contextmanager
    def waits(device, places):
        yield
        places += made.waits

    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_ins = dict(Stream=lambda: stream, current_stream=lambda: stream, stream=lambda _: nullcontext())
    stand_ins |= dict(CUDAGraph=lambda: SimpleNamespace(replay=lambda: made.replay()), graph=capture)
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    monkeypatch.setattr(tiny_step, "waits", waits)
    monkeypatch.setattr(tiny_step, "REPEATS", 1)
    return made


@pytest.mark.parametrize(
    "waits, replay, told",
    [
        (["masking_utils.py:7"], lambda: None, None),
        (
            ["masking_utils.py:7", "layer.py:5"],
            lambda: None,
            "SpectraError: the host waits for the GPU at layer.py:5",
        ),
        ([], lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_step_is_captured_where_nothing_waits(waits, replay, told, graphs):
    graphs.waits, graphs.replay = waits, replay
    found = known(tiny_step.tiny_step_figures(["spectra"], "cpu", 1))
    assert graphs.captured == (told is None or "waits" not in told)
    captured = found["tiny_spectra_captured"]
    assert captured.unit == "ms" if told is None else (captured.value, captured.unit) == (None, told)

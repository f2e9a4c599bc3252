"""Letters: d hidden size, f expert width, E experts, K experts per token, D router dimension, V vocabulary."""

from __future__ import annotations

import pytest
import torch
from moe_cases import HIDDEN, VOCABULARY, backbone_of, ids_of, model_of, settings_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from spectra_exp.moe.accounting import model_size
from spectra_exp.moe.model import SpectraMoeConfig, SpectraMoeForCausalLM

LAYERS = 2


def _by_hand(router: int, *, experts: int, width: int = 8, gated: bool = True, untied: bool = False) -> int:
    """Parameters: attention 4 d^2, two norms of d, the router, `experts` of 2 or 3 matrices; embedding, last norm."""
    expert = (3 if gated else 2) * HIDDEN * width
    layer = 4 * HIDDEN**2 + 2 * HIDDEN + router + experts * expert
    return LAYERS * layer + VOCABULARY * HIDDEN * (2 if untied else 1) + HIDDEN


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_switch_by_hand(gated, top_k):
    size = model_size(model_of("switch", top_k=top_k, gated=gated), 32)
    assert size.total == _by_hand(4 * HIDDEN, experts=4, gated=gated)
    assert size.active == _by_hand(4 * HIDDEN, experts=top_k, gated=gated)
    assert size.router_flops_per_token == LAYERS * 2 * 4 * HIDDEN


def test_spectra_by_hand():
    """GRU 3(d ED + (ED)^2 + 2 ED), projector d ED, with ED = 4 x 5."""
    size, ed = model_size(model_of("spectra", router={"dim": 5, "sequence": "gru"}), 32), 20
    router = 3 * (HIDDEN * ed + ed * ed + 2 * ed) + HIDDEN * ed
    assert size.total == _by_hand(router, experts=4) and size.active == _by_hand(router, experts=2)
    matrices = 2 * (3 * (HIDDEN * ed + ed * ed) + HIDDEN * ed)
    assert matrices < size.router_flops_per_token / LAYERS < 1.2 * matrices


def test_an_untied_embedding_is_one_row_to_a_token():
    size = model_size(model_of("hash", backbone=backbone_of(tie_word_embeddings=False)), 32)
    assert size.total == _by_hand(0, experts=4, untied=True)
    assert size.active == _by_hand(0, experts=2) + HIDDEN


def test_dense_is_as_large_as_what_routing_activates():
    dense, routed = model_size(model_of("dense"), 32), model_size(model_of("hash"), 32)
    assert dense.total == dense.active == routed.active
    assert dense.flops_per_token == routed.flops_per_token and dense.router_flops_per_token == 0


def test_expert_choice_pays_for_its_capacity():
    widened = model_size(model_of("expert_choice", selection={"at_inference": True}), 32)
    plain = model_size(model_of("expert_choice"), 32)
    expert = LAYERS * 3 * HIDDEN * 8
    assert widened.active - plain.active == round(0.25 * 2 * expert)
    assert widened.flops_per_token - plain.flops_per_token == pytest.approx(2 * 0.25 * 2 * expert)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("switch", {}),
        ("dense", {}),
        ("hash", {}),
        ("expert_choice", {"selection": {"at_inference": True}}),
        ("temperature", {"gated": False, "top_k": 3}),
        ("spectra", {"router": {"sequence": "linear"}}),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_flops_equal_a_counted_forward_pass(name, settings, tied):
    """torch's counter takes attention whole; a causal token sees half of it on average."""
    backbone = backbone_of(tie_word_embeddings=tied, hidden_size=32, num_attention_heads=4, num_key_value_heads=4)
    model, (b, s) = model_of(name, backbone=backbone, expert_size=48, **settings).eval(), (2, 64)
    # The counter knows no fused attention of the CPU, so it is written out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids_of(b, s), use_cache=False)
    whole_attention = 4.0 * s * 32 * LAYERS
    counted = counter.get_total_flops() / (b * s) - whole_attention / 2
    size = model_size(model, s)
    assert size.flops_per_token == pytest.approx(counted, rel=0.1)
    # Planted fault: all experts counted, as dense evaluation would, is far off.
    everything = 2.0 * (4 - model.settings.top_k) * 3 * 32 * 48 * LAYERS
    assert name == "dense" or abs(size.flops_per_token + everything / 2 - counted) > 0.1 * counted


def test_the_temperature_study_has_79_million_parameters():
    """6 layers, d 384, 8 ungated experts of 1536, tied embeddings of 49,152 (docs/method.md 4); on the meta device."""
    backbone = LlamaConfig(
        vocab_size=49_152,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    settings = settings_of("temperature", num_experts=8, expert_size=1536, gated=False)
    with torch.device("meta"):
        model = SpectraMoeForCausalLM(SpectraMoeConfig(backbone=backbone, moe=settings.to_dict()))
    model.tie_weights()
    size = model_size(model, 512)
    layer = 4 * 384**2 + 2 * 384 + 8 * 384 + 8 * 2 * 384 * 1536
    assert size.total == 49_152 * 384 + 6 * layer + 384
    assert round(size.total / 1e6) == 79
    assert size.active == size.total - 6 * 6 * 2 * 384 * 1536
    # The draft's 28.4 % active is not what is active.
    assert size.active / size.total == pytest.approx(0.463, abs=0.001)

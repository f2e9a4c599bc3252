"""The reader of stock sparse models against hooks written apart from it, for each family of transformers installed.

Shapes: M tokens of a pass, E experts, C classes of a router, K experts per token, d hidden size.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import family_page
import numpy as np
import pytest
import torch
import transformers
from sparse_families import DECODERS, ENCODERS_TOO, UNREADABLE, VOCABULARY, E, sparse_model
from torch import nn
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from spectra_exp import RoutingMonitor
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret.open_stock import StockEngine

each_family = pytest.mark.parametrize("model_type", DECODERS)
SCORES = {
    "softmax": lambda logits: np.exp(logits - logits.max(1, keepdims=True)),
    "sigmoid": lambda logits: 1 / (1 + np.exp(-logits)),
    "sqrtsoftplus": lambda logits: np.sqrt(np.log1p(np.exp(logits))),
}


def ids_of(seed: int = 0, b: int = 2, s: int = 12) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (b, s), generator=torch.Generator().manual_seed(seed))


class Apart:
    """What a model's routers compute, from the matrices and the rule that each family documents."""

    def __init__(self, model: nn.Module, model_type: str):
        self.score = SCORES[DECODERS[model_type][0]]
        self.counts: list[np.ndarray] = []
        self.logits: list[np.ndarray] = []
        for module in model.modules():
            if re.search(r"(Router|MoEV1Gate|TopKGating)$", type(module).__name__):
                module.register_forward_hook(self._router, with_kwargs=True)

    @torch.no_grad()
    def _router(self, router: nn.Module, inputs: tuple, named: dict, output) -> None:
        hidden = [*inputs, *named.values()][0].double()
        hidden = hidden.reshape(-1, hidden.shape[-1])
        maps = [m for m in router.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2]
        if hasattr(router, "router_mlp"):  # Zaya: what its last map is given depends on the layer before
            logits = output[0].double()
        else:
            if hasattr(router, "per_expert_scale"):  # Gemma 4: an RMS norm without weights, then a scale
                hidden = hidden * torch.rsqrt(hidden.pow(2).mean(1, keepdim=True) + router.eps)
                hidden = hidden * router.scale * router.scalar_root_size
            logits = hidden @ maps[-1].weight.double().T
            if getattr(maps[-1], "bias", None) is not None:
                logits = logits + maps[-1].bias
        if hasattr(router, "global_scale"):  # Inkling: the last rows are of its shared experts
            logits = logits[:, : router.num_experts]
        self.logits.append(logits.numpy())
        self.counts.append(_counts(output, logits))

    def entropies(self) -> list[float]:
        found = []
        for logits in self.logits:
            scores = self.score(logits)
            probs = scores / scores.sum(1, keepdims=True)
            found.append(float(-(probs * np.log(probs)).sum(1).mean()))
        return found


def _counts(output, logits: torch.Tensor) -> np.ndarray:
    if isinstance(output, torch.Tensor):  # DBRX: the block takes the top k of the softmax
        return np.bincount(output.topk(2).indices.flatten(), minlength=E)
    if len(output) == 2:  # Llama 4
        return (output[0] > 0).sum(0).numpy()
    if len(output) == 5:  # JetMoe
        return np.array(output[3])
    weights, experts = output[1], output[2]
    chosen = experts[weights != 0] if logits.shape[1] > E and experts.shape[1] == 1 else experts
    return np.bincount(chosen.flatten(), minlength=E)


def check(model_type: str, **changes) -> None:
    model = sparse_model(model_type, **changes)
    engine, apart = StockEngine(copy.deepcopy(model)), Apart(model, model_type)
    with torch.no_grad(), RoutingMonitor(model) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    made = engine.forward(ids_of(), torch.zeros_like(ids_of()))
    table = monitor.table().by_layer()["routing_entropy"]
    assert len(made.records) == len(apart.counts) == len(table)
    for record, counts, stats in zip(made.records, apart.counts, monitor.statistics(), strict=True):
        assert stats.counts_E.tolist() == counts.tolist() == record.chosen_NE.sum(0).tolist()
    assert table == pytest.approx(apart.entropies(), abs=2e-5)
    for record, entropy in zip(made.records, apart.entropies(), strict=True):
        assert float(torch.special.entr(record.probs_NE).sum(1).mean()) == pytest.approx(entropy, abs=2e-5)


@each_family
def test_counts_and_entropies_are_those_of_hooks_written_apart(model_type):
    check(model_type)


ONE = ("deepseek_v3", "glm4_moe", "mixtral", "gpt_oss", "llama4_text", "minimax_m2", "dots1", "solar_open")


@pytest.mark.parametrize("model_type", ONE)
def test_the_weight_of_one_expert_a_token_cannot_tell_the_function_and_is_not_asked(model_type):
    check(model_type, num_experts_per_tok=1)


def test_near_equal_logits_are_read_by_the_routers_function_too():
    model = sparse_model("deepseek_v3")
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "e_score_correction_bias"):
                module.weight.mul_(0.02)
    with torch.no_grad(), RoutingMonitor(model) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    assert {block.scores for stream in monitor.streams for block in stream.layers} == {"sigmoid"}


def test_every_sparse_decoder_family_of_transformers_has_its_case():
    root, found = Path(transformers.__file__).parent / "models", {}
    for model_type, model in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        folder = root / model_type_to_module_name(model_type)
        text = "".join(path.read_text() for path in sorted(folder.glob("modeling_*.py")))
        if re.search(r"top_k_index|self\.experts\b|num_experts", text):
            found[model_type] = model
    cases = {**DECODERS, **UNREADABLE, **ENCODERS_TOO}
    # Two names of one model need one case; Bamba has no experts, whatever its code says, and Gemma 4's text part one.
    covered = {found[name] for name in cases if name in found}
    assert {n for n, model in found.items() if n not in cases and model not in covered} == {"bamba", "gemma4"}


@pytest.mark.parametrize("model_type", UNREADABLE)
def test_a_sparse_model_that_cannot_be_read_is_not_called_dense(model_type):
    model = sparse_model(model_type)
    for opened in (RoutingMonitor, StockEngine):
        with pytest.raises(SpectraError, match="is a sparse model whose blocks cannot be read"):
            opened(model)


def test_blocks_are_read_in_the_order_in_which_it_runs():
    """JetMoe defines its experts before its attention, which routes first."""
    model = sparse_model("jetmoe")
    with torch.no_grad(), RoutingMonitor(model) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    names = [block.name for block in monitor.streams[0].layers]
    assert [name.split(".")[-1] for name in names] == ["experts", "mlp"] * 2


def test_the_page_of_families_is_what_the_reader_finds():
    assert family_page.PAGE.read_text() == family_page.page(), "python tests/moe/family_page.py writes it anew"

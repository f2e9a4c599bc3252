"""RoutingMonitor sees what stock models execute: in a loop, in Trainer, with padding, and when they hide their logits.

Letters: B sequences, S tokens each, E experts, K experts per token, N real tokens.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from family_cases import SPARSE, VOCABULARY, family_model, ids_of, settle
from moe_cases import settings_of
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from spectra_exp import RoutingMonitor
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.moe.reroute import reroute
from spectra_exp.moe.stock.scores import SCORES, chosen_scores, distribution
from spectra_exp.moe.upcycle import upcycle

each_family = pytest.mark.parametrize("model_type", SPARSE)


def native(model_type: str):
    model = family_model(model_type)
    settings = settings_of("native", top_k=model.config.num_experts_per_tok)
    return reroute(model, settings, 0, None, True).eval()


@each_family
@torch.no_grad()
def test_metrics_are_those_of_the_project_s_own_measurement(model_type):
    """A rerouted model with the native router leaves records of its own; the monitor reads the stock one by hooks."""
    found = {}
    for name, model in (("stock", family_model(model_type)), ("ours", native(model_type))):
        with RoutingMonitor(model) as monitor:
            for seed in range(2):
                model(input_ids=ids_of(3, 10, seed), use_cache=False)
        found[name] = monitor.table().by_layer()
    shared = set(found["stock"]) & set(found["ours"])
    assert {"load_cv", "max_vio", "expert_overlap", "routing_entropy", "score_gap", "gram_orthogonality"} <= shared
    for metric in shared - {m for m in shared if "output" in m}:
        stock, ours = ([math.nan if v is None else v for v in found[n][metric]] for n in ("stock", "ours"))
        assert stock == pytest.approx(ours, rel=1e-4, abs=1e-6, nan_ok=True), metric
    assert all(v is not None for v in found["stock"]["output_gram_orthogonality"])


@each_family
@torch.no_grad()
def test_watching_changes_no_logit_and_leaves_no_hook(model_type):
    model = family_model(model_type)
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())  # noqa: E731
    before, expected = hooks(), model(input_ids=ids_of(), use_cache=False).logits
    with RoutingMonitor(model) as monitor:
        assert hooks() > before
        assert torch.equal(model(input_ids=ids_of(), use_cache=False).logits, expected)
    assert hooks() == before
    tokens = monitor.statistics()[0].num_tokens
    model(input_ids=ids_of(), use_cache=False)
    assert monitor.statistics()[0].num_tokens == tokens == ids_of().numel()


@torch.no_grad()
def test_counts_are_of_real_tokens():
    model, ids = family_model("mixtral"), ids_of(2, 8)
    with RoutingMonitor(model) as alone:
        model(input_ids=ids, use_cache=False)
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids], dim=1)
    mask = (padded > 0).long()
    with RoutingMonitor(model) as monitor:
        model(input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False)
    for one, other in zip(alone.statistics(), monitor.statistics(), strict=True):
        assert one.counts_E.tolist() == other.counts_E.tolist() and one.counts_E.sum() == ids.numel() * 2
        assert one.num_adjacent == other.num_adjacent


@torch.no_grad()
def test_generation_is_watched_token_by_token():
    model = family_model("olmoe")
    with RoutingMonitor(model) as monitor:
        model.generate(ids_of(2, 4), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)
    # The last new token is never fed.
    assert monitor.statistics()[0].num_tokens == 2 * (4 + 4)


@torch.no_grad()
def test_domains_are_told_apart_with_a_floor():
    model = family_model("mixtral")
    with RoutingMonitor(model, domains=["low", "high"]) as monitor:
        for seed in range(8):
            low = ids_of(2, 12, seed)
            with monitor.domain("low"):
                model(input_ids=low.clamp(max=8), use_cache=False)
            with monitor.domain("high"):
                model(input_ids=low.clamp(min=50), use_cache=False)
        with pytest.raises(ConfigError, match="did you mean 'low'"), monitor.domain("lo"):
            pass
    metrics, floors = monitor.metrics(), monitor.floors()
    assert metrics["domain_mutual_information"] > 2 * floors["domain_mutual_information_floor"] > 0
    assert floors["load_cv_floor"] > 0


class Tokens(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = ids_of(1, 12, index)[0]
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_anybody_s_trainer(checkpointing, tmp_path):
    model = copy.deepcopy(family_model("qwen3_moe"))
    monitor = RoutingMonitor(model, training=True)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        report_to=[],
        use_cpu=True,
        per_device_train_batch_size=4,
        disable_tqdm=True,
        gradient_checkpointing=checkpointing,
        save_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=Tokens(), eval_dataset=Tokens(), callbacks=[monitor])
    trainer.train()
    history = trainer.state.log_history
    assert [row["step"] for row in history if "routing_load_cv" in row] == [1, 2]
    assert len([row for row in history if "eval_routing_load_cv" in row]) == 1
    # Each is of its own tokens: the first evaluation is forgotten, and recomputed layers are not counted again.
    returned = trainer.evaluate()
    with pytest.raises(SpectraError, match="no pass in evaluation mode"):
        monitor.metrics()
    with RoutingMonitor(model) as direct, torch.no_grad():
        for start in (0, 4):
            rows = [Tokens()[i]["input_ids"] for i in range(start, start + 4)]
            model.eval()(input_ids=torch.stack(rows), use_cache=False)
    expected = direct.metrics()
    assert returned["eval_routing_load_cv"] == pytest.approx(expected["load_cv"])
    assert returned["eval_routing_expert_overlap"] == pytest.approx(expected["expert_overlap"])
    assert trainer.evaluate(metric_key_prefix="test")["test_routing_max_vio"] == pytest.approx(expected["max_vio"])


def test_gradient_checkpointing_counts_each_token_once():
    model = copy.deepcopy(family_model("mixtral")).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with RoutingMonitor(model, training=True) as monitor:
        model(input_ids=ids_of(), labels=ids_of()).loss.backward()
    assert monitor.statistics("training")[0].counts_E.sum() == ids_of().numel() * 2
    with pytest.raises(SpectraError, match="no pass in evaluation mode"):
        monitor.metrics()


class ListedBlock(nn.Module):
    """A sparse block as models with code of their own have it: experts in a list, logits kept to itself."""

    def __init__(self, size: int, num_experts: int, top_k: int, flip: bool = False):
        super().__init__()
        self.router = nn.Linear(size, num_experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(size, size) for _ in range(num_experts))
        self.top_k, self.flip = top_k, flip

    def forward(self, hidden_BSd):
        flat = hidden_BSd.flatten(0, 1)
        weights, chosen = self.router(flat).softmax(-1).topk(self.top_k)
        chosen = self.router.out_features - 1 - chosen if self.flip else chosen
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            row, place = (chosen == index).nonzero(as_tuple=True)
            out[row] += weights[row, place, None] * expert(flat[row])
        return out.view_as(hidden_BSd)


def listed_model(flip: bool = False):
    torch.manual_seed(0)
    model = copy.deepcopy(family_model("llama"))
    for layer in model.model.layers:
        layer.mlp = ListedBlock(16, 5, 2, flip)
    return model.eval()


@torch.no_grad()
def test_models_that_hide_their_logits_in_lists_of_experts():
    model, counts = listed_model(), torch.zeros(5, dtype=torch.long)
    for index, expert in enumerate(model.model.layers[0].mlp.experts):
        expert.register_forward_hook(lambda m, inputs, out, i=index: counts[i].add_(len(inputs[0])))
    with RoutingMonitor(model, top_k=2) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    assert monitor.statistics()[0].counts_E.tolist() == counts.tolist()
    assert {"load_cv", "routing_entropy", "expert_similarity_weight_mean"} <= set(monitor.metrics())


@torch.no_grad()
def test_what_it_cannot_see_it_does_not_make_up():
    with RoutingMonitor(listed_model(flip=True), top_k=2) as monitor, pytest.raises(SpectraError, match="another rule"):
        monitor.model(input_ids=ids_of(), use_cache=False)
    with RoutingMonitor(listed_model()) as monitor, pytest.raises(SpectraError, match="give top_k="):
        monitor.model(input_ids=ids_of(), use_cache=False)
    with pytest.raises(SpectraError, match="LlamaForCausalLM has no sparse block"):
        RoutingMonitor(family_model("llama"))
    with RoutingMonitor(family_model("mixtral")) as monitor, pytest.raises(SpectraError, match="needs input_ids"):
        monitor.model(inputs_embeds=torch.zeros(1, 3, 16))


@torch.no_grad()
def test_a_stock_family_without_a_row_is_watched_too():
    config = AutoConfig.for_model(
        "glm4_moe",
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        head_dim=8,
        num_key_value_heads=1,
        intermediate_size=24,
        moe_intermediate_size=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with RoutingMonitor(model) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    assert monitor.statistics()[0].counts_E.sum() == ids_of().numel() * 2
    assert "routing_entropy" in monitor.metrics()


@torch.no_grad()
def test_our_own_models_are_watched_too():
    model = settle(upcycle(family_model("llama"), settings_of("switch"), 0, 0.1))
    with RoutingMonitor(model) as monitor:
        model(input_ids=ids_of(), use_cache=False)
    assert monitor.statistics()[0].counts_E.sum() == ids_of().numel() * 2


@pytest.mark.parametrize("name", SCORES)
def test_a_distribution_is_claimed_only_where_it_explains_the_weights(name):
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]])
    chosen = torch.tensor([[True, False, False, True]])
    scores = SCORES[name](logits)
    weights = 2.5 * scores * chosen
    assert chosen_scores(None, logits, chosen, weights) == name
    assert torch.allclose(distribution(name, logits, chosen, weights), scores / scores.sum())
    assert distribution(name, logits, chosen, torch.tensor([[0.1, 0, 0, 0.9]])) is None
    assert chosen_scores(None, logits, chosen, torch.tensor([[0.1, 0, 0, 0.9]])) is None

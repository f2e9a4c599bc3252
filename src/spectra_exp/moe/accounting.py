"""Parameters and floating-point operations of a model, counted, not estimated from its name."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from spectra_exp.moe.attention import head_size
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.selection import rule_in_force


@dataclass(frozen=True)
class Size:
    """total and active parameters; forward FLOPs per token at a sequence length (multiply and add count as two)."""

    total: int
    active: int
    flops_per_token: float
    router_flops_per_token: float


def model_size(model: SpectraMoeForCausalLM, sequence_length: int, executed_k: float | None = None) -> Size:
    """Counts of a model; active: what one token uses, the share (executed experts / E) of the expert weights.

    An untied input embedding is a look-up of one row, so only that row counts as active. Executed are `executed_k`
    experts per token, as measured, or without it as many as the selection rule in force allows. FLOPs: two per active
    weight of a matrix, the router's own count, and causal attention (scores and values over half the sequence on
    average, windows left out of account).
    """
    settings, config = model.settings, model.config.backbone
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for layer in model.routed_layers for p in layer.experts.parameters())
    executed_k = executed_experts(model) if executed_k is None else executed_k
    share = executed_k / settings.num_real if model.routed_layers else 0.0
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    untied = 0 if embedding.weight is head.weight else embedding.weight.numel() - embedding.weight.shape[1]
    shared = [s for layer in model.routed_layers if (s := getattr(layer, "shared", None)) is not None]
    active = total - experts + round(share * experts) - untied
    routers = sum(layer.router.flops_per_token() for layer in model.routed_layers)
    attention = 2.0 * sequence_length * config.num_hidden_layers * config.num_attention_heads * head_size(config)
    matrices = sum(m.weight.numel() for m in _plain_linears(model)) + sum(map(_weights, shared))
    expert_matrices = sum(_weights(layer.experts) for layer in model.routed_layers)
    return Size(total, active, 2.0 * (matrices + share * expert_matrices) + routers + attention, routers)


def number_varies(model: SpectraMoeForCausalLM) -> bool:
    """Whether how many experts a token executes in evaluation follows from no setting, and is to be measured."""
    rule = rule_in_force(model.settings.selection, training_rule=False)
    return bool(model.routed_layers) and (rule.chooser == "pair" or model.settings.num_null > 0)


def executed_experts(model: SpectraMoeForCausalLM) -> float:
    """Experts per token that evaluation executes on average, by the rule in force."""
    settings = model.settings
    rule = rule_in_force(settings.selection, training_rule=False)
    most = rule.experts_per_token(settings.num_experts, settings.top_k, settings.selection.capacity_factor)
    return min(most, settings.num_real)


def _weights(experts: nn.Module) -> int:
    """Entries of stacked experts' matrices, [E, out, in] each; their biases multiply nothing."""
    return sum(p.numel() for name, p in experts.named_parameters() if not name.endswith("bias"))


def _plain_linears(model: SpectraMoeForCausalLM) -> list[nn.Linear | Conv1D]:
    """Linear maps outside routers; a tied head is one of them, an embedding is not."""
    routers = {id(m) for layer in model.routed_layers for m in layer.router.modules()}
    return [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and id(m) not in routers]

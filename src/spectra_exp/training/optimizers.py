"""Parameter groups, optimizer and learning-rate schedule out of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from spectra_exp.config.schema import OptimConfig
from spectra_exp.foundations.collective import gathered
from spectra_exp.moe.model import SpectraMoeForCausalLM

FAMILIES = ("router", "experts", "other")


def family(name: str) -> str:
    """Which of router, experts and other a parameter belongs to, by its place in the model."""
    parts = name.split(".")
    return "router" if "router" in parts else "experts" if {"experts", "shared"} & set(parts) else "other"


def named_families(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """All trainable parameters by family."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {f: [] for f in FAMILIES}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[family(name)].append((name, parameter))
    return groups


def parameter_groups(model: SpectraMoeForCausalLM, config: OptimConfig) -> list[dict]:
    """Optimizer groups with `kind` ("muon" or "adamw"), `family`, peak rate and weight decay.

    Under muon every hidden matrix goes to Muon, each expert's matrix of a stacked tensor included; embeddings, those of
    positions too, head, norms and routers stay with AdamW (docs/method.md 4). Only matrices decay.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tables = {id(module.weight) for module in (*embeddings, model.get_output_embeddings())}
    groups: dict[tuple, dict] = {}
    for name, (fam, parameter) in _flat(model):
        # The biases of stacked experts are [E, out], and vectors all the same.
        matrix = parameter.ndim >= 2 and not name.endswith("bias")
        muon = config.name == "muon" and matrix and fam != "router" and id(parameter) not in tables
        key = ("muon" if muon else "adamw", fam, matrix)
        group = groups.setdefault(
            key,
            {
                "kind": key[0],
                "family": fam,
                "lr": _peak_rate(config, key[0], fam),
                "weight_decay": config.weight_decay if matrix else 0.0,
                "params": [],
                "names": [],
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def _flat(model: nn.Module) -> Iterator[tuple[str, tuple[str, nn.Parameter]]]:
    for fam, named in named_families(model).items():
        for name, parameter in named:
            yield name, (fam, parameter)


def _peak_rate(config: OptimConfig, kind: str, fam: str) -> float:
    default = config.muon_learning_rate if kind == "muon" else config.learning_rate
    own = {"router": config.router_learning_rate, "experts": config.expert_learning_rate}.get(fam)
    return default if own is None else own


def make_optimizer(model: SpectraMoeForCausalLM, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over `parameter_groups`."""
    groups = parameter_groups(model, config)
    betas = (config.beta1, config.beta2)
    if config.name == "adamw":
        plain = [{k: v for k, v in g.items() if k != "kind"} for g in groups]
        return torch.optim.AdamW(plain, betas=betas, eps=config.epsilon)
    from spectra_exp.training.muon import MuonAdamW

    for group in groups:
        group |= (
            {"momentum": config.muon_momentum} if group["kind"] == "muon" else {"betas": betas, "eps": config.epsilon}
        )
    return MuonAdamW(groups)


def rate_factor(step: int, total_steps: int, config: OptimConfig) -> float:
    """Share of the peak rate at optimizer step `step`: linear warm-up, then cosine to the final fraction."""
    warmup = round(config.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_fraction + (1 - config.final_fraction) * cosine


def make_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of every group."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, total_steps, config))


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Norm of the gradient by family, `grad_norm_router` and so on; a family without parameters is absent."""
    norms = {}
    for fam, named in named_families(model).items():
        grads = [gathered(p.grad) for _, p in named if p.grad is not None]
        if grads:
            norms[f"grad_norm_{fam}"] = float(torch.linalg.vector_norm(torch.stack([g.float().norm() for g in grads])))
    return norms


def experts_without_gradient(model: SpectraMoeForCausalLM) -> dict[str, float]:
    """Share of the experts of all layers that no gradient reached, as `experts_without_gradient`; absent without any.

    An expert that no token of the step used has a gradient of exactly zero, or none.
    """
    reached = []
    for layer in model.routed_layers:
        grads = [gathered(p.grad) for p in layer.experts.parameters() if p.grad is not None]
        if grads:
            reached.append(torch.stack([g.flatten(1).ne(0).any(dim=1) for g in grads]).any(dim=0))
    if not reached:
        return {}
    return {"experts_without_gradient": 1.0 - float(torch.cat(reached).float().mean())}

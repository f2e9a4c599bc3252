"""Keys that do nothing in a configuration are not to be typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from spectra_exp.config.rules import get
from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import default_of
from spectra_exp.moe.schema import REFERENCE
from spectra_exp.routing.base import router_class
from spectra_exp.routing.linear import LinearRouter
from spectra_exp.routing.selection import SELECTIONS

# When keys do nothing, and the setting that makes it so, {x} for the experiment.
When = tuple[Callable[[Experiment], bool], str]


def where(key: str, value: Any) -> When:
    """Where a key has this value."""
    return lambda x: get(x, key) == value, f"{key}={value}"


def unless(key: str, value: Any) -> When:
    """Where a key has any other value."""
    return lambda x: get(x, key) != value, f"no {key}={value}"


def is_nudged(x: Experiment) -> bool:
    """Whether loads move the potentials step by step: in training, or after it."""
    settles = get(x, "osr.settle_steps") and get(x, "osr.settle_rule") == "nudges"
    return get(x, "osr.potentials") == "hard" or bool(settles)


UNUSED: tuple[tuple[tuple[str, ...], When], ...] = (
    (
        ("selection.capacity_factor",),
        (lambda x: not SELECTIONS[x.selection.rule].uses_capacity, "selection={x.selection.rule}"),
    ),
    (
        ("selection.at_inference",),
        (lambda x: not SELECTIONS[x.selection.rule].sees_other_tokens, "selection={x.selection.rule}"),
    ),
    (("temperature.value",), (lambda x: x.temperature.schedule != "constant", "a temperature schedule")),
    (
        ("temperature.start", "temperature.end"),
        (lambda x: x.temperature.schedule in ("constant", "step"), "this temperature schedule"),
    ),
    (
        ("osr.sinkhorn_iterations", "osr.log_sinkhorn_enabled", "osr.sinkhorn_grad", "osr.sinkhorn_tolerance"),
        where("osr.solver", "softmax"),
    ),
    (("osr.potentials", "osr.online_rate"), unless("osr.sinkhorn_inference", "dual")),
    (
        ("osr.settle_steps", "osr.settle_share", "osr.settle_rule", "osr.potential_rate"),
        where("osr.potentials", "soft"),
    ),
    (("osr.settle_share", "osr.settle_rule"), where("osr.settle_steps", 0)),
    (("osr.potential_rate",), (lambda x: not is_nudged(x), "osr.potentials={x.osr.potentials} and no nudges after it")),
    (("osr.potential_decay",), unless("osr.potentials", "hard")),
    (("osr.online_decay",), where("osr.online_rate", 0)),
    (("router.gate_bias", "router.gate_spread", "router.gate_bias_low"), unless("router.sequence", "min_gru")),
    (("router.gate_bias_low",), where("router.gate_spread", "none")),
    (("osr.saturation_threshold",), where("osr.saturation_weight", 0)),
    (("osr.srip_enabled", "osr.so_warmup_steps", "router.orthogonality_measure"), where("osr.so_lambda_max", 0)),
    (("osr.srip_enabled",), unless("router.orthogonality_measure", "gram")),
    (("router.orthogonalization",), unless("router.expression", "projector")),
    (("router.orthogonalize_every",), unless("router.orthogonalization", "periodic")),
    (("router.ortho_coef",), where("router.orthogonalization", "newton_schulz")),
    (("router.ortho_coef",), unless("router.expression", "projector")),
    (
        ("osr.so_lambda_max", "osr.srip_enabled", "osr.so_warmup_steps", "router.orthogonality_measure"),
        where("router.expression", "running_mean"),
    ),
    (("router.dim", "router.sequence"), (lambda x: get(x, "router.width") is not None, "router.width")),
    (("losses.balance_scope",), where("router.load_balance_coef", 0)),
    (
        (
            "model.num_shared",
            "model.first_k_dense_replace",
            "model.upcycle_noise",
            "model.equal_to",
            "model.null_experts",
        ),
        (lambda x: not router_class(x.router.name).routes, "router={x.router.name}"),
    ),
    (
        ("model.equal_to",),
        (
            lambda x: x.router == router_class(REFERENCE).Config(),
            "router={x.router.name}, which others are made equal to",
        ),
    ),
    (("model.null_kind",), where("model.null_experts", 0)),
    (
        ("model.keep_router_weights",),
        (lambda x: not issubclass(router_class(x.router.name), LinearRouter), "a router that is not one linear map"),
    ),
    (
        ("model.renormalize",),
        (
            lambda x: not router_class(x.router.name).normalizes,
            "router={x.router.name}, whose weights are used as they are",
        ),
    ),
    (("router.decay",), where("router.strength", 0)),
    (("optim.muon_learning_rate", "optim.muon_momentum"), (lambda x: x.optim.name == "adamw", "optim=adamw")),
    (
        ("logger.project", "logger.mode", "logger.entity", "logger.group", "logger.tags"),
        (lambda x: x.logger.name != "wandb", "no logger=wandb"),
    ),
    (
        ("search.name", "search.objectives", "search.seed"),
        (lambda x: x.choices["search"] == "none", "search=none"),
    ),
    (
        ("data.online", "data.revision"),
        (lambda x: getattr(x.data, "path", None) is not None, "data.path={x.data.path}"),
    ),
    (("launch.max_seeds",), (lambda x: x.launch.until_decided is None, "no launch.until_decided")),
    (("launch.jobs", "launch.per_gpu"), (lambda x: x.choices["launch"] == "local", "launch=local")),
)


def check_used(experiment: Experiment, typed: dict[str, str]) -> None:
    """Refuse a typed value, other than the default, of a key that does nothing in this configuration.

    Beside an ablation such a key stays: it belongs to the full method that the ablation is compared with.
    """
    if experiment.choices["ablation"] != "none":
        return
    for keys, (unused, reason) in UNUSED:
        for key in keys:
            group, _, name = key.partition(".")
            declared = {f.name: f for f in fields(getattr(experiment, group))}.get(name)
            default = default_of(declared) if declared else None
            if key in typed and get(experiment, key) != default and unused(experiment):
                setting = reason.format(x=experiment)
                raise ConfigError(key, f"{typed[key]} would have no effect with {setting}", "drop it")

"""Which of the routers' own options go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import ModelConfig
from spectra_exp.routing.base import router_class
from spectra_exp.routing.learned_temperature import LOWEST
from spectra_exp.routing.osr import NoOsr
from spectra_exp.routing.selection import SELECTIONS
from spectra_exp.routing.temperature import BEST_LONG


def learned_temperature_belongs(x: Experiment) -> None:
    if x.temperature.learned == "none":
        return
    if x.temperature.schedule != "constant":
        raise ConfigError(
            "temperature.learned",
            f"'{x.temperature.learned}' and temperature.schedule={x.temperature.schedule} exclude each other",
            "give temperature.schedule=constant; a learned temperature starts at temperature.value",
        )
    if x.temperature.value <= LOWEST:
        raise ConfigError(
            "temperature.value", f"{x.temperature.value} was given", f"a learned temperature starts above {LOWEST}"
        )


def best_long_decides(x: Experiment) -> None:
    if x.choices["temperature"] != BEST_LONG:
        return
    for f in fields(x.temperature):
        if getattr(x.temperature, f.name) != f.default:
            raise ConfigError(
                f"temperature.{f.name}",
                f"{getattr(x.temperature, f.name)} was given, but temperature={BEST_LONG} takes it from finished runs",
                "drop one of the two",
            )


def load_average_belongs(x: Experiment) -> None:
    if x.router.load_ema_strength and SELECTIONS[x.selection.rule].chooser == "expert":
        raise ConfigError(
            "router.load_ema_strength",
            f"selection={x.selection.rule} ranks tokens within each expert, which this cannot change in training",
            "leave it at 0",
        )


def shared_router_belongs(x: Experiment) -> None:
    one_layer = isinstance(x.model, ModelConfig) and x.model.num_layers == 1
    if one_layer and router_class(x.router.name).shared_parts:
        raise ConfigError(
            "model.num_layers", f"router={x.router.name} passes a state between layers", "give at least 2"
        )
    if x.router.shared and one_layer:
        raise ConfigError("router.shared", "model.num_layers=1 leaves no other layer", "leave it at false")


def potentials_go_together(x: Experiment) -> None:
    """Rules that choose by g − C alone, which selection must then do too; the quantile's needs a further expert."""
    osr = x.osr
    if isinstance(osr, NoOsr):
        return
    by_quantile = {"osr.potentials": osr.potentials, "osr.settle_rule": osr.settle_rule}
    found = [f"{key}=quantile" for key, value in by_quantile.items() if value == "quantile"]
    if found and x.model.top_k is not None and x.model.top_k >= x.model.num_experts:
        raise ConfigError(
            "model.top_k", f"{found[0]} needs a (k+1)-th expert", f"give at most {x.model.num_experts - 1}"
        )
    found += ["osr.online_rate"] if osr.online_rate else []
    if found and x.temperature.learned == "expert":
        raise ConfigError(
            found[0].partition("=")[0],
            f"{found[0]} ranks by potentials less costs, which a temperature per expert changes",
            "give temperature.learned=none, global, layer or token",
        )
    if found and x.router.load_ema_strength:
        raise ConfigError(
            found[0].partition("=")[0], f"{found[0]} does not know of router.load_ema_strength", "leave that at 0"
        )


def options_go_together(x: Experiment) -> None:
    x.router.check()


def router_fits(x: Experiment) -> None:
    tokens = x.trainer.batch_size * x.data.sequence_length
    x.router.check_sizes(x.model.num_experts, x.model.top_k, tokens, x.trainer.accumulation)


def outputs_are_seen(x: Experiment) -> None:
    if router_class(x.router.name).needs_outputs and x.choices["model"] == "reroute":
        raise ConfigError(
            "router",
            f"'{x.router.name}' has losses of outputs, which a source's own experts keep",
            "give model=upcycle",
        )


ROUTING_RULES: tuple[Callable[[Experiment], None], ...] = (
    learned_temperature_belongs,
    best_long_decides,
    load_average_belongs,
    shared_router_belongs,
    options_go_together,
    potentials_go_together,
    router_fits,
    outputs_are_seen,
)

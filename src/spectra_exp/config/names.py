"""What a method is called: in tables, figures, the report, on the terminal, in W&B."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.config.presets import ablations, baselines
from spectra_exp.config.resolved import Compositions, Resolved, beside
from spectra_exp.config.schema import AblationConfig, BaselineConfig
from spectra_exp.routing.base import Router, routers

# Groups whose options name a method; every other key is a setting of it.
METHOD_FACTORS = ("router", "osr", "baseline", "ablation")
# Groups whose settings make another method of it.
METHOD_GROUPS = ("router", "osr", "selection", "temperature", "losses")


def method_name(factors: Mapping[str, str]) -> str:
    """The method that the values of METHOD_FACTORS name, such as "SPECTRA (paper) − GRU"."""
    baseline = factors.get("baseline", "none")
    if baseline != "none":
        return _label(baseline, baselines().get(baseline))
    router = factors.get("router", "spectra")
    name = _label(router, routers().get(router))
    if (osr := factors.get("osr", "none")) != "none":
        name += f" ({osr})"
    ablation = factors.get("ablation", "none")
    return name if ablation == "none" else f"{name} {ablation_name(ablation)}"


def ablation_name(ablation: str) -> str:
    """How an ablation's option is printed."""
    return _label(ablation, ablations().get(ablation))


def _label(name: str, declared: AblationConfig | BaselineConfig | type[Router] | None) -> str:
    return declared.label if declared and declared.label else name.replace("_", " ")


def setting_text(key: str, value: str) -> str:
    """One setting of a method, by the last part of its key."""
    return f"{key.rpartition('.')[2]} {value}"


def own_settings(found: Resolved, compositions: Compositions) -> dict[str, str]:
    """What a configuration has beside the options that name its method, by key."""
    chosen = {key: option for key in METHOD_FACTORS if (option := found.choices.get(key, "none")) != "none"}
    # A baseline chooses its router.
    method = {"baseline": chosen["baseline"]} if "baseline" in chosen else chosen
    return beside(method, found, compositions)


def run_label(found: Resolved, settings: Mapping[str, str]) -> str:
    """The method with those of its settings (`own_settings`) that are of `METHOD_GROUPS`."""
    own = [setting_text(key, value) for key, value in settings.items() if key.partition(".")[0] in METHOD_GROUPS]
    return ", ".join([method_name(found.choices), *own])

"""What methods are called in every table, figure and page."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.config.presets import ablations, baselines
from spectra_exp.config.schema import AblationConfig, BaselineConfig
from spectra_exp.routing.base import Router, routers

# Factors whose values name a method; every other factor is a setting of it.
METHOD_FACTORS = ("router", "osr", "baseline", "ablation")


def method_name(factors: Mapping[str, str]) -> str:
    """The method that the values of METHOD_FACTORS name, such as "SPECTRA (paper) − GRU"."""
    baseline = factors.get("baseline", "none")
    if baseline != "none":
        return _label(baseline, baselines().get(baseline))
    router = factors.get("router", "spectra")
    name = _label(router, routers().get(router))
    if osr := factors.get("osr"):
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

"""What methods are called and which colour each has, in every table, figure and page."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.config.presets import ablations, baselines
from spectra_exp.config.schema import AblationConfig, BaselineConfig
from spectra_exp.routing.base import Router, routers

# Factors whose values name a method; every other factor is a setting of it.
METHOD_FACTORS = ("router", "osr", "baseline", "ablation")

# Okabe and Ito's colours (2008), told apart by colour-blind readers; those of presets are in their files.
COLOURS = {
    "SPECTRA (causal)": "#0072B2",
    "SPECTRA (paper)": "#56B4E9",
    "SPECTRA": "#0072B2",
    "Switch": "#D55E00",
    "Temperature": "#7A5C3E",
}
SPARE = "#555555"


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


def colour(label: str) -> str:
    """The colour of a method or an ablation wherever it is drawn."""
    declared = [*baselines().values(), *ablations().values()]
    known = COLOURS | {preset.label: preset.colour for preset in declared if preset.label and preset.colour}
    if label in known:
        return known[label]
    # Of "SPECTRA (paper) − GRU" and "SPECTRA (paper), ..." the part that tells it from others of its picture.
    for part in (label.partition(") ")[2], label.partition(",")[0]):
        if part in known:
            return known[part]
    return SPARE

"""What methods are called in every table, figure and page."""

from __future__ import annotations

from collections.abc import Mapping

# Factors whose values name a method; every other factor is a setting of it.
METHOD_FACTORS = ("router", "osr", "baseline", "ablation")

BASELINES = {
    "switch_top1": "Switch top-1",
    "switch_top2": "Switch top-2",
    "expert_choice": "Expert Choice",
    "loss_free": "Loss-free",
    "sinkhorn": "Sinkhorn",
    "hash": "Hash",
    "random": "Random",
    "dense": "Dense",
}
ROUTERS = {"temperature": "Temperature", "switch": "Switch", "spectra": "SPECTRA", **BASELINES}
ABLATIONS = {
    "none": "Full",
    "no_expression": "− Expression",
    "no_gru": "− GRU",
    "no_repulsion": "− Repulsion",
    "no_quota": "− Quota",
    "no_ortho": "− Ortho constraint",
    "no_speciality": "− Speciality penalty",
    "no_osr": "− OSR",
    "no_all": "− All",
    "cumulative_1": "1 Switch-style",
    "cumulative_2": "2 + expression",
    "cumulative_3": "3 + recurrence",
    "cumulative_4": "4 + OSR",
    "cumulative_5": "5 + orthogonality",
    "cumulative_6": "6 + quota",
}

def method_name(factors: Mapping[str, str]) -> str:
    """The method that the values of METHOD_FACTORS name, such as "SPECTRA (paper) − GRU"."""
    baseline = factors.get("baseline", "none")
    if baseline != "none":
        return BASELINES.get(baseline, baseline.replace("_", " "))
    router = factors.get("router", "spectra")
    name = ROUTERS.get(router, router.replace("_", " "))
    if osr := factors.get("osr"):
        name += f" ({osr})"
    ablation = factors.get("ablation", "none")
    return name if ablation == "none" else f"{name} {ablation_name(ablation)}"


def ablation_name(ablation: str) -> str:
    """How an ablation's option is printed."""
    return ABLATIONS.get(ablation, ablation.replace("_", " "))


def setting_text(key: str, value: str) -> str:
    """One setting of a method, by the last part of its key."""
    return f"{key.rpartition('.')[2]} {value}"

"""What methods are called and which colour each has, in every table, figure and page."""

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

# Okabe and Ito's colours (2008), told apart by colour-blind readers, and three darker ones of the same hues.
COLOURS = {
    "SPECTRA (causal)": "#0072B2",
    "SPECTRA (paper)": "#56B4E9",
    "SPECTRA": "#0072B2",
    "Switch top-1": "#F0A35E",
    "Switch top-2": "#D55E00",
    "Switch": "#D55E00",
    "Expert Choice": "#CC79A7",
    "Loss-free": "#009E73",
    "Sinkhorn": "#8C6BB1",
    "Hash": "#B8A000",
    "Random": "#999999",
    "Dense": "#000000",
    "Temperature": "#7A5C3E",
    "− GRU": "#E69F00",
    "− Expression": "#CC79A7",
    "− Repulsion": "#8C6BB1",
    "− Quota": "#009E73",
    "− Ortho constraint": "#D55E00",
    "− Speciality penalty": "#B8A000",
    "− OSR": "#7A5C3E",
    "− All": "#999999",
    "Full": "#0072B2",
    # The ladder's rungs, from dark to light as parts are added.
    "1 Switch-style": "#440154",
    "2 + expression": "#414487",
    "3 + recurrence": "#2A788E",
    "4 + OSR": "#22A884",
    "5 + orthogonality": "#7AD151",
    "6 + quota": "#BBBB00",
}
SPARE = "#555555"


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


def colour(label: str) -> str:
    """The colour of a method or an ablation wherever it is drawn."""
    if label in COLOURS:
        return COLOURS[label]
    # Of "SPECTRA (paper) − GRU" and "SPECTRA (paper), ..." the part that tells it from others of its picture.
    for part in (label.partition(") ")[2], label.partition(",")[0]):
        if part in COLOURS:
            return COLOURS[part]
    return SPARE

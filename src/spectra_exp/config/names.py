"""What a method is called: in tables, figures, the report, on the terminal, in W&B."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.config.resolved import Compositions, Resolved, beside

# Groups whose options name a method; every other key is a setting of it.
METHOD_FACTORS = ("router", "osr", "baseline", "ablation")
# Groups whose settings make another method of it.
METHOD_GROUPS = ("router", "osr", "selection", "temperature", "losses")

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
    if (osr := factors.get("osr", "none")) != "none":
        name += f" ({osr})"
    ablation = factors.get("ablation", "none")
    return name if ablation == "none" else f"{name} {ablation_name(ablation)}"


def ablation_name(ablation: str) -> str:
    """How an ablation's option is printed."""
    return ABLATIONS.get(ablation, ablation.replace("_", " "))


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

"""What goes together and what does not: rules across groups, each checked before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spectra_exp.config.presets import ablations
from spectra_exp.config.rules_models import MODEL_RULES
from spectra_exp.config.rules_routing import ROUTING_RULES
from spectra_exp.config.rules_running import RUNNING_RULES
from spectra_exp.config.schema import Experiment, result_values
from spectra_exp.config.tree import option_files, read_yaml
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import ModelConfig
from spectra_exp.routing.base import router_class
from spectra_exp.routing.temperature import BEST_LONG

# Keys of a preset's file that describe it and change nothing.
DESCRIPTIVE = ("defaults", "ablation", "baseline")
# Keys that say which option of their group is chosen.
NAMES = ("router.name", "selection.rule")


def preset_values(group: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a preset's file sets: values by dotted key, and options by group."""
    content = read_yaml(option_files(group)[name])
    values: dict[str, Any] = {}
    for top, node in content.items():
        if top not in DESCRIPTIVE and isinstance(node, dict):
            values |= {f"{top}.{key}": value for key, value in node.items()}
    options = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):
            key, value = next(iter(entry.items()))
            if key.startswith("override /") and not key.startswith("override /hydra"):
                options[key.removeprefix("override /")] = value
    return values, options


def get(experiment: Experiment, key: str) -> Any:
    """The value at a dotted key; None when the chosen option has no such key."""
    group, _, name = key.partition(".")
    return getattr(getattr(experiment, group), name, None)


def check_names(experiment: Experiment, typed: dict[str, str]) -> None:
    """Refuse a typed key that contradicts the option it is part of."""
    for key in NAMES:
        group, value = key.split(".")[0], get(experiment, key)
        chosen = experiment.choices[group]
        if key in typed and value != chosen:
            if value not in option_files(group):
                raise ConfigError.unknown(key, value, option_files(group))
            raise ConfigError(key, f"'{value}' was given, but {group}={chosen} is chosen", f"give {group}={value}")


def check_ablation_applies(name: str, base: Experiment) -> None:
    """Refuse an ablation of a part that the method does not have."""
    if base.choices["baseline"] != "none":
        raise ConfigError(
            "ablation",
            f"'{name}' and baseline={base.choices['baseline']} exclude each other",
            "give only one of the two",
        )
    declared = ablations()[name]
    if base.router.name not in declared.routers:
        raise ConfigError(
            "ablation",
            f"'{name}' takes a part away that router={base.router.name} does not have",
            f"it applies to router={', '.join(declared.routers)}",
        )
    for key, accepted in declared.requires.items():
        if get(base, key) not in accepted:
            raise ConfigError(
                "ablation",
                f"'{name}' is a change to another method: {key} is {get(base, key)} here",
                f"the full method needs {key}={'|'.join(map(str, accepted))}",
            )


def check_preset_kept(group: str, experiment: Experiment) -> None:
    """Refuse a command line that undoes part of the baseline or ablation that it names."""
    name = experiment.choices[group]
    values, options = preset_values(group, name)
    given = [(key, get(experiment, key), wanted) for key, wanted in values.items()]
    given += [(other, f"'{experiment.choices[other]}'", f"'{wanted}'") for other, wanted in options.items()]
    for key, value, wanted in given:
        if value != wanted:
            raise ConfigError(key, f"{value} was given, but {group}={name} sets {wanted}", "drop one of the two")


def check_ablation_changes(experiment: Experiment, base: Experiment) -> None:
    """Refuse an ablation that leaves the full method as it is."""
    name = experiment.choices["ablation"]
    if name != "none" and result_values(experiment) == result_values(base):
        values, options = preset_values("ablation", name)
        kept = ", ".join([f"{k}={v}" for k, v in values.items()] + [f"{k}={v}" for k, v in options.items()])
        raise ConfigError("ablation", f"'{name}' changes nothing here: the full method already has {kept}", "drop it")


def experts_per_token(x: Experiment) -> None:
    if x.model.top_k > x.model.num_experts:
        raise ConfigError(
            "model.top_k",
            f"{x.model.top_k} experts per token of model.num_experts={x.model.num_experts}",
            f"give at most {x.model.num_experts}",
        )


def transport_belongs(x: Experiment) -> None:
    uses, given = router_class(x.router.name).uses_osr, x.choices["osr"]
    if uses and given == "none":
        raise ConfigError("osr", f"router={x.router.name} needs a transport", "give osr=paper or osr=causal")
    if not uses and given != "none":
        raise ConfigError(
            "osr", f"'{given}' would have no effect with router={x.router.name}", "give osr=none or drop it"
        )


def selection_belongs(x: Experiment) -> None:
    accepted = router_class(x.router.name).selections()
    if x.selection.rule not in accepted:
        raise ConfigError(
            "selection.rule",
            f"'{x.selection.rule}' does not go with router={x.router.name}",
            f"valid: {', '.join(accepted)}",
        )


def unlearned_routers_take_nothing(x: Experiment) -> None:
    """What acts on a router's logits or weights is refused where it has none."""
    if router_class(x.router.name).learned:
        return
    constant = x.temperature.schedule == "constant" and x.choices["temperature"] != BEST_LONG
    coefficients = {f"router.{name}": name for name in ("load_balance_coef", "entropy_coef", "z_loss_coef")}
    frozen = getattr(x.model, "freeze", None) == "all_but_router"
    divides, zero = "has no logits to divide", "leave it at 0"
    for key, given, problem, fix in (
        ("temperature", not constant or x.temperature.value != 1.0, divides, "drop it, or give temperature=t1_0"),
        *((key, getattr(x.router, name), "has no distribution to act on", zero) for key, name in coefficients.items()),
        ("model.freeze", frozen, "has no weights, so nothing would be trained", "give none"),
        ("temperature.learned", x.temperature.learned != "none", divides, "give temperature.learned=none"),
        ("router.load_ema_strength", x.router.load_ema_strength, "has no scores to lower", zero),
        ("router.shared", x.router.shared, "has no parameters to share", "leave it at false"),
    ):
        if given:
            raise ConfigError(key, f"router={x.router.name} {problem}", fix)


def potentials_belong(x: Experiment) -> None:
    if x.choices["osr"] == "none":
        return
    if x.osr.solver == "softmax":
        for key, value in (("training", "plan"), ("sinkhorn_inference", "false")):
            if getattr(x.osr, key) != value:
                raise ConfigError(
                    f"osr.{key}",
                    f"'{getattr(x.osr, key)}' needs Sinkhorn, but osr.solver=softmax",
                    f"give osr.{key}={value}",
                )
    elif x.osr.training == "potentials" and x.osr.sinkhorn_inference != "dual":
        raise ConfigError(
            "osr.training",
            f"'potentials' selects by what osr.sinkhorn_inference={x.osr.sinkhorn_inference} never uses",
            "give osr.sinkhorn_inference=dual",
        )


def heads_divide(x: Experiment) -> None:
    if isinstance(x.model, ModelConfig) and x.model.hidden_size % (2 * x.model.num_heads):
        raise ConfigError(
            "model.num_heads",
            f"{x.model.num_heads} heads need an even share of model.hidden_size={x.model.hidden_size}",
            "give a number of heads that divides half of it",
        )


def sequence_fits(x: Experiment) -> None:
    if isinstance(x.model, ModelConfig) and x.data.sequence_length > x.model.max_positions:
        raise ConfigError(
            "data.sequence_length",
            f"{x.data.sequence_length} is above model.max_positions={x.model.max_positions}",
            f"give model.max_positions={x.data.sequence_length}",
        )


def final_evaluation_is_larger(x: Experiment) -> None:
    final, usual = x.data.final_evaluation_tokens, x.data.evaluation_tokens
    if final is not None and final < usual:
        raise ConfigError(
            "data.final_evaluation_tokens",
            f"{final} is below data.evaluation_tokens={usual}",
            f"give at least {usual}, or null for the same",
        )


RULES: tuple[Callable[[Experiment], None], ...] = (
    transport_belongs,
    selection_belongs,
    unlearned_routers_take_nothing,
    potentials_belong,
    heads_divide,
    sequence_fits,
    final_evaluation_is_larger,
    *RUNNING_RULES,
    *MODEL_RULES,
    *ROUTING_RULES,
    # After the routers' own limits, some of which are lower.
    experts_per_token,
)


def check_all(experiment: Experiment) -> None:
    """Raise ConfigError for the first rule that the experiment breaks."""
    for rule in RULES:
        rule(experiment)

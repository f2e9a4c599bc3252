"""From what was typed to a checked, typed Experiment; every failure is one ConfigError line."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config import rules, rules_unused
from spectra_exp.config.keys import meant_by, root_keys, unknown_key
from spectra_exp.config.plugins import load_own_plugins, load_typed_plugins
from spectra_exp.config.register import register, schema_cache
from spectra_exp.config.relative_sizes import apply_sizes
from spectra_exp.config.schema import GROUPS, Experiment, RootKeys
from spectra_exp.config.source_model import resolve_source
from spectra_exp.config.tree import default_outputs, project_root, roots
from spectra_exp.config.typed import expand_jobs, parse_overrides, typed_values, without
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
from spectra_exp.foundations.variables import neutralise

# The extra of pyproject.toml that brings each launcher which the plain install leaves out.
LAUNCHER_EXTRAS = {"submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def prepare_environment() -> None:
    """Register the schemas, set the variables that conf/ reads, take out those that would change a run, load plug-ins.

    ConfigError where there is no conf/, or for a plug-in that does not load.
    """
    root = project_root()
    if not (root / "conf" / "config.yaml").is_file():
        raise ConfigError("SPECTRA_ROOT", f"{root} holds no conf/config.yaml", "unset it, or name the checkout")
    os.environ.setdefault("SPECTRA_OUTPUTS", str(default_outputs()))
    os.environ.setdefault("SPECTRA_ROOT", str(root))
    # torch then counts GPUs without touching CUDA, after which a process could no longer choose one.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # No window is ever opened. A backend inherited from a notebook need not exist here, and matplotlib then refuses to
    # load; in the notebook's own process it is left alone.
    if "ipykernel" not in sys.modules:
        os.environ["MPLBACKEND"] = "agg"
    neutralise()
    register()
    load_own_plugins()


@contextmanager
def own_hydra() -> Iterator[Hydra]:
    """A Hydra of our own for composing, also inside a running job."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def load_experiment(overrides: list[str]) -> Experiment:
    """The checked experiment that the overrides of one job describe. Raises ConfigError, never anything else."""
    load_typed_plugins(overrides)
    expand_jobs(overrides, multirun=False)
    typed = typed_values(overrides)
    ablation = typed.get("ablation", "none")
    base = _compose(without(overrides, "ablation"))
    rules.check_names(base, typed)
    if ablation != "none":
        rules.check_ablation_applies(ablation, base)
    experiment = base if ablation == "none" else _compose(overrides)
    experiment.overrides = list(overrides)
    rules.check_preset_kept("baseline", experiment)
    rules.check_preset_kept("ablation", experiment)
    rules.check_ablation_changes(experiment, base)
    return _checked(experiment, typed)


def composed_experiment(config: DictConfig, choices: Mapping[str, str], overrides: list[str]) -> Experiment:
    """As load_experiment, of what Hydra composed in a worker from the overrides of one job (`choices`: of all groups).

    What the ablation is compared with has been checked by the process that launched the job.
    """
    chosen = {group: str(choices[group]) for group in GROUPS}
    return _checked(experiment_from(config, chosen, overrides), typed_values(overrides))


def _checked(experiment: Experiment, typed: dict[str, str]) -> Experiment:
    _check_groups(experiment)
    resolve_source(experiment, typed)
    rules.check_all(experiment)
    rules_unused.check_used(experiment, typed)
    return experiment


def check_values(overrides: list[str]) -> Experiment:
    """The experiment with keys, types and limits checked, and no rule between keys. Raises ConfigError."""
    experiment = _compose(overrides)
    _check_groups(experiment)
    return experiment


def _check_groups(experiment: Experiment) -> None:
    for group in GROUPS:
        check_fields(getattr(experiment, group), group)


def _compose(overrides: list[str]) -> Experiment:
    prepare_environment()
    try:
        config, hydra = _compose_groups(_chosen(overrides), roots())
        config = copy.deepcopy(config)
        for override in parse_overrides(overrides):
            if override.key_or_group not in GROUPS and not override.key_or_group.startswith("hydra"):
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        OmegaConf.set_struct(config, False)
        choices = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
        return experiment_from(config, choices, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error


def hydra_settings(overrides: list[str]) -> str:
    """Hydra's own settings of a job that was composed here, as YAML."""
    _, hydra = _compose_groups(_chosen(overrides), roots())
    hydra = copy.deepcopy(hydra)
    hydra.overrides.task = list(overrides)
    hydra.job.override_dirname = ",".join(sorted(overrides))
    return OmegaConf.to_yaml(hydra)


def _chosen(overrides: list[str]) -> tuple[str, ...]:
    """The choices of options among the overrides."""
    return tuple(sorted(str(o.input_line) for o in parse_overrides(overrides) if o.key_or_group in GROUPS))


# Finding the files of the groups is what takes the time, and jobs of a study share them.
@schema_cache(maxsize=256)
def _compose_groups(chosen: tuple[str, ...], roots: tuple[Path, ...]) -> tuple[DictConfig, DictConfig]:
    """The configuration of the options alone, and Hydra's settings. `roots`: where conf/ lies."""
    with own_hydra():
        config = compose("config", list(chosen), return_hydra_config=True)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    hydra = config.pop("hydra")
    OmegaConf.set_readonly(hydra, False)
    OmegaConf.set_struct(config, True)
    return config, hydra


def experiment_from(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Experiment:
    """Typed objects out of a composed configuration."""
    known = root_keys()
    for key in config:
        if key not in known:
            raise unknown_key(str(key), typed_values(overrides))
    values = {name: _typed(config, name) for name in known}
    check_outputs(values["outputs"])
    values["outputs"] = str(Path(values["outputs"]).resolve())
    check_fields(RootKeys(**{k: v for k, v in values.items() if k not in GROUPS}), "")
    experiment = Experiment(**values, choices=choices, overrides=list(overrides))
    apply_sizes(experiment)
    return experiment


def check_outputs(folder: str) -> None:
    """Raise ConfigError where `folder` names none, or one that the shell alone would have found."""
    if not folder:
        raise ConfigError("outputs", "no folder was given", "give outputs=FOLDER or set SPECTRA_OUTPUTS")
    if folder.startswith("~"):
        raise ConfigError("outputs", f"'~' in {folder} is not expanded", "give the whole path")


def _typed(config: DictConfig, key: str) -> Any:
    node = config[key]
    return OmegaConf.to_object(node) if OmegaConf.is_config(node) else node


def explain(error: Exception, overrides: list[str]) -> ConfigError:
    """One line out of a composition failure: the bad key and the nearest valid one."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.strip("/").rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHER_EXTRAS:
            problem = f"the launcher {name} is not installed"
            raise ConfigError("launch", problem, f"pip install 'spectra-exp[{LAUNCHER_EXTRAS[name]}]'") from error
        return ConfigError.unknown(group, name, [o for o in error.options if not o.startswith("schema")])
    text = re.split(r" full_key:| object_type=| Set the environment", " ".join(str(cause).split()))[0]
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        # An element of a list is named by its list.
        key = str(cause.full_key).partition("[")[0]
        typed = typed_values(overrides)
        if re.search(r"not in struct|Key '.*' not in", text):
            return unknown_key(key, typed)
        return _wrong_value(key, text, typed.get(key))
    if refused := re.search(r"Could not override '(.*?)'", text):
        return unknown_key(refused[1], typed_values(overrides))
    return ConfigError("command line", text)


def _wrong_value(key: str, text: str, typed: str | None) -> ConfigError:
    """OmegaConf's complaint, `text`, about a value (`typed`: as it was given, None in a file) in plain words."""
    for pattern, words in (
        (r"Value '(.*?)'(?: of type '[\w.]+')? could not be converted to Integer", r"'\1' is not a whole number"),
        (r"Value '(.*?)'(?: of type '[\w.]+')? could not be converted to Float", r"'\1' is not a number"),
        (r"Value '(.*)' is not a valid bool.*", r"'\1' is neither true nor false"),
        (r"field '.*' is not Optional|.*NoneType is not a subclass of.*", "null was given; it needs a value"),
        (r".*[Mm]issing mandatory value: .*", "??? was given; it needs a value"),
        (r"Interpolation key '(.*)' not found", r"the key '\1' not found"),
        (r"\"?(Environment variable '.*' not found)\"?", r"\1"),
    ):
        if re.fullmatch(pattern, text):
            return ConfigError(key, re.sub(pattern, words, text))
    if typed is None:
        return ConfigError(key, text)
    if "${" in typed:
        return ConfigError(key, f"'{typed}' refers to nothing that it could take", "give the value itself")
    return ConfigError(key, f"'{typed}' was given", f"it is {meant_by(key)}")

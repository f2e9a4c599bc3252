"""From what was typed to a checked, typed Experiment; every failure is one ConfigError line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config import rules
from spectra_exp.config.fields import check_fields
from spectra_exp.config.register import GROUPS, group_schemas, register
from spectra_exp.config.schema import Experiment, RootConfig
from spectra_exp.errors import ConfigError, nearest


def project_root() -> Path:
    """The checkout that holds `conf/`; train.py names it in SPECTRA_ROOT."""
    return Path(os.environ.get("SPECTRA_ROOT", Path(__file__).resolve().parents[3]))


def prepare_environment() -> None:
    """Register the schemas and set the variables that conf/ reads."""
    os.environ.setdefault("SPECTRA_ROOT", str(project_root()))
    os.environ.setdefault("SPECTRA_OUTPUTS", str(project_root() / "outputs"))
    register()


@contextmanager
def _hydra() -> Iterator[None]:
    """A Hydra of our own for composing, also inside a running job."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def load_experiment(overrides: list[str]) -> Experiment:
    """The checked experiment that the overrides of one job describe. Raises ConfigError, never anything else."""
    base = _compose(_without(overrides, "ablation"))
    rules.check_ablation_applies(_choice(overrides, "ablation"), base)
    experiment = _compose(overrides)
    rules.check_preset_kept("baseline", experiment)
    rules.check_preset_kept("ablation", experiment)
    rules.check_ablation_changes(experiment, base)
    for group in GROUPS:
        check_fields(getattr(experiment, group), group)
    rules.check_all(experiment)
    return experiment


def _compose(overrides: list[str]) -> Experiment:
    with _hydra():
        try:
            config = compose("config", overrides, return_hydra_config=True)
            choices = {g: str(c) for g, c in config.hydra.runtime.choices.items() if g in GROUPS}
            with _open(config):
                config.pop("hydra")
            return experiment_from(config, choices, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, overrides) from error


@contextmanager
def _open(config: DictConfig) -> Iterator[None]:
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    yield


def experiment_from(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Experiment:
    """Typed objects out of a composed configuration."""
    known = [f.name for f in fields(RootConfig)]
    for key in config:
        if key not in known:
            raise unknown_key(str(key), overrides)
    values = {name: _typed(config, name) for name in known}
    values["outputs"] = str(Path(values["outputs"]).expanduser().resolve())
    check_fields(RootConfig(**{k: v for k, v in values.items() if k not in GROUPS}), "")
    return Experiment(**values, choices=choices, overrides=list(overrides))


def _typed(config: DictConfig, key: str) -> Any:
    node = config[key]
    return OmegaConf.to_object(node) if OmegaConf.is_config(node) else node


def _choice(overrides: list[str], group: str) -> str:
    """What `group=` was given on the command line; "none" when it was not."""
    given = [o.split("=", 1)[1] for o in overrides if o.split("=", 1)[0] == group and "=" in o]
    return given[-1] if given else "none"


def _without(overrides: list[str], group: str) -> list[str]:
    return [o for o in overrides if o.split("=", 1)[0] != group]


def explain(error: Exception, overrides: list[str]) -> ConfigError:
    """One line out of a composition failure: the bad key and the nearest valid one."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, name = error.missing_cfg_file.strip("/").rsplit("/", 1)
        return ConfigError.unknown(group, name, [o for o in error.options if not o.startswith("schema")])
    text = " ".join(str(cause).split())
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        if re.search(r"not in struct|Key '.*' not in", text):
            return unknown_key(str(cause.full_key), overrides)
        value = re.search(r"Value '(.*?)'(?: of type '\w+')? (could not be .*?)(?: full_key| object_type|$)", text)
        problem = f"'{value[1]}' {value[2]}" if value else str(cause.msg or text)
        return ConfigError(
            str(cause.full_key), problem.replace("Integer", "a whole number").replace("Float", "a number")
        )
    group = re.search(r"Could not override '(.*?)'", text)
    if group:
        return unknown_key(group[1].split("@")[0], overrides)
    return ConfigError("command line", re.split(r" full_key| Set the environment", text)[0])


def unknown_key(key: str, overrides: list[str]) -> ConfigError:
    """The error for a key that does not exist, with the nearest one that does."""
    group, _, name = key.partition(".")
    known = known_keys()
    if group not in GROUPS or not name:
        candidates = [f.name for f in fields(RootConfig)] + known
    else:
        candidates = [k for k in known if k.startswith(group + ".")]
    # A bare key such as max_steps is most likely the last part of one.
    ends = [k for k in known if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    close = ends[0] if ends and key not in known else nearest(key, candidates)
    if key in known:
        choice = _choice(overrides, group)
        chosen = f" ({group}={choice})" if choice != "none" else ""
        return ConfigError(
            key, f"the chosen {group}{chosen} has no such option", f"see `python train.py --help {group}`"
        )
    hint = f"did you mean '{close}'?" if close else f"see `python train.py --help {group if group in GROUPS else ''}`"
    return ConfigError(key, "unknown key", hint)


def known_keys() -> list[str]:
    """Every key of every schema, as `group.name`."""
    keys = []
    for group in GROUPS:
        for node in group_schemas(group).values():
            keys += [f"{group}.{f.name}" for f in fields(node)]
    return sorted(set(keys))


def expand_jobs(overrides: list[str], multirun: bool) -> list[list[str]]:
    """The jobs that a command line stands for: one, or the product of its sweeps in Hydra's own order."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError("command line", " ".join(str(error).split())) from error
    swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
    if not multirun:
        if swept:
            raise ConfigError(swept[0], "several values were given", "add -m (--multirun) to run them all")
        return [overrides]
    return [job for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]

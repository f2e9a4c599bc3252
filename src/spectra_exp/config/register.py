"""Makes the schemas known to Hydra: one node `schema_<name>` per group and option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config import schema
from spectra_exp.config.tree import roots
from spectra_exp.data.schema import sources
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import schema as models
from spectra_exp.routing.base import routers
from spectra_exp.routing.losses import LossesConfig
from spectra_exp.routing.osr import NoOsr, OsrConfig
from spectra_exp.routing.selection import SelectionConfig
from spectra_exp.routing.temperature import TemperatureConfig

P = ParamSpec("P")
T = TypeVar("T")

# Groups with one schema each; router, osr, model and data have several.
PLAIN_GROUPS = {
    "selection": SelectionConfig,
    "temperature": TemperatureConfig,
    "losses": LossesConfig,
    "optim": schema.OptimConfig,
    "trainer": schema.TrainerConfig,
    "logger": schema.LoggerConfig,
    "launch": schema.LaunchConfig,
    "search": schema.SearchConfig,
    "debug": schema.DebugConfig,
    "baseline": schema.BaselineConfig,
    "ablation": schema.AblationConfig,
}


_caches: list[Any] = []


def schema_cache(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: an `lru_cache` of what follows from the schemas, forgotten where one is registered or replaced."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        cached = lru_cache(maxsize)(function)
        _caches.append(cached)
        return cast("Callable[P, T]", cached)

    return decorate


def group_schemas(group: str) -> dict[str, type]:
    """Schemas of a group by node name: its own, or one per router, transport, kind of model or data source."""
    match group:
        case "router":
            return {f"schema_{name}": cls.Config for name, cls in routers().items()}
        case "osr":
            return {"schema": OsrConfig, "schema_none": NoOsr}
        case "model":
            kinds = {"schema_upcycle": models.UpcycleConfig, "schema_reroute": models.RerouteConfig}
            return {"schema": models.ModelConfig} | kinds
        case "data":
            return {f"schema_{name}": cls for name, cls in sources().items()}
    return {"schema": PLAIN_GROUPS[group]}


class OwnOptions(SearchPathPlugin):
    """Lets Hydra find the options of plug-ins and of one's own `conf/`, after the project's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append every `conf/` but the first, which Hydra is given."""
        for root in roots()[1:]:
            search_path.append(str(root), f"file://{root / 'conf'}")


def register() -> None:
    """Store every schema that is not stored yet, and tell Hydra where options lie.

    Raises ConfigError for a schema whose fields Hydra cannot hold.
    """
    Plugins.instance().register(OwnOptions)
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=schema.RootConfig)
    for group in schema.GROUPS:
        stored = store.repo.get(group, {})
        for name, node in group_schemas(group).items():
            there = stored.get(f"{name}.yaml")
            if there is None or OmegaConf.get_type(there.node) is not node:
                _store(group, name, node)
                for cached in _caches:
                    cached.cache_clear()


def _store(group: str, name: str, node: type) -> None:
    where = f"schema of {group}={name.removeprefix('schema_')}"
    try:
        for key, base in _of_another_type(node).items():
            fix = f"give it {base.__name__}'s type or another name"
            raise ConfigError(where, f"its field '{key}' has another type than {base.__name__}'s", fix)
        ConfigStore.instance().store(group=group, name=name, node=node)
    # A NameError: a type that is imported for a type checker alone.
    except (OmegaConfBaseException, NameError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(where, problem, "mend its fields") from error


def _of_another_type(node: type) -> dict[str, type]:
    """Fields that a schema has from a base and declares again with another type, each with that base."""
    own = get_type_hints(node)
    bases = [base for base in node.__mro__[1:] if is_dataclass(base)]
    return {key: base for base in bases for key, kind in get_type_hints(base).items() if own[key] != kind}

"""Makes the schemas known to Hydra: one node `schema_<name>` per group and option."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
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
            if f"{name}.yaml" not in stored:
                _store(group, name, node)


def _store(group: str, name: str, node: type) -> None:
    try:
        ConfigStore.instance().store(group=group, name=name, node=node)
    except OmegaConfBaseException as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"schema of {group}={name.removeprefix('schema_')}", problem, "mend its fields") from error

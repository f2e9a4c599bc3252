"""Modules from outside the package that register routers, selection rules, metrics or data sources when imported.

They are named by `plugins=[a,b]`, by a line `plugins: [a, b]` in a `conf/config.yaml`, or by an installed package in
the entry point group `spectra_exp.plugins`. Options and studies in `conf/`, `sweeps/`, `ablations/` beside them count.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from spectra_exp.config.register import register
from spectra_exp.config.schema import Experiment
from spectra_exp.config.tree import add_root, check_names, read_yaml, roots
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure import METRICS
from spectra_exp.measure.base import check_floors
from spectra_exp.routing.base import routers
from spectra_exp.routing.selection import SELECTIONS

GROUP = "spectra_exp.plugins"
KEY = "plugins="
_loaded: dict[str, ModuleType] = {}


def load_own_plugins() -> None:
    """Import the installed plug-ins and those that conf/config.yaml names. ConfigError for one that does not load."""
    _load(list(_installed()))
    # Beside a plug-in may lie a conf/ that names others.
    for root in roots():
        _load(_named_in(root / "conf" / "config.yaml"))


@cache
def _installed() -> tuple[str, ...]:
    found: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        if found.setdefault(point.name, point.value) != point.value:
            problem = f"two installed packages have a plug-in '{point.name}' ({found[point.name]}, {point.value})"
            raise ConfigError("plugins", problem, "uninstall one of them")
    return tuple(found.values())


@cache
def _named_in(file: Path) -> Any:
    """What a file has under `plugins`, whatever it is."""
    return (read_yaml(file) if file.is_file() else {}).get("plugins") or []


def load_typed_plugins(overrides: Sequence[str]) -> None:
    """Import what was typed as `plugins=[a,b]`, before anything else that was typed is read. Raises ConfigError."""
    for text in overrides:
        if text.startswith(KEY):
            try:
                _load(OverridesParser.create().parse_override(text).value())
            except HydraException:
                # Told with all else that cannot be read.
                return


def plugins_of(experiment: Experiment) -> tuple[str, ...]:
    """The plug-ins whose code had a part in a run: those that it names, and those of its parts and of any metric."""
    rule = SELECTIONS[experiment.selection.rule].choose
    parts = [routers()[experiment.router.name], rule, type(experiment.data), *(m.function for m in METRICS.values())]
    modules = {part.__module__ for part in parts}
    used = [n for n in _loaded if any(module == n or module.startswith(f"{n}.") for module in modules)]
    return tuple(sorted({*experiment.plugins, *used}))


def sources_of(name: str) -> tuple[Path, tuple[str, ...]] | None:
    """The folder of a plug-in's source and the parts of it that count; None for one that is not loaded."""
    module = _loaded.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    return Path(file).parent, (".",) if hasattr(module, "__path__") else (Path(file).name,)


def _load(names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("plugins", f"{names} was given", "it is a list of modules: plugins=[a,b]")
    for name in names:
        if name not in _loaded:
            _loaded[name] = _import(name)
            if file := inspect.getsourcefile(_loaded[name]):
                add_root(Path(file).parent)
    check_floors()
    check_names()
    register()


def _import(name: str) -> ModuleType:
    # A module beside one's work; the command alone does not look there.
    if (work := str(Path.cwd())) not in sys.path:
        sys.path.append(work)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name or name}."):
            raise ConfigError("plugins", f"'{name}' needs the module '{error.name}'", "install it") from error
        raise ConfigError("plugins", f"there is no module '{name}'", "put its folder on PYTHONPATH") from error
    except Exception as error:
        # Its own code, which can raise whatever there is.
        problem = f"'{name}' does not load ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ConfigError("plugins", problem, "mend it") from error

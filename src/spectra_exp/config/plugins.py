"""Modules from outside the package that register routers, selection rules, metrics or data sources when imported."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from spectra_exp.config.register import register
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.errors import ConfigError


def load_own_plugins() -> None:
    """Import what conf/config.yaml names under `plugins`. Raises ConfigError for a module that does not load."""
    _load(list(_own_plugins(project_root())))


@cache
def _own_plugins(root: Path) -> tuple[Any, ...]:
    return tuple(yaml.safe_load((root / "conf" / "config.yaml").read_text(encoding="utf-8")).get("plugins", []))


def load_typed_plugins(overrides: Sequence[str]) -> None:
    """Import what was typed as `plugins=[a,b]`, before anything else that was typed is read. Raises ConfigError."""
    for text in overrides:
        if text.startswith("plugins="):
            try:
                _load(OverridesParser.create().parse_override(text).value())
            except HydraException:
                # Told with all else that cannot be read.
                return


def _load(names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("plugins", f"{names} was given", "it is a list of modules: plugins=[a,b]")
    for name in names:
        _import(name)
    register()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or name):
            raise ConfigError("plugins", f"'{name}' needs the module '{error.name}'", "install it") from error
        raise ConfigError("plugins", f"there is no module '{name}'", "put its folder on PYTHONPATH") from error
    except Exception as error:
        # Its own code, which can raise whatever there is.
        problem = f"'{name}' does not load ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ConfigError("plugins", problem, "mend it") from error

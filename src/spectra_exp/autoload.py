"""Makes `import spectra_exp` enough for transformers' Auto classes to load our models, without importing transformers.

Most commands never need transformers, which takes seconds to import, so registration waits until somebody does.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Defines AutoConfig; whatever loads a model imports it first.
AUTO_CONFIG = "transformers.models.auto.configuration_auto"
OURS = "spectra_exp.moe.config"


def register_with_transformers() -> None:
    """Register our model type now where transformers is in use, else as soon as its AutoConfig is imported."""
    if AUTO_CONFIG in sys.modules:
        importlib.import_module(OURS)
    elif not any(isinstance(finder, _AfterAutoConfig) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterAutoConfig())


class _AfterAutoConfig(MetaPathFinder):
    """Finds AutoConfig's module as Python itself does, and has our configuration imported after it."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != AUTO_CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            importlib.import_module(OURS)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec

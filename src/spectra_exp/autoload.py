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

# Ours, by the module of transformers that holds what it registers with: whoever loads a model imports these first.
REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": "spectra_exp.moe.config",
    "transformers.models.auto.modeling_auto": "spectra_exp.moe.model",
}


def register_with_transformers() -> None:
    """Register our model type now where transformers' Auto classes are in use, else as soon as they are imported."""
    for theirs, ours in REGISTRATIONS.items():
        if theirs in sys.modules:
            importlib.import_module(ours)
        elif not any(isinstance(finder, _After) and finder.theirs == theirs for finder in sys.meta_path):
            sys.meta_path.insert(0, _After(theirs, ours))


class _After(MetaPathFinder):
    """Finds a module as Python itself does, and has one of ours imported after it."""

    def __init__(self, theirs: str, ours: str):
        self.theirs, self.ours = theirs, ours

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.theirs:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            importlib.import_module(self.ours)

        spec.loader.exec_module = run_and_register
        return spec

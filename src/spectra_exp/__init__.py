"""spectra-exp: train Mixture-of-Experts language models under many routers and measure their routing.

From Python: `run("router=switch")`, `load_runs()`, `compare(runs, "SPECTRA (causal)", "Switch top-2")`, and
`RoutingMonitor(model)` for any sparse Hugging Face model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spectra_exp.autoload import register_with_transformers

if TYPE_CHECKING:
    from spectra_exp.api import Run, compare, compose, launch, load_runs, run
    from spectra_exp.measure.monitor import RoutingMonitor

__version__ = "0.1.0"
__all__ = ["RoutingMonitor", "Run", "compare", "compose", "launch", "load_runs", "run"]

register_with_transformers()


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for: torch and transformers take seconds to import."""
    if name in __all__:
        module = "measure.monitor" if name == "RoutingMonitor" else "api"
        return getattr(import_module(f"spectra_exp.{module}"), name)
    raise AttributeError(f"module 'spectra_exp' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

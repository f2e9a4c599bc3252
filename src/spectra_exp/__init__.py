"""spectra-exp: train Mixture-of-Experts language models under many routers and measure their routing."""

from typing import Any

from spectra_exp.autoload import register_with_transformers

__version__ = "0.1.0"

register_with_transformers()


def __getattr__(name: str) -> Any:
    """`RoutingMonitor`, imported when it is first asked for: it needs transformers, which takes seconds to import."""
    if name == "RoutingMonitor":
        from spectra_exp.measure.monitor import RoutingMonitor

        return RoutingMonitor
    raise AttributeError(f"module 'spectra_exp' has no attribute '{name}'")

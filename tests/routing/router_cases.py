"""The routers that there are, and what the tests of this room share."""

from spectra_exp.routing.base import router_class, routers
from spectra_exp.testing.cases import (
    EXPERTS,
    HIDDEN,
    VOCABULARY,
    ids_of,
    inputs_of,
    layer_of,
    normal,
    reset,
    router_of,
    run_layer,
    settings_of,
)

# A dense model routes nothing; every other registered router is found by itself.
ROUTERS = [name for name, cls in routers().items() if cls.routes and not cls.needs_source]
LEARNED = [name for name in ROUTERS if router_class(name).learned]
PAIRS = [(name, rule) for name in ROUTERS for rule in router_class(name).selections()]

__all__ = [
    "EXPERTS",
    "HIDDEN",
    "LEARNED",
    "PAIRS",
    "ROUTERS",
    "VOCABULARY",
    "ids_of",
    "inputs_of",
    "layer_of",
    "normal",
    "reset",
    "router_of",
    "run_layer",
    "settings_of",
]

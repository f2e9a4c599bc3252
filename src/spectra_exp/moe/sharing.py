"""Which router parameters several layers share: all (`router.shared`), parts of a router, or a global temperature."""

from __future__ import annotations

from spectra_exp.moe.layer import RoutedLayer
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import router_class

TEMPERATURE = "learned_temperature."


def shared_parameters(layers: dict[str, RoutedLayer], settings: MoeSettings) -> dict[str, str]:
    """For each parameter of a later layer's router that is the first layer's, its full name and the first's.

    `layers`: routed layers by name, in order. Buffers are never shared: running averages, potentials and biases
    answer a layer's own load, and recurrent states travel with the tokens. Neither is a temperature per layer.
    """
    if not layers:
        return {}
    first, *others = layers
    names = [n for n, _ in layers[first].router.named_parameters() if _is_shared(n, settings)]
    return {f"{other}.router.{name}": f"{first}.router.{name}" for other in others for name in names}


def _is_shared(name: str, settings: MoeSettings) -> bool:
    learned = settings.temperature.learned
    if name.startswith(TEMPERATURE) and learned in ("global", "layer"):
        return learned == "global"
    return settings.router.shared or name.startswith(router_class(settings.router.name).shared_parts)

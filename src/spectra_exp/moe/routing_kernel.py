"""How the loops of a model's routing are computed: by Triton kernels made for them, or by PyTorch's operations."""

from __future__ import annotations

from typing import Any

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.kernels import PLAIN, TRITON, Kernel, auto_kernel
from spectra_exp.moe.experts_kernel import what_triton_lacks
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.base import Router

KEY = "model.routing_kernel"
NO_LOOP = "the router has neither a scan nor Sinkhorn iterations in the log domain"


def check_routing_kernel(asked: str, device: str) -> None:
    """Raise ConfigError where triton is asked for and cannot work on a device (cpu or cuda)."""
    if asked == TRITON and (lack := what_triton_lacks(device)):
        raise ConfigError(KEY, f"'{TRITON}' cannot work here: {lack}", "give auto, which takes what can")


def use_routing_kernel(model: SpectraMoeForCausalLM, asked: str, device: str) -> Kernel:
    """How the routers' loops are computed from now on; ConfigError for triton where no router has such a loop."""
    check_routing_kernel(asked, device)
    chosen = auto_kernel(what_triton_lacks(device)) if asked == "auto" else Kernel(asked, "asked for")
    has_loop = [set_routing_kernel(layer.router, chosen.name) for layer in model.routed_layers]
    if chosen.name == PLAIN or (has_loop and all(has_loop)):
        return chosen
    if asked == TRITON:
        raise ConfigError(KEY, NO_LOOP, "give auto")
    return auto_kernel(NO_LOOP)


def set_routing_kernel(router: Router, kernel: str) -> bool:
    """Have a router's loops computed so; False where it has none."""
    # A router or encoder whose loop has a kernel names the one in force.
    parts: list[Any] = [part for part in router.modules() if getattr(part, "kernel", None) is not None]
    for part in parts:
        part.kernel = kernel
    return bool(parts)

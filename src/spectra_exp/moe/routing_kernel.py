"""How the loops of a model's routing are computed: by Triton kernels made for them, or by PyTorch's operations."""

from __future__ import annotations

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.kernels import TRITON
from spectra_exp.moe.experts_kernel import what_triton_lacks
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.base import Router

KEY = "model.routing_kernel"


def check_routing_kernel(kernel: str, device: str) -> None:
    """Raise ConfigError where triton is asked for and cannot work on a device (cpu or cuda)."""
    if kernel == TRITON and (lack := what_triton_lacks(device)):
        raise ConfigError(KEY, f"'{TRITON}' cannot work here: {lack}", "give plain")


def use_routing_kernel(model: SpectraMoeForCausalLM, kernel: str, device: str) -> None:
    """Have the routers' loops computed so from now on; ConfigError for triton where no router has such a loop."""
    check_routing_kernel(kernel, device)
    for layer in model.routed_layers:
        if not set_routing_kernel(layer.router, kernel) and kernel == TRITON:
            raise ConfigError(
                KEY, "the router has neither a scan nor Sinkhorn iterations in the log domain", "give plain"
            )


def set_routing_kernel(router: Router, kernel: str) -> bool:
    """Have a router's loops computed so; False where it has none."""
    # A router or encoder whose loop has a kernel names the one in force.
    parts = [part for part in router.modules() if getattr(part, "kernel", None) is not None]
    for part in parts:
        part.kernel = kernel
    return bool(parts)

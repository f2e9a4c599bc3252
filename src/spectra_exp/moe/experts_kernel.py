"""How a model's experts are computed: by Triton kernels made for them, by PyTorch's products, or as was asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import torch

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.kernels import PLAIN, TRITON, Kernel, auto_kernel
from spectra_exp.moe.experts import BIASES, Experts
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.schema import ExpertsKernelRequest
from spectra_exp.routing.base import Router

KEY = "model.experts_kernel"
# Ampere GPUs and later have the copies and products that the kernels are made of.
LEAST_CAPABILITY = (8, 0)
# Sizes are multiples of this, so that rows begin where 16 bytes can be copied at a time.
MULTIPLE = 16
# Names of transformers' activations that the kernels have.
ACTIVATIONS = ("silu", "gelu", "relu")
# In the order in which triton looks for them.
COMPILERS = ("gcc", "clang")


def choose_experts_kernel(request: ExpertsKernelRequest, lacks: Iterable[str | None]) -> Kernel:
    """How the experts of a run are computed, where `lacks` says what keeps the kernels from it, if anything does.

    Raises ConfigError for triton where it was asked for and cannot work.
    """
    if request.asked == PLAIN:
        return Kernel(PLAIN, "asked for")
    missing = next((lack for lack in (what_triton_lacks(request.device), *lacks) if lack is not None), None)
    if request.asked == "auto":
        return auto_kernel(missing)
    if missing is not None:
        raise ConfigError(KEY, f"'{TRITON}' cannot work here: {missing}", "give auto, which takes what can")
    return Kernel(TRITON, "asked for")


def what_triton_lacks(device: str) -> str | None:
    """Why the kernels cannot work on a device; None where they can."""
    if device != "cuda":
        return "it needs a GPU"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is older than its kernels"
    # Triton compiles what launches a kernel when that runs for the first time.
    if "CC" not in os.environ and not any(map(shutil.which, COMPILERS)):
        return f"it needs a C compiler ({' or '.join(COMPILERS)}, or the one that CC names)"
    if not (include_folder() / "Python.h").is_file():
        return f"it needs Python's headers, and {include_folder()} has no Python.h"
    return None


def include_folder() -> Path:
    """Where Triton looks for Python's headers."""
    scheme = sysconfig.get_default_scheme()
    return Path(sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme))


def what_router_lacks(router: type[Router]) -> str | None:
    """Why the kernels cannot serve a router; None where they can."""
    if router.losses_of_outputs is not Router.losses_of_outputs:
        return "the router has a loss of the experts' outputs, which needs their gradient"
    return None


def what_experts_lack(experts: Experts) -> str | None:
    """Why the kernels cannot compute these experts; None where they can."""
    if any(getattr(experts, name) is not None for name in BIASES):
        return "the experts have biases"
    if experts.activation_name not in ACTIVATIONS:
        return f"it has no activation '{experts.activation_name}'"
    for size in experts.up.shape[1:]:
        if size % MULTIPLE:
            return f"a size of {size} is no multiple of {MULTIPLE}"
    return None


def use_experts_kernel(model: SpectraMoeForCausalLM, request: ExpertsKernelRequest) -> Kernel:
    """How the model's experts are computed from now on."""
    experts = [module for module in model.modules() if isinstance(module, Experts)]
    lacks = [what_router_lacks(type(layer.router)) for layer in model.routed_layers]
    lacks += map(what_experts_lack, experts) if experts else ["the experts are those of the model's own code"]
    chosen = choose_experts_kernel(request, lacks)
    for module in experts:
        module.kernel = chosen.name
    return chosen

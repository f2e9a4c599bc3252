"""A model that is as it was before: its tensors, its modes, and what its modules noted in passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Parameters of no more numbers are copied: a pass may move them in place, as it does a selection bias.
SMALL = 2**14
# Of nn.Module itself; the tensors in them are kept one by one.
_OWN = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}


def _noted(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if k not in _OWN and not k.endswith(("_hooks", "_hooks_with_kwargs"))}


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """A block after which parameters, buffers, modes and the modules' attributes are what they were; gradients go."""
    parameters = [(p, p.data, p.requires_grad) for p in model.parameters()]
    small = [(p.data, p.detach().clone()) for p in model.parameters() if p.numel() <= SMALL]
    buffers = [
        (module._buffers, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    noted = [(module, _noted(module)) for module in model.modules()]
    tensors = [(v, v.detach().clone()) for _, own in noted for v in own.values() if _is_plain(v)]
    random_state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random_state)
        for parameter, data, trained in parameters:
            parameter.data, parameter.grad = data, None
            parameter.requires_grad_(trained)
        for data, values in small:
            data.copy_(values)
        for holder, name, tensor, values in buffers:
            tensor.data.copy_(values) if tensor.dtype == values.dtype else setattr(tensor, "data", values)
            holder[name] = tensor
        for module, own in noted:
            for name in set(_noted(module)) - set(own):
                del vars(module)[name]
            vars(module).update(own)
        for tensor, values in tensors:
            tensor.copy_(values)


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.is_leaf and not value.requires_grad
    )


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """A block in which every floating parameter and buffer is float32; lower precisions come back bit for bit."""
    tensors = [t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point() and t.dtype != torch.float32]
    before = [(tensor, tensor.data) for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what passes may move: buffers, and plain tensors that modules hold, by name."""
    found = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}": value for name, value in _noted(module).items() if _is_plain(value)}
        found |= {name: value.detach().clone() for name, value in own.items()}
    return found


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, float]:
    """How far each tensor of `after` is from its like, relative to the largest value; those that differ alone."""
    found = {}
    for name, tensor in after.items():
        like = before.get(name)
        if like is None or like.shape != tensor.shape:
            found[name] = float("inf")
        elif not torch.equal(like, tensor):
            largest = max(float(like.abs().max()), float(tensor.abs().max()), 1e-30)
            found[name] = float((like.double() - tensor.double()).abs().max()) / largest
    return found

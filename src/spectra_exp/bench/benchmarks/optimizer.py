"""Muon's step beside the bare products of its Newton-Schulz iterations.

Shapes: B matrices, M rows, N columns.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.benchmark import set_torch_threads

from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.foundations.allocator import keep_freed_memory
from spectra_exp.training.muon import MuonAdamW

# One layer of model=exp10: up and down of 8 experts, four attention matrices.
MATRICES = ((8, 1536, 384), (8, 384, 1536), (4, 384, 384))
STEPS = 5
ROUNDS = 3


class NewtonSchulzFloor:
    """Three products an iteration over each stack, the shorter side in front, into memory that is there already."""

    def __init__(self) -> None:
        self.stacks = []
        for number, rows, columns in MATRICES:
            x = torch.randn(number, min(rows, columns), max(rows, columns))
            square = x.new_empty(number, x.shape[1], x.shape[1])
            self.stacks.append((x, square, torch.empty_like(square), torch.empty_like(x)))

    def __call__(self) -> None:
        """All iterations."""
        for x, gram, polynomial, result in self.stacks:
            for _ in range(STEPS):
                torch.bmm(x, x.mT, out=gram)
                torch.bmm(gram, gram, out=polynomial)
                torch.bmm(polynomial, x, out=result)


def layer_parameters() -> list[nn.Parameter]:
    """One layer's matrices with gradients; the attention's each a parameter of its own."""
    shapes = [MATRICES[0], MATRICES[1], *[MATRICES[2][1:]] * MATRICES[2][0]]
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


@benchmark
def optimizer(outputs: Path) -> list[Figure]:
    """Muon's step over one layer of exp10 in multiples of its bare products; its largest difference from torch's."""
    keep_freed_memory()
    torch.manual_seed(0)
    muon = MuonAdamW([{"params": layer_parameters(), "kind": "muon"}], lr=0.01)
    with set_torch_threads(1):
        times = interleaved({"floor": NewtonSchulzFloor(), "muon": muon.step}, ROUNDS, process_time)
    return [
        Figure("muon_step", ratio(times, "muon", "floor"), "x its products, 1 thread", 1.2),
        Figure("muon_seconds_per_layer", min(times["muon"]), "CPU s, one layer of exp10"),
        Figure("muon_against_torch", _difference_from_torch(), "largest difference, 2-D, float32", 1e-4),
    ]


class _InFloat32(TorchFunctionMode):
    """A block in which nothing becomes bfloat16, which torch's Muon iterates in; ours has float32 on a CPU."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        return arguments[0] if function is Tensor.bfloat16 else function(*arguments, **(named or {}))


def _difference_from_torch() -> float:
    """Of one step of the project's Muon from torch.optim.Muon's on the same matrices, both in float32."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(96, 64)), nn.Parameter(torch.randn(64, 96))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    options: dict[str, Any] = dict(lr=0.02, weight_decay=0.1)
    MuonAdamW([{"params": ours, "kind": "muon"}], **options).step()
    with _InFloat32():
        torch.optim.Muon(theirs, **options).step()
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True))

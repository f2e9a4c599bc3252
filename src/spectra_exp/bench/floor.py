"""Bare matrix products with the floating-point work of experts, into memory that is there already: the floor.

Shapes: N tokens, A = N K assignments, E experts, K experts per token, d hidden size, f expert width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.moe.experts import Experts
from spectra_exp.routing.selection import assignment_weights, select_topk


@dataclass(frozen=True)
class Shape:
    """One size of MoE layer."""

    tokens: int
    hidden_size: int
    expert_size: int
    num_experts: int
    top_k: int
    gated: bool


SHAPES = {
    "a": Shape(4096, 384, 1536, 8, 2, gated=False),
    "b": Shape(2048, 576, 1536, 32, 4, gated=True),
    "c": Shape(2048, 128, 256, 32, 4, gated=True),
}


@dataclass
class Case:
    """Random experts, tokens and a random routing of one shape; the gradient that comes back."""

    shape: Shape
    experts: Experts
    tokens_Nd: Tensor
    chosen_NE: Tensor
    weights_NE: Tensor
    incoming_Nd: Tensor


def make_case(shape: Shape, device: str = "cpu") -> Case:
    """The case of a shape, from a fixed seed."""
    torch.manual_seed(0)
    activation = "silu" if shape.gated else "gelu"
    experts = Experts(shape.num_experts, shape.hidden_size, shape.expert_size, shape.gated, activation, 0.02)
    experts.reset_parameters()
    tokens_Nd = torch.randn(shape.tokens, shape.hidden_size)
    probs_NE = torch.softmax(torch.randn(shape.tokens, shape.num_experts), dim=-1)
    chosen_NE = select_topk(probs_NE, shape.top_k)
    weights_NE = assignment_weights(probs_NE, chosen_NE, shape.top_k > 1)
    tensors = (tokens_Nd, chosen_NE, weights_NE, torch.randn_like(tokens_Nd))
    return Case(shape, experts.to(device), *(t.to(device) for t in tensors))


class Products:
    """The products of `rows` rows through one weight [out, in]: forward, and both of the backward pass."""

    def __init__(self, weight: Tensor, rows: Tensor):
        out, inner = weight.shape
        self.weight, self.rows = weight, rows
        self.result = rows.new_empty(len(rows), out)
        self.to_rows, self.to_weight = torch.empty_like(rows), torch.empty_like(weight)

    def forward(self) -> None:
        """rows W^T."""
        torch.mm(self.rows, self.weight.T, out=self.result)

    def backward(self) -> None:
        """The gradients of rows and weight, the result standing in for its own."""
        torch.mm(self.result, self.weight, out=self.to_rows)
        torch.mm(self.result.T, self.rows, out=self.to_weight)


class ExpertsFloor:
    """The products of a case's experts and nothing else."""

    def __init__(self, case: Case):
        counts = case.chosen_NE.sum(dim=0).tolist()
        x = case.tokens_Nd
        self.products = []
        for expert, count in enumerate(counts):
            rows = torch.randn(count, case.shape.hidden_size, device=x.device)
            inner = torch.randn(count, case.shape.expert_size, device=x.device)
            into = [case.experts.up] + ([case.experts.gate] if case.shape.gated else [])
            self.products += [Products(w.detach()[expert], rows) for w in into]
            self.products.append(Products(case.experts.down.detach()[expert], inner))

    def forward(self) -> None:
        """The products of the forward pass."""
        for product in self.products:
            product.forward()

    def both(self) -> None:
        """The products of the forward and the backward pass."""
        self.forward()
        for product in self.products:
            product.backward()

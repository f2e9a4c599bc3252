"""Bare matrix products with the floating-point work of experts, into memory that is there already: the floor.

Shapes: N tokens, A = N K assignments, E experts, K experts per token, d hidden size, f expert width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.moe.dispatch import sorted_assignments
from spectra_exp.moe.experts import Experts, grouped_mm
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

    @property
    def index_NK(self) -> Tensor:
        """Each token's experts."""
        return self.chosen_NE.to(torch.int8).topk(self.shape.top_k, dim=-1).indices


def make_case(shape: Shape, device: str = "cpu", dtype: torch.dtype = torch.float32, skew: float = 0.0) -> Case:
    """The case of a shape, from a fixed seed; `skew`: how much likelier each expert's forerunners are (0: alike)."""
    torch.manual_seed(0)
    activation = "silu" if shape.gated else "gelu"
    with torch.device(device):
        experts = Experts(shape.num_experts, shape.hidden_size, shape.expert_size, shape.gated, activation, 0.02)
        experts.reset_parameters()
        tokens_Nd = torch.randn(shape.tokens, shape.hidden_size)
        # By a generator of their own, so that a skew changes nothing else.
        rank_E = 1 + torch.randperm(shape.num_experts, generator=torch.Generator(device).manual_seed(0))
        probs_NE = torch.softmax(torch.randn(shape.tokens, shape.num_experts) - skew * rank_E.log(), dim=-1)
        chosen_NE = select_topk(probs_NE, shape.top_k)
        weights_NE = assignment_weights(probs_NE, chosen_NE, shape.top_k > 1)
        incoming_Nd = torch.randn_like(tokens_Nd)
    return Case(shape, experts.to(dtype), tokens_Nd.to(dtype), chosen_NE, weights_NE, incoming_Nd.to(dtype))


class Products:
    """The products of `rows` rows through one weight [out, in], or of as many rows through each of a stack of them:
    forward, and both of the backward pass."""

    def __init__(self, weight: Tensor, rows: Tensor):
        self.weight, self.rows = weight, rows
        self.result = rows.new_empty(*rows.shape[:-1], weight.shape[-2])
        self.to_rows, self.to_weight = torch.empty_like(rows), torch.empty_like(weight)

    def forward(self) -> None:
        """rows W^T."""
        torch.matmul(self.rows, self.weight.mT, out=self.result)

    def backward(self) -> None:
        """The gradients of rows and weight, the result standing in for its own."""
        torch.matmul(self.result, self.weight, out=self.to_rows)
        torch.matmul(self.result.mT, self.rows, out=self.to_weight)


class InTurn:
    """Products one after another."""

    products: list[Products]

    def forward(self) -> None:
        """The products of the forward pass."""
        for product in self.products:
            product.forward()

    def both(self) -> None:
        """The products of the forward and the backward pass."""
        self.forward()
        for product in self.products:
            product.backward()


class ExpertsFloor(InTurn):
    """The products of a case's experts and nothing else."""

    def __init__(self, case: Case):
        counts = case.chosen_NE.sum(dim=0).tolist()
        x = case.tokens_Nd
        self.products = []
        for expert, count in enumerate(counts):
            rows = torch.randn(count, case.shape.hidden_size, device=x.device)
            inner = torch.randn(count, case.shape.expert_size, device=x.device)
            into = [w for w in (case.experts.up, case.experts.gate) if w is not None]
            self.products += [Products(w.detach()[expert], rows) for w in into]
            self.products.append(Products(case.experts.down.detach()[expert], inner))


class EqualGroups(InTurn):
    """As many products as a case's experts do, of groups that are all alike: one batched product a matrix.

    Forward and backward into memory that is there already, like ExpertsFloor, which asks how many rows each expert has.
    """

    def __init__(self, case: Case):
        shape, x = case.shape, case.tokens_Nd
        rows = shape.tokens * shape.top_k // shape.num_experts
        weights = [w for w in (case.experts.up, case.experts.down, case.experts.gate) if w is not None]
        self.products = [Products(w.detach(), x.new_empty(len(w), rows, w.shape[2]).normal_()) for w in weights]


class GroupedProducts:
    """A case's experts by PyTorch's grouped products and nothing else, on rows that are gathered already."""

    def __init__(self, case: Case):
        at = sorted_assignments(case.chosen_NE)
        self.ends_E = at.counts_E.cumsum(0, dtype=torch.int32)
        self.rows_Ad = case.tokens_Nd.index_select(0, at.token_A)
        self.incoming_Ad = case.incoming_Nd.index_select(0, at.token_A)
        self.experts = case.experts

    def forward(self) -> Tensor:
        """The experts' outputs [A, d], unweighted."""
        return self._outputs(self.rows_Ad)

    def both(self) -> None:
        """The outputs, and the gradients of rows and parameters."""
        self._outputs(self.rows_Ad.detach().requires_grad_()).backward(self.incoming_Ad)
        self.experts.zero_grad(set_to_none=True)

    def _outputs(self, rows_Ad: Tensor) -> Tensor:
        experts = self.experts
        inner_Af = grouped_mm(rows_Ad, experts.up.mT, offs=self.ends_E)
        if experts.gate is None:
            inner_Af = experts.activation(inner_Af)
        else:
            inner_Af = experts.activation(grouped_mm(rows_Ad, experts.gate.mT, offs=self.ends_E)) * inner_Af
        return grouped_mm(inner_Af, experts.down.mT, offs=self.ends_E)

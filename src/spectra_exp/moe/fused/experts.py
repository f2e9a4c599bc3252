"""The experts' weighted sum and its gradients, by the kernels.

Shapes: N tokens, A entries of the list of assignments, E experts, d hidden size, f expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from spectra_exp.foundations.parts import part
from spectra_exp.moe.fused.gradients import inner_gradient, outer_gradient, weight_gradient
from spectra_exp.moe.fused.lists import TILE_ROWS, RowLists, row_lists
from spectra_exp.moe.fused.products import inner_product, outer_product
from spectra_exp.moe.fused.sums import assignment_gradient, token_sums
from spectra_exp.moe.fused.tuning import LEAST_COLUMNS

# Rows of a token that are read at a time, and entries of them.
MOST_ROWS, LARGEST_BLOCK = 8, 8192
ENTRIES_BLOCK = 512


def fused_experts(
    tokens_Nd: Tensor,
    chosen_NE: Tensor,
    weights_NE: Tensor,
    matrices: tuple[Tensor, Tensor | None, Tensor],
    activation: str,
    dtype: torch.dtype,
    entries: int,
) -> tuple[Tensor, Tensor, RowLists]:
    """Each token's weighted sum [N, d] of its experts' outputs, those outputs [A, d], and whose they are.

    matrices: up, gate or None, down. dtype: of the products. entries: A, at least as many as there are assignments.
    """
    lists = row_lists(chosen_NE, entries)
    inputs = tokens_Nd, weights_NE, *matrices
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    with part("experts"):
        sums_Nd, outputs_Ad = FusedExperts.apply(*inputs, lists, activation, dtype, keep)
    return sums_Nd, outputs_Ad, lists


class FusedExperts(torch.autograd.Function):
    """Each token's weighted sum [N, d] of its experts' outputs, and those outputs [A, d], which take no gradient.

    Rows of the outputs behind the last assignment are undefined. The gathered tokens are not kept for the backward
    pass, nor the activated rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens_Nd: Tensor,
        weights_NE: Tensor,
        up: Tensor,
        gate: Tensor | None,
        down: Tensor,
        lists: RowLists,
        activation: str,
        dtype: torch.dtype,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        rows_Nd = tokens_Nd.to(dtype).contiguous()
        matrices = [None if m is None else m.to(dtype).contiguous() for m in (up, gate, down)]
        up_Efd, gate_Efd, down_Edf = matrices
        sizes = sizes_of(up)
        width, hidden = sizes["width"], sizes["hidden"]
        entries, gated = len(lists.token_A), gate is not None
        inner_Af, up_Af, gate_Af = (
            rows_Nd.new_empty(entries, width) if wanted else None for wanted in (True, keep, keep and gated)
        )
        inner_product[by_rows(lists, "width", 2 if gated else 1)](
            rows_Nd,
            lists.token_A,
            gate_Efd,
            up_Efd,
            gate_Af,
            up_Af,
            inner_Af,
            *lists.tiles,
            **sizes,
            ACTIVATION=activation,
            GATED=gated,
            KEEP=keep,
        )
        outputs_Ad = rows_Nd.new_empty(entries, hidden)
        outer_product[by_rows(lists, "hidden")](inner_Af, down_Edf, outputs_Ad, *lists.tiles, **sizes)
        sums_Nd = summed(outputs_Ad, lists, weights_NE, torch.empty_like(rows_Nd))
        ctx.save_for_backward(rows_Nd, weights_NE, *matrices, up_Af, gate_Af)
        ctx.lists, ctx.activation = lists, activation
        ctx.dtypes = [None if t is None else t.dtype for t in (tokens_Nd, weights_NE, up, gate, down)]
        ctx.mark_non_differentiable(outputs_Ad)
        # Else zeros would be made for the outputs.
        ctx.set_materialize_grads(False)
        return sums_Nd, outputs_Ad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming_Nd: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        rows_Nd, weights_NE, up_Efd, gate_Efd, down_Edf, up_Af, gate_Af = ctx.saved_tensors
        lists: RowLists = ctx.lists
        tokens_type, weights_type, up_type, gate_type, down_type = ctx.dtypes
        sizes = sizes_of(up_Efd)
        entries, gated = len(lists.token_A), gate_Efd is not None
        incoming_Nd = incoming_Nd.to(rows_Nd.dtype).contiguous()
        to_up_Af, weighted_Af = torch.empty_like(up_Af), torch.empty_like(up_Af)
        to_gate_Af = torch.empty_like(up_Af) if gated else None
        parts = triton.cdiv(sizes["width"], LEAST_COLUMNS)
        to_weight_TA = rows_Nd.new_empty(parts, entries, dtype=torch.float32)
        inner_gradient[by_rows(lists, "width")](
            incoming_Nd,
            lists.token_A,
            down_Edf,
            weights_NE,
            *weights_NE.stride(),
            gate_Af,
            up_Af,
            to_gate_Af,
            to_up_Af,
            weighted_Af,
            to_weight_TA,
            *lists.tiles,
            **sizes,
            entries=entries,
            ACTIVATION=ctx.activation,
            GATED=gated,
        )
        to_tokens_Nd = to_weights_NE = to_up = to_gate = to_down = None
        wanted = ctx.needs_input_grad
        if wanted[1]:
            to_weights_NE = routing_gradient(to_weight_TA, lists, weights_NE, weights_type)
        if wanted[4]:
            to_down = stacked_gradient(incoming_Nd, weighted_Af, lists, down_Edf, down_type, sizes, by_token=True)
        del weighted_Af
        if wanted[2]:
            to_up = stacked_gradient(to_up_Af, rows_Nd, lists, up_Efd, up_type, sizes)
        if to_gate_Af is not None and wanted[3]:
            to_gate = stacked_gradient(to_gate_Af, rows_Nd, lists, gate_Efd, gate_type, sizes)
        if wanted[0]:
            to_rows_Ad = rows_Nd.new_empty(entries, sizes["hidden"])
            outer_gradient[by_rows(lists, "hidden")](
                to_up_Af, to_gate_Af, up_Efd, gate_Efd, to_rows_Ad, *lists.tiles, **sizes, GATED=gated
            )
            to_tokens_Nd = summed(to_rows_Ad, lists, None, torch.empty_like(rows_Nd, dtype=tokens_type))
        return to_tokens_Nd, to_weights_NE, to_up, to_gate, to_down, None, None, None, None


def sizes_of(up_Efd: Tensor) -> dict[str, Any]:
    """What every product is told: the sizes, and how float32 is multiplied, which is as PyTorch multiplies it."""
    experts, width, hidden = up_Efd.shape
    precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    return {"hidden": hidden, "width": width, "experts": experts, "PRECISION": precision}


def by_rows(lists: RowLists, across: str, matrices: int = 1) -> Callable[[dict[str, Any]], tuple[int]]:
    """The grid of a product: a program for each tile of rows and each block of columns.

    across: the argument that says how many columns each matrix has. matrices: how many share a block.
    """
    return lambda args: (len(lists.expert_T) * triton.cdiv(args[across], args["COLUMNS"] // matrices),)


def routing_gradient(to_weight_TA: Tensor, lists: RowLists, weights_NE: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of the assignments' weights [N, E] from its parts, which `inner_gradient` has written."""
    parts, entries = to_weight_TA.shape
    result_NE = torch.zeros(weights_NE.shape, dtype=dtype, device=weights_NE.device)
    assignment_gradient[(triton.cdiv(entries, ENTRIES_BLOCK),)](
        to_weight_TA,
        lists.token_A,
        lists.expert_A,
        lists.bounds_E,
        result_NE,
        weights_NE.shape[1],
        entries,
        parts,
        BLOCK=ENTRIES_BLOCK,
    )
    return result_NE


def stacked_gradient(
    rows: Tensor,
    other: Tensor,
    lists: RowLists,
    weights: Tensor,
    dtype: torch.dtype,
    sizes: dict[str, Any],
    by_token: bool = False,
) -> Tensor:
    """The gradient of stacked weights, in `dtype`: each expert's rows by its other rows.

    One of the two are the tokens' [N, d]: `rows` if by_token, else `other`. The remaining ones are [A, f].
    """
    result = torch.empty(weights.shape, dtype=dtype, device=weights.device)
    experts, size, other_size = weights.shape
    weight_gradient[lambda args: (experts * triton.cdiv(size, TILE_ROWS) * triton.cdiv(other_size, args["COLUMNS"]),)](
        rows,
        other,
        lists.token_A,
        result,
        lists.order_E,
        lists.bounds_E,
        size,
        other_size,
        **sizes,
        BY_TOKEN=by_token,
        OUT=TILE_ROWS,
    )
    return result


def summed(rows_Ad: Tensor, lists: RowLists, weights_NE: Tensor | None, out_Nd: Tensor) -> Tensor:
    """Each token's rows, times their weights where there are any, summed into out_Nd."""
    tokens, hidden = out_Nd.shape
    entries = len(lists.token_A)
    at_once = min(MOST_ROWS, triton.next_power_of_2(triton.cdiv(entries, tokens)))
    columns = min(LARGEST_BLOCK // at_once, triton.next_power_of_2(hidden))
    weighted = weights_NE is not None
    token_sums[(tokens, triton.cdiv(hidden, columns))](
        rows_Ad,
        lists.row_A,
        lists.expert_A,
        lists.bounds_N,
        weights_NE if weighted else rows_Ad,
        *((0, 0) if weights_NE is None else weights_NE.stride()),
        out_Nd,
        hidden,
        entries,
        WEIGHTED=weighted,
        ROWS=at_once,
        COLUMNS=columns,
    )
    return out_Nd

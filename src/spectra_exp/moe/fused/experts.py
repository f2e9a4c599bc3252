"""The experts' weighted sum and its gradients, by the kernels.

Shapes: N tokens, A entries of the list of assignments, E experts, d hidden size, f expert width.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from spectra_exp.moe.fused.lists import TILE_ROWS, RowLists
from spectra_exp.moe.fused.products import (
    inner_gradient,
    inner_product,
    outer_gradient,
    outer_product,
    weight_gradient,
)
from spectra_exp.moe.fused.sums import assignment_gradient, token_sums
from spectra_exp.moe.fused.tuning import LEAST_COLUMNS

# Rows of a token that are read at a time, and entries of them.
MOST_ROWS, LARGEST_BLOCK = 16, 8192
ENTRIES_BLOCK = 512


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
        width, hidden = up.shape[1:]
        entries = len(lists.token_A)
        gated = gate is not None
        sizes = {"hidden": hidden, "width": width, "experts": len(up), "PRECISION": precision()}
        tiles = lists.expert_T, lists.first_T, lists.bounds_E
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
            *tiles,
            **sizes,
            ACTIVATION=activation,
            GATED=gated,
            KEEP=keep,
        )
        outputs_Ad = rows_Nd.new_empty(entries, hidden)
        outer_product[by_rows(lists, "hidden")](inner_Af, down_Edf, outputs_Ad, *tiles, **sizes)
        sums_Nd = summed(outputs_Ad, lists, weights_NE, torch.empty_like(rows_Nd))
        ctx.save_for_backward(rows_Nd, weights_NE, *matrices, up_Af, gate_Af)
        ctx.lists, ctx.activation = lists, activation
        ctx.dtypes = [None if t is None else t.dtype for t in (tokens_Nd, weights_NE, up, gate, down)]
        ctx.mark_non_differentiable(outputs_Ad)
        return sums_Nd, outputs_Ad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming_Nd: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        rows_Nd, weights_NE, up_Efd, gate_Efd, down_Edf, up_Af, gate_Af = ctx.saved_tensors
        lists: RowLists = ctx.lists
        tokens_type, weights_type, up_type, gate_type, down_type = ctx.dtypes
        width, hidden = up_Efd.shape[1:]
        experts, entries, gated = len(up_Efd), len(lists.token_A), gate_Efd is not None
        sizes = {"hidden": hidden, "width": width, "experts": experts, "PRECISION": precision()}
        tiles = lists.expert_T, lists.first_T, lists.bounds_E
        incoming_Nd = incoming_Nd.to(rows_Nd.dtype).contiguous()
        to_up_Af, weighted_Af = torch.empty_like(up_Af), torch.empty_like(up_Af)
        to_gate_Af = torch.empty_like(up_Af) if gated else None
        blocks = triton.cdiv(width, LEAST_COLUMNS)
        to_weight_TA = rows_Nd.new_zeros(blocks, entries, dtype=torch.float32)
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
            *tiles,
            **sizes,
            entries=entries,
            ACTIVATION=ctx.activation,
            GATED=gated,
        )
        to_tokens_Nd = to_weights_NE = to_up = to_gate = to_down = None
        wanted = ctx.needs_input_grad
        if wanted[1]:
            to_weights_NE = torch.zeros(weights_NE.shape, dtype=weights_type, device=weights_NE.device)
            assignment_gradient[(triton.cdiv(entries, ENTRIES_BLOCK),)](
                to_weight_TA,
                lists.token_A,
                lists.expert_A,
                lists.bounds_E,
                to_weights_NE,
                experts,
                entries,
                blocks,
                BLOCK=ENTRIES_BLOCK,
            )
        if wanted[4]:
            to_down = weights_gradient(incoming_Nd, weighted_Af, True, lists, down_Edf, down_type, sizes)
        del weighted_Af
        if wanted[2]:
            to_up = weights_gradient(to_up_Af, rows_Nd, False, lists, up_Efd, up_type, sizes)
        if gated and wanted[3]:
            to_gate = weights_gradient(to_gate_Af, rows_Nd, False, lists, gate_Efd, gate_type, sizes)
        if wanted[0]:
            to_rows_Ad = rows_Nd.new_empty(entries, hidden)
            outer_gradient[by_rows(lists, "hidden")](
                to_gate_Af if gated else to_up_Af, to_up_Af, gate_Efd, up_Efd, to_rows_Ad, *tiles, **sizes, GATED=gated
            )
            to_tokens_Nd = summed(to_rows_Ad, lists, None, torch.empty_like(rows_Nd, dtype=tokens_type))
        return to_tokens_Nd, to_weights_NE, to_up, to_gate, to_down, None, None, None, None


def precision() -> str:
    """How float32 is multiplied: as PyTorch multiplies it."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def by_rows(lists: RowLists, across: str, matrices: int = 1):
    """A program for each tile of rows and each block of columns, which so many matrices share, of that size."""
    return lambda args: (len(lists.expert_T) * triton.cdiv(args[across], args["COLUMNS"] // matrices),)


def weights_gradient(
    rows: Tensor, other: Tensor, by_token: bool, lists: RowLists, weights: Tensor, dtype: torch.dtype, sizes: dict
) -> Tensor:
    """The gradient of stacked weights, in their own type."""
    result = torch.empty(weights.shape, dtype=dtype, device=weights.device)
    experts, size, other_size = weights.shape
    weight_gradient[lambda args: (experts * triton.cdiv(size, TILE_ROWS) * triton.cdiv(other_size, args["COLUMNS"]),)](
        rows,
        other,
        lists.token_A,
        result,
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
    some = min(MOST_ROWS, triton.next_power_of_2(triton.cdiv(entries, tokens)))
    columns = min(LARGEST_BLOCK // some, triton.next_power_of_2(hidden))
    weighted = weights_NE is not None
    token_sums[(tokens, triton.cdiv(hidden, columns))](
        rows_Ad,
        lists.row_A,
        lists.expert_A,
        lists.bounds_N,
        weights_NE if weighted else rows_Ad,
        *(weights_NE.stride() if weighted else (0, 0)),
        out_Nd,
        hidden,
        entries,
        WEIGHTED=weighted,
        SOME=some,
        COLUMNS=columns,
    )
    return out_Nd

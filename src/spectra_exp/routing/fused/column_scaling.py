"""Sinkhorn's column scalings in the log domain and their gradient, by two kernels an iteration.

Shapes: N tokens, E experts, P programs, each of which has a stretch of rows. Arithmetic is float32, and sums have a
fixed order. With K the kernel [N, E], an iteration takes the columns' v to the rows' u = -logsumexp_e(K + v) and on to
l = logsumexp_n(K + u), in one reading of K; the next v is log(N/E) - l.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Entries of the kernel that a program reads at a time; programs among which the rows are divided at most.
BLOCK_ENTRIES, MOST_PROGRAMS = 4096, 256
# Columns of a program that brings the stretches together.
COLUMNS = 16
# In place of what is not there: below any entry, and finite, so that its differences are numbers.
LOWEST = tl.constexpr(-3e38)


def column_scaling(kernel_NE: Tensor, iterations: int) -> Tensor:
    """What `log_scaling` gives for the tokens of one process: log column scalings [E]. N is above 0."""
    scaling_E: Tensor = ColumnScaling.apply(kernel_NE, iterations)
    return scaling_E


class ColumnScaling(torch.autograd.Function):
    """The gradient goes back through the iterations; besides K only u and l of each are kept for it."""

    @staticmethod
    def forward(ctx: Any, kernel_NE: Tensor, iterations: int) -> Tensor:
        kernel_NE = kernel_NE.contiguous()
        tokens, experts = kernel_NE.shape
        log_target, division = math.log(tokens / experts), _division(kernel_NE)
        programs = division["programs"]
        largest_PE, sum_PE = kernel_NE.new_empty(2, programs, experts).unbind()
        # Of each iteration what it began with, first v = 0, and of the last what it gave.
        columns_IE = kernel_NE.new_full((iterations + 1, experts), log_target)
        log_u_IN = kernel_NE.new_empty(iterations, tokens)
        for i in range(iterations):
            row_step[(programs,)](
                kernel_NE,
                columns_IE[i],
                log_u_IN[i],
                largest_PE,
                sum_PE,
                log_target,
                tokens,
                experts,
                **division["blocks"],
            )
            column_step[(triton.cdiv(experts, COLUMNS),)](
                largest_PE,
                sum_PE,
                columns_IE[i + 1],
                experts,
                programs,
                PROGRAMS=triton.next_power_of_2(programs),
                COLUMNS=COLUMNS,
            )
        ctx.save_for_backward(kernel_NE, log_u_IN, columns_IE)
        return log_target - columns_IE[iterations]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming_E: Tensor) -> tuple[Tensor, None]:
        kernel_NE, log_u_IN, columns_IE = ctx.saved_tensors
        tokens, experts = kernel_NE.shape
        division = _division(kernel_NE)
        to_kernel_NE = torch.zeros_like(kernel_NE)
        sum_PE = kernel_NE.new_empty(division["programs"], experts)
        to_v_E = incoming_E.contiguous()
        for i in reversed(range(len(log_u_IN))):
            row_gradient[(division["programs"],)](
                kernel_NE,
                log_u_IN[i],
                columns_IE[i],
                columns_IE[i + 1],
                to_v_E,
                to_kernel_NE,
                sum_PE,
                math.log(tokens / experts),
                tokens,
                experts,
                **division["blocks"],
            )
            to_v_E = sum_PE.sum(0)
        return to_kernel_NE, None


def _division(kernel_NE: Tensor) -> dict[str, Any]:
    """How many programs there are, and what their blocks are: `stretch` rows, ROWS of WIDE columns at a time."""
    tokens, experts = kernel_NE.shape
    wide = triton.next_power_of_2(experts)
    rows = max(1, BLOCK_ENTRIES // wide)
    stretch = rows * triton.cdiv(triton.cdiv(tokens, rows), MOST_PROGRAMS)
    return {"programs": triton.cdiv(tokens, stretch), "blocks": {"stretch": stretch, "ROWS": rows, "WIDE": wide}}


@triton.jit
def row_step(
    kernel_ne,
    before_e,
    log_u_n,
    largest_pe,
    sum_pe,
    log_target,
    tokens,
    experts,
    stretch,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """u of this program's rows, and of each column the largest K + u of them and the sum of exp(K + u - largest)."""
    program = tl.program_id(0)
    e, there, log_v = _columns_of(before_e, log_target, experts, WIDE)
    largest = tl.full((WIDE,), LOWEST, tl.float32)
    total = tl.zeros((WIDE,), tl.float32)
    for start in range(program * stretch, tl.minimum((program + 1) * stretch, tokens), ROWS):
        n = start + tl.arange(0, ROWS)
        kernel, kept = _rows_of(kernel_ne, n, e, tokens, experts)
        row = tl.where(there[None, :], kernel + log_v[None, :], LOWEST)
        row_largest = tl.max(row, 1)
        log_u = -(row_largest + tl.log(tl.sum(tl.exp(row - row_largest[:, None]), 1)))
        tl.store(log_u_n + n, log_u, mask=n < tokens)
        column = tl.where(kept, kernel + log_u[:, None], LOWEST)
        now = tl.maximum(largest, tl.max(column, 0))
        total = total * tl.exp(largest - now) + tl.sum(tl.exp(column - now[None, :]), 0)
        largest = now
    tl.store(largest_pe + program * experts + e, largest, mask=there)
    tl.store(sum_pe + program * experts + e, total, mask=there)


@triton.jit
def column_step(largest_pe, sum_pe, after_e, experts, programs, PROGRAMS: tl.constexpr, COLUMNS: tl.constexpr):
    """l out of what the programs found."""
    p = tl.arange(0, PROGRAMS)
    e = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    at = p[:, None] * experts + e[None, :]
    kept = (p < programs)[:, None] & (e < experts)[None, :]
    largest_of_each = tl.load(largest_pe + at, mask=kept, other=LOWEST)
    largest = tl.max(largest_of_each, 0)
    sums = tl.load(sum_pe + at, mask=kept, other=0.0) * tl.exp(largest_of_each - largest[None, :])
    # Columns that are not there have the sum 1, whose logarithm is a number.
    total = tl.where(e < experts, tl.sum(sums, 0), 1.0)
    tl.store(after_e + e, largest + tl.log(total), mask=e < experts)


@triton.jit
def row_gradient(
    kernel_ne,
    log_u_n,
    before_e,
    after_e,
    to_after_e,
    to_kernel_ne,
    sum_pe,
    log_target,
    tokens,
    experts,
    stretch,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Add an iteration's part of K's gradient, and sum what its first v [E] gets from this program's rows.

    In a column exp((K + u) - l) are shares, in a row exp((K + v) + u). Added in this order, as l and u were made, they
    sum to 1 also where K is large.
    """
    program = tl.program_id(0)
    e, there, log_v = _columns_of(before_e, log_target, experts, WIDE)
    after = tl.load(after_e + e, mask=there, other=0.0)
    to_after = tl.load(to_after_e + e, mask=there, other=0.0)
    total = tl.zeros((WIDE,), tl.float32)
    for start in range(program * stretch, tl.minimum((program + 1) * stretch, tokens), ROWS):
        n = start + tl.arange(0, ROWS)
        kernel, kept = _rows_of(kernel_ne, n, e, tokens, experts)
        log_u = tl.load(log_u_n + n, mask=n < tokens, other=0.0)[:, None]
        # The gradient of l is minus that of the next v, the gradient of u minus that of its logsumexp.
        column_share = tl.exp(tl.where(kept, (kernel + log_u) - after[None, :], LOWEST))
        column = to_after[None, :] * column_share
        row_share = tl.exp(tl.where(kept, (kernel + log_v[None, :]) + log_u, LOWEST))
        row = tl.sum(column, 1)[:, None] * row_share
        total += tl.sum(row, 0)
        at = to_kernel_ne + n.to(tl.int64)[:, None] * experts + e[None, :]
        tl.store(at, tl.load(at, mask=kept, other=0.0) + row - column, mask=kept)
    tl.store(sum_pe + program * experts + e, total, mask=there)


@triton.jit
def _columns_of(before_e, log_target, experts, WIDE: tl.constexpr):
    """The columns, which of them there are, and the v that an iteration begins with."""
    e = tl.arange(0, WIDE)
    there = e < experts
    return e, there, log_target - tl.load(before_e + e, mask=there, other=0.0)


@triton.jit
def _rows_of(kernel_ne, n, e, tokens, experts):
    """Those rows of K, 0 where there is none, and which entries there are."""
    kept = (n < tokens)[:, None] & (e < experts)[None, :]
    return tl.load(kernel_ne + n.to(tl.int64)[:, None] * experts + e[None, :], mask=kept, other=0.0), kept

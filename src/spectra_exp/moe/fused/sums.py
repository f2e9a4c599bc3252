"""Sums over the rows of a token, and what belongs to single assignments. Sums are float32, in a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def token_sums(
    rows_ad,
    row_a,
    expert_a,
    bounds_n,
    weights_ne,
    stride_n,
    stride_e,
    out_nd,
    hidden,
    entries,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Each token's sum [N, d] of its rows [A, d], times their weights if WEIGHTED; ROWS of them are read at a time."""
    token = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = columns < hidden
    start = tl.minimum(tl.load(bounds_n + token), entries)
    end = tl.minimum(tl.load(bounds_n + token + 1), entries)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(start, end, ROWS):
        place = first + tl.arange(0, ROWS)
        row = tl.load(row_a + place, mask=place < end, other=entries)
        # Rows from `entries` on are left out of a list that is too short.
        kept = row < entries
        at = rows_ad + row.to(tl.int64)[:, None] * hidden + columns[None, :]
        values = tl.load(at, mask=kept[:, None] & there[None, :], other=0.0).to(tl.float32)
        if WEIGHTED:
            expert = tl.load(expert_a + row, mask=kept, other=0)
            at = weights_ne + token.to(tl.int64) * stride_n + expert * stride_e
            values *= tl.load(at, mask=kept, other=0.0).to(tl.float32)[:, None]
        total += tl.sum(values, 0)
    tl.store(out_nd + token.to(tl.int64) * hidden + columns, total, mask=there)


@triton.jit
def assignment_gradient(
    to_weight_ta, token_a, expert_a, bounds_e, out_ne, experts, entries, parts, BLOCK: tl.constexpr
):
    """Each assignment's sum over the parts [parts, A], written at its token and expert [N, E]."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = at < tl.load(bounds_e + experts)
    total = tl.zeros((BLOCK,), tl.float32)
    part_at = to_weight_ta + at
    for _ in range(0, parts):
        total += tl.load(part_at, mask=real, other=0.0)
        part_at += entries
    token = tl.load(token_a + at, mask=real, other=0).to(tl.int64)
    expert = tl.load(expert_a + at, mask=real, other=0)
    tl.store(out_ne + token * experts + expert, total, mask=real)

"""Which rows belong to which expert and which token, made on the device without asking it anything.

Shapes: N tokens, E experts, A entries of the list of assignments, B blocks of tokens, T tiles of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows of one tile of every product.
TILE_ROWS = 128
# Entries of the mask that one program of the counting looks at.
BLOCK_ENTRIES = 4096


@dataclass(frozen=True)
class RowLists:
    """Assignments sorted by expert, then by token, and the way back.

    token_A, expert_A: of each row; 0 behind the last. bounds_E [E + 1]: where each expert's rows begin, and the end.
    row_A: the rows of token 0, then those of token 1 and so on; bounds_N [N + 1]: where each token's begin.
    expert_T, first_T, rows_T: expert (-1: none), first row and number of rows of each tile of up to TILE_ROWS rows.
    counts_E: assignments of each expert. All int32. A: at least as many entries as assignments, else the last ones are
    left out.
    """

    token_A: Tensor
    expert_A: Tensor
    row_A: Tensor
    bounds_E: Tensor
    bounds_N: Tensor
    expert_T: Tensor
    first_T: Tensor
    rows_T: Tensor
    counts_E: Tensor

    @property
    def tiles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Expert, first row and number of rows of each tile."""
        return self.expert_T, self.first_T, self.rows_T

    @cached_property
    def order_E(self) -> Tensor:
        """The experts, int32, those with most rows first: what takes longest is best begun early."""
        return self.counts_E.argsort(descending=True).int()


def row_lists(chosen_NE: Tensor, entries: int) -> RowLists:
    """The lists of a choice, bool [N, E], with room for `entries` assignments."""
    tokens, experts = chosen_NE.shape
    wide = triton.next_power_of_2(experts)
    block = max(1, min(triton.next_power_of_2(max(tokens, 1)), BLOCK_ENTRIES // wide))
    blocks = triton.cdiv(tokens, block)
    tiles = triton.cdiv(entries, TILE_ROWS) + experts

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=chosen_NE.device)

    chosen_NE = chosen_NE.view(torch.uint8)
    strides = chosen_NE.stride()
    counts_EB, counts_N = empty(experts, blocks), empty(tokens)
    _count[(blocks,)](chosen_NE, *strides, counts_EB, counts_N, tokens, experts, BLOCK=block, WIDE=wide)
    bounds_EB, bounds_N = bounds(counts_EB.flatten()), bounds(counts_N)
    all_bounds_E = bounds_EB[::blocks]
    bounds_E = all_bounds_E.clamp(max=entries)
    expert_T, first_T, rows_T = empty(tiles), empty(tiles), empty(tiles)
    _tiles[(triton.cdiv(tiles, block),)](
        bounds_E, expert_T, first_T, rows_T, tiles, experts, ROWS=TILE_ROWS, BLOCK=block, WIDE=wide
    )
    # Behind the last assignment some entry that is there: it is read, and nothing is made of it.
    token_A, expert_A, row_A = (torch.zeros(entries, dtype=torch.int32, device=chosen_NE.device) for _ in range(3))
    _place[(blocks,)](
        chosen_NE,
        *strides,
        bounds_EB,
        bounds_N,
        token_A,
        expert_A,
        row_A,
        tokens,
        experts,
        entries,
        BLOCK=block,
        WIDE=wide,
    )
    return RowLists(token_A, expert_A, row_A, bounds_E, bounds_N, expert_T, first_T, rows_T, all_bounds_E.diff())


def bounds(counts: Tensor) -> Tensor:
    """Where parts of these lengths begin one after the other, and the end of the last; int32 [parts + 1]."""
    ends = counts.new_zeros(len(counts) + 1, dtype=torch.int32)
    torch.cumsum(counts, 0, dtype=torch.int32, out=ends[1:])
    return ends


@triton.jit
def _block_of(chosen, stride_n, stride_e, tokens, experts, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The rows and columns of this program's block of the mask, and the mask there as 0 and 1."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    e = tl.arange(0, WIDE)
    inside = (n < tokens)[:, None] & (e < experts)[None, :]
    at = n.to(tl.int64)[:, None] * stride_n + e[None, :] * stride_e
    return n, e, tl.load(chosen + at, mask=inside, other=0).to(tl.int32)


@triton.jit
def _count(chosen, stride_n, stride_e, counts_eb, counts_n, tokens, experts, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    n, e, block = _block_of(chosen, stride_n, stride_e, tokens, experts, BLOCK, WIDE)
    tl.store(counts_eb + e * tl.num_programs(0) + tl.program_id(0), tl.sum(block, 0), mask=e < experts)
    tl.store(counts_n + n, tl.sum(block, 1), mask=n < tokens)


@triton.jit
def _tiles(
    bounds_e,
    expert_t,
    first_t,
    rows_t,
    tiles,
    experts,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Expert, first row and number of rows of each tile of this program's block."""
    e = tl.arange(0, WIDE)
    starts = tl.load(bounds_e + e, mask=e < experts, other=0)
    ends = tl.load(bounds_e + e + 1, mask=e < experts, other=0)
    numbers = tl.cdiv(ends - starts, ROWS)
    tile_ends = tl.cumsum(numbers, 0)
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    before = (tile_ends[None, :] <= t[:, None]) & (e < experts)[None, :]
    expert = tl.sum(before.to(tl.int32), 1)
    own = e[None, :] == expert[:, None]
    first = tl.sum(tl.where(own, (starts - (tile_ends - numbers) * ROWS)[None, :], 0), 1) + t * ROWS
    tl.store(expert_t + t, tl.where(expert < experts, expert, -1), mask=t < tiles)
    tl.store(first_t + t, first, mask=t < tiles)
    end = tl.sum(tl.where(own, ends[None, :], 0), 1)
    tl.store(rows_t + t, tl.minimum(end - first, ROWS), mask=t < tiles)


@triton.jit
def _place(
    chosen,
    stride_n,
    stride_e,
    bounds_eb,
    bounds_n,
    token_a,
    expert_a,
    row_a,
    tokens,
    experts,
    entries,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Each assignment's row, written at that row and at its place among its token's."""
    n, e, block = _block_of(chosen, stride_n, stride_e, tokens, experts, BLOCK, WIDE)
    first = tl.load(bounds_eb + e * tl.num_programs(0) + tl.program_id(0), mask=e < experts, other=0)
    row = first[None, :] + tl.cumsum(block, 0) - block
    start = tl.load(bounds_n + n, mask=n < tokens, other=0)
    place = start[:, None] + tl.cumsum(block, 1) - block
    real = block > 0
    kept = real & (row < entries)
    tl.store(token_a + row, tl.broadcast_to(n[:, None], (BLOCK, WIDE)), mask=kept)
    tl.store(expert_a + row, tl.broadcast_to(e[None, :], (BLOCK, WIDE)), mask=kept)
    tl.store(row_a + place, row, mask=real & (place < entries))

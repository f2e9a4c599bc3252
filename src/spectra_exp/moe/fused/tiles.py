"""What the products share: the tile that a program makes, how blocks of it are read and written."""

from __future__ import annotations

import triton
import triton.language as tl

from spectra_exp.moe.fused.lists import TILE_ROWS

ROWS = tl.constexpr(TILE_ROWS)


@triton.jit
def tile_of(expert_t, first_t, rows_t, size, COLUMNS: tl.constexpr):
    """This program's expert (-1: none), its first row, how many rows it has, its first column."""
    across = tl.cdiv(size, COLUMNS)
    tile = tl.program_id(0) // across
    expert = tl.load(expert_t + tile)
    first = tl.load(first_t + tile)
    number = tl.load(rows_t + tile)
    return expert.to(tl.int64), first.to(tl.int64), number, (tl.program_id(0) % across) * COLUMNS


@triton.jit
def tokens_of(token_a, first, number):
    """Which rows of a tile there are, and their tokens."""
    real = tl.arange(0, ROWS) < number
    return real, tl.load(token_a + first + tl.arange(0, ROWS), mask=real, other=0)


@triton.jit
def columns_of(column, size, COLUMNS: tl.constexpr):
    """A tile's columns from its first one on, and which of them there are [1, COLUMNS]."""
    columns = column + tl.arange(0, COLUMNS)
    return columns, (columns < size)[None, :]


@triton.jit
def rows_at(number, inner, size):
    """Where the `inner` entries of a tile's rows of `size` are, from its first row on."""
    # Rows behind the last are the last again: nothing is made of them.
    return tl.minimum(tl.arange(0, ROWS), number - 1)[:, None] * size + inner[None, :]


@triton.jit
def loaded(at, first, second, WHOLE_FIRST: tl.constexpr, WHOLE_SECOND: tl.constexpr):
    """A block at the pointers, 0 where `first` (a column) or `second` (a row) is false; whole ones are not asked."""
    if WHOLE_FIRST and WHOLE_SECOND:
        return tl.load(at)
    elif WHOLE_FIRST:
        return tl.load(at, mask=second, other=0.0)
    elif WHOLE_SECOND:
        return tl.load(at, mask=first, other=0.0)
    else:
        return tl.load(at, mask=first & second, other=0.0)


@triton.jit
def halves(values, COLUMNS: tl.constexpr):
    """The left and the right columns."""
    return values.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1).split()


@triton.jit
def part_of(real, column, part, size, COLUMNS: tl.constexpr):
    """Where the columns of one part of a tile are in rows of `size`, and which of these entries there are."""
    columns = column + part * COLUMNS + tl.arange(0, COLUMNS)
    out = tl.arange(0, ROWS)[:, None] * size + columns[None, :]
    return out, real[:, None] & (columns < size)[None, :]


@triton.jit
def store_tile(out_rows, tile, first, number, column, size, COLUMNS: tl.constexpr):
    """Write a tile into its rows of `size`."""
    out, kept = part_of(tl.arange(0, ROWS) < number, column, 0, size, COLUMNS)
    tl.store(out_rows + first * size + out, tile, mask=kept)

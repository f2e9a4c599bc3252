"""The products of the forward pass, of all experts at once: each expert's rows with its own matrices, without padding.

Letters: N tokens, A rows sorted by expert, d hidden size, f expert width, E experts. Sums are float32 throughout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectra_exp.moe.fused.activations import activated
from spectra_exp.moe.fused.tiles import (
    ROWS,
    columns_of,
    halves,
    loaded,
    part_of,
    rows_at,
    store_tile,
    tile_of,
    tokens_of,
)
from spectra_exp.moe.fused.tuning import PRODUCT, tuned, whole_blocks


@tuned(*PRODUCT, whole=whole_blocks("hidden", "width"))
@triton.jit
def inner_product(
    rows,
    token_a,
    gate,
    up,
    gate_af,
    up_af,
    inner_af,
    expert_t,
    first_t,
    rows_t,
    hidden,
    width,
    experts,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_INNER: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """act(x gate^T) * (x up^T), or act(x up^T), of the tokens' rows x [N, d]: [A, f]; both factors too if KEEP.

    Where there is a gate, half of the COLUMNS are the gate's and half are up's.
    """
    OWN: tl.constexpr = COLUMNS // 2 if GATED else COLUMNS
    expert, first, number, column = tile_of(expert_t, first_t, rows_t, width, OWN)
    if expert < 0:
        return
    real, token = tokens_of(token_a, first, number)
    inner = tl.arange(0, INNER)
    product_column = tl.arange(0, COLUMNS)
    columns = column + product_column % OWN
    there = (columns < width)[None, :]
    x_at = token[:, None] * hidden + inner[None, :]
    w_at = columns[None, :] * hidden + inner[:, None]
    up += expert * width * hidden
    matrix = up
    if GATED:
        matrix = tl.where(product_column < OWN, gate + expert * width * hidden, up)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, hidden, INNER):
        left = inner < hidden - k
        x = loaded(rows + k + x_at, True, left[None, :], True, WHOLE_INNER)
        w = loaded(matrix + (k + w_at), left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    inner_af += first * width
    if KEEP:
        up_af += first * width
    if GATED:
        if KEEP:
            gate_af += first * width
        gates, ups = halves(total, COLUMNS)
        gate_halves = halves(gates, OWN)
    else:
        ups = total
    # A part at a time, for what is done with a sum does not fit into the registers all at once.
    up_halves = halves(ups, OWN)
    for half in tl.static_range(2):
        out, kept = part_of(real, column, half, width, OWN // 2)
        if KEEP:
            tl.store(up_af + out, up_halves[half], mask=kept)
        if GATED:
            if KEEP:
                tl.store(gate_af + out, gate_halves[half], mask=kept)
            result = activated(gate_halves[half], ACTIVATION) * up_halves[half]
        else:
            result = activated(up_halves[half], ACTIVATION)
        tl.store(inner_af + out, result, mask=kept)


@tuned(*PRODUCT, whole=whole_blocks("width", "hidden"))
@triton.jit
def outer_product(
    rows,
    down,
    out_ad,
    expert_t,
    first_t,
    rows_t,
    hidden,
    width,
    experts,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_INNER: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """rows [A, f] down^T: [A, d]."""
    expert, first, number, column = tile_of(expert_t, first_t, rows_t, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
    columns, there = columns_of(column, hidden, COLUMNS)
    x_at = rows_at(number, inner, width)
    w_at = columns[None, :] * width + inner[:, None]
    rows += first * width
    down += expert * width * hidden
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, width, INNER):
        left = inner < width - k
        x = loaded(rows + k + x_at, True, left[None, :], True, WHOLE_INNER)
        w = loaded(down + k + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    store_tile(out_ad, total, first, number, column, hidden, COLUMNS)

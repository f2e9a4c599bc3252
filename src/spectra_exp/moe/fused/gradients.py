"""The products of the backward pass, of all experts at once: each expert's rows with its own matrices, without padding.

Letters: N tokens, A rows sorted by expert, d hidden size, f expert width, E experts. Sums are float32 throughout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectra_exp.moe.fused.activations import activated, slope
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
from spectra_exp.moe.fused.tuning import LEAST_COLUMNS, PRODUCT, TWO_AT_ONCE, blocks, multiple, tuned, whole_blocks

LEAST = tl.constexpr(LEAST_COLUMNS)


@tuned(*PRODUCT, blocks(128, 64, 8, 4), whole=whole_blocks("hidden", "width"))
@triton.jit
def inner_gradient(
    rows,
    token_a,
    down,
    weights_ne,
    stride_n,
    stride_e,
    gate_af,
    up_af,
    to_gate_af,
    to_up_af,
    weighted_af,
    to_weight_ta,
    expert_t,
    first_t,
    rows_t,
    hidden,
    width,
    experts,
    entries,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_INNER: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """The way back from each token's gradient [N, d] through down and the activation.

    Written: the gradients of the two factors [A, f], the activated rows times their weight [A, f], and parts of the
    gradient of the weight [parts, A], one for each LEAST columns.
    """
    expert, first, number, column = tile_of(expert_t, first_t, rows_t, width, COLUMNS)
    if expert < 0:
        return
    real, token = tokens_of(token_a, first, number)
    inner = tl.arange(0, INNER)
    columns, there = columns_of(column, width, COLUMNS)
    y_at = token[:, None] * hidden + inner[None, :]
    w_at = inner[:, None] * width + columns[None, :]
    down += expert * width * hidden
    incoming = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, hidden, INNER):
        left = inner < hidden - k
        y = loaded(rows + k + y_at, True, left[None, :], True, WHOLE_INNER)
        w = loaded(down + k * width + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        incoming = tl.dot(y, w, incoming, input_precision=PRECISION)
    weight = tl.load(weights_ne + token.to(tl.int64) * stride_n + expert * stride_e, mask=real, other=0.0)
    weight = weight.to(tl.float32)[:, None]
    up_af += first * width
    to_up_af += first * width
    weighted_af += first * width
    if GATED:
        gate_af += first * width
        to_gate_af += first * width
    to_weight = tl.zeros((ROWS,), tl.float32)
    # A part at a time, for what is done with a sum does not fit into the registers all at once.
    parts = _quarters(incoming, COLUMNS)
    for part in tl.static_range(4):
        some = parts[part]
        out, kept = part_of(real, column, part, width, COLUMNS // 4)
        up = tl.load(up_af + out, mask=kept, other=0.0).to(tl.float32)
        if GATED:
            gate = tl.load(gate_af + out, mask=kept, other=0.0).to(tl.float32)
            act = activated(gate, ACTIVATION)
            result = act * up
            to_gate = some * weight * up * slope(gate, ACTIVATION)
            tl.store(to_gate_af + out, to_gate, mask=kept)
            to_up = some * weight * act
        else:
            result = activated(up, ACTIVATION)
            to_up = some * weight * slope(up, ACTIVATION)
        tl.store(to_up_af + out, to_up, mask=kept)
        tl.store(weighted_af + out, result * weight, mask=kept)
        to_weight += tl.sum(some * result, 1)
    _store_weight_parts(to_weight_ta, to_weight, first, number, column, width, entries, COLUMNS)


@triton.jit
def _quarters(values, COLUMNS: tl.constexpr):
    """Four blocks of columns, from left to right."""
    left, right = halves(values, COLUMNS)
    one, two = halves(left, COLUMNS // 2)
    three, four = halves(right, COLUMNS // 2)
    return one, two, three, four


@triton.jit
def _store_weight_parts(to_weight_ta, to_weight, first, number, column, width, entries, COLUMNS: tl.constexpr):
    """Write a tile's gradient of the weight in the row of its first LEAST columns, and 0 in those of its others.

    There is a row for each LEAST columns of the width whatever COLUMNS is, so that nothing of another choice stays.
    """
    for row in tl.static_range(COLUMNS // LEAST):
        at = (column // LEAST + row).to(tl.int64) * entries + first + tl.arange(0, ROWS)
        written = tl.where(column + row * LEAST < width, number, 0)
        tl.store(to_weight_ta + at, to_weight, mask=tl.arange(0, ROWS) < written)
        to_weight = tl.zeros((ROWS,), tl.float32)


@tuned(*PRODUCT, whole=whole_blocks("width", "hidden"))
@triton.jit
def outer_gradient(
    rows,
    gate_rows,
    up,
    gate,
    out_ad,
    expert_t,
    first_t,
    rows_t,
    hidden,
    width,
    experts,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_INNER: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """The gradient of the gathered tokens, [A, d]: rows [A, f] by up, plus gate_rows [A, f] by gate if there is one."""
    expert, first, number, column = tile_of(expert_t, first_t, rows_t, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
    columns, there = columns_of(column, hidden, COLUMNS)
    y_at = rows_at(number, inner, width)
    w_at = inner[:, None] * hidden + columns[None, :]
    rows += first * width
    up += expert * width * hidden
    steps = tl.cdiv(width, INNER)
    all_steps = steps
    if GATED:
        gate_rows += first * width
        gate += expert * width * hidden
        all_steps = 2 * steps
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, all_steps):
        k = step * INNER
        own_rows, matrix = rows, up
        if GATED:
            k = tl.where(step < steps, step, step - steps) * INNER
            own_rows, matrix = tl.where(step < steps, rows, gate_rows), tl.where(step < steps, up, gate)
        left = inner < width - k
        y = loaded(own_rows + k + y_at, True, left[None, :], True, WHOLE_INNER)
        w = loaded(matrix + k * hidden + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(y, w, total, input_precision=PRECISION)
    store_tile(out_ad, total, first, number, column, hidden, COLUMNS)


@triton.jit
def _matrix_tile(order_e, bounds_e, out_size, in_size, COLUMNS: tl.constexpr):
    """This program's expert with its first row and the end of its rows, and its block of the matrix [out, in]."""
    across = tl.cdiv(in_size, COLUMNS)
    along = tl.cdiv(out_size, ROWS)
    expert = tl.load(order_e + tl.program_id(0) // (across * along))
    block = tl.program_id(0) % (across * along)
    # The blocks that share columns come one after the other.
    out = (block % along) * ROWS + tl.arange(0, ROWS)
    columns = (block // along) * COLUMNS + tl.arange(0, COLUMNS)
    start, end = tl.load(bounds_e + expert), tl.load(bounds_e + expert + 1)
    return expert.to(tl.int64), start.to(tl.int64), end - start, out, columns


@tuned(
    blocks(256, 64, 8, 5),
    blocks(256, 64, 8, 7),
    blocks(128, 64, 4, 5),
    blocks(128, 64, 8, 5, registers=TWO_AT_ONCE),
    whole={"WHOLE_OUT": multiple("size", "OUT"), "WHOLE_COLUMNS": multiple("other_size", "COLUMNS")},
)
@triton.jit
def weight_gradient(
    rows,
    other_rows,
    token_a,
    out_ers,
    order_e,
    bounds_e,
    size,
    other_size,
    hidden,
    width,
    experts,
    BY_TOKEN: tl.constexpr,
    PRECISION: tl.constexpr,
    OUT: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_OUT: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """Each expert's product of its rows [a, size] with its other rows [a, other size]: [E, size, other size].

    The first (BY_TOKEN) or else the second are those of its tokens, [N, d], the others [A, f]. order_e: the experts in
    the order in which they are begun.
    """
    expert, start, number, out, columns = _matrix_tile(order_e, bounds_e, size, other_size, COLUMNS)
    inner = tl.arange(0, INNER)
    out_there, there = (out < size)[:, None], (columns < other_size)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    token_a += start
    if BY_TOKEN:
        other_rows += start * other_size
    else:
        rows += start * size
    for k in range(0, number, INNER):
        real = inner < number - k
        token = tl.load(token_a + k + inner, mask=real, other=0)
        if BY_TOKEN:
            at, other_at = token, k + inner
        else:
            at, other_at = k + inner, token
        a = loaded(rows + (at[None, :] * size + out[:, None]), out_there, real[None, :], WHOLE_OUT, False)
        b_at = other_rows + (other_at[:, None] * other_size + columns[None, :])
        b = loaded(b_at, real[:, None], there, False, WHOLE_COLUMNS)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    matrix = expert * size * other_size + out[:, None] * other_size + columns[None, :]
    tl.store(out_ers + matrix, total, mask=out_there & there)

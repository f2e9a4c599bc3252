"""The products of all experts at once, each expert's rows with its own matrices; groups are not padded.

Letters: N tokens, A rows sorted by expert, d hidden size, f expert width, E experts. Sums are float32 throughout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectra_exp.moe.fused.activations import activated, slope
from spectra_exp.moe.fused.lists import TILE_ROWS
from spectra_exp.moe.fused.tuning import blocks, multiple, tuned

ROWS = tl.constexpr(TILE_ROWS)


@triton.jit
def _loaded(at, first, second, WHOLE_FIRST: tl.constexpr, WHOLE_SECOND: tl.constexpr):
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
def _halves(values, COLUMNS: tl.constexpr):
    """The left and the right columns."""
    return values.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1).split()


@triton.jit
def _tile(expert_t, first_t, bounds_e, size, COLUMNS: tl.constexpr):
    """This program's expert (-1: none), its first row, which of its rows are the expert's, its first column."""
    across = tl.cdiv(size, COLUMNS)
    tile = tl.program_id(0) // across
    expert = tl.load(expert_t + tile)
    first = tl.load(first_t + tile)
    real = tl.arange(0, ROWS) < tl.load(bounds_e + expert + 1) - first
    return expert.to(tl.int64), first.to(tl.int64), real, (tl.program_id(0) % across) * COLUMNS


@triton.jit
def _part_of(real, column, part, size, COLUMNS: tl.constexpr):
    """Where the columns of one part of a tile are in rows of `size`, and which of these entries there are."""
    columns = column + part * COLUMNS + tl.arange(0, COLUMNS)
    out = tl.arange(0, ROWS)[:, None] * size + columns[None, :]
    return out, real[:, None] & (columns < size)[None, :]


@tuned(
    blocks(256, 64, 8, 3),
    blocks(256, 64, 8, 4),
    blocks(128, 64, 4, 3),
    whole={"WHOLE_INNER": multiple("hidden", "INNER"), "WHOLE_COLUMNS": multiple("width", "COLUMNS")},
)
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
    bounds_e,
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
    expert, first, real, column = _tile(expert_t, first_t, bounds_e, width, OWN)
    if expert < 0:
        return
    token = tl.load(token_a + first + tl.arange(0, ROWS), mask=real, other=0)
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
        x = _loaded(rows + k + x_at, True, left[None, :], True, WHOLE_INNER)
        w = _loaded(matrix + (k + w_at), left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    inner_af += first * width
    if KEEP:
        up_af += first * width
    if GATED:
        if KEEP:
            gate_af += first * width
        gates, ups = _halves(total, COLUMNS)
    else:
        ups = total
    # A part at a time, for what is done with a sum does not fit into the registers all at once.
    up_left, up_right = _halves(ups, OWN)
    if GATED:
        gate_left, gate_right = _halves(gates, OWN)
    for half in tl.static_range(2):
        some = up_right if half else up_left
        out, kept = _part_of(real, column, half, width, OWN // 2)
        if KEEP:
            tl.store(up_af + out, some.to(up_af.dtype.element_ty), mask=kept)
        if GATED:
            some_gate = gate_right if half else gate_left
            if KEEP:
                tl.store(gate_af + out, some_gate.to(gate_af.dtype.element_ty), mask=kept)
            result = activated(some_gate, ACTIVATION) * some
        else:
            result = activated(some, ACTIVATION)
        tl.store(inner_af + out, result.to(inner_af.dtype.element_ty), mask=kept)


@tuned(
    blocks(256, 64, 8, 3),
    blocks(256, 64, 8, 4),
    blocks(128, 64, 4, 3),
    whole={"WHOLE_INNER": multiple("width", "INNER"), "WHOLE_COLUMNS": multiple("hidden", "COLUMNS")},
)
@triton.jit
def outer_product(
    rows,
    down,
    out_ad,
    expert_t,
    first_t,
    bounds_e,
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
    expert, first, real, column = _tile(expert_t, first_t, bounds_e, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
    columns = column + tl.arange(0, COLUMNS)
    there = (columns < hidden)[None, :]
    x_at = tl.arange(0, ROWS)[:, None] * width + inner[None, :]
    w_at = columns[None, :] * width + inner[:, None]
    rows += first * width
    down += expert * width * hidden
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, width, INNER):
        left = inner < width - k
        x = _loaded(rows + k + x_at, real[:, None], left[None, :], False, WHOLE_INNER)
        w = _loaded(down + k + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    out, kept = _part_of(real, column, 0, hidden, COLUMNS)
    tl.store(out_ad + first * hidden + out, total.to(out_ad.dtype.element_ty), mask=kept)


@tuned(
    blocks(256, 64, 8, 3),
    blocks(256, 64, 8, 4),
    blocks(128, 64, 8, 4),
    whole={"WHOLE_INNER": multiple("hidden", "INNER"), "WHOLE_COLUMNS": multiple("width", "COLUMNS")},
)
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
    bounds_e,
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

    Written: the gradients of the two factors [A, f], the activated rows times their weight [A, f], and each column
    block's part of the gradient of the weight [blocks, A].
    """
    expert, first, real, column = _tile(expert_t, first_t, bounds_e, width, COLUMNS)
    if expert < 0:
        return
    token = tl.load(token_a + first + tl.arange(0, ROWS), mask=real, other=0)
    inner = tl.arange(0, INNER)
    columns = column + tl.arange(0, COLUMNS)
    there = (columns < width)[None, :]
    y_at = token[:, None] * hidden + inner[None, :]
    w_at = inner[:, None] * width + columns[None, :]
    down += expert * width * hidden
    incoming = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, hidden, INNER):
        left = inner < hidden - k
        y = _loaded(rows + k + y_at, True, left[None, :], True, WHOLE_INNER)
        w = _loaded(down + k * width + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
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
    left, right = _halves(incoming, COLUMNS)
    first_part, second_part = _halves(left, COLUMNS // 2)
    third_part, fourth_part = _halves(right, COLUMNS // 2)
    for part in tl.static_range(4):
        if part == 0:
            some = first_part
        elif part == 1:
            some = second_part
        elif part == 2:
            some = third_part
        else:
            some = fourth_part
        out, kept = _part_of(real, column, part, width, COLUMNS // 4)
        up = tl.load(up_af + out, mask=kept, other=0.0).to(tl.float32)
        if GATED:
            gate = tl.load(gate_af + out, mask=kept, other=0.0).to(tl.float32)
            act = activated(gate, ACTIVATION)
            result = act * up
            to_gate = some * weight * up * slope(gate, ACTIVATION)
            tl.store(to_gate_af + out, to_gate.to(to_gate_af.dtype.element_ty), mask=kept)
            to_up = some * weight * act
        else:
            result = activated(up, ACTIVATION)
            to_up = some * weight * slope(up, ACTIVATION)
        tl.store(to_up_af + out, to_up.to(to_up_af.dtype.element_ty), mask=kept)
        tl.store(weighted_af + out, (result * weight).to(weighted_af.dtype.element_ty), mask=kept)
        to_weight += tl.sum(some * result, 1)
    at = (column // COLUMNS).to(tl.int64) * entries + first + tl.arange(0, ROWS)
    tl.store(to_weight_ta + at, to_weight, mask=real)


@tuned(
    blocks(256, 64, 8, 3),
    blocks(256, 64, 8, 4),
    blocks(128, 64, 4, 3),
    whole={"WHOLE_INNER": multiple("width", "INNER"), "WHOLE_COLUMNS": multiple("hidden", "COLUMNS")},
)
@triton.jit
def outer_gradient(
    rows,
    to_up_af,
    gate,
    up,
    out_ad,
    expert_t,
    first_t,
    bounds_e,
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
    """The gradient of the gathered rows, [A, d], of those of the two factors; `rows`: the gate's, or up's alone."""
    expert, first, real, column = _tile(expert_t, first_t, bounds_e, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
    columns = column + tl.arange(0, COLUMNS)
    there = (columns < hidden)[None, :]
    y_at = tl.arange(0, ROWS)[:, None] * width + inner[None, :]
    w_at = inner[:, None] * hidden + columns[None, :]
    to_up_af += first * width
    up += expert * width * hidden
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, width, INNER):
        left = inner < width - k
        y = _loaded(to_up_af + k + y_at, real[:, None], left[None, :], False, WHOLE_INNER)
        w = _loaded(up + k * hidden + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        total = tl.dot(y, w, total, input_precision=PRECISION)
    if GATED:
        rows += first * width
        gate += expert * width * hidden
        for k in range(0, width, INNER):
            left = inner < width - k
            y = _loaded(rows + k + y_at, real[:, None], left[None, :], False, WHOLE_INNER)
            w = _loaded(gate + k * hidden + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
            total = tl.dot(y, w, total, input_precision=PRECISION)
    out, kept = _part_of(real, column, 0, hidden, COLUMNS)
    tl.store(out_ad + first * hidden + out, total.to(out_ad.dtype.element_ty), mask=kept)


@triton.jit
def _matrix_tile(bounds_e, out_size, in_size, COLUMNS: tl.constexpr):
    """This program's expert with its first row and the end of its rows, and its block of the matrix [out, in]."""
    across = tl.cdiv(in_size, COLUMNS)
    along = tl.cdiv(out_size, ROWS)
    expert = tl.program_id(0) // (across * along)
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
    whole={"WHOLE_OUT": multiple("size", "OUT"), "WHOLE_COLUMNS": multiple("other_size", "COLUMNS")},
)
@triton.jit
def weight_gradient(
    rows,
    other_rows,
    token_a,
    out_ers,
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

    The first (BY_TOKEN) or else the second are those of its tokens, [N, d], the others [A, f].
    """
    expert, start, number, out, columns = _matrix_tile(bounds_e, size, other_size, COLUMNS)
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
        a = _loaded(rows + (at[None, :] * size + out[:, None]), out_there, real[None, :], WHOLE_OUT, False)
        b_at = other_rows + (other_at[:, None] * other_size + columns[None, :])
        b = _loaded(b_at, real[:, None], there, False, WHOLE_COLUMNS)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    matrix = expert * size * other_size + out[:, None] * other_size + columns[None, :]
    tl.store(out_ers + matrix, total.to(out_ers.dtype.element_ty), mask=out_there & there)

"""The products of all experts at once, each expert's rows with its own matrices; groups are not padded.

Letters: N tokens, A rows sorted by expert, d hidden size, f expert width, E experts. Sums are float32 throughout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectra_exp.moe.fused.activations import activated, slope
from spectra_exp.moe.fused.lists import TILE_ROWS
from spectra_exp.moe.fused.tuning import blocks, tuned

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
    """The left and the right columns: what is done with a sum does not fit into the registers all at once."""
    return values.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1).split()


@triton.jit
def _tile(expert_t, first_t, bounds_e, size, COLUMNS: tl.constexpr):
    """This program's expert (-1: none), its first row, which of its rows are the expert's, its columns."""
    across = tl.cdiv(size, COLUMNS)
    tile = tl.program_id(0) // across
    expert = tl.load(expert_t + tile)
    first = tl.load(first_t + tile)
    real = tl.arange(0, ROWS) < tl.load(bounds_e + expert + 1) - first
    columns = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    return expert.to(tl.int64), first.to(tl.int64), real, columns


@tuned(
    blocks(128, 64, 8, 3),
    blocks(128, 64, 8, 4),
    blocks(64, 64, 4, 4),
    whole={"WHOLE_INNER": ("hidden", "INNER"), "WHOLE_COLUMNS": ("width", "COLUMNS")},
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
    """act(x gate^T) * (x up^T), or act(x up^T), of the tokens' rows x [N, d]: [A, f]; both factors too if KEEP."""
    expert, first, real, columns = _tile(expert_t, first_t, bounds_e, width, COLUMNS)
    if expert < 0:
        return
    token = tl.load(token_a + first + tl.arange(0, ROWS), mask=real, other=0)
    inner = tl.arange(0, INNER)
    there = (columns < width)[None, :]
    x_at = token[:, None] * hidden + inner[None, :]
    w_at = columns[None, :] * hidden + inner[:, None]
    up += expert * width * hidden
    up_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    if GATED:
        gate += expert * width * hidden
        gate_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, hidden, INNER):
        left = inner < hidden - k
        x = _loaded(rows + k + x_at, True, left[None, :], True, WHOLE_INNER)
        w = _loaded(up + k + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
        if GATED:
            g = _loaded(gate + k + w_at, left[:, None], there, WHOLE_INNER, WHOLE_COLUMNS)
            gate_sum = tl.dot(x, g, gate_sum, input_precision=PRECISION)
        up_sum = tl.dot(x, w, up_sum, input_precision=PRECISION)
    inner_af += first * width
    if KEEP:
        up_af += first * width
    if GATED and KEEP:
        gate_af += first * width
    column = tl.program_id(0) % tl.cdiv(width, COLUMNS) * COLUMNS
    up_left, up_right = _halves(up_sum, COLUMNS)
    if GATED:
        gate_left, gate_right = _halves(gate_sum, COLUMNS)
    for half in tl.static_range(2):
        some = up_right if half else up_left
        columns = column + half * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
        out = tl.arange(0, ROWS)[:, None] * width + columns[None, :]
        kept = real[:, None] & (columns < width)[None, :]
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
    blocks(128, 64, 4, 4),
    whole={"WHOLE_INNER": ("width", "INNER"), "WHOLE_COLUMNS": ("hidden", "COLUMNS")},
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
    expert, first, real, columns = _tile(expert_t, first_t, bounds_e, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
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
    out = tl.arange(0, ROWS)[:, None] * hidden + columns[None, :]
    tl.store(out_ad + first * hidden + out, total.to(out_ad.dtype.element_ty), mask=real[:, None] & there)


@tuned(
    blocks(128, 64, 8, 3),
    blocks(128, 64, 8, 4),
    blocks(128, 64, 4, 4),
    whole={"WHOLE_INNER": ("hidden", "INNER"), "WHOLE_COLUMNS": ("width", "COLUMNS")},
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
    expert, first, real, columns = _tile(expert_t, first_t, bounds_e, width, COLUMNS)
    if expert < 0:
        return
    token = tl.load(token_a + first + tl.arange(0, ROWS), mask=real, other=0)
    inner = tl.arange(0, INNER)
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
    column = tl.program_id(0) % tl.cdiv(width, COLUMNS) * COLUMNS
    left, right = _halves(incoming, COLUMNS)
    for half in tl.static_range(2):
        some = right if half else left
        columns = column + half * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
        out = tl.arange(0, ROWS)[:, None] * width + columns[None, :]
        kept = real[:, None] & (columns < width)[None, :]
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
    blocks(128, 64, 4, 4),
    whole={"WHOLE_INNER": ("width", "INNER"), "WHOLE_COLUMNS": ("hidden", "COLUMNS")},
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
    expert, first, real, columns = _tile(expert_t, first_t, bounds_e, hidden, COLUMNS)
    if expert < 0:
        return
    inner = tl.arange(0, INNER)
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
    out = tl.arange(0, ROWS)[:, None] * hidden + columns[None, :]
    tl.store(out_ad + first * hidden + out, total.to(out_ad.dtype.element_ty), mask=real[:, None] & there)


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
    blocks(128, 64, 8, 5),
    blocks(128, 64, 8, 7),
    blocks(64, 64, 4, 5),
    whole={"WHOLE_OUT": ("width", "OUT"), "WHOLE_COLUMNS": ("hidden", "COLUMNS")},
)
@triton.jit
def inner_weight_gradient(
    rows,
    token_a,
    to_gate_af,
    to_up_af,
    to_gate,
    to_up,
    bounds_e,
    hidden,
    width,
    experts,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    OUT: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_OUT: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """The gradients of gate and up [E, f, d]: each expert's gradients [a, f] by the rows of its tokens x [N, d]."""
    expert, start, number, out, columns = _matrix_tile(bounds_e, width, hidden, COLUMNS)
    inner = tl.arange(0, INNER)
    out_there, there = (out < width)[:, None], (columns < hidden)[None, :]
    up_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    if GATED:
        gate_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    token_a += start
    to_up_af += start * width
    if GATED:
        to_gate_af += start * width
    gradient = inner[None, :] * width + out[:, None]
    for k in range(0, number, INNER):
        real = inner < number - k
        token = tl.load(token_a + k + inner, mask=real, other=0)
        x = _loaded(rows + token[:, None] * hidden + columns[None, :], real[:, None], there, False, WHOLE_COLUMNS)
        u = _loaded(to_up_af + k * width + gradient, out_there, real[None, :], WHOLE_OUT, False)
        up_sum = tl.dot(u, x, up_sum, input_precision=PRECISION)
        if GATED:
            g = _loaded(to_gate_af + k * width + gradient, out_there, real[None, :], WHOLE_OUT, False)
            gate_sum = tl.dot(g, x, gate_sum, input_precision=PRECISION)
    matrix = expert * width * hidden + out[:, None] * hidden + columns[None, :]
    tl.store(to_up + matrix, up_sum.to(to_up.dtype.element_ty), mask=out_there & there)
    if GATED:
        tl.store(to_gate + matrix, gate_sum.to(to_gate.dtype.element_ty), mask=out_there & there)


@tuned(
    blocks(256, 64, 8, 5),
    blocks(256, 64, 8, 7),
    blocks(128, 64, 4, 5),
    whole={"WHOLE_OUT": ("hidden", "OUT"), "WHOLE_COLUMNS": ("width", "COLUMNS")},
)
@triton.jit
def outer_weight_gradient(
    rows,
    token_a,
    weighted_af,
    to_down,
    bounds_e,
    hidden,
    width,
    experts,
    PRECISION: tl.constexpr,
    OUT: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WHOLE_OUT: tl.constexpr,
    WHOLE_COLUMNS: tl.constexpr,
):
    """The gradient of down [E, d, f]: each token's gradient [N, d] by the activated rows times their weight [A, f]."""
    expert, start, number, out, columns = _matrix_tile(bounds_e, hidden, width, COLUMNS)
    inner = tl.arange(0, INNER)
    out_there, there = (out < hidden)[:, None], (columns < width)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    token_a += start
    weighted_af += start * width
    h_at = inner[:, None] * width + columns[None, :]
    for k in range(0, number, INNER):
        real = inner < number - k
        token = tl.load(token_a + k + inner, mask=real, other=0)
        y = _loaded(rows + token[None, :] * hidden + out[:, None], out_there, real[None, :], WHOLE_OUT, False)
        h = _loaded(weighted_af + k * width + h_at, real[:, None], there, False, WHOLE_COLUMNS)
        total = tl.dot(y, h, total, input_precision=PRECISION)
    matrix = expert * width * hidden + out[:, None] * width + columns[None, :]
    tl.store(to_down + matrix, total.to(to_down.dtype.element_ty), mask=out_there & there)

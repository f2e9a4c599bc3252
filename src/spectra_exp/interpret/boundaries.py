"""Two documents of different domains joined: how fast routing leaves the one's experts for the other's.

Letters: N tokens, G documents, Q pairs, H tokens of each half, T = 2H distances from the boundary, E experts, R
resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectra_exp.interpret.trace import HeldOut
from spectra_exp.statistics.intervals import Interval
from spectra_exp.statistics.resampling import percentile_interval, resamples

# Tokens of a half, longest first, and the documents of a domain that must have so many.
HALVES = (64, 48, 32, 24, 16, 12, 8)
FEWEST_DOCUMENTS = 3


@dataclass(frozen=True)
class TextPiece:
    """One document of the held-out text: its id, its domain and its tokens."""

    document: int
    domain: int
    token_ids: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Q joined texts of 2H tokens, and the same second halves after a text of their own domain.

    `before_Q`, `control_Q`, `after_Q`: document ids; `domains_Q2`: domain before and after the boundary.
    """

    half: int
    switch_QT: np.ndarray
    control_QT: np.ndarray
    before_Q: np.ndarray
    control_Q: np.ndarray
    after_Q: np.ndarray
    domains_Q2: np.ndarray


def pieces(held_out: HeldOut) -> list[TextPiece]:
    """The documents of known domain, whole as far as the text has them."""
    ids_N, documents_N, domains_N = (array.ravel() for array in held_out.arrays)
    cuts = np.flatnonzero(np.diff(documents_N)) + 1
    found = []
    for place_N in np.split(np.arange(len(ids_N)), cuts):
        if domains_N[place_N[0]] >= 0:
            found.append(TextPiece(int(documents_N[place_N[0]]), int(domains_N[place_N[0]]), ids_N[place_N]))
    return found


def join_pairs(documents: Sequence[TextPiece], longest: int, count: int, seed: int) -> Pairs | None:
    """`count` pairs over all ordered pairs of domains in turn, or fewer; None where documents are too short or few.

    The first half is the end of a document, the second the beginning of another. The half is the longest one that
    three documents in each of two domains have, and that twice fits into `longest` tokens.
    """
    for half in HALVES:
        by_domain: dict[int, list[TextPiece]] = {}
        for document in documents:
            if len(document.token_ids) >= half:
                by_domain.setdefault(document.domain, []).append(document)
        usable = sorted(domain for domain, found in by_domain.items() if len(found) >= FEWEST_DOCUMENTS)
        if 2 * half <= longest and len(usable) > 1:
            return _joined({domain: by_domain[domain] for domain in usable}, half, count, seed)
    return None


def _joined(by_domain: dict[int, list[TextPiece]], half: int, count: int, seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    ordered = [(a, b) for a in by_domain for b in by_domain if a != b]
    rows = []
    for number in range(max(count, len(ordered))):
        before, after = ordered[number % len(ordered)]
        second, control = (by_domain[after][i] for i in rng.choice(len(by_domain[after]), 2, replace=False))
        rows.append((by_domain[before][rng.integers(len(by_domain[before]))], control, second))

    def texts(place: int) -> np.ndarray:
        return np.stack([np.concatenate([row[place].token_ids[-half:], row[2].token_ids[:half]]) for row in rows])

    ids = np.array([[piece.document for piece in row] for row in rows])
    return Pairs(
        half=half,
        switch_QT=texts(0),
        control_QT=texts(1),
        before_Q=ids[:, 0],
        control_Q=ids[:, 1],
        after_Q=ids[:, 2],
        domains_Q2=np.array([[row[0].domain, row[2].domain] for row in rows]),
    )


def profiles(counts_GE: np.ndarray, domains_G: np.ndarray, domain: int, left_out: Sequence[int]) -> np.ndarray:
    """[E] shares of a domain's assignments, without the documents `left_out`; zeros where nothing is left."""
    kept_G = domains_G == domain
    kept_G[list(left_out)] = False
    counts_E = counts_GE[kept_G].sum(axis=0)
    return counts_E / max(int(counts_E.sum()), 1)


def overlap(used_TE: np.ndarray, profile_E: np.ndarray) -> np.ndarray:
    """[T] 0..1: what a token's experts, in equal shares, have in common with a profile: the sum of the smaller share.

    0 for a token without an expert.
    """
    size_T1 = used_TE.sum(axis=-1, keepdims=True)
    share_TE = used_TE / np.maximum(size_T1, 1)
    return np.minimum(share_TE, profile_E).sum(axis=-1)


def lean_to(used_QTE: np.ndarray, before_QE: np.ndarray, after_QE: np.ndarray) -> np.ndarray:
    """[Q, T] overlap with the profile of the domain after the boundary, less that with the one before it."""
    return overlap(used_QTE, after_QE[:, None]) - overlap(used_QTE, before_QE[:, None])


def same_experts(used_QTE: np.ndarray, other_QTE: np.ndarray) -> np.ndarray:
    """[Q, T] share of a token's experts that it also has in the other text; NaN for a token without one."""
    size_QT = used_QTE.sum(axis=-1)
    both_QT = (used_QTE & other_QTE).sum(axis=-1)
    return np.divide(both_QT, size_QT, out=np.full(size_QT.shape, np.nan), where=size_QT > 0)


@dataclass(frozen=True)
class Latency:
    """Over Q pairs, with intervals: `gap`, how far the lean is to go; what of it is left at the end; tokens of delay.

    `gap`: from the lean before the boundary to that of the second document after its own domain. `left`: share of the
    gap that is still open in the last quarter of the text, 0 where the switch is over. `carry_over`: tokens' worth of
    the gap by which the second document's routing lags behind the same document's after its own domain, over the
    first half of the `window`; a lower bound where the switch is not over. `delay`: behind its own later routing,
    openings of documents included. `half_way`: distance at which the mean lean has gone half the way, None where it
    has not within the window. All None where `gap` cannot be told from none. `window`: tokens after the boundary.
    """

    window: int
    gap: Interval | None
    left: Interval | None = None
    carry_over: Interval | None = None
    delay: Interval | None = None
    half_way: int | None = None

    @property
    def over(self) -> bool:
        """Whether the switch is over within the window, as far as can be told."""
        return self.left is None or self.left.low is None or self.left.low <= 0


@dataclass(frozen=True)
class _Levels:
    """By pair: the leans before and at the end, both after the other domain and the own, and the areas between."""

    before_Q: np.ndarray
    gap_Q: np.ndarray
    left_Q: np.ndarray
    lag_Q: np.ndarray
    own_lag_Q: np.ndarray


def latency(switch_QT: np.ndarray, control_QT: np.ndarray, seed: int) -> Latency:
    """How long the switch takes, from the lean of the joined texts and of their controls.

    The level before is that of the quarter of the text just before the boundary, the level to reach that of the
    control in the last quarter. An area over the gap is a delay in tokens: d for a switch that comes d tokens late,
    the time constant for an exponential one; for one that is not over it grows with the window, so `left` says so.
    """
    found, count = _levels(switch_QT, control_QT), len(switch_QT)
    window, drawn_RQ = switch_QT.shape[1] // 2, resamples(count, seed)
    gap = percentile_interval(float(found.gap_Q.mean()), drawn_RQ @ found.gap_Q / count, count)
    if gap is None or gap.low is None or gap.low <= 0:
        return Latency(window, gap)
    left, carry_over, delay = (
        percentile_interval(float(q.mean() / found.gap_Q.mean()), (drawn_RQ @ q) / (drawn_RQ @ found.gap_Q), count)
        for q in (found.left_Q, found.lag_Q, found.own_lag_Q)
    )
    before = found.before_Q.mean()
    half = half_way(switch_QT.mean(axis=0), before, before + found.gap_Q.mean())
    return Latency(window, gap, left, carry_over, delay, half)


def carry_over_difference(
    own: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], seed: int
) -> Interval | None:
    """Carry-over of one model less that of another over the same pairs, in tokens; (switch, control) of each.

    A resample draws the same pairs for both.
    """
    drawn_RQ = resamples(len(own[0]), seed)
    points, drawn = [], []
    for leans in (own, other):
        found = _levels(*leans)
        points.append(found.lag_Q.mean() / found.gap_Q.mean())
        drawn.append((drawn_RQ @ found.lag_Q) / (drawn_RQ @ found.gap_Q))
    return percentile_interval(float(points[0] - points[1]), drawn[0] - drawn[1], len(own[0]))


def _levels(switch_QT: np.ndarray, control_QT: np.ndarray) -> _Levels:
    half = switch_QT.shape[1] // 2
    quarter = half // 2
    early, last = slice(half, half + quarter), slice(half + quarter, None)
    before_Q, after_Q, reached_Q = (
        lean.mean(axis=1) for lean in (switch_QT[:, half - quarter : half], control_QT[:, last], switch_QT[:, last])
    )
    return _Levels(
        before_Q,
        after_Q - before_Q,
        after_Q - reached_Q,
        (control_QT[:, early] - switch_QT[:, early]).sum(axis=1),
        (reached_Q[:, None] - switch_QT[:, early]).sum(axis=1),
    )


def half_way(lean_T: np.ndarray, before: float, after: float) -> int | None:
    """Tokens after the boundary at which the lean, smoothed over three tokens, has gone half the way; None: never."""
    half = len(lean_T) // 2
    padded = np.concatenate([lean_T[half : half + 1], lean_T[half:], lean_T[-1:]])
    smooth_H = np.convolve(padded, np.full(3, 1 / 3), mode="valid")
    crossed = np.flatnonzero(smooth_H >= (before + after) / 2)
    return int(crossed[0]) if len(crossed) else None

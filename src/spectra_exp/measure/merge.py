"""The statistics of ranks that each saw a part of the tokens, as those of all tokens.

Letters: E experts, G documents, Q sequences, T batches, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spectra_exp.measure.counts import LayerStatistics

# What adds up, whoever saw which token.
SUMS = (
    "num_tokens",
    "counts_E",
    "counts_EV",
    "tokens_V",
    "pairs_EE",
    "sizes",
    "entropy_sum",
    "gap_sum",
    "confidence_sum",
    "overlap_sum",
    "num_adjacent",
    "first_EE",
    "null_assignments",
    "after_HME",
    "before_HME",
    "settled_ME",
)


def merged(ranks: Sequence[LayerStatistics]) -> LayerStatistics:
    """One layer's statistics over the tokens of all `ranks`; documents and sequences stay the ranks' own, one after
    the other's.

    The ranks' n-th batches are one batch. Representations are their mean: they are the same on every rank, or means of
    a rank's last batch. Probe tokens are not kept.
    """
    first = ranks[0]
    counts_E = sum(r.counts_E for r in ranks)
    means = [(r.output_mean_ED, r.counts_E) for r in ranks if r.output_mean_ED is not None]
    representations = [r.representation_ED for r in ranks if r.representation_ED is not None]
    return replace(
        first,
        **{name: _sum([getattr(r, name) for r in ranks]) for name in SUMS},
        counts_TE=_by_place([r.counts_TE for r in ranks]),
        tokens_T=_by_place([r.tokens_T for r in ranks]),
        counts_QE=np.concatenate([r.counts_QE for r in ranks]),
        tokens_Q=np.concatenate([r.tokens_Q for r in ranks]),
        counts_GE=np.concatenate([r.counts_GE for r in ranks]),
        tokens_G=np.concatenate([r.tokens_G for r in ranks]),
        domains_G=np.concatenate([r.domains_G for r in ranks]),
        representation_ED=np.mean(representations, axis=0) if representations else None,
        output_mean_ED=sum(m * c[:, None] for m, c in means) / np.maximum(counts_E, 1)[:, None] if means else None,
        probe_experts_PK=first.probe_experts_PK[:0],
        probe_weights_PK=first.probe_weights_PK[:0],
        probe_hidden_PD=None,
    )


def _sum(values: Sequence):
    """The sum; None where some rank has no such."""
    return None if any(value is None for value in values) else sum(values[1:], start=values[0])


def _by_place(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over the first axis's places, of which a rank with fewer batches has no more to add."""
    total = np.zeros((max(map(len, arrays)), *arrays[0].shape[1:]), dtype=np.int64)
    for array in arrays:
        total[: len(array)] += array
    return total

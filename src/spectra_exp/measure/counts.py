"""What one routed layer did over a whole evaluation set: sums and exact counts, no ratio yet.

Letters: E experts, K experts kept per probe token, G documents, M domains, V vocabulary, P probe tokens,
T batches, Q sequences, H distances from a boundary, D width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Assignments per expert from which on a sequence's own balance is measured.
LEAST_ASSIGNMENTS = 8


@dataclass(frozen=True)
class LayerStatistics:
    """Counts (int64) and sums (float64) of one layer over an evaluation set; None: the router has no such."""

    layer: int
    top_k: int
    num_tokens: int
    num_domains: int
    counts_E: np.ndarray  # executed assignments
    counts_TE: np.ndarray  # the same by batch
    tokens_T: np.ndarray  # real tokens by batch
    counts_QE: np.ndarray  # executed assignments by sequence
    tokens_Q: np.ndarray  # real tokens by sequence
    counts_GE: np.ndarray  # executed assignments by document
    domains_G: np.ndarray  # each document's domain; -1 for a document not seen, or of no known domain
    tokens_G: np.ndarray  # real tokens by document
    counts_EV: np.ndarray  # executed assignments by vocabulary id
    tokens_V: np.ndarray  # tokens by vocabulary id
    pairs_EE: np.ndarray  # tokens that use both experts; the diagonal is counts_E
    sizes: np.ndarray  # [E+1] tokens by the number of experts that they use
    entropy_sum: float | None  # of -sum p log p, nats
    gap_sum: float | None  # of p1 - p2
    confidence_sum: float  # of the first expert's share of the token's weights, over tokens with an expert
    overlap_sum: float  # of |K_t & K_t+1| over adjacent tokens of a document
    num_adjacent: int  # such pairs of tokens
    first_EE: np.ndarray | None  # first expert in the layer before (row) by here (column); None in layer 0
    probe_experts_PK: np.ndarray  # int16, by falling weight, padded with -1
    probe_weights_PK: np.ndarray  # float32, padded with 0
    representation_ED: np.ndarray | None
    output_mean_ED: np.ndarray | None  # mean output over the expert's tokens; zeros where it had none
    probe_hidden_PD: np.ndarray | None = None  # float32, what the layer got of each probe token
    null_assignments: int | None = None  # to empty experts, which are not among E; None: there are none
    weight_cosines_EE: np.ndarray | None = None  # cosines of the experts' flattened down-projections
    after_HME: np.ndarray | None = None  # executed assignments by tokens since a boundary of domains, and domain now
    before_HME: np.ndarray | None = None  # the same assignments by the domain before the boundary
    settled_ME: np.ndarray | None = None  # the other assignments by domain
    reversed_domains: tuple[int, int] | None = None  # two domains of the same words in opposite orders

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.counts_E)

    @property
    def long_Q(self) -> np.ndarray:
        """Which sequences have so many assignments, 8 E at least, that their balance says something."""
        return self.counts_QE.sum(axis=1) >= LEAST_ASSIGNMENTS * self.num_experts

    @property
    def share_E(self) -> np.ndarray:
        """f, each expert's share of the assignments; zeros when nothing was assigned."""
        return self.counts_E / max(int(self.counts_E.sum()), 1)

    @property
    def inclusion_E(self) -> np.ndarray:
        """Share of tokens that use each expert (k f when every token uses k)."""
        return self.counts_E / max(self.num_tokens, 1)

    @property
    def counts_ME(self) -> np.ndarray:
        """Executed assignments by domain, int64."""
        counts = np.zeros((self.num_domains, self.num_experts), dtype=np.int64)
        known = self.domains_G >= 0
        np.add.at(counts, self.domains_G[known], self.counts_GE[known])
        return counts

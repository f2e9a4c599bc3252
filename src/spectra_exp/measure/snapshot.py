"""The routing at one moment of training, small enough to keep for each of the five fractions.

Letters: L routed layers, P probe tokens, K experts kept per probe token, E experts, G documents, M domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from spectra_exp.measure.counts import LayerStatistics


@dataclass(frozen=True)
class RoutingSnapshot:
    """Expert counts and the probe tokens' experts of every layer after `fraction` of the training steps."""

    step: int
    fraction: float
    top_k: int
    num_tokens: int  # real tokens of the evaluation set
    domain_counts_LME: np.ndarray  # int64, assignments by domain
    document_counts_LGE: np.ndarray  # int64, by document
    probe_experts_LPK: np.ndarray  # int16, by falling weight, padded with -1
    probe_weights_LPK: np.ndarray  # float32, padded with 0

    @classmethod
    def from_statistics(cls, stats_per_layer: Sequence[LayerStatistics], step: int, fraction: float) -> RoutingSnapshot:
        """The snapshot of one evaluation."""
        first = stats_per_layer[0]
        return cls(
            step=step,
            fraction=fraction,
            top_k=first.top_k,
            num_tokens=first.num_tokens,
            domain_counts_LME=np.stack([s.counts_ME for s in stats_per_layer]),
            document_counts_LGE=np.stack([s.counts_GE for s in stats_per_layer]),
            probe_experts_LPK=_stack_padded([s.probe_experts_PK for s in stats_per_layer], fill=-1),
            probe_weights_LPK=_stack_padded([s.probe_weights_PK for s in stats_per_layer], fill=0),
        )

    @property
    def counts_LE(self) -> np.ndarray:
        """Executed assignments by layer, int64."""
        return self.document_counts_LGE.sum(axis=1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every field as an array, ready for `numpy.savez`."""
        return {name: np.asarray(value) for name, value in asdict(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> RoutingSnapshot:
        """The snapshot that `to_arrays` was called on."""
        values: dict[str, Any] = {f.name: arrays[f.name] for f in fields(cls)}
        return cls(**{name: v.item() if np.ndim(v) == 0 else v for name, v in values.items()})


def _stack_padded(tables: list[np.ndarray], fill: int) -> np.ndarray:
    # Layers may keep different widths: under expert choice a token can have more than k experts.
    width = max(t.shape[1] for t in tables)
    padded = [np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=fill) for t in tables]
    return np.stack(padded)

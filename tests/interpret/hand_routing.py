"""A model whose routing and predictions are given by hand, as a subject of an analysis.

Letters: B sequences, S tokens each, L layers, E experts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spectra_exp.interpret.registry import Request
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import Engine, HeldOut, Pass
from spectra_exp.moe.record import RoutingRecord

VOCABULARY = 16


class HandEngine(Engine):
    """`experts`: from ids [B, S] to each token's first expert by layer, int64 [B, S, L]; a negative one is none.

    `probs`: from ids to distributions [B, S, L, E], or None. `logits`: from ids to [B, S, V]; uniform when None.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        experts: Callable[[Tensor], Tensor],
        probs: Callable[[Tensor], Tensor] | None = None,
        logits: Callable[[Tensor], Tensor] | None = None,
    ):
        self.num_layers, self.num_experts, self.top_k = num_layers, num_experts, 1
        self.vocabulary_size, self.longest = VOCABULARY, 64
        self._experts, self._probs, self._logits = experts, probs, logits

    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        experts_BSL = self._experts(ids_BS)
        logits_BSV = torch.zeros(*ids_BS.shape, VOCABULARY) if self._logits is None else self._logits(ids_BS)
        records = []
        for layer in range(self.num_layers):
            first_N = experts_BSL[..., layer].flatten()
            chosen_NE = torch.arange(self.num_experts) == first_N[:, None]
            records.append(
                RoutingRecord(
                    layer=layer,
                    chosen_NE=chosen_NE,
                    weights_NE=chosen_NE.float(),
                    probs_NE=None if self._probs is None else self._probs(ids_BS)[:, :, layer].flatten(0, 1),
                    representation_ED=None,
                    output_sum_ED=None,
                    losses={},
                    figures={},
                    hidden_Nd=torch.zeros(first_N.numel(), 2),
                )
            )
        return Pass(logits_BSV, records)

    def rows_at_once(self, length: int) -> int:
        return 4

    def weights_EF(self, layer: int) -> np.ndarray:
        return np.eye(self.num_experts, dtype=np.float32)


def text_of(tokens: list[list[int]], documents: list[list[int]], domains: list[list[int]], names: list[str]) -> HeldOut:
    return HeldOut(*(np.array(rows, dtype=np.int64) for rows in (tokens, documents, domains)), names)


def subject_of(engine: Engine, held_out: HeldOut, name: str = "by hand") -> Subject:
    return Subject(
        name=name,
        label=name,
        path=Path("nowhere"),
        step=None,
        fingerprint="",
        engine=engine,
        tokenizer=None,
        held_out=held_out,
        run=None,
    )


def request_of(engine: Engine, held_out: HeldOut) -> Request:
    return Request(subject_of(engine, held_out))


def of_token(num_layers: int, rule: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The experts of every layer are one function of the token's id."""
    return lambda ids_BS: rule(ids_BS)[..., None].expand(*ids_BS.shape, num_layers)

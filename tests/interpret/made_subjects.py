"""Models with hand-made routing, whose right answers are known; no training.

Letters: N tokens, L layers, E experts, K experts per token, d hidden size, B sequences, S tokens each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spectra_exp.data.documents import Document
from spectra_exp.data.packing import tokenise
from spectra_exp.data.tokenizer import train_bpe
from spectra_exp.interpret.registry import Request
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import UNKNOWN, Engine, HeldOut, Pass
from spectra_exp.moe.record import RoutingRecord

DOMAINS = ["animals", "colours", "numbers", "tools"]
WORDS = {
    "animals": "zebra horse tiger eagle whale",
    "colours": "green yellow purple orange brown",
    "numbers": "seven eleven twenty forty ninety",
    "tools": "hammer saw drill wrench chisel",
}
SHARED = "the and with of near"
VOCABULARY = 400
HIDDEN = 8
# From token ids and document ids, flat, to the experts of each token, int [N, K]; -1 is none.
Route = Callable[[np.ndarray, np.ndarray], np.ndarray]


def made_documents(per_domain: int = 12, words: int = 40, seed: int = 0) -> list[Document]:
    """Documents of four domains, each with words of its own among words of all, the domains in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(per_domain):
        for domain in DOMAINS:
            pool = [*WORDS[domain].split(), *SHARED.split()]
            found.append(Document(" ".join(rng.choice(pool, words)), domain, f"{domain}-{number}"))
    return found


@cache
def made_tokenizer():
    """A small tokenizer of these words."""
    return train_bpe([document.text for document in made_documents()] * 2, VOCABULARY)


def held_out(documents: Sequence[Document] | None = None, length: int = 32) -> HeldOut:
    """The documents in sequences."""
    stream = tokenise(made_tokenizer(), documents or made_documents(), end_token_id=0, domains=DOMAINS)
    return HeldOut(*(array.astype(np.int64) for array in stream.blocks(length)), DOMAINS)


class MadeEngine(Engine):
    """Routes as it is told; hidden states, outputs, weights and logits are fixed by a seed."""

    def __init__(self, routes: Sequence[Route], num_experts: int, top_k: int, with_probs: bool = True):
        self.model = nn.Identity()
        self.routes, self.with_probs = list(routes), with_probs
        self.num_layers, self.num_experts, self.top_k = len(self.routes), num_experts, top_k
        self.vocabulary_size, self.longest = VOCABULARY, 10_000
        rng = np.random.default_rng(0)
        self.embedding_Vd = torch.from_numpy(rng.normal(size=(VOCABULARY, HIDDEN))).float()
        self.vectors_ED = rng.normal(size=(num_experts, HIDDEN)).astype(np.float32)

    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        ids_N, documents_N = ids_BS.flatten().numpy(), documents_BS.flatten().numpy()
        hidden_Nd = self.embedding_Vd[ids_BS.flatten()]
        records = [self._record(layer, route(ids_N, documents_N), hidden_Nd) for layer, route in enumerate(self.routes)]
        logits_BSV = self.embedding_Vd[ids_BS] @ self.embedding_Vd.T
        return Pass(logits_BSV, records)

    def rows_at_once(self, length: int) -> int:
        return 7

    def weights_EF(self, layer: int) -> np.ndarray:
        return self.vectors_ED

    def _record(self, layer: int, experts_NK: np.ndarray, hidden_Nd: Tensor) -> RoutingRecord:
        num_tokens, top_k = experts_NK.shape
        chosen_NE = np.zeros((num_tokens, self.num_experts + 1), dtype=bool)
        np.put_along_axis(chosen_NE, experts_NK, True, axis=1)
        weights_NE = np.zeros(chosen_NE.shape, dtype=np.float32)
        # Falling weights in the order given.
        falling_K = np.arange(top_k, 0, -1, dtype=np.float32) / np.arange(1, top_k + 1).sum()
        np.put_along_axis(weights_NE, experts_NK, np.broadcast_to(falling_K, experts_NK.shape), axis=1)
        chosen = torch.from_numpy(chosen_NE[:, :-1])
        weights = torch.from_numpy(np.where(chosen_NE, weights_NE, 0)[:, :-1])
        probs = (weights + 0.01) / (weights + 0.01).sum(1, keepdim=True)
        return RoutingRecord(
            layer=layer,
            chosen_NE=chosen,
            weights_NE=weights,
            probs_NE=probs if self.with_probs else None,
            representation_ED=torch.from_numpy(self.vectors_ED),
            output_sum_ED=chosen.float().T @ hidden_Nd,
            losses={},
            figures={},
            hidden_Nd=hidden_Nd,
        )


def made_subject(
    *routes: Route,
    num_experts: int = 4,
    top_k: int = 1,
    text: HeldOut | None = None,
    name: str = "made",
    with_probs: bool = True,
) -> Subject:
    """A subject that routes as told, one route for each layer."""
    return Subject(
        name=name,
        label=name,
        path=Path("/nowhere") / name,
        step=None,
        fingerprint="made",
        engine=MadeEngine(routes, num_experts, top_k, with_probs),
        tokenizer=made_tokenizer(),
        held_out=held_out() if text is None else text,
        run=None,
    )


def made_request(*routes: Route, **given) -> Request:
    """A request about such a subject."""
    return Request(made_subject(*routes, **given))


def by_domain(ids_N: np.ndarray, documents_N: np.ndarray) -> np.ndarray:
    """Each domain has an expert of its own; documents come with the domains in turn."""
    return (documents_N % len(DOMAINS))[:, None]


def by_document(ids_N: np.ndarray, documents_N: np.ndarray) -> np.ndarray:
    """Each document goes to one expert drawn at random, whatever its domain."""
    drawn = np.random.default_rng(5).integers(0, 4, size=100_000)
    return drawn[documents_N][:, None]


def by_token(ids_N: np.ndarray, documents_N: np.ndarray) -> np.ndarray:
    """Each token id has an expert of its own."""
    return (ids_N % 4)[:, None]


def at_random(ids_N: np.ndarray, documents_N: np.ndarray) -> np.ndarray:
    """Each token goes to an expert drawn at random."""
    seed = int(ids_N[:8].sum()) * 1009 + int(documents_N[0])
    return np.random.default_rng(seed).integers(0, 4, size=(len(ids_N), 1))


def two_of_four(ids_N: np.ndarray, documents_N: np.ndarray) -> np.ndarray:
    """The domain's expert, then the next one."""
    first_N1 = by_domain(ids_N, documents_N)
    return np.concatenate([first_N1, (first_N1 + 1) % 4], axis=1)


def without_labels(text: HeldOut) -> HeldOut:
    """The text without its domains."""
    return HeldOut(text.token_ids_MS, text.document_ids_MS, np.full_like(text.domain_ids_MS, UNKNOWN), [])

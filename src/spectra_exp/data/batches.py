"""Batches for PyTorch: training blocks in an order fixed by the seed, evaluation blocks in theirs.

Shapes: B sequences, S tokens each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from spectra_exp.data.corpus import Corpus

Example = dict[str, torch.Tensor]
# The label of a token that no loss counts.
NOT_COUNTED = -100


class TrainingBlocks(Dataset[Example]):
    """The training blocks that a run sees, in the order in which it sees them; to be read in sequence.

    Every epoch is one permutation of all blocks in which the loss counts a token, drawn from (seed, epoch). The order
    depends on the seed and the corpus only: a longer run begins with the order of a shorter one, and every method sees
    the same batches. `share_left_out`: of the corpus's blocks, 0 to 1.
    """

    def __init__(self, corpus: Corpus, *, seed: int, examples_needed: int):
        """`examples_needed`: steps times sequences per step, over all devices and accumulation steps."""
        if examples_needed < 1:
            raise ValueError(f"examples_needed must be at least 1, not {examples_needed}")
        self._corpus = corpus
        rows = corpus.scored_rows()
        self.share_left_out = 1 - len(rows) / len(corpus.train_blocks_MS)
        epochs = -(-examples_needed // len(rows))
        permutations = [rows[np.random.default_rng([seed, epoch]).permutation(len(rows))] for epoch in range(epochs)]
        self.order = np.concatenate(permutations)[:examples_needed]

    @property
    def counts_some(self) -> bool:
        """Whether some labels are NOT_COUNTED."""
        return self._corpus.train_said_MS is not None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Example:
        """`input_ids`, `document_ids`, `domain_ids` and `labels` of the block, int64 `[S]` each."""
        row, corpus = self.order[index], self._corpus
        arrays = (corpus.train_blocks_MS, corpus.train_document_ids, corpus.train_domain_ids, corpus.train_said_MS)
        return _example(row, *arrays)


def collate(examples: Sequence[Example]) -> Example:
    """The examples as one batch of `[B, S]` tensors, with an `attention_mask` of ones."""
    batch = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def kept_apart(batch: Example, cross_document: bool) -> Example:
    """What a model needs to keep the documents of a batch apart: nothing where they may mix."""
    return {} if cross_document else {"document_ids": batch["document_ids"]}


def evaluation_batches(corpus: Corpus, batch_size: int) -> Iterator[Example]:
    """All evaluation blocks in order, as `collate` gives them; the last batch may be smaller."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    arrays = (corpus.eval_blocks, corpus.eval_document_ids, corpus.eval_domain_ids, corpus.eval_said)
    for start in range(0, len(corpus.eval_blocks), batch_size):
        rows = range(start, min(start + batch_size, len(corpus.eval_blocks)))
        yield collate([_example(row, *arrays) for row in rows])


def _example(
    row: int, blocks: np.ndarray, document_ids: np.ndarray, domain_ids: np.ndarray, said: np.ndarray | None
) -> Example:
    """`labels` are the tokens themselves, which the loss shifts, and NOT_COUNTED where only `said` ones count."""
    tokens = blocks[row]
    labels = tokens if said is None else np.where(said[row], tokens, NOT_COUNTED)
    arrays = dict(input_ids=tokens, document_ids=document_ids[row], domain_ids=domain_ids[row], labels=labels)
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

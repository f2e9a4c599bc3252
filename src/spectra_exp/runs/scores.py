"""A run's scores one by one: `documents.parquet`, a row a held-out document, of the final evaluation, and
`items.parquet`, a row an item of a downstream task.

Of documents: `id` (the document's number in the evaluation set: the same document in every run on the same data),
`domain`, `tokens` (scored ones), `loss` (their sum, nats) and `correct` (tokens whose prediction was right). The rule
is that of inference. Σ loss / Σ tokens is `val_loss`.
Of items: `task`, `item` (its number in the task), `group` (equal for items that share a passage), `score`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import atomic_path, regular

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTS, ITEMS = "documents.parquet", "items.parquet"
COLUMNS = {
    DOCUMENTS: ("id", "domain", "tokens", "loss", "correct"),
    ITEMS: ("task", "item", "group", "score"),
}
NUMBERS = {"id", "tokens", "loss", "correct", "item", "score"}


@dataclass
class DocumentSums:
    """Sums over the scored tokens of each of G documents, [G]: losses in nats (float64), tokens and hits (int64)."""

    domains_G: np.ndarray
    loss_G: np.ndarray
    tokens_G: np.ndarray
    correct_G: np.ndarray

    @classmethod
    def empty(cls, num_documents: int) -> DocumentSums:
        """Nothing yet of documents 0..num_documents-1."""
        whole = (np.zeros(num_documents, dtype=np.int64) for _ in range(3))
        domains_G, tokens_G, correct_G = whole
        return cls(domains_G, np.zeros(num_documents), tokens_G, correct_G)

    def add(self, ids_N: np.ndarray, domains_N: np.ndarray, loss_N: np.ndarray, correct_N: np.ndarray) -> None:
        """Add scored tokens: the document and the domain of each, its loss, and whether its prediction was right."""
        size = len(self.loss_G)
        self.domains_G[ids_N] = domains_N
        self.loss_G += np.bincount(ids_N, weights=loss_N, minlength=size)
        self.tokens_G += np.bincount(ids_N, minlength=size)
        self.correct_G += np.bincount(ids_N[correct_N], minlength=size)


def save_documents(path: Path, sums: DocumentSums, domains: list[str]) -> None:
    """Write the documents that have a scored token, whole or not at all."""
    with atomic_path(path) as temporary:
        write_documents(temporary, sums, domains)


def write_documents(path: Path, sums: DocumentSums, domains: list[str]) -> None:
    """The same to `path`, which nobody reads yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (ids,) = np.nonzero(sums.tokens_G)
    columns = {
        "id": pa.array(ids, pa.int32()),
        "domain": pa.array([domains[d] for d in sums.domains_G[ids]], pa.string()).dictionary_encode(),
        "tokens": pa.array(sums.tokens_G[ids], pa.int32()),
        "loss": pa.array(sums.loss_G[ids], pa.float64()),
        "correct": pa.array(sums.correct_G[ids], pa.int32()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_scores(path: Path) -> pd.DataFrame:
    """The rows of a file of scores. Raises FileNotFoundError, and SpectraError for what no run writes."""
    import pandas as pd
    import pyarrow as pa
    from pandas.api.types import is_numeric_dtype

    try:
        frame = pd.read_parquet(regular(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SpectraError(f"{path}: not readable ({first_line(error)})") from error
    if tuple(frame) != COLUMNS[path.name]:
        raise SpectraError(f"{path}: not the scores of a run (its columns: {', '.join(map(str, frame))})")
    for column in NUMBERS & set(frame):
        # An empty column has no kind of its own.
        if len(frame) and not (is_numeric_dtype(frame[column]) and np.isfinite(frame[column]).all()):
            raise SpectraError(f"{path}: not the scores of a run ({column} has what is no finite number)")
    if "tokens" in frame and (frame["tokens"] < 1).any():
        raise SpectraError(f"{path}: not the scores of a run (a document without scored tokens)")
    return frame

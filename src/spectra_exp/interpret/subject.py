"""A model under analysis, opened: how it routes, what it is looked at on, and where its results go.

Letters: L routed layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret.trace import UNKNOWN, Engine, HeldOut, Trace, trace_text
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.stored import StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

    from spectra_exp.data.corpus import Corpus
    from spectra_exp.moe.model import SpectraMoeForCausalLM
    from spectra_exp.training.evaluation import Evaluator


@dataclass(frozen=True, eq=False)
class Run:
    """What a run of this project has. `config`: config.yaml; `summary`: None before it has one.

    `corpus`: the data it was trained on; `evaluator`: gives the reported losses of any model on its evaluation set.
    """

    folder: RunFolder
    config: dict[str, Any]
    summary: dict[str, Any] | None
    corpus: Corpus
    evaluator: Evaluator
    model: SpectraMoeForCausalLM

    @cached_property
    def stored(self) -> StoredRun:
        """Its other files."""
        return StoredRun(self.folder.path)

    @property
    def history(self) -> pd.DataFrame:
        """The rows of its history. Raises SpectraError where they cannot be read."""
        rows = self.stored.history
        self.stored.require(self.folder.history.name)
        if rows is None:
            raise SpectraError(f"{self.folder.history}: is missing")
        return rows


@dataclass(frozen=True, eq=False)
class Subject:
    """The opened model. `name`: run id or folder name; `step`: of its checkpoint, None for a stock model.

    `track`: goes along with the passes of its trace; `typed`: what names it on the command line, the name itself where
    empty.
    """

    name: str
    label: str
    path: Path
    step: int | None
    fingerprint: str
    engine: Engine
    tokenizer: Tokenizer
    held_out: HeldOut
    run: Run | None
    seed: int = 0
    track: Callable[[Sequence[int]], Iterable[int]] = iter
    typed: str = ""

    @property
    def own_run(self) -> Run:
        """`run`, where the model is known to be one's."""
        assert self.run is not None
        return self.run

    @property
    def has_history(self) -> bool:
        """Whether it is of a run that left history.parquet."""
        return self.run is not None and self.run.folder.history.is_file()

    @property
    def unfinished(self) -> bool:
        """Whether it is of a run that has not completed."""
        return self.run is not None and (self.run.summary or {}).get("status") != "completed"

    @property
    def num_layers(self) -> int:
        """L."""
        return self.engine.num_layers

    @property
    def num_experts(self) -> int:
        """E."""
        return self.engine.num_experts

    @property
    def top_k(self) -> int:
        """k."""
        return self.engine.top_k

    @property
    def domains(self) -> list[str]:
        """Names of the text's domains, by domain id."""
        return self.held_out.domains

    @property
    def num_labelled_domains(self) -> int:
        """Domains that have a token in the text."""
        return len(np.unique(self.held_out.domain_ids_MS[self.held_out.domain_ids_MS >= 0]))

    @cached_property
    def trace(self) -> Trace:
        """The routing of the held-out text, computed once, when it is first asked for."""
        return trace_text(self.engine, self.held_out, self.seed, self.track)

    def trace_of(self, token_ids: Sequence[int]) -> Trace:
        """The routing of one sequence alone, cut at the model's longest."""
        ids_1S = np.asarray(token_ids, dtype=np.int64)[None, : self.engine.longest]
        alone = HeldOut(ids_1S, np.zeros_like(ids_1S), np.full_like(ids_1S, UNKNOWN), [])
        return trace_text(self.engine, alone, self.seed)

    def encode(self, text: str) -> list[int]:
        """The text's token ids."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spelling(self, token_id: int) -> str:
        """What a token spells; nothing for a marker such as the end of a text, nor for a part of a letter."""
        spelled = self.tokenizer.decode([int(token_id)], skip_special_tokens=True)
        return "" if "\N{REPLACEMENT CHARACTER}" in spelled else spelled

    def piece(self, token_id: int) -> str:
        """How a token is shown: what it spells, or the vocabulary's name for it."""
        return self.spelling(token_id) or self.tokenizer.id_to_token(int(token_id)) or f"<{token_id}>"

    def around(self, token_id: int) -> str:
        """How a token is shown beside another one: as `piece`, but nothing for a marker such as the end of a text."""
        return "" if int(token_id) in self.markers else self.piece(token_id)

    @cached_property
    def markers(self) -> frozenset[int]:
        """The ids of the vocabulary that are no text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def head(self) -> dict[str, Any]:
        """What an analysis of this subject is of: equal heads give equal results."""
        return {
            "name": self.name,
            "label": self.label,
            "typed": self.typed or self.name,
            "step": self.step,
            "unfinished": self.unfinished,
            "model": self.fingerprint,
            "tokens": self.held_out.num_tokens,
            "layers": self.num_layers,
            "experts": self.num_experts,
            "top_k": self.top_k,
            "domains": self.domains,
        }

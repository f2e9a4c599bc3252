"""The corpus of a run: both splits as packed blocks, memory-mapped from a cache shared by all runs.

Shapes: M blocks (here), S tokens each, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.data.cache import CacheEntry, Progress, cached_folder, silent
from spectra_exp.data.chat import MARKERS
from spectra_exp.data.documents import Document, Splits, digest, mixed_order
from spectra_exp.data.packing import Stream, tokenise, unigram_cross_entropy, unigram_entropy
from spectra_exp.data.schema import DataConfig
from spectra_exp.data.sources import check_data, read_documents
from spectra_exp.data.tokenizer import TRAINER_VERSION, TokenizerFile, named_tokenizer, trained_tokenizer
from spectra_exp.foundations.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Raise when the same documents and tokenizer give other blocks: it is part of every fingerprint.
PACKING_VERSION = 1

# Each with the tokens that the loss counts last, which not every corpus has.
_TRAIN_ARRAYS = ("train_blocks_MS", "train_document_ids", "train_domain_ids", "train_said_MS")
_EVAL_ARRAYS = ("eval_blocks", "eval_document_ids", "eval_domain_ids", "eval_said")
# Before the names of the larger evaluation set's.
_FINAL = "final_"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens of both splits, packed, with the document and the domain of each token.

    The six block arrays are int32 `[M, S]`, read-only and memory-mapped. Document ids are unique over both
    splits; `document_names()` says which document each is. Entropies are in nats. `final`, where the end of a run
    is scored on more, is the same corpus with that larger set as its evaluation set, which begins with this one.
    `said`: bool `[M, S]`, the tokens that the loss counts; None where it counts all. `notes`: what was passed over
    when the documents were read, a line each.
    """

    train_blocks_MS: np.ndarray
    train_document_ids: np.ndarray
    train_domain_ids: np.ndarray
    eval_blocks: np.ndarray
    eval_document_ids: np.ndarray
    eval_domain_ids: np.ndarray
    train_token_counts_V: np.ndarray
    domains: list[str]
    tokenizer_file: Path
    vocabulary_size: int
    eos_token: str
    eos_token_id: int
    unigram_entropy: float
    eval_unigram_cross_entropy: float
    fingerprint: str
    evaluation_fingerprint: str
    final: Corpus | None = None
    train_said_MS: np.ndarray | None = None
    eval_said: np.ndarray | None = None
    notes: Sequence[str] = ()

    def scored_rows(self) -> np.ndarray:
        """The training blocks, by place, in which the loss counts a token; the first of a block is never predicted."""
        if self.train_said_MS is None:
            return np.arange(len(self.train_blocks_MS))
        return np.flatnonzero(self.train_said_MS[:, 1:].any(axis=1))

    @property
    def sequence_length(self) -> int:
        """S, in tokens."""
        return self.train_blocks_MS.shape[1]

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was made with."""
        return TokenizerFile(self.tokenizer_file, self.eos_token).load()

    def largest_id(self) -> int:
        """The largest id of a token in the text; the tokenizer may have larger ones."""
        parts = [self.eval_blocks, *([self.final.eval_blocks] if self.final else [])]
        return max(int(np.flatnonzero(self.train_token_counts_V)[-1]), *(int(part.max()) for part in parts))

    def document_names(self) -> list[str]:
        """The source's name of each document, by document id."""
        return json.loads((self.tokenizer_file.parent / "documents.json").read_text(encoding="utf-8"))


def data_fingerprint(config: DataConfig) -> str:
    """32 hex digits over everything that determines the corpus: content and options, never a path.

    Nothing is tokenised. Raises ConfigError as `check_data` does.
    """
    check_data(config)
    if config.tokenizer:
        tokenizer: tuple[object, ...] = ("named", named_tokenizer(config.tokenizer).digest())
    else:
        tokenizer = ("trained", TRAINER_VERSION, config.vocabulary_size)
    content = config.content_digest()
    # Null adds no part, so that every corpus without a final set or a held-out domain keeps its fingerprint.
    final = [] if config.final_evaluation_tokens is None else [config.final_evaluation_tokens]
    held_out = [] if config.hold_out_domain is None else ["held out", config.hold_out_domain]
    return digest(
        PACKING_VERSION, content, *tokenizer, config.sequence_length, config.evaluation_tokens, *final, *held_out
    )[:32]


def load_corpus(config: DataConfig, cache_dir: str | Path, progress: Progress | None = None) -> Corpus:
    """The corpus that `config` describes, from the cache, or built into it.

    Raises ConfigError, one line, for data that cannot be used. `progress` gets a line for each step that takes
    time.
    """
    say, cache_dir = progress or silent, Path(cache_dir)
    fingerprint = data_fingerprint(config)
    entry = cached_folder(cache_dir, fingerprint, lambda folder: _build(config, folder, cache_dir, say), say)
    corpus = _open(entry, fingerprint)
    # One from before this was looked for may be in the cache.
    _require_scored_tokens(corpus.train_said_MS, corpus.eval_said)
    return corpus


def _open(entry: CacheEntry, fingerprint: str) -> Corpus:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in entry.folder.glob("*.npy")}
    larger = {name.removeprefix(_FINAL): arrays.pop(name) for name in list(arrays) if name.startswith(_FINAL)}
    facts = dict(entry.facts)
    final = facts.pop("final", None)
    corpus = Corpus(**arrays, **facts, tokenizer_file=entry.folder / "tokenizer.json", fingerprint=fingerprint)
    return corpus if final is None else replace(corpus, final=replace(corpus, **larger, **final))


def _require_scored_tokens(train_said_MS: np.ndarray | None, eval_said: np.ndarray | None) -> None:
    """Raise ConfigError where the loss would count no token of a split; None: it counts them all."""
    fix = "give more text, raise data.sequence_length or data.evaluation_tokens, or data.loss_on=all"
    for said, split in ((train_said_MS, "training"), (eval_said, "validation")):
        if said is not None and not said[:, 1:].any():
            problem = f"none of the {said.size} {split} tokens is one that the loss counts"
            raise ConfigError("data.loss_on", problem, fix)


def _save(folder: Path, prefix: str, names: Iterable[str], arrays: Iterable[np.ndarray]) -> None:
    # Without the last one where the loss counts every token.
    for name, array in zip(names, arrays, strict=False):
        np.save(folder / f"{prefix}{name}.npy", array)


def _build(config: DataConfig, folder: Path, cache_dir: Path, progress: Progress) -> dict[str, Any]:
    splits = read_documents(config)
    train, validation = mixed_order(splits.train), mixed_order(splits.validation)
    file = _tokenizer(config, train, cache_dir, progress)
    tokenizer = file.load(markers=_is_chat(train))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    # Some vocabularies have gaps: the size is what an embedding needs.
    vocabulary_size, end_token_id = max(vocabulary.values()) + 1, vocabulary[file.end_token]
    domains = sorted({document.domain for document in (*train, *validation)})
    if getattr(config, "loss_on", "all") == "all":
        train, validation = ([replace(d, spans=None) for d in documents] for documents in (train, validation))
    progress(f"tokenising {len(train)} training and {len(validation)} validation documents")
    written = partial(tokenise, tokenizer, end_token_id=end_token_id, domains=domains)
    train_stream, eval_stream = written(train), written(validation, first_document_id=len(train))
    _require_a_block(train_stream, "training", config)
    _require_a_block(eval_stream, "validation", config)
    train_arrays = train_stream.blocks(config.sequence_length)
    eval_arrays = eval_stream.blocks(config.sequence_length, config.evaluation_tokens)
    _require_scored_tokens(*(arrays[3] if len(arrays) > 3 else None for arrays in (train_arrays, eval_arrays)))
    counts_V = np.bincount(train_arrays[0].ravel(), minlength=vocabulary_size)
    _save(folder, "", _TRAIN_ARRAYS, train_arrays)
    _save(folder, "", _EVAL_ARRAYS, eval_arrays)
    _save(folder, "", ["train_token_counts_V"], [counts_V])
    shutil.copyfile(file.path, folder / "tokenizer.json")
    names = [document.id for document in (*train, *validation)]
    (folder / "documents.json").write_text(json.dumps(names), encoding="utf-8")
    _tell_missing_domains(splits, eval_arrays[2], domains, progress)
    scored = _evaluation_facts(eval_arrays, domains, counts_V)
    final = {}
    if config.final_evaluation_tokens is not None:
        final_arrays = eval_stream.blocks(config.sequence_length, config.final_evaluation_tokens)
        _save(folder, _FINAL, _EVAL_ARRAYS, final_arrays)
        facts = _evaluation_facts(final_arrays, domains, counts_V)
        # Of both sets: the metrics over the course of training are still those of the smaller one.
        prints = (scored["evaluation_fingerprint"], facts["evaluation_fingerprint"])
        final = {"final": facts | {"evaluation_fingerprint": digest(*prints)[:32]}}
    return dict(
        domains=domains,
        vocabulary_size=vocabulary_size,
        eos_token=file.end_token,
        eos_token_id=end_token_id,
        unigram_entropy=unigram_entropy(counts_V),
        notes=splits.notes,
        **scored,
        **final,
    )


def _evaluation_facts(arrays: tuple[np.ndarray, ...], domains: list[str], counts_V: np.ndarray) -> dict[str, Any]:
    counted = arrays[0] if len(arrays) == 3 else arrays[0][arrays[3]]
    return dict(
        eval_unigram_cross_entropy=unigram_cross_entropy(counted, counts_V),
        evaluation_fingerprint=digest(arrays[0].shape, *domains, *(a.tobytes() for a in arrays))[:32],
    )


def _tokenizer(config: DataConfig, train: list[Document], cache_dir: Path, progress: Progress) -> TokenizerFile:
    if config.tokenizer:
        return named_tokenizer(config.tokenizer)
    texts = [document.text for document in train]
    markers = MARKERS if _is_chat(train) else ()
    return trained_tokenizer(texts, config.vocabulary_size, cache_dir, progress, markers)


def _is_chat(documents: Iterable[Document]) -> bool:
    """Whether there are conversations among the documents, whose markers are tokens."""
    return any(document.spans is not None for document in documents)


def _require_a_block(stream: Stream, split: str, config: DataConfig) -> None:
    if len(stream.tokens) < config.sequence_length:
        raise ConfigError(
            "data.sequence_length",
            f"{config.sequence_length} tokens, but the {split} split has only {len(stream.tokens)}",
            "lower it or give more text",
        )


def _tell_missing_domains(splits: Splits, eval_domain_ids: np.ndarray, domains: list[str], progress: Progress) -> None:
    scored = {domains[index] for index in np.unique(eval_domain_ids)}
    unscored = sorted({document.domain for document in splits.validation} - scored)
    if unscored:
        progress(f"no scored token is from {', '.join(unscored)}: raise data.evaluation_tokens to score all domains")

"""Tokenizers: one named by the user, or a byte-level BPE trained on the training split and cached."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_exp.data.cache import Progress, cached_folder
from spectra_exp.data.documents import digest
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError, nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
# Raise when training on the same text gives another tokenizer: it is part of every fingerprint.
TRAINER_VERSION = 1

# Characters of one kind without a break, which byte-level BPE learns from as one word.
LONGEST_RUN = 1024

_LONG_RUN = re.compile("|".join(rf"{kind}{{{LONGEST_RUN}}}" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")))
_KEY = "data.tokenizer"
_FILE = "tokenizer.json"
_END_TOKENS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[EOS]")


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json and the token in it that ends a document."""

    path: Path
    end_token: str

    def digest(self) -> str:
        """The hash of the file's content and of the end token."""
        return digest(hashlib.sha256(self.path.read_bytes()).hexdigest(), self.end_token)

    def load(self, markers: bool = False) -> Tokenizer:
        """The tokenizer, set to cut and pad nothing; `markers`: special tokens in a text are read as such."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = not markers
        return tokenizer


def named_tokenizer(name: str) -> TokenizerFile:
    """The tokenizer at a path: a tokenizer.json, or a folder with one.

    The end token is `eos_token` of the tokenizer_config.json beside it, else the first of the usual ones that the
    vocabulary has. Raises ConfigError when there is none, or the file is missing or unreadable.
    """
    path = Path(os.path.expanduser(name))
    file = path / _FILE if os.path.isdir(path) else path
    if not os.path.isfile(file):
        near = nearest(file.name, os.listdir(file.parent)) if os.path.isdir(file.parent) else None
        raise ConfigError(
            _KEY,
            f"there is no file {file}",
            f"did you mean '{near}'?" if near else "name a tokenizer.json or its folder, or leave it null",
        )
    vocabulary = _vocabulary(file)
    configured = _configured_end_token(file.parent / "tokenizer_config.json")
    candidates = (configured,) if configured else _END_TOKENS
    for token in candidates:
        if token in vocabulary:
            return TokenizerFile(file, token)
    raise ConfigError(
        _KEY,
        f"{file} has no end-of-text token ({', '.join(candidates)})",
        "set eos_token in a tokenizer_config.json beside it",
    )


def trained_tokenizer(
    texts: Sequence[str], vocabulary_size: int, cache_dir: Path, progress: Progress, markers: Sequence[str] = ()
) -> TokenizerFile:
    """The byte-level BPE of these texts, from the cache where the same texts and size were trained before.

    `markers` are tokens of their own besides the one that ends a document.
    """
    content = digest("bpe", TRAINER_VERSION, vocabulary_size, *markers, *texts)

    def build(folder: Path) -> dict[str, str]:
        size = sum(map(len, texts)) / 1e6
        progress(f"training a byte-level BPE of {vocabulary_size} tokens on {size:.1f} M characters")
        # Its own `save` has no error of the file system's.
        (folder / _FILE).write_text(train_bpe(texts, vocabulary_size, markers).to_str(pretty=True), encoding="utf-8")
        return {"end_token": END_OF_TEXT}

    entry = cached_folder(cache_dir, f"tokenizer-{content[:32]}", build, progress)
    return TokenizerFile(entry.folder / _FILE, entry.facts["end_token"])


def train_bpe(texts: Sequence[str], vocabulary_size: int, markers: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE with at most `vocabulary_size` tokens; token 0 ends a document, then come the markers.

    It can spell any text: all 256 bytes are tokens. Fewer merges are learnt where the texts have no more pairs
    that occur twice. *Source:* byte-level BPE as in GPT-2 (Radford et al., 2019), the `tokenizers` library's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, *markers],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for text in texts for piece in _without_long_runs(text))
    stopping.interruptibly(lambda: tokenizer.train_from_iterator(pieces, trainer))
    return tokenizer


def _without_long_runs(text: str) -> Iterator[str]:
    """The text, cut in each run of LONGEST_RUN letters, digits, marks or spaces: training takes its length squared."""
    begin = 0
    for run in _LONG_RUN.finditer(text):
        yield text[begin : run.end()]
        begin = run.end()
    yield text[begin:]


def _vocabulary(file: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    # The library raises bare Exception for any malformed file.
    except Exception as error:
        raise ConfigError(
            _KEY, f"{file} is not a tokenizer of the tokenizers library ({error})", "name a tokenizer.json"
        ) from None


def _configured_end_token(file: Path) -> str | None:
    if not file.is_file():
        return None
    try:
        token = json.loads(file.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError):
        raise ConfigError(_KEY, f"{file} is not a JSON object", "mend or remove it") from None
    token = token.get("content") if isinstance(token, dict) else token
    if token is not None and not isinstance(token, str):
        raise ConfigError(_KEY, f"the eos_token of {file} is no text", "mend or remove it")
    return token

"""Opens what is to be examined: a stock model by folder or by name in the local cache, or a run of this project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from spectra_exp.data.tokenizer import named_tokenizer
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.interpret.open_run import open_run
from spectra_exp.interpret.open_stock import load_stock, one_line, packed, read_config
from spectra_exp.interpret.opening import locate
from spectra_exp.moe.schema import SourceModelConfig
from spectra_exp.moe.source import source_folder
from spectra_exp.moe.stock.watch import watch_blocks
from spectra_exp.runs.limits import RESERVE, free_bytes

# Tokens that loads are counted on, and of one sequence.
USUAL_TOKENS, LENGTH, ROWS_AT_ONCE = 4096, 128, 8
RUN, MODEL = "run", "model"


@dataclass(frozen=True)
class Opened:
    """A loaded model with the text that it is examined on. `notes`: what a reader must know of it."""

    name: str
    model: nn.Module
    batches: list[Tensor]
    notes: list[str]


def open_own(given: str, outputs: Path, tokens: int | None, seed: int, device: torch.device) -> Opened:
    """A run by folder or id, on its own held-out text. Raises SpectraError, one line, for what cannot be opened."""
    path = locate(RUN, given, outputs)
    if not (path / "config.yaml").is_file():
        raise ConfigError(RUN, f"{path} holds no run (config.yaml)", f"give model={path} for a stock model")
    subject = open_run(path, tokens or USUAL_TOKENS, seed, device)
    if not subject.num_layers:
        raise ConfigError(RUN, f"{path} has no routed layer", "it is a dense model: give a sparse one")
    batches = _batches(subject.held_out.token_ids_MS, RUN)
    return Opened(subject.name, subject.engine.model, batches, [f"Step {subject.step}, the run's own held-out text."])


def open_model(given: str, texts: str | None, tokens: int | None, seed: int, device: torch.device) -> Opened:
    """A stock model, on the documents of `texts`, on embedded text, or, without a tokenizer, on random ids.

    Raises ConfigError, one line, for a dense model, one with an encoder, one that does not fit or cannot be loaded;
    all of it before the weights are read.
    """
    path = _folder(given)
    config = read_config(MODEL, path)
    if config.is_encoder_decoder:
        raise ConfigError(MODEL, f"{path} has an encoder ('{config.model_type}')", "give a decoder-only model")
    has_tokenizer = (path / "tokenizer.json").is_file()
    if texts is not None and not has_tokenizer:
        raise ConfigError(
            "texts", f"{path} has no tokenizer.json", "save the model's tokenizer beside it, or drop texts"
        )
    with one_line(MODEL, path):
        _check_sparse_and_fits(path, config, device)
    model = load_stock(MODEL, path, config, device)
    longest = int(getattr(config.get_text_config(), "max_position_embeddings", None) or LENGTH)
    if has_tokenizer:
        file = named_tokenizer(str(path))
        ids_MS = packed(texts, file, min(longest, LENGTH), tokens or USUAL_TOKENS).token_ids_MS
        note = f"Text: {texts or 'the embedded validation text'}."
    else:
        embeddings: Any = model.get_input_embeddings()
        ids_MS = np.random.default_rng(seed).integers(embeddings.num_embeddings, size=(1, tokens or USUAL_TOKENS))
        note = "The folder has no tokenizer.json: random token ids are used, and loads are those of no text."
    return Opened(path.name, model, _batches(ids_MS, "texts", longest), [note])


def _folder(given: str) -> Path:
    path = Path(given).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        fix = (
            f"give run={given}" if (path / "config.yaml").is_file() else "give the folder of a saved Hugging Face model"
        )
        raise ConfigError(MODEL, f"{path} holds no config.json", fix)
    try:
        return source_folder(SourceModelConfig(source=given))
    except ConfigError as error:
        fix = "give a saved model's folder, or the name of one in the local Hugging Face cache (hf download NAME)"
        raise ConfigError(MODEL, error.problem, fix) from error


def _check_sparse_and_fits(path: Path, config: PreTrainedConfig, device: torch.device) -> None:
    """Raise ConfigError for a dense model and for one too large, of a model without memory."""
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    try:
        sparse = bool(watch_blocks(shapes, None))
    except SpectraError as error:
        raise ConfigError(MODEL, f"{path}: {error}", "give a model of docs/families.md") from error
    if not sparse:
        raise ConfigError(MODEL, f"{path} is a dense model ('{config.model_type}')", "give one with experts")
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    # As stored, in float32, and the gradient.
    needed = stored + 8 * sum(p.numel() for p in shapes.parameters())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else (1 - RESERVE) * free_bytes()
    if needed > free:
        raise ConfigError(
            MODEL,
            f"{path} does not fit: weights as stored, in float32 and their gradient are {needed / 2**30:.1f} GiB, "
            f"free are {free / 2**30:.1f}",
            "use a larger machine, or a model of the same configuration with fewer layers",
        )


def _batches(ids_MS: np.ndarray, key: str, longest: int = LENGTH) -> list[Tensor]:
    """The tokens in sequences of one length, at least two, a few at a time. ConfigError under `key` for too few."""
    flat: Any = np.asarray(ids_MS, dtype=np.int64).reshape(-1)
    length = min(LENGTH, longest, flat.size // 2, max(ids_MS.shape[1], 8))
    if length < 8:
        raise ConfigError(key, f"there are {flat.size} tokens", "give a text of at least 16")
    rows = torch.from_numpy(flat[: flat.size // length * length].reshape(-1, length).copy())
    return list(rows.split(ROWS_AT_ONCE))

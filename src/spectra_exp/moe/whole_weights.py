"""The weights of a model that somebody else saved: files that are whole, and a model that got all its tensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.foundations.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# How transformers is asked for whatever somebody else saved: it never asks a network, nor runs code of the folder.
ONLY_HERE = {"local_files_only": True, "trust_remote_code": False}
# A model's weights are one file, or several with an index where they are large.
WEIGHTS, WEIGHTS_INDEX = "*.safetensors", "model.safetensors.index.json"
AGAIN = "fetch the model again, or save it again with save_pretrained"


def check_weight_files(key: str, folder: Path) -> None:
    """Raise ConfigError, under `key`, for a folder of weights that are pickled, not all there, or cut off.

    Headers alone are read.
    """
    files = {path.name: path for path in folder.glob(WEIGHTS)}
    if not files:
        raise ConfigError(key, f"{folder} holds no *.safetensors", f"pickled weights are not loaded; {AGAIN}")
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        try:
            named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(key, f"{index} is no index of weights", AGAIN) from error
        files |= {name: folder / name for name in named}
    for path in files.values():
        # In the hub's cache a file is a link, to nothing where a download was cut off.
        if not path.is_file():
            raise ConfigError(key, f"{path} is not there", AGAIN)
        status = path.stat()
        if problem := _header_problem(path, status.st_size, status.st_mtime_ns):
            raise ConfigError(key, f"{path} is damaged or cut off ({problem})", AGAIN)


@lru_cache(maxsize=256)
def _header_problem(path: Path, size: int, modified_ns: int) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            return None
    except (SafetensorError, OSError, RuntimeError) as error:
        # A RuntimeError is what a file larger than the address space ends in.
        return " ".join(str(error).split())


def load_whole(key: str, auto: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """The model of an Auto class, with every tensor from its files.

    Raises ConfigError, under `key`, for one that transformers would fill in at random, and for NaN or infinite weights.
    """
    import torch

    with _said_by_us():
        model, found = auto.from_pretrained(
            folder,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **(options | ONLY_HERE),
        )
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        shapes = f"{name} is {list(saved)} and should be {list(wanted)}"
        raise ConfigError(key, f"{folder}: its weights are not those of its config.json ({shapes})", AGAIN)
    if found["missing_keys"]:
        raise ConfigError(key, f"{folder}: its weights lack {_some(found['missing_keys'])}", AGAIN)
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ConfigError(key, f"{folder}: {name} holds values that are not finite", AGAIN)
    if found["unexpected_keys"]:
        log.warning("%s: its config.json has no place for %s; left out", folder, _some(found["unexpected_keys"]))
    return model


@contextmanager
def _said_by_us() -> Iterator[None]:
    """A block in which transformers does not print its own report of what it found."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _some(names: Any) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first

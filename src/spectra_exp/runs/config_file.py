"""A run's config.yaml: what every reader may rely on, and the reason when it may not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import regular

# What readers take from it, by dotted key.
WANTED: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "outputs": (str,),
    "data": (dict,),
    "data.name": (str,),
    "data.tokenizer": (str, NoneType),
    "data.sequence_length": (int,),
    "model": (dict,),
    "model.num_experts": (int,),
    "model.top_k": (int,),
    "router": (dict,),
    "router.name": (str,),
    "trainer": (dict,),
    "trainer.max_steps": (int,),
    "trainer.batch_size": (int,),
    "trainer.accumulation": (int,),
    "trainer.eval_every": (int,),
    "trainer.cpu_threads": (int,),
    "trainer.evaluation_batch_size": (int,),
    "trainer.precision": (str,),
}
WORDS = {int: "a whole number", str: "text", dict: "a group of settings", NoneType: "null"}


# The fast reader in C where PyYAML has it.
CSafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 50


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration at `path`, with every key of `WANTED`. Raises SpectraError, which names file and key."""
    file = Path(path)
    try:
        text = regular(file).read_text(encoding="utf-8")
        _check_depth(text)
        config = yaml.load(text, Loader=CSafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SpectraError(f"{file}: not a run's configuration ({first_line(error)})") from error
    return check_config(file, config)


def check_config(file: Path, config: Any) -> dict[str, Any]:
    """The configuration that `file` holds, with every key of `WANTED`. Raises SpectraError that names file and key."""
    if not isinstance(config, dict):
        raise SpectraError(f"{file}: not a run's configuration (it holds no settings)")
    for key, kinds in WANTED.items():
        group, _, last = key.rpartition(".")
        holder = setting(config, group) if group else config
        if last not in holder:
            raise SpectraError(f"{file}: not a run's configuration (it has no {key})")
        if type(holder[last]) not in kinds:
            wanted = " or ".join(WORDS[kind] for kind in kinds)
            raise SpectraError(f"{file}: not a run's configuration ({key} is {_shown(holder[last])}, not {wanted})")
    return config


def _check_depth(text: str) -> None:
    """Raise ValueError for deeper nesting than a configuration has: the reader in C would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")


def _shown(value: Any) -> str:
    # Of lists and groups the kind alone: a few bytes of YAML can stand for more text than there is memory.
    return repr(value)[:40] if isinstance(value, (str, int, float, NoneType)) else WORDS.get(type(value), "a list")


def setting(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, None where a part of the key is not there."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found

"""Readers of a run's config.yaml take from it only what `read_config` has looked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import spectra_exp
from spectra_exp.runs.config_file import WANTED

SOURCES = Path(spectra_exp.__file__).parent


def keys_taken(source: str) -> Iterator[str]:
    """The dotted keys of every `....config["group"]["key"]` and `config["group"]["key"]`."""
    for node in ast.walk(ast.parse(source)):
        keys: list[str] = []
        while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            keys.insert(0, str(node.slice.value))
            node = node.value
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        if keys and name == "config":
            yield ".".join(keys)


def test_what_readers_take_is_looked_for():
    assert list(keys_taken('a = run.config["trainer"]["eval_every"]')) == ["trainer.eval_every", "trainer"]
    taken = {key: path for path in SOURCES.rglob("*.py") for key in keys_taken(path.read_text(encoding="utf-8"))}
    assert {key: str(path) for key, path in taken.items() if key not in WANTED} == {}

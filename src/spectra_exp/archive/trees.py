"""Plain values (mappings, lists, numbers, texts) taken apart into what many runs share and what is a run's own.

The shape is what runs of one kind have in common: it is the JSON of a tree with 0 in place of each number with a
fraction, 1 of each whole one and "" of each text. Numbers and texts stand in lists of their own, in the tree's order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectra_exp.foundations.errors import SpectraError

FLOAT, WHOLE, TEXT = 0, 1, ""
LARGEST_WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Packed:
    """A tree taken apart. `floats`: to the last bit; `shape`: JSON."""

    shape: str
    floats: Sequence[float]
    wholes: Sequence[int]
    texts: Sequence[str]

    def digest(self) -> str:
        """The SHA-256 of everything in it."""
        floats = np.asarray(self.floats, dtype="<f8").tobytes().hex()
        content = json.dumps([self.shape, floats, [int(n) for n in self.wholes], list(self.texts)])
        return hashlib.sha256(content.encode()).hexdigest()


def pack(tree: Any) -> Packed:
    """The tree taken apart; keys become texts. Raises SpectraError for what is no plain value, or too large."""
    floats: list[float] = []
    wholes: list[int] = []
    texts: list[str] = []

    def shape(node: Any) -> Any:
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, Mapping):
            return {str(key): shape(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [shape(value) for value in node]
        if isinstance(node, str):
            texts.append(node)
            return TEXT
        if isinstance(node, float):
            floats.append(node)
            return FLOAT
        if isinstance(node, int) and abs(node) <= LARGEST_WHOLE:
            wholes.append(node)
            return WHOLE
        raise SpectraError(f"{str(node)[:40]}: an archive has no place for it")

    found = json.dumps(shape(tree), separators=(",", ":"), ensure_ascii=False)
    return Packed(found, floats, wholes, texts)


def unpack(packed: Packed) -> Any:
    """The tree. Raises ValueError where the parts do not fit together."""
    floats, wholes, texts = (iter(values) for values in (packed.floats, packed.wholes, packed.texts))

    def tree(node: Any) -> Any:
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, dict):
            return {key: tree(value) for key, value in node.items()}
        if isinstance(node, list):
            return [tree(value) for value in node]
        return next({FLOAT: floats, WHOLE: wholes, TEXT: texts}[node])

    try:
        found = tree(json.loads(packed.shape))
    except (StopIteration, KeyError, RuntimeError) as error:
        raise ValueError("its numbers and texts do not fit its shape") from error
    if any(next(values, None) is not None for values in (floats, wholes, texts)):
        raise ValueError("it holds more numbers or texts than its shape")
    return found


def difference(tree: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the tree of the base: `set`, new values by key; `within`, the difference of each changed group; and
    `keys`, all of its keys in their order, where they are not those of the base."""
    found: dict[str, Any] = {"set": {}, "within": {}}
    if list(tree) != list(base):
        found["keys"] = list(tree)
    for key, value in tree.items():
        former = base.get(key)
        if key in base and repr(value) == repr(former):
            continue
        if isinstance(value, Mapping) and isinstance(former, Mapping):
            found["within"][key] = difference(value, former)
        else:
            found["set"][key] = value
    return found


def applied(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of which `difference` gave the change."""

    def value(key: str) -> Any:
        if key in change["within"]:
            return applied(base[key], change["within"][key])
        return change["set"][key] if key in change["set"] else base[key]

    return {key: value(key) for key in change.get("keys", base)}


def changed_texts(tree: Any, change: Callable[[str], str]) -> Any:
    """The tree with every text and key changed."""
    if isinstance(tree, Mapping):
        return {change(str(key)): changed_texts(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [changed_texts(value, change) for value in tree]
    return change(tree) if isinstance(tree, str) else tree

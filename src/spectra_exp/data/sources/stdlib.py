"""The stdlib source: the running interpreter's own library, its code and its documentation."""

from __future__ import annotations

import ast
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.data.documents import Document, Splits, digest, split_by_document
from spectra_exp.data.schema import SplitDataConfig, register_source
from spectra_exp.foundations.bounds import LARGEST_COUNT
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option

# Raise when the documents made of the same files change: it is part of the fingerprint.
READER_VERSION = 1

# The language reference as pydoc ships it: a dictionary of texts, each one a document.
_TOPICS = "pydoc_data/topics.py"
_PASSED_OVER = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


@register_source
@dataclass
class StdlibData(SplitDataConfig):
    """The source code and the documentation of the running interpreter's own library."""

    name: str = option("stdlib", "where the documents come from", choices=("stdlib",))
    max_bytes: int = option(
        3_000_000, "how much of the library is read, in whole files", unit="bytes", minimum=1, maximum=LARGEST_COUNT
    )

    def check(self) -> None:
        """Raise ConfigError when this interpreter's library is not there as source files within the limit."""
        if not _selected(self):
            raise ConfigError(
                "data.max_bytes",
                f"no library file under {_library()} fits in {self.max_bytes} bytes",
                "raise it, or use data=embedded",
            )

    def content_digest(self) -> str:
        """The hash of the files read and of the options that split them."""
        contents = (path.read_bytes() for path in _selected(self))
        return digest("stdlib", READER_VERSION, self.validation_fraction, self.split_seed, *contents)

    def read_splits(self) -> Splits:
        """The library's documents, split by document: domain "code" without docstrings, "docs" of them alone."""
        documents = [document for path in _selected(self) for document in _documents(path)]
        return split_by_document(documents, self.validation_fraction, self.split_seed)


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _selected(config: StdlibData) -> list[Path]:
    """The topics and then whole files in the order of their names' hashes, up to the limit."""
    root = _library()
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _PASSED_OVER and not name.startswith("config-")]
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    keys = {path: path.relative_to(root).as_posix() for path in paths}
    chosen, left = [], config.max_bytes
    for path in sorted(paths, key=lambda p: (keys[p] != _TOPICS, digest(keys[p]))):
        size = path.stat().st_size
        if 0 < size <= left:
            chosen.append(path)
            left -= size
    return chosen


def _documents(path: Path) -> Iterator[Document]:
    name = path.relative_to(_library()).as_posix()
    with tokenize.open(path) as file:
        source = file.read()
    tree = ast.parse(source)
    if name == _TOPICS:
        (topics,) = (node.value for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value)
        for topic, text in ast.literal_eval(topics).items():
            yield Document(text, "docs", f"{name}:{topic}")
        return
    docstrings = list(_docstrings(tree))
    texts = {
        "code": _without(source, [node for node, _ in docstrings]),
        "docs": "\n\n".join(_clean(text) for _, text in docstrings),
    }
    for domain, text in texts.items():
        if text.strip():
            yield Document(text, domain, f"{name}:{domain}")


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Expr, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first, first.value.value


def _clean(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _without(source: str, docstrings: list[ast.Expr]) -> str:
    """The source without the lines of its docstrings; one that shares its line with code stays."""
    lines, gone = source.splitlines(), set[int]()
    for node in docstrings:
        if not lines[node.lineno - 1].encode()[: node.col_offset].strip():
            gone |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    return "\n".join(line for place, line in enumerate(lines) if place not in gone) + "\n"

"""What a part gives, and the folder that holds it: data and pictures side by side, and an index of what was made.

analysis/index.json, index.html
analysis/<part>/<name>.csv, .json, .png
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.foundations.files import regular, write_bytes, write_json, write_text
from spectra_exp.presentation.draw import our_style
from spectra_exp.presentation.png import with_palette
from spectra_exp.presentation.text import csv_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

INDEX, PAGE = "index.json", "index.html"
PICTURE_DPI = 130
# Versions and dates would make two equal pictures differ.
PNG_METADATA = {"Software": None}
# What of a subject's head a line about a replaced analysis names.
SAID = ("name", "step", "tokens", "typed")


@dataclass
class Result:
    """A part's outcome. Names are those of files: a picture has its table or data under the same name.

    `pictures`: functions that draw into an empty figure; `captions`: a picture's name to what it shows; `notes`: what
    a reader must know; `empty`: why there is nothing, None where there is something.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Callable[[Figure], None]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    empty: str | None = None

    def add_picture(self, name: str, caption: str, draw: Callable[[Figure], None]) -> None:
        """Add a picture with what it shows, in one line."""
        self.pictures[name], self.captions[name] = draw, caption


def layer_table(
    rows: tuple[str, Sequence[Any] | np.ndarray], columns: str, **by_layer: Sequence[np.ndarray | None]
) -> pd.DataFrame:
    """A row for each cell of the matrices of each layer: `layer`, its row, its column and the values there.

    `rows`: the name of what matrices' rows are, and what each is called; `columns`: the name of the columns. A layer
    without a matrix (None) is left out.
    """
    import pandas as pd

    (name, labels), tables = rows, []
    for layer, matrices in enumerate(zip(*by_layer.values(), strict=True)):
        if matrices[0] is not None:
            count, width = matrices[0].shape
            place = {"layer": layer, name: np.repeat(labels, width), columns: np.tile(np.arange(width), count)}
            values = {key: matrix.ravel() for key, matrix in zip(by_layer, matrices, strict=True)}
            tables.append(pd.DataFrame(place | values))
    return pd.concat(tables, ignore_index=True)


class AnalysisFolder:
    """The folder `path` of an analysis of what `head` names (run, step, text, seed); each part is written whole.

    Parts of an earlier analysis stay as long as it was of the same head; otherwise they go when the first new part is
    written, since a page must not mix two models. One process at a time: the caller holds the folder.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]):
        self.path, self.head = path, dict(head)
        earlier = read_index(path)
        if earlier is not None and {k: v for k, v in earlier.items() if k != "parts"} == self.head:
            self.parts: dict[str, dict[str, Any]] = dict(earlier["parts"])
            self._outdated: dict[str, Any] | None = None
        else:
            self.parts, self._outdated = {}, earlier
        self.replaced = None if self._outdated is None else self._what_goes(self._outdated)

    def write(self, name: str, title: str, result: Result) -> None:
        """Write a part's files and take it into the index; files that an earlier one left are removed."""
        folder = self.path / name
        # Drawn before anything goes: a picture that fails must not cost an earlier analysis.
        pictures = {f"{stem}.png": picture_bytes(draw) for stem, draw in result.pictures.items()}
        self._drop_outdated()
        if folder.is_file():
            folder.unlink()
        files: list[str] = []
        for stem, table in result.tables.items():
            files.append(f"{stem}.csv")
            write_text(folder / files[-1], _csv_of(table))
        for stem, value in result.data.items():
            files.append(f"{stem}.json")
            write_json(folder / files[-1], value)
        for file, content in pictures.items():
            files.append(file)
            write_bytes(folder / file, content)
        if folder.is_dir():
            for old in folder.iterdir():
                if old.name not in files:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            if not files:
                folder.rmdir()
        self.parts[name] = {
            "title": title,
            "files": sorted(files),
            "captions": result.captions,
            "notes": result.notes,
            "empty": result.empty,
        }
        write_json(self.path / INDEX, self.head | {"parts": dict(sorted(self.parts.items()))})

    def _what_goes(self, earlier: dict[str, Any]) -> str:
        """One line: the earlier analysis, and in what it differs from this one."""
        changes = []
        for side in ("subject", "against"):
            old, new = (head.get(side) or {} for head in (earlier, self.head))
            changes += [
                f"{name} {old.get(name)} then, {value} now"
                for name, value in new.items()
                if name in SAID and old.get(name, value) != value
            ]
        if earlier.get("seed") != self.head.get("seed"):
            changes.append(f"seed {earlier.get('seed')} then, {self.head.get('seed')} now")
        return (
            f"{self.path}: the analysis there ({len(earlier['parts'])} parts) is of something else "
            f"({'; '.join(changes) or 'another model or text'}) and goes when the first new part is done; "
            "out=FOLDER keeps both"
        )

    def _drop_outdated(self) -> None:
        if self._outdated is None:
            return
        # The page and the index first: a kill in between must not leave a page of removed parts.
        for file in (PAGE, INDEX):
            (self.path / file).unlink(missing_ok=True)
        for name in self._outdated["parts"]:
            shutil.rmtree(self.path / name, ignore_errors=True)
        self._outdated = None


def _csv_of(table: pd.DataFrame) -> str:
    """The table's rows; columns of floats with six significant digits, so that equal figures are equal files."""
    columns = [
        [f"{value:.6g}" if value == value else None for value in column] if column.dtype.kind == "f" else list(column)
        for _, column in table.items()
    ]
    return csv_text(list(table.columns), list(zip(*columns, strict=True)))


def read_index(path: Path) -> dict[str, Any] | None:
    """The index of the analysis in `path`, None where there is none that can be read."""
    try:
        index = json.loads(regular(path / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    parts = index.get("parts") if isinstance(index, dict) else None
    sound = isinstance(parts, dict) and all(_is_entry(entry) for entry in parts.values())
    return index if sound else None


def _is_entry(entry: Any) -> bool:
    """Whether an entry of the index is what `AnalysisFolder.write` makes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("title"), str):
        return False
    lists = [entry.get(key) for key in ("files", "notes")]
    texts = all(isinstance(found, list) and all(isinstance(text, str) for text in found) for found in lists)
    return texts and isinstance(entry.get("captions"), dict) and isinstance(entry.get("empty"), str | None)


def picture_bytes(draw: Callable[[Figure], None]) -> bytes:
    """What `draw` makes of an empty figure, as PNG; the same bytes for the same picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with our_style(), warnings.catch_warnings():
        # Held-out text has letters of many scripts; the font's box stands for what it lacks, and the tables have all.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(content, format="png", dpi=PICTURE_DPI, metadata=PNG_METADATA)
    return with_palette(content.getvalue())

"""The page of an analysis, `index.html`: everything in one file, made from what lies in the folder."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import first_line
from spectra_exp.foundations.files import write_text
from spectra_exp.interpret.registry import parts
from spectra_exp.interpret.results import PAGE, read_index
from spectra_exp.presentation.html import (
    Badge,
    Block,
    Cell,
    Command,
    Content,
    Data,
    Facts,
    Fold,
    Image,
    Link,
    Notes,
    Row,
    Table,
    Text,
    file_link,
    html_page,
)
from spectra_exp.presentation.text import csv_source

TEMPLATE = Path(__file__).parent / "templates" / "analysis.html"
# These parts are shown by their own blocks.
EXPLORE, CASES = "explore", "cases"


def write_page(folder: Path) -> Path:
    """The path of the page of the analysis in `folder`, written anew from its index and files."""
    index = read_index(folder)
    if index is None:
        raise ValueError(f"{folder} holds no analysis")
    order = {name: place for place, name in enumerate(parts())}
    names = sorted(index["parts"], key=lambda name: (order.get(name, len(order)), name))
    first = [name for name in (EXPLORE, CASES) if name in names]
    blocks = [_block(folder, index, name) for name in (*first, *(n for n in names if n not in first))]
    path = folder / PAGE
    write_text(path, html_page(TEMPLATE, _title(index), blocks, sides=_sides(index)))
    return path


def _block(folder: Path, index: dict[str, Any], name: str) -> Block:
    """A part's place on the page, where its files cannot be read with the reason alone."""
    made = index["parts"][name]
    try:
        if name == EXPLORE:
            return _explore_block(folder, made)
        return _cases_block(folder, index, made) if name == CASES else _part_block(folder, name, made)
    except (OSError, ValueError, KeyError, RecursionError) as error:
        line = f"Its files are damaged ({first_line(error)}); parts={name} makes them again."
        return Block(name, made["title"], None, [Text(line, "aside"), _files(name, made)])


def _title(index: dict[str, Any]) -> str:
    other = index["against"]
    return index["subject"]["name"] + (f" against {other['name']}" if other else "")


def _sides(index: dict[str, Any]) -> list[Facts]:
    """What each model is, and of what text; a run that has not completed is of the checkpoint that it had by then."""
    sides = [side for side in (index["subject"], index["against"]) if side]
    return [Facts([(side["label"], _told(side))]) for side in sides]


def _told(side: dict[str, Any]) -> Content:
    counts = [
        f"step {side['step']}" if side["step"] is not None else "",
        f"{side['layers']} routed layers",
        f"{side['experts']} experts, {side['top_k']} per token",
        f"{side['tokens']} held-out tokens",
        f"{len(side['domains'])} domains" if side["domains"] else "",
    ]
    mark = [Badge("unfinished", "warn"), " "] if side["unfinished"] else None
    return [mark, " · ".join(filter(None, counts))]


def _part_block(folder: Path, name: str, made: dict[str, Any]) -> Block:
    drawn = [
        Image(_address(folder / name / file), made["captions"].get(file.removesuffix(".png"), file))
        for file in made["files"]
        if file.endswith(".png")
    ]
    return Block(name, made["title"], None, [_empty(made), drawn, Notes(made["notes"]), _files(name, made)])


def _empty(made: dict[str, Any]) -> Text | None:
    return Text(f"Nothing to show: {made['empty']}.", "aside") if made["empty"] else None


def _files(name: str, made: dict[str, Any]) -> Text | None:
    links = [[" ", Link(file, file_link(name, file))] for file in made["files"]]
    return Text(["Files:", links], "aside") if links else None


def _address(path: Path) -> str:
    """The picture itself, as an address."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _explore_block(folder: Path, made: dict[str, Any]) -> Block:
    lead = "Choose a layer and an expert: its tokens are coloured in the running text. Point at one for its weights."
    return Block(EXPLORE, "Explore", lead, [_empty(made), _fed(folder, EXPLORE, made), Notes(made["notes"])])


def _cases_block(folder: Path, index: dict[str, Any], made: dict[str, Any]) -> Block:
    lead = "Each token in the colour of its first expert, stronger with its weight. Point at one for all its experts."
    sides = [("run", index["subject"]), ("against", index["against"])]
    named = " ".join(shlex.quote(f"{key}={side['typed']}") for key, side in sides if side)
    line = f'spectra-exp interpret {named} parts=cases text="..."'
    again = Text(["Any text: ", Command(line)], "aside")
    return Block(
        CASES,
        "Case studies",
        lead,
        [
            _empty(made),
            _fed(folder, CASES, made),
            _segments(folder / CASES / "segments.csv"),
            again,
            Notes(made["notes"]),
            _files(CASES, made),
        ],
    )


def _segments(path: Path) -> Fold | None:
    """The table by segment: a row for each segment and layer, columns for each model."""
    if not path.is_file():
        return None
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False, dtype=str).map(csv_source)
    names = list(dict.fromkeys(table["name"]))
    # The two models' tokenizers may cut a text into different segments, so each has rows of its own there.
    keys = ["case", "segment", "layer", "text"]
    rows = []
    for place, group in table.groupby(keys, sort=False):
        case, segment, layer, text = place
        by_name = {row["name"]: row for row in group.to_dict("records")}
        cells = [cell for name in names for cell in _segment_cells(by_name.get(name))]
        head = text.strip() or "(blank)"
        rows.append(Row([head, *(Cell(cell, "n") for cell in (case, segment, layer, *cells))]))
    sides = [f"{what}{f', {name}' if len(names) > 1 else ''}" for name in names for what in ("loss", "experts")]
    headers = ["segment", "text no.", "segment no.", "layer", *sides]
    grid = Table("Segments", headers, rows, headers[1:])
    return Fold("By segment: main experts with their share of the weight", grid)


def _segment_cells(row: dict[str, str] | None) -> list[str]:
    if row is None:
        return ["", ""]
    pairs = ((row["expert"], row["share"]), (row["second"], row["second_share"]))
    shares = [f"{float(expert):.0f}: {float(share):.2f}" for expert, share in pairs if expert]
    return [f"{float(row['loss']):.2f}" if row["loss"] else "", ", ".join(shares)]


def _fed(folder: Path, name: str, made: dict[str, Any]) -> Data | None:
    """The place that the script fills, and the data that it fills it from."""
    file = folder / name / f"{name}.json"
    if made["empty"] or not file.is_file():
        return None
    data = json.dumps(json.loads(file.read_text(encoding="utf-8")), separators=(",", ":"), ensure_ascii=True)
    return Data(name, data)

"""The page of an analysis, `index.html`: everything in one file, made from what lies in the folder."""

from __future__ import annotations

import base64
import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from spectra_exp.foundations.files import write_text
from spectra_exp.interpret.registry import parts
from spectra_exp.interpret.results import PAGE, read_index
from spectra_exp.presentation.html_table import sortable
from spectra_exp.presentation.layout import Block, badge, command, facts, figure, notes, page
from spectra_exp.presentation.markup import Content, Html, element, file_link

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
    style, script = element("style", Html(_asset("page.css"))), element("script", Html(_asset("page.js")))
    path = folder / PAGE
    write_text(path, page(_title(index), [_top(index), style, script], blocks))
    return path


def _block(folder: Path, index: dict[str, Any], name: str) -> Block:
    """A part's place on the page, where its files cannot be read with the reason alone."""
    made = index["parts"][name]
    try:
        if name == EXPLORE:
            return _explore_block(folder, made)
        return _cases_block(folder, index, made) if name == CASES else _part_block(folder, name, made)
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        line = f"Its files are damaged ({reason}); parts={name} makes them again."
        return Block(name, made["title"], None, [element("p", line, class_="aside"), _files(name, made)])


def _title(index: dict[str, Any]) -> str:
    other = index["against"]
    return index["subject"]["name"] + (f" against {other['name']}" if other else "")


def _top(index: dict[str, Any]) -> Content:
    sides = [side for side in (index["subject"], index["against"]) if side]
    return [
        facts([
            (side["label"], [_unfinished(side), " · ".join(filter(None, [
                f"step {side['step']}" if side["step"] is not None else "",
                f"{side['layers']} routed layers", f"{side['experts']} experts, {side['top_k']} per token",
                f"{side['tokens']} held-out tokens", f"{len(side['domains'])} domains" if side["domains"] else "",
            ]))])
        ])
        for side in sides
    ]  # fmt: skip


def _unfinished(side: dict[str, Any]) -> Content:
    """A mark for a run that has not completed: its figures are of the checkpoint that it had by then."""
    return [badge("unfinished", "warn"), " "] if side["unfinished"] else None


def _part_block(folder: Path, name: str, made: dict[str, Any]) -> Block:
    pictures = [file for file in made["files"] if file.endswith(".png")]
    drawn = [
        figure(_picture(folder / name / file, made["captions"].get(file.removesuffix(".png"), file)),
               made["captions"].get(file.removesuffix(".png"), file))
        for file in pictures
    ]  # fmt: skip
    return Block(name, made["title"], None, [
        _empty(made), drawn, notes(made["notes"]), _files(name, made),
    ])  # fmt: skip


def _empty(made: dict[str, Any]) -> Html | None:
    return element("p", f"Nothing to show: {made['empty']}.", class_="aside") if made["empty"] else None


def _files(name: str, made: dict[str, Any]) -> Html | None:
    links = [[" ", element("a", file, href=file_link(name, file))] for file in made["files"]]
    return element("p", "Files:", links, class_="aside") if links else None


def _picture(path: Path, words: str) -> Html:
    code = base64.b64encode(path.read_bytes()).decode("ascii")
    image = element("img", src=f"data:image/png;base64,{code}", alt=words, loading="lazy")
    return element("span", image, class_="paper")


def _explore_block(folder: Path, made: dict[str, Any]) -> Block:
    lead = "Choose a layer and an expert: its tokens are coloured in the running text. Point at one for its weights."
    return Block(EXPLORE, "Explore", lead, [_empty(made), _fed(folder, EXPLORE, made), notes(made["notes"])])


def _cases_block(folder: Path, index: dict[str, Any], made: dict[str, Any]) -> Block:
    lead = "Each token in the colour of its first expert, stronger with its weight. Point at one for all its experts."
    sides = [("run", index["subject"]), ("against", index["against"])]
    named = " ".join(shlex.quote(f"{key}={side['typed']}") for key, side in sides if side)
    line = f'python -m spectra_exp.interpret {named} parts=cases text="..."'
    again = element("p", "Any text: ", command(line), class_="aside")
    return Block(CASES, "Case studies", lead, [
        _empty(made), _fed(folder, CASES, made), _segments(folder / CASES / "segments.csv"), again,
        notes(made["notes"]), _files(CASES, made),
    ])  # fmt: skip


def _segments(path: Path) -> Html | None:
    """The table by segment: a row for each segment and layer, columns for each model."""
    if not path.is_file():
        return None
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    names = list(dict.fromkeys(table["name"]))
    # The two models' tokenizers may cut a text into different segments, so each has rows of its own there.
    keys = ["case", "segment", "layer", "text"]
    rows = []
    for place, group in table.groupby(keys, sort=False):
        case, segment, layer, text = place
        by_name = {row["name"]: row for row in group.to_dict("records")}
        cells = [cell for name in names for cell in _segment_cells(by_name.get(name))]
        head = element("th", text.strip() or "(blank)", scope="row")
        rows.append(element("tr", head, [element("td", cell, class_="n") for cell in (case, segment, layer, *cells)]))
    sides = [f"{what}{f', {name}' if len(names) > 1 else ''}" for name in names for what in ("loss", "experts")]
    headers = ["segment", "text no.", "segment no.", "layer", *sides]
    return element(
        "details", element("summary", "By segment: main experts with their share of the weight"),
        sortable("Segments", headers, rows, headers[1:]), class_="table",
    )  # fmt: skip


def _segment_cells(row: dict[str, str] | None) -> list[str]:
    if row is None:
        return ["", ""]
    pairs = ((row["expert"], row["share"]), (row["second"], row["second_share"]))
    shares = [f"{float(expert):.0f}: {float(share):.2f}" for expert, share in pairs if expert]
    return [f"{float(row['loss']):.2f}" if row["loss"] else "", ", ".join(shares)]


def _fed(folder: Path, name: str, made: dict[str, Any]) -> Content:
    """The place that the script fills, and the data that it fills it from."""
    file = folder / name / f"{name}.json"
    if made["empty"] or not file.is_file():
        return None
    data = json.dumps(json.loads(file.read_text(encoding="utf-8")), separators=(",", ":"), ensure_ascii=True)
    # A text may hold what would end the script.
    safe = Html(data.replace("<", "\\u003c"))
    return [
        element("noscript", element("p", "This part needs scripts; the files below hold the same.")),
        element("div", id=f"{name}-place"),
        element("script", safe, type="application/json", id=f"{name}-data"),
    ]


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

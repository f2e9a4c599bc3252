"""Pictures of pages: what marks say, both themes, cut intervals, the same bytes twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectra_exp.presentation import svg
from spectra_exp.presentation.axes import frame, usual_reach
from spectra_exp.presentation.colours import luminance
from spectra_exp.presentation.panels import (
    CellPanel,
    HeatCell,
    IntervalRow,
    Line,
    LinePanel,
    Mark,
    Spot,
    SpotPanel,
    at,
    row_panel,
)
from spectra_exp.presentation.style import cell_scale, text_colour
from spectra_exp.presentation.svg import cached, draw_svg, own_ids
from spectra_exp.statistics.intervals import Interval

EVIL = '<script>"&\x1b$x$'
ROWS = [
    IntervalRow("a", "#0072B2", Interval(3, 1.0, 0.9, 1.1), "1.0 ± 0.1", "a\nn 3"),
    IntervalRow("b", "#000000", Interval(3, 1.2, 1.1, 1.3), "1.2 ± 0.1", "b\nn 3", solid=False),
    IntervalRow("wide", "#D55E00", Interval(2, 1.1, -9.0, 11.2), "1.1 ± 10", "wide\nn 2"),
    IntervalRow(EVIL, "#D55E00", None, "not measured", "none"),
]
CELLS = CellPanel(
    "x",
    "y",
    ("1", "2"),
    ("r",),
    ((HeatCell(0.5, "0.50", "left\n0.5"), HeatCell(None, "", "right")),),
    (0.0, 2.0),
    even=1.0,
)


def texts(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def titles(picture: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", picture)


def test_rows_print_their_names_and_figures_and_say_the_rest() -> None:
    picture = draw_svg(row_panel(ROWS, "loss"), "Losses of <four>")
    assert 'aria-label="Losses of &lt;four&gt;"' in picture and 'role="group"' in picture
    assert texts(picture)[-4:] == ["1.0 ± 0.1", "1.2 ± 0.1", "1.1 ± 10", "not measured"]
    assert '&lt;script&gt;"&amp;�$x$' in texts(picture)
    assert titles(picture) == ["a\nn 3", "b\nn 3", "wide\nn 2"]
    assert picture.count('tabindex="0" role="img"') == 3


def test_points_of_curves_and_cells_say_their_own_figures_in_their_order() -> None:
    line = Line("a", Mark("#0072B2", marker=""), (1.0, 2.0), (at(5.0), at(4.0)), tips=("first", "second"))
    picture = draw_svg(LinePanel("", "step", "loss", (line,)), "one")
    uses = re.findall(r'<use [^>]*class="mark"[^>]*><title>(\w+)', picture)
    places = [float(x) for x in re.findall(r'<use [^>]*?x="([\d.]+)"[^>]*class="mark"', picture)]
    assert uses == ["first", "second"] and places == sorted(places)
    assert titles(draw_svg(CELLS, "cells")) == ["left\n0.5", "right"]


def test_a_spot_leads_to_its_link_in_the_same_window() -> None:
    spot = Spot("a", Mark("#0072B2"), at(1.0), at(2.0), True, True, "words", "#cell-a")
    picture = draw_svg(SpotPanel("", "x", "y", (spot,)), "one")
    (link,) = re.findall(r"<a [^>]*>", picture)
    assert 'href="#cell-a"' in link and 'aria-label="words"' in link and "target" not in link


def test_colours_of_paper_follow_the_page_and_those_of_methods_and_cells_do_not() -> None:
    rows = draw_svg(row_panel(ROWS, "loss", zero=True), "rows")
    assert "fill: #0072b2" in rows and "var(--ink)" in rows and "var(--paper)" in rows and "var(--rule)" in rows
    assert not re.search("#(000000|ffffff|e4e4e4|666666)", rows)
    cells = draw_svg(CELLS, "cells")
    assert re.search(r"<text[^>]*fill: #000000[^>]*>0.50<", cells)


@pytest.mark.parametrize("even", [None, 1.0])
def test_a_text_on_a_cell_can_be_read(even: float | None) -> None:
    for face in cell_scale(even)(np.linspace(0, 1, 41)):
        dark, light = sorted([luminance(face), luminance([0.0 if text_colour(face) == "black" else 1.0] * 3)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_one_wide_interval_does_not_hide_the_rest_and_is_cut_with_an_arrow() -> None:
    known = [row.value for row in ROWS if row.value]
    low, high = frame(known, reach=usual_reach(known))
    assert low == pytest.approx(0.8, abs=0.05) and high == pytest.approx(1.4, abs=0.05)
    assert frame([at(5.0), at(5.0)]) == (4.75, 5.25)
    wide, narrow = (draw_svg(row_panel(rows, "loss"), "rows") for rows in (ROWS[:3], ROWS[:2]))
    assert wide.count("<use") - narrow.count("<use") == 3  # its own mark and two arrows


def test_nothing_is_fetched_shared_or_left_over() -> None:
    drawn = draw_svg(row_panel(ROWS, "loss"), "one"), draw_svg(CELLS, "#m0123456789")
    pictures = [own_ids(picture, number) for number, picture in enumerate([*drawn, *drawn])]
    for picture in pictures:
        assert not re.search(r"https?://|xmlns|<style|<metadata|font-family|url\((?!#)", picture)
        defined, wanted = (
            set(re.findall(r' id="([^"]*)"', picture)),
            set(re.findall(r'(?:href="|url\()#([\w-]+)', picture)),
        )
        assert defined == wanted
    everywhere = [ident for picture in pictures for ident in re.findall(r' id="([^"]*)"', picture)]
    assert len(set(everywhere)) == len(everywhere) > 8 and 'aria-label="#m0123456789"' in pictures[1]


def test_another_process_draws_the_same_bytes() -> None:
    code = "import test_svg as t; print(t.draw_svg(t.row_panel(t.ROWS, 'l'), 'l') + t.draw_svg(t.CELLS, 'c'), end='')"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert found.stdout.decode() == draw_svg(row_panel(ROWS, "l"), "l") + draw_svg(CELLS, "c")


def test_a_kept_picture_is_of_its_panel_label_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached(tmp_path)(CELLS, "cells")
    monkeypatch.setattr(svg, "draw_svg", lambda panel, label: "drawn again")
    assert cached(tmp_path)(CELLS, "cells") == first
    assert cached(tmp_path)(CELLS, "others") == "drawn again"
    assert cached(tmp_path)(row_panel(ROWS, "x"), "cells") == "drawn again"
    monkeypatch.setattr(svg, "digest_sources", lambda root: "other code")
    assert cached(tmp_path)(CELLS, "cells") == "drawn again"

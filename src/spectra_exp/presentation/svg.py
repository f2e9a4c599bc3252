"""A panel as an SVG picture within an HTML page: text stays text, colours follow the page, marks say what they are."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from spectra_exp.foundations.files import write_text
from spectra_exp.presentation.colours import readable
from spectra_exp.presentation.draw import our_style
from spectra_exp.presentation.draw_panels import CELL, LINE_END, MARK_END, ON_CELL, PAINTERS, REACHABLE, TIP
from spectra_exp.presentation.panels import CellPanel, LinePanel, PagePanel
from spectra_exp.presentation.text import printable
from spectra_exp.runs.identity import digest
from spectra_exp.runs.provenance import digest_sources

Draw = Callable[[PagePanel, str], Markup]
# Pixels on a screen to the point, which make letters of 7 points 11 pixels large.
PIXELS = 11 / 7
# Points: the widest letter of a label, what numbers of a scale and the lines of a label take, a row's height.
LETTER, NUMBERS, LINE, ROW = 4.3, 34.0, 12.0, 13.4
WIDE, NARROW, LOW, HIGH = 240.0, 110.0, 108.0, 165.0
# What the colours of figures on white paper are on a page.
THEME = {"#000000": "var(--ink)", "#e4e4e4": "var(--rule)", "#666666": "var(--soft)", "#ffffff": "var(--paper)"}
COLOUR, DECIMALS = re.compile(r"#[0-9a-f]{6}"), re.compile(r"(\.\d\d)\d+")
FONT = re.compile(r"font-family: [^;]*;? ?")
IDS = re.compile(r'( id="| href="#|url\(#)([mp][0-9a-f]{10})\b')
PLACES, NO_TURN = {"d", "x", "y", "transform", "width", "height", "points"}, "rotate(-0 "
SVG_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "page",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "xtick.bottom": False,
    "ytick.left": False,
}
NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}


def draw_svg(panel: PagePanel, label: str) -> Markup:
    """The picture; `label` says in words what it shows. The same panel gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    content = io.StringIO()
    with our_style(), warnings.catch_warnings():
        # The browser has other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcParams.update(SVG_RC)
        left, bottom, width, height, right, top = _margins(panel)
        across, up = left + width + right, bottom + height + top
        figure = Figure(figsize=(across / 72, up / 72))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
        PAINTERS[type(panel)](axes, panel)
        figure.savefig(content, format="svg", metadata=NOTHING)
    return Markup(_for_page(ElementTree.fromstring(printable(content.getvalue())), label, across * PIXELS))


def cached(folder: Path) -> Draw:
    """`draw_svg` with every picture kept in `folder`, under what it shows and the code that draws it."""
    import matplotlib

    code = [matplotlib.__version__, digest_sources(Path(__file__).parent)]

    def draw(panel: PagePanel, label: str) -> Markup:
        path = folder / f"{digest([repr(panel), label, *code], 24)}.svg"
        if not path.exists():
            write_text(path, draw_svg(panel, label))
        return Markup(path.read_text(encoding="utf-8"))

    return draw


def own_ids(picture: Markup, number: int) -> Markup:
    """The picture as the `number`-th of a page: its ids are no other's, also where one is shown twice."""
    return Markup(IDS.sub(rf"\g<1>\g<2>-{number}", str(picture)))


def _margins(panel: PagePanel) -> tuple[float, float, float, float, float, float]:
    """Points: left and bottom margin, width and height of the axes, right and top margin."""
    if isinstance(panel, CellPanel):
        left = LETTER * max(map(len, panel.y_ticks)) + 6 + LINE * bool(panel.y_label)
        wide, high = panel.size
        bottom = LINE + LINE * bool(panel.x_label)
        return left, bottom, wide * len(panel.x_ticks), high * len(panel.y_ticks), 6.0, 4.0
    if isinstance(panel, LinePanel):
        return NUMBERS + LINE, 2 * LINE + 2, WIDE, LOW, 8.0, 6.0
    if panel.y_ticks:
        left, right = (LETTER * max(len(text) for _, text in side) + 8 for side in (panel.y_ticks, panel.y_texts))
        return left, 2 * LINE + 4, NARROW, ROW * len(panel.y_ticks), right, 4.0
    longest = max((len(text) for _, text in panel.x_ticks), default=0)
    return NUMBERS + LINE, 2 * LINE + 2 + 2 * longest, WIDE, LOW if panel.x_ticks else HIGH, 8.0, 6.0


def _for_page(root: ElementTree.Element, label: str, width: float) -> str:
    """The picture without what a page has already: names of spaces, fonts, unused ids, colours of white paper."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            element.attrib[name.rpartition("}")[2]] = element.attrib.pop(name)
    for parent in root.iter():
        for child in [c for c in parent if c.tag in ("metadata", "style")]:
            parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    _clean(root, used, False)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "group",
        "aria-label": label,
        "class": "chart",
        "style": f"--w:{width:.0f}",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, used: set[str], is_cell: bool) -> None:
    """Make one element and what is in it fit for a page; cells and the texts on them keep their colours."""
    ident = element.attrib.pop("id", "")
    is_cell = is_cell or ident.startswith(CELL) or ident == ON_CELL
    for name in PLACES & element.attrib.keys():
        element.attrib[name] = DECIMALS.sub(r"\1", " ".join(element.attrib[name].split()))
    if element.attrib.get("transform", "").startswith(NO_TURN):
        del element.attrib["transform"]
    if style := FONT.sub("", element.attrib.get("style", "")):
        element.attrib["style"] = (
            style if is_cell else COLOUR.sub(lambda found: THEME.get(found[0]) or readable(found[0]), style)
        )
    if element.tag == "text" and is_cell and "fill:" not in style:
        element.attrib["style"] = f"{style}; fill: #000000"
    element.attrib.pop("target", None)
    element.text = element.text if (element.text or "").strip() else None
    element.tail = None
    for child in element:
        _clean(child, used, is_cell)
    for kind in (REACHABLE, TIP, CELL):
        if ident.startswith(kind):
            tips = ident.removeprefix(kind).replace(LINE_END, "\n").split(MARK_END)
            for mark, tip in zip(_marks(element), tips, strict=True):
                _say(mark, tip, kind == REACHABLE)
            return
    if ident in used:
        element.attrib["id"] = ident


def _marks(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The drawn marks in an element, in their order, each with its link where it has one."""
    for child in element:
        if child.tag in ("a", "use", "path"):
            yield child
        elif child.tag == "g":
            yield from _marks(child)


def _say(mark: ElementTree.Element, tip: str, is_reachable: bool) -> None:
    """Have a mark say its tip under the pointer, and to the keyboard: a link by itself, another mark as a picture."""
    mark.attrib["class"] = "mark"
    if mark.tag == "a" or is_reachable:
        mark.attrib |= {"aria-label": tip} | ({} if mark.tag == "a" else {"tabindex": "0", "role": "img"})
    title = ElementTree.Element("title")
    title.text = tip
    mark.insert(0, title)

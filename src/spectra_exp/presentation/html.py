"""What HTML pages hold, as data, and the pages made of it by templates, which escape every text.

Each kind of content has a macro of its name in `templates/content.html`. A text among contents is printed as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from spectra_exp.measure import METRICS
from spectra_exp.presentation.colours import readable
from spectra_exp.presentation.panels import LinePanel, PagePanel
from spectra_exp.presentation.svg import Draw, draw_svg, own_ids
from spectra_exp.presentation.text import printable

TEMPLATES = Path(__file__).with_name("templates")
# Names longer than this may be broken after an underscore.
LONG_NAME = 14

# A text, one of the classes below, several of either, or nothing.
Content: TypeAlias = "str | object | Sequence[Content] | None"


@dataclass(frozen=True)
class Block:
    """A part of the page; `ident`: one word, its place in the navigation; `lead`: how to read it."""

    ident: str
    title: str
    lead: str | None
    body: Content

    @property
    def name(self) -> str:
        """What the navigation calls it."""
        return self.ident.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Heading:
    """The heading of a part of a block."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `italic` follows the text."""

    content: Content
    kind: str | None = None
    italic: str | None = None


@dataclass(frozen=True)
class Badge:
    """A mark of one or two words; `kind`: good, bad, warn or plain."""

    words: str
    kind: str


@dataclass(frozen=True)
class Link:
    """A link to `href`, made by `file_link` or an anchor; plain bold text without one."""

    text: str
    href: str | None


@dataclass(frozen=True)
class Command:
    """A command with a button that copies it."""

    line: str


@dataclass(frozen=True)
class Commands:
    """A list of commands."""

    lines: Sequence[str]


@dataclass(frozen=True)
class CopyAll:
    """A button that copies all lines."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Chart:
    """A picture; `label` says in words what it shows, `title` is printed bold before the caption, `key`: names with
    colours, those of the lines where none is given."""

    panel: PagePanel
    label: str
    title: str = ""
    caption: str = ""
    key: Sequence[tuple[str, str]] = ()

    @property
    def colours(self) -> Sequence[tuple[str, str]]:
        """Each name of the key with its colour in CSS."""
        lines = self.panel.lines if isinstance(self.panel, LinePanel) else ()
        return [(name, readable(code)) for name, code in self.key or [(line.label, line.mark.colour) for line in lines]]


@dataclass(frozen=True)
class Image:
    """A picture on white paper with what it shows; `source`: its address, such as one of base64."""

    source: str
    caption: str


@dataclass(frozen=True)
class Group:
    """Contents side by side, or in another arrangement that page.css has a class for."""

    kind: str
    content: Content


@dataclass(frozen=True)
class Choice:
    """Panels of which one is shown, chosen by a list; all of them where scripts do not run, and on paper."""

    label: str
    panels: Sequence[tuple[str, Content]]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: an optional round mark of a colour, the text or link, badges, a command, a small line.

    `number`: what the column sorts by, where the text does not say it. `ident`: a place that links lead to.
    """

    text: Content = ""
    kind: str | None = None
    href: str | None = None
    swatch: str | None = None
    badges: Sequence[Badge] = ()
    command: str | None = None
    small: str | None = None
    number: float | None = None
    ident: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table, the first cell its head; a text is a plain cell. `ident`: a place that links lead to."""

    cells: Sequence[Cell | str]
    ident: str | None = None


@dataclass(frozen=True)
class Table:
    """A table with a field to filter its rows and heads to sort them by; `numeric`: heads of numbers."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Row]
    numeric: Iterable[str] = ()
    foot: Row | None = None


@dataclass(frozen=True)
class Fold:
    """Contents that open on a click on the summary."""

    title: str
    content: Content
    aside: str = ""
    ident: str | None = None


@dataclass(frozen=True)
class Notes:
    """Remarks as a list; nothing without any."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with their values; those without a value are left out."""

    pairs: Sequence[tuple[str, Content]]


@dataclass(frozen=True)
class Pre:
    """A long text in letters of one width."""

    text: str
    label: str


@dataclass(frozen=True)
class Data:
    """A place that a script of the page fills, `ident`-place, and the JSON text that it fills it from, `ident`-data."""

    ident: str
    json: str

    @property
    def safe(self) -> Markup:
        """The JSON without what would end the script element."""
        return Markup(self.json.replace("<", "\\u003c"))


def html_page(template: Path, title: str, blocks: Iterable[Block | None], draw: Draw = draw_svg, **values: Any) -> str:
    """The whole page by a template that extends `page.html`; nothing in it is fetched from anywhere.

    `draw` makes the pictures; `values`: what else the template prints.
    """
    environment = _environment(template.parent)

    def show(content: Content) -> Markup:
        if content is None:
            return Markup("")
        if isinstance(content, str):
            return escape(printable(content))
        if isinstance(content, Sequence):
            return Markup("").join(map(show, content))
        return getattr(macros, type(content).__name__.lower())(content)

    numbers = count(1)

    def picture(panel: PagePanel, label: str) -> Markup:
        return own_ids(draw(panel, label), next(numbers))

    macros = environment.get_template("content.html").make_module({"show": show, "picture": picture})
    shown = [block for block in blocks if block is not None]
    return environment.get_template(template.name).render(title=title, blocks=shown, show=show, **values) + "\n"


def file_link(*parts: str) -> str:
    """The relative address of a file, whatever its name holds."""
    return "/".join(quote(part, safe="") if part != ".." else part for part in parts)


def anchor(text: str) -> str:
    """An id made of `text`, without a space."""
    return "-".join(text.split())


@cache
def _environment(folder: Path) -> Environment:
    """Templates of a folder and of this package; an unknown name in them is an error."""
    loader = FileSystemLoader([folder, TEMPLATES])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["breakable"] = _breakable
    environment.globals["asset"] = lambda name: Markup(loader.get_source(environment, name)[0])
    environment.globals["meaning"] = _meaning
    return environment


def _printable(value: Any) -> Any:
    """What a template prints of a value: nothing for None, no control characters in texts."""
    if value is None:
        return ""
    return printable(value) if type(value) is str else value


def _breakable(name: str) -> Markup:
    """A name that may be broken after its underscores, where it is long."""
    text = escape(printable(name))
    return text.replace("_", Markup("_<wbr>")) if len(name) > LONG_NAME else text


def _meaning(header: str) -> str | None:
    """What the metric of that name means and which way is better, None for other names."""
    metric = METRICS.get(header)
    if metric is None:
        return None
    better = "" if metric.direction == "none" else f"; {metric.direction} is better"
    return f"{metric.meaning}{better}"

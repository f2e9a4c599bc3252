"""HTML and SVG whose text is always escaped: only what `element` made is markup, every other text is data."""

from __future__ import annotations

import html

from markupsafe import Markup

HTML_VOID = frozenset({"input", "meta", "br", "wbr", "img"})
VOID = HTML_VOID | {"circle", "rect", "line", "path"}
# Characters that no XML or HTML text may hold: a log can have them.
CONTROL = {code: "�" for code in [*range(9), 11, 12, *range(14, 32), 127]}


class Html(Markup):
    """Markup, as opposed to text."""


Content = "str | float | None | Iterable[Content]"


def element(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Html:
    """The element; content that is not `Html` is escaped.

    Attributes lose a final underscore (`class_`), and other underscores become hyphens; None and False leave the
    attribute out, True gives it without a value.
    """
    given = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    inside = join(content)
    if name in VOID and not inside:
        return Html(f"<{name}{given}>") if name in HTML_VOID else Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{inside}</{name}>")


def join(content: Content) -> Html:
    """All of the content one after another; None is nothing."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(content.translate(CONTROL), quote=False))
    if isinstance(content, (int, float)):
        return Html(str(content))
    return Html("".join(join(part) for part in content))


def _attribute(key: str, value: str | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    name = "viewBox" if name == "viewbox" else name
    return f" {name}" if value is True else f' {name}="{html.escape(str(value).translate(CONTROL), quote=True)}"'

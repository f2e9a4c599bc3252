"""What pages are put together from: blocks, choices, notes, badges, and the page around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spectra_exp.presentation.markup import Content, Html, element, join

ICON = "data:,"  # no icon, so that no browser asks for one


@dataclass(frozen=True)
class Block:
    """A part of the page; `ident`: one word, its place in the navigation; `lead`: how to read it."""

    ident: str
    title: str
    lead: Content
    body: Content


def page(title: str, top: Content, blocks: Sequence[Block]) -> str:
    """The whole page: nothing in it is fetched from anywhere."""
    links = [element("a", block.ident.replace("_", " ").capitalize(), href=f"#{block.ident}") for block in blocks]
    toggle = element("button", "Light or dark", type="button", id="theme", class_="quiet")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f'<link rel="icon" href="{ICON}">'),
        element("style", Html(_asset("page.css"))),
        element("script", Html(_asset("page.js"))),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), top, class_="top"),
        element("nav", element("div", links, class_="links"), toggle, aria_label="Parts of this page"),
        element("main", [_block(block) for block in blocks], id="content"),
        element("div", id="tip", role="status", hidden=True),
    )
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


def figure(content: Content, caption: Content, class_: str = "picture") -> Html:
    """A picture with what it shows, in words that are printed."""
    return element("figure", element("figcaption", caption), content, class_=class_)


def choice(label: str, panels: Sequence[tuple[str, Content]]) -> Html:
    """Panels of which one is shown, chosen by a list; all of them where scripts do not run, and on paper."""
    if len(panels) == 1:
        return element("div", panels[0][1])
    options = [element("option", name) for name, _ in panels]
    kinds = ["panel chosen", *["panel"] * (len(panels) - 1)]
    shown = [
        element("div", element("h4", name, class_="panel-name"), content, class_=kind)
        for (name, content), kind in zip(panels, kinds, strict=True)
    ]
    select = element("label", f"{label} ", element("select", options), class_="chooser")
    return element("div", select, shown, class_="choice")


def notes(lines: Iterable[Content]) -> Html | None:
    """Remarks as a list, None without any."""
    items = [element("li", line) for line in lines]
    return element("ul", items, class_="notes") if items else None


def badge(words: str, kind: str) -> Html:
    """A mark of one or two words; `kind`: good, bad, warn or plain."""
    return element("span", words, class_=f"badge {kind}")


def command(line: str) -> Html:
    """A command with a button that copies it."""
    button = element("button", "Copy", type="button", class_="copy", aria_label=f"Copy: {line}")
    return element("span", element("code", line), button, class_="command")


def facts(pairs: Iterable[tuple[str, Content]]) -> Html:
    """Names with their values; those without a value are left out."""
    known = [(name, value) for name, value in pairs if value not in (None, "")]
    return element("dl", [[element("dt", name), element("dd", value)] for name, value in known])


def _block(block: Block) -> Html:
    lead = element("p", block.lead, class_="lead") if block.lead else None
    return element("section", element("h2", block.title), lead, join(block.body), id=block.ident)


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

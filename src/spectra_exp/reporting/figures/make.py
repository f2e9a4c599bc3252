"""Figures and reports composed, drawn and written, with what they lack."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectra_exp.foundations.files import write_bytes, write_json
from spectra_exp.presentation.draw import draw_page, our_style
from spectra_exp.presentation.panels import Page
from spectra_exp.presentation.style import DPI
from spectra_exp.presentation.text import along, markdown_text
from spectra_exp.reporting.figures.spec import FigureSpec, ReportSpec
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.tables.gaps import seed_gaps
from spectra_exp.reporting.tables.spec import Gap
from spectra_exp.runs.identity import digest

# Letters of a section's title that stand in a file's name.
LONGEST = 100

# Dates and versions would make two equal figures differ.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
NO_RUN = "no finished run"
FRAME = "A frame shows the means; a band that reaches beyond them by more than their range is cut by it."


@dataclass
class Made:
    """The files written, the names of the figures drawn, what is missing, and the old files removed."""

    paths: list[Path] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)


def make_figures(material: Material, specs: Sequence[FigureSpec | ReportSpec]) -> Made:
    """Write each figure as PNG and PDF with its caption, and each report as JSON."""
    folder = material.outputs / "figures"
    figures = [spec for spec in specs if isinstance(spec, FigureSpec)]
    made = draw_specs(figures, material.sections.__getitem__, folder)
    for spec in specs:
        if isinstance(spec, ReportSpec):
            _report(spec, material.sections[spec.study], folder, made)
    return made


def draw_specs(figures: Sequence[FigureSpec], sections_of: Callable[[str], Sequence[Section]], folder: Path) -> Made:
    """Write each figure into `folder` for every section that `sections_of` its study gives."""
    made = Made()
    for spec in along(figures, "figures"):
        for name, section in named_sections(spec.name, sections_of(spec.study)).items():
            _make(spec, name, section, folder, made)
    for spec in figures:
        made.removed += _remove_old(spec.name, folder, made.paths)
    return made


def named_sections(name: str, sections: Iterable[Section]) -> dict[str, Section]:
    """A file's name for each section: the figure's own, and what is special of it after two dashes."""
    found: dict[str, Section] = {}
    sections = list(sections)
    for section in sections:
        title = re.sub(r"[^A-Za-z0-9._=+-]+", "_", section.title)
        if len(title) > LONGEST:
            # File systems take 255 bytes.
            title = f"{title[:LONGEST]}-{digest(section.title)}"
        # The only group of comparable runs needs no name.
        apart = section.special and (section.study is not None or len(sections) > 1)
        found[f"{name}--{title}" if apart else name] = section
    return found


def figure_bytes(page: Page) -> dict[str, bytes]:
    """The page drawn, by the ending of the file: png and pdf; the same bytes for the same page."""
    found = {}
    with our_style():
        figure = draw_page(page)
        for ending, metadata in METADATA.items():
            content = io.BytesIO()
            figure.savefig(content, format=ending, dpi=DPI, metadata=metadata)
            found[ending] = content.getvalue()
    return found


def caption(spec: FigureSpec, name: str, page: Page) -> str:
    """What a reader must know about the figure, as Markdown."""
    absent = [f"Not in every panel: {label} ({what})." for label, what in page.absent.items()]
    text = markdown_text(f"{spec.title}. {' '.join(page.footnotes)} {FRAME}")
    lines = [f"- {markdown_text(line)}" for line in (*page.remarks, *absent)]
    return "\n".join([f"# {name}\n", f"{text}\n", *lines]).strip() + "\n"


def _make(spec: FigureSpec, name: str, section: Section, folder: Path, made: Made) -> None:
    rows = section.find(spec.only)
    made.gaps += [gap for row in rows for gap in seed_gaps(name, section, row)]
    page = spec.compose(section, rows)
    if not page.intervals:
        made.gaps.append(_no_data(spec, name, section, rows))
        return
    made.gaps += [
        Gap(name, section.title, label, what, "not in its runs", again(section)) for label, what in page.absent.items()
    ]
    contents = figure_bytes(page) | {"md": caption(spec, name, page).encode()}
    for ending, content in contents.items():
        path = folder / f"{name}.{ending}"
        write_bytes(path, content)
        made.paths.append(path)
    made.figures.append(name)


def _no_data(spec: FigureSpec, name: str, section: Section, rows: Sequence[Row]) -> Gap:
    """Why a figure is not written, and what would give it data."""
    found = any(row.runs for row in rows)
    why = (f"no usable {spec.needs} in its finished runs", again(section)) if found else (NO_RUN, section.asked())
    return Gap(name, section.title, "whole figure", spec.needs, *why)


def again(section: Section) -> str:
    """The command that runs a section's finished runs once more, empty where no study asked for them."""
    seeds = ["seed=100..102"] if section.choosing else []
    return section.asked(*seeds, *section.typed, "force=true")


def _report(spec: ReportSpec, sections: Sequence[Section], folder: Path, made: Made) -> None:
    content = [
        {"section": section.title} | spec.compose(section, section.find(spec.only))
        for section in sections
        if any(row.runs for row in section.find(spec.only))
    ]
    if not content:
        asked = sections[0].asked()
        made.gaps.append(Gap(spec.name, "", "whole report", "summary.json", NO_RUN, asked))
        return
    path = folder / f"{spec.name}.json"
    write_json(path, {"title": spec.title, "study": spec.study, "sections": content})
    made.paths.append(path)


def _remove_old(name: str, folder: Path, written: Iterable[Path]) -> list[Path]:
    """The files of a figure that today's runs no longer give, removed so that nobody takes them for current."""
    kept = set(written)
    endings = (*METADATA, "md")
    old = [path for e in endings for path in (folder / f"{name}.{e}", *sorted(folder.glob(f"{name}--*.{e}")))]
    removed = [path for path in old if path.exists() and path not in kept]
    for path in removed:
        path.unlink()
    return removed

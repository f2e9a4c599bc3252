"""The folder of the paper's results, made from its archive alone: tables, figures, report, page."""

from __future__ import annotations

import tempfile
from pathlib import Path

from spectra_exp.config.tree import project_root
from spectra_exp.foundations.files import write_bytes, write_text
from spectra_exp.presentation.png import with_palette
from spectra_exp.presentation.svg import draw_svg
from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures.make import make_figures
from spectra_exp.reporting.make_tables import all_tables, write_tables
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.paper.page import page_text
from spectra_exp.reporting.report.index import index_page
from spectra_exp.reporting.tables.gaps import write_gaps

ARCHIVE, PAGE = "runs.parquet", "README.md"
# What is published, by folder: the ends of the files that are kept.
KEPT = {"tables": (".csv", ".md"), "figures": (".png", ".md", ".json", ".csv")}


def results_folder() -> Path:
    """Where a checkout has the paper's results."""
    return project_root() / "docs" / "results" / "paper"


def published(folder: Path) -> dict[str, bytes]:
    """What the archive of the folder gives: the content of every other file, by path below the folder."""
    with tempfile.TemporaryDirectory() as made:
        outputs = Path(made) / "paper"
        material = gather(outputs, runs=[str(folder / ARCHIVE)])
        tables = all_tables(material)
        write_tables(tables, outputs / "tables")
        write_gaps(make_figures(material, all_figures(material.studies.values())).gaps, outputs / "figures")
        report = index_page(material, tables, draw_svg, page_of=lambda run_id: None)
        write_text(outputs / "report.html", report)
        kept = [path for name, ends in KEPT.items() for end in ends for path in (outputs / name).glob(f"*{end}")]
        found = {path.relative_to(outputs).as_posix(): _content(path) for path in [*kept, outputs / "report.html"]}
        found[PAGE] = page_text(outputs, folder / ARCHIVE).encode()
    return dict(sorted(found.items()))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return with_palette(content) if path.suffix == ".png" else content


def publish(folder: Path) -> None:
    """Write what the archive of the folder gives beside it and remove what it no longer gives."""
    contents = published(folder)
    for path in [path for name in KEPT for path in sorted((folder / name).glob("*"))]:
        if path.is_file() and path.relative_to(folder).as_posix() not in contents:
            path.unlink()
    for name, content in contents.items():
        write_bytes(folder / name, content)

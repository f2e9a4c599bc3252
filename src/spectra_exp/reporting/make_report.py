"""`spectra-exp report`: the page over all runs and a page for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.files import write_text
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.presentation.svg import cached
from spectra_exp.reporting.make_tables import all_tables
from spectra_exp.reporting.material import Material, gather, name_the_odd
from spectra_exp.reporting.report.index import index_page
from spectra_exp.reporting.report.run_page import run_page


def write_report(material: Material, study: str | None = None) -> Path:
    """The path of the first page, in `report/` or `report-<study>/`; pages of runs that are gone are removed."""
    # Beside the one of all runs, so that neither takes the other's pages away.
    folder = material.outputs / (f"report-{study}" if study else "report")
    draw = cached(material.outputs / "cache" / "charts")
    runs = _run_names(material)
    for name in _with_progress(runs):
        page = run_page(material.collected.run(name), material.collected, draw)
        write_text(folder / "runs" / f"{name}.html", page)
    for old in sorted((folder / "runs").glob("*.html")):
        if old.stem not in runs:
            old.unlink()
    index = folder / "index.html"
    write_text(index, index_page(material, all_tables(material), draw))
    return index


@dataclass(frozen=True)
class ReportOptions(SourceOptions):
    """What is reported."""

    study: str | None = option(None, "only the runs of this study; its report goes to report-STUDY/")


def make_report(options: ReportOptions) -> int:
    """Write the report, also one that says that there is no run."""
    material = gather(options.folder, options.study, options.runs)
    name_the_odd(material)
    index = write_report(material, options.study)
    print(f"{index}: {len(material.collected.runs)} runs, each with a page of its own")
    return DONE


def _run_names(material: Material) -> list[str]:
    """The folders that get a page: completed runs, and those left out for a reason."""
    collected = material.collected
    left_out = [name for name in collected.skipped if collected.run(name).is_there]
    return sorted({*collected.by_run, *left_out})


def _with_progress(names: list[str]) -> Iterable[str]:
    """The names, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(names, "pages of runs", console=console, disable=not console.is_terminal, transient=True)


main = Verb(
    "report",
    ReportOptions,
    make_report,
    "One page over all runs to read and to share, report/index.html, and a page for each run.",
    ("", "study=b_sinkhorn"),
)

"""`spectra-exp report`: the page over all runs and a page for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.files import write_text
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.presentation.svg import cached
from spectra_exp.presentation.text import along
from spectra_exp.reporting.make_tables import all_tables
from spectra_exp.reporting.material import Material, gather, name_the_odd
from spectra_exp.reporting.report.index import index_page
from spectra_exp.reporting.report.run_page import run_page


def write_report(material: Material, study: str | None = None) -> Path:
    """The path of the first page, in `report/` or `report-<study>/`; pages of runs that are gone are removed."""
    # Beside the one of all runs, so that neither takes the other's pages away.
    folder = material.outputs / (f"report-{study}" if study else "report")
    draw = cached(material.outputs / "cache" / "charts")
    collected = material.collected
    # Completed runs, and those left out for a reason.
    runs = sorted({*collected.by_run, *(name for name in collected.skipped if collected.run(name).is_there)})
    for name in along(runs, "pages of runs"):
        write_text(folder / "runs" / f"{name}.html", run_page(collected.run(name), collected, draw))
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


main = Verb(
    "report",
    ReportOptions,
    make_report,
    "One page over all runs to read and to share, report/index.html, and a page for each run.",
    ("", "study=b_sinkhorn"),
)

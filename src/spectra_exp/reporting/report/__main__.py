"""`make report`: the page over all runs and a page for each.

python -m spectra_exp.reporting.report [--outputs DIR] [--study NAME]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_text
from spectra_exp.presentation.svg import cached
from spectra_exp.reporting.material import Material, default_outputs, gather, name_the_odd
from spectra_exp.reporting.report.files import run_files
from spectra_exp.reporting.report.index import index_page
from spectra_exp.reporting.report.run_page import run_page
from spectra_exp.reporting.tables.__main__ import all_tables


def write_report(material: Material, study: str | None = None) -> Path:
    """The path of the first page, in `report/` or `report-<study>/`; pages of runs that are gone are removed."""
    # Beside the one of all runs, so that neither takes the other's pages away.
    folder = material.outputs / (f"report-{study}" if study else "report")
    draw = cached(material.outputs / "cache" / "charts")
    runs = _run_names(material)
    for name in _with_progress(runs):
        page = run_page(run_files(material.collected.run(name)), material.collected, draw)
        write_text(folder / "runs" / f"{name}.html", page)
    for old in sorted((folder / "runs").glob("*.html")):
        if old.stem not in runs:
            old.unlink()
    index = folder / "index.html"
    write_text(index, index_page(material, all_tables(material), draw))
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the report is written, also the one that says that there is no run; 1 with a line on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m spectra_exp.reporting.report", description="A report of all runs.")
    parser.add_argument("--outputs", type=Path, default=default_outputs(), help="folder of runs/ and report/")
    parser.add_argument("--study", help="only the runs of this study")
    options = parser.parse_args(arguments)
    prepare_environment()
    try:
        material = gather(options.outputs, options.study)
        name_the_odd(material)
        index = write_report(material, options.study)
    except SpectraError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{index}: {len(material.collected.runs)} runs, each with a page of its own")
    return 0


def _run_names(material: Material) -> list[str]:
    """The folders that get a page: completed runs, and those left out for a reason."""
    collected = material.collected
    left_out = [name for name in collected.skipped if (collected.runs_folder / name).is_dir()]
    return sorted({*collected.by_run, *left_out})


def _with_progress(names: list[str]) -> Iterable[str]:
    """The names, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(names, "pages of runs", console=console, disable=not console.is_terminal, transient=True)


if __name__ == "__main__":
    sys.exit(main())

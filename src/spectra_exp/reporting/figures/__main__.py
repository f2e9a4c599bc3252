"""`make figures`: every figure computed from the run folders and written whole.

python -m spectra_exp.reporting.figures [--outputs DIR] [--study NAME] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures.make import Made, make_figures
from spectra_exp.reporting.figures.sources import Sources
from spectra_exp.reporting.figures.spec import FigureSpec, ReportSpec
from spectra_exp.reporting.material import default_outputs, gather, name_the_odd
from spectra_exp.reporting.tables.gaps import write_gaps
from spectra_exp.studies.definition import Study, load_study, study_files


def chosen(
    studies: Iterable[Study], study: str | None, only: Sequence[str]
) -> tuple[list[FigureSpec], list[ReportSpec]]:
    """The figures and reports of a study and of these names; raises SpectraError that lists the known for others."""
    specs = all_figures(studies)
    for option, wanted, known in (
        ("--study", [study] if study else [], {spec.study for spec in specs}),
        ("--only", only, {spec.name for spec in specs}),
    ):
        if unknown := [name for name in wanted if name not in known]:
            raise SpectraError(f"{option}: no figure of '{unknown[0]}'; there are {', '.join(sorted(known))}")

    def wanted_spec(spec: FigureSpec | ReportSpec) -> bool:
        return study in (None, spec.study) and (not only or spec.name in only)

    wanted = [spec for spec in specs if wanted_spec(spec)]
    figures = [spec for spec in wanted if isinstance(spec, FigureSpec)]
    return figures, [spec for spec in wanted if isinstance(spec, ReportSpec)]


def along(figures: Sequence[FigureSpec]) -> Iterable[FigureSpec]:
    """The figures one by one, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(figures, "figures", console=console, transient=True, disable=not console.is_terminal)


def say(made: Made) -> None:
    """Say on standard error what was removed, what is not written and how to fill it."""
    for path in made.removed:
        print(f"removed {path}: no finished run gives it", file=sys.stderr)
    for gap in made.gaps:
        if gap.row.startswith("whole "):
            print(f"{gap.table} not written: {gap.reason}; fill it with: {gap.command}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when something is written, 1 with one line on stderr when there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m spectra_exp.reporting.figures", description="Figures of all runs.")
    parser.add_argument("--outputs", type=Path, default=default_outputs(), help="folder of runs/ and figures/")
    parser.add_argument("--study", help="only the figures of this study")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these figures")
    options = parser.parse_args(arguments)
    prepare_environment()
    try:
        figures, reports = chosen(map(load_study, study_files()), options.study, options.only)
        material = gather(options.outputs)
        name_the_odd(material)
        if material.collected.runs.empty:
            raise SpectraError(f"{options.outputs / 'runs'}: no completed run to draw; train one: python train.py")
        sources = Sources(material.collected.runs_folder, material.collected.stored)
        made = make_figures(material, figures, reports, sources, along)
        if not options.study and not options.only:
            write_gaps(made.gaps, options.outputs / "figures")
    except SpectraError as error:
        print(error, file=sys.stderr)
        return 1
    say(made)
    missing = sum(gap.row.startswith("whole ") for gap in made.gaps)
    where = options.outputs / "figures"
    print(
        f"{len(made.figures)} figures in {where} as .png and .pdf, captions as .md; {missing} without data; "
        "missing.csv says what each lacks, once all are made"
    )
    return 0 if made.paths else 1


if __name__ == "__main__":
    sys.exit(main())

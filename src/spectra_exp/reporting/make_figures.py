"""`spectra-exp figures`: every figure computed from the run folders and written whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.tree import train_words
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures.make import Made, draw_specs, make_figures
from spectra_exp.reporting.figures.own import OWN, some_groups
from spectra_exp.reporting.figures.spec import FigureSpec, ReportSpec
from spectra_exp.reporting.material import Material, gather, name_the_odd
from spectra_exp.reporting.tables.gaps import write_gaps


def chosen(material: Material, study: str | None, only: Sequence[str]) -> list[FigureSpec | ReportSpec]:
    """The declared figures and reports of a study and of these names; ConfigError lists the known for others."""
    specs = all_figures(material.studies.values())
    for key, wanted, known in (
        ("study", [study] if study else [], {*material.studies, *material.collected.studies}),
        ("only", only, {spec.name for spec in (*specs, *OWN)}),
    ):
        ConfigError.refuse_unknown(key, wanted, known)
    return [spec for spec in specs if study in (None, spec.study) and (not only or spec.name in only)]


def say(made: Made) -> None:
    """Say on standard error what was removed, and in a line for each command that fills it what is not written."""
    for path in made.removed:
        print(f"removed {path}: no finished run gives it", file=sys.stderr)
    names: dict[tuple[str, str], list[str]] = {}
    for gap in made.gaps:
        if gap.row.startswith("whole ") and gap.command:
            names.setdefault((gap.reason, gap.command), []).append(gap.table)
    for (reason, command), lacking in names.items():
        print(f"{', '.join(lacking)} not written: {reason}; fill it with: {command}", file=sys.stderr)


@dataclass(frozen=True)
class FiguresOptions(SourceOptions):
    """What is drawn."""

    study: str | None = option(None, "only the figures of this study")
    only: tuple[str, ...] = option((), "only these figures, separated by commas")


def draw_figures(options: FiguresOptions) -> int:
    """Write the figures; 1 when no run gives any. Raises SpectraError when there is nothing to draw."""
    material = gather(options.folder, runs=options.runs)
    specs = chosen(material, options.study, options.only)
    name_the_odd(material)
    if material.collected.runs.empty:
        raise SpectraError(f"{material.sources.where}: no completed run to draw; train one: {' '.join(train_words())}")
    own = draw_own(material, options.study, options.only)
    made = make_figures(material, specs)
    where = options.folder / "figures"
    is_whole = not options.study and not options.only
    if is_whole:
        write_gaps([*own.gaps, *made.gaps], where)
    say(made)
    missing = sum(gap.row.startswith("whole ") for gap in made.gaps)
    folders = " and ".join(sorted({str(path.parent) for path in (*own.paths, *made.paths)})) or where
    print(
        f"{len(own.figures) + len(made.figures)} figures in {folders} as .png and .pdf, captions as .md; "
        f"{missing} without data{'; missing.csv says what each lacks' if is_whole else ''}"
    )
    if path := next((path for path in own.paths if path.suffix == ".png"), None):
        print(f"a picture of these runs: {path}")
    return DONE if own.paths or made.paths else FAILED


def draw_own(material: Material, study: str | None, only: Sequence[str]) -> Made:
    """The pictures of all runs, or of those of one study in a folder of its own, as its tables have."""
    folder = material.outputs / "figures"
    if study is not None:
        if study not in material.collected.studies:
            return Made()
        material, folder = material.of_study(study), folder / study
    groups, left_out = some_groups(material.own)
    for line in left_out:
        print(line, file=sys.stderr)
    return draw_specs([spec for spec in OWN if not only or spec.name in only], lambda _: groups, folder)


main = Verb(
    "figures",
    FiguresOptions,
    draw_figures,
    "Every figure, drawn from the finished runs as .png and .pdf.",
    ("", "study=temperature", "only=training_curves,expert_usage"),
)

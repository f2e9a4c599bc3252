"""`spectra-exp tables`: every table computed from the run folders and written whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.tree import train_words
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.reporting.declared import all_contrasts, study_effects, study_tables
from spectra_exp.reporting.documents_table import NAME as BY_DOCUMENT
from spectra_exp.reporting.documents_table import documents_table
from spectra_exp.reporting.hypotheses import all_verdicts, hypotheses_table
from spectra_exp.reporting.hypotheses.table import NAME as HYPOTHESES
from spectra_exp.reporting.material import Material, gather, name_the_odd
from spectra_exp.reporting.published import NAME as REPLICATIONS
from spectra_exp.reporting.published import build_replications
from spectra_exp.reporting.sentence import sentence_of
from spectra_exp.reporting.tables.build import build_table
from spectra_exp.reporting.tables.catalogue import routing_metrics
from spectra_exp.reporting.tables.gaps import merged_gaps, write_gaps
from spectra_exp.reporting.tables.overhead import NAME as OVERHEAD
from spectra_exp.reporting.tables.overhead import overhead_table
from spectra_exp.reporting.tables.pairs import PairSpec, build_pairs
from spectra_exp.reporting.tables.significance import NAME as SIGNIFICANCE
from spectra_exp.reporting.tables.significance import Contrast, build_significance
from spectra_exp.reporting.tables.spec import Table, TableSpec
from spectra_exp.reporting.tables.write import print_parts, write_table


def all_tables(material: Material) -> list[Table]:
    """Every table: of all runs, of each study, of the project's claims."""
    return _built(_makers(material))


def _makers(material: Material, study: str | None = None) -> dict[str, Callable[[], Table | None]]:
    """What builds each table, by its name; of `study` alone where one is named. None: there is nothing to tabulate."""

    def contrasts() -> list[Contrast]:
        return all_contrasts(material.studies.values())

    found: dict[str, Callable[[], Table | None]] = {
        routing_metrics().name: lambda: build_table(routing_metrics(), material.sections[""])
    }
    for name in [study] if study else material.studies:
        found |= {spec.name: partial(_of_study, spec, material, name) for spec in _specs(material, name)}
    if study:
        return found
    return found | {
        OVERHEAD: lambda: overhead_table(material.sources.profile),
        SIGNIFICANCE: lambda: build_significance(contrasts(), material.sections),
        BY_DOCUMENT: lambda: documents_table(contrasts(), material.sections),
        HYPOTHESES: lambda: hypotheses_table(all_verdicts(material)),
        REPLICATIONS: lambda: replications_table(material),
    }


def _built(makers: Mapping[str, Callable[[], Table | None]]) -> list[Table]:
    return [table for make in makers.values() if (table := make()) is not None]


def replications_table(material: Material) -> Table:
    """The published effects that the studies' files declare."""
    effects = {name: own for name, study in material.studies.items() if (own := study_effects(study))}
    return build_replications(effects, {name: material.studies[name].title for name in effects}, material.sections)


def tables_of(material: Material, study: str) -> list[Table]:
    """The tables that a study's file declares; none of a name that is no study's."""
    return [_of_study(spec, material, study) for spec in _specs(material, study)]


def _specs(material: Material, study: str) -> list[TableSpec | PairSpec]:
    return study_tables(material.studies[study]) if study in material.studies else []


def _of_study(spec: TableSpec | PairSpec, material: Material, study: str) -> Table:
    sections = material.sections[study]
    return build_pairs(spec, sections) if isinstance(spec, PairSpec) else build_table(spec, sections)


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write tables and their `missing.csv` into a folder."""
    for table in tables:
        write_table(table, folder)
    write_gaps([gap for table in tables for gap in table.gaps], folder)


@dataclass(frozen=True)
class TablesOptions(SourceOptions):
    """What is tabulated."""

    study: str | None = option(None, "only the runs of this study; its tables go to tables/STUDY/")
    show: str = option("routing_metrics", "the table to print besides writing all")


def make_tables(options: TablesOptions) -> int:
    """Write the tables and print one. Raises SpectraError when there is nothing to write."""
    material = gather(options.folder, options.study, options.runs)
    makers = _makers(material, options.study)
    if options.show not in makers:
        raise ConfigError.unknown("show", options.show, makers)
    name_the_odd(material)
    if material.collected.runs.empty:
        train = " ".join(train_words())
        raise SpectraError(f"{material.sources.where}: no completed run to tabulate; train one: {train}")
    made = _built(makers)
    tables = {table.name: table for table in made}
    if options.show not in tables:
        raise SpectraError(f"show={options.show}: nothing to tabulate")
    where = material.outputs / "tables" / (options.study or "")
    write_tables(made, where)
    print_parts(tables[options.show])
    gaps = len(merged_gaps(gap for table in made for gap in table.gaps))
    if said := sentence_of(material.own):
        print(said)
    print(f"{len(tables)} tables in {where} as .csv, _long.csv, .md and .tex; missing.csv lists {gaps} gaps")
    return DONE


main = Verb(
    "tables",
    TablesOptions,
    make_tables,
    "Every table, computed from the finished runs and written whole as .csv, .md and .tex.",
    ("", "study=b_sinkhorn", "show=table07_ablation", "runs=docs/results/paper/runs.parquet"),
)

"""`spectra-exp tables`: every table computed from the run folders and written whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from spectra_exp.reporting.tables.significance import build_significance
from spectra_exp.reporting.tables.spec import Table
from spectra_exp.reporting.tables.write import print_parts, write_table

# Of all runs, whatever their studies.
OF_ALL_RUNS = (OVERHEAD, SIGNIFICANCE, BY_DOCUMENT, HYPOTHESES, REPLICATIONS)


def all_tables(material: Material) -> list[Table]:
    """Every table: of all runs, of each study, of the project's claims."""
    sections, contrasts = material.sections, all_contrasts(material.studies.values())
    by_document = documents_table(contrasts, sections)
    return [
        build_table(routing_metrics(), sections[""]),
        *(table for name in material.studies for table in tables_of(material, name)),
        overhead_table(material.sources.profile),
        build_significance(contrasts, sections),
        *([by_document] if by_document is not None else []),
        hypotheses_table(all_verdicts(material)),
        replications_table(material),
    ]


def replications_table(material: Material) -> Table:
    """The published effects that the studies' files declare."""
    effects = {name: own for name, study in material.studies.items() if (own := study_effects(study))}
    return build_replications(effects, {name: material.studies[name].title for name in effects}, material.sections)


def tables_of(material: Material, study: str) -> list[Table]:
    """The tables that a study's file declares; none of a name that is no study's."""
    if study not in material.studies:
        return []
    sections = material.sections[study]
    return [
        build_pairs(spec, sections) if isinstance(spec, PairSpec) else build_table(spec, sections)
        for spec in study_tables(material.studies[study])
    ]


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
    _check_shown(options, material)
    name_the_odd(material)
    if material.collected.runs.empty:
        train = " ".join(train_words())
        raise SpectraError(f"{material.sources.where}: no completed run to tabulate; train one: {train}")
    if options.study:
        made = [build_table(routing_metrics(), material.sections[""]), *tables_of(material, options.study)]
    else:
        made = all_tables(material)
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


def _check_shown(options: TablesOptions, material: Material) -> None:
    """Raise ConfigError for a table to print that is none of those to come, before they are built."""
    studies = [options.study] if options.study else list(material.studies)
    declared = [
        spec.name for name in studies if name in material.studies for spec in study_tables(material.studies[name])
    ]
    names = [routing_metrics().name, *declared, *(() if options.study else OF_ALL_RUNS)]
    if options.show not in names:
        raise ConfigError.unknown("show", options.show, names)


main = Verb(
    "tables",
    TablesOptions,
    make_tables,
    "Every table, computed from the finished runs and written whole as .csv, .md and .tex.",
    ("", "study=b_sinkhorn", "show=table07_ablation", "runs=docs/results/paper/runs.parquet"),
)

"""What tables, figures and the report are made from: collected runs, and the sections of every study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from spectra_exp.archive.sources import RunSources, read_sources
from spectra_exp.config.resolved import Compositions, Resolved
from spectra_exp.config.tree import KINDS, project_root
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.reporting.collect import Collected, collect
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.sections import cell_sections, configurations_of, study_sections
from spectra_exp.runs.provenance import stored_compositions
from spectra_exp.studies.cells import StudyCells
from spectra_exp.studies.definition import Study, load_study, study_files


class Sections(dict[str, list[Section]]):
    """Sections by study. ConfigError for a study that the checkout has no file of."""

    def __missing__(self, study: str) -> list[Section]:
        raise ConfigError("SPECTRA_ROOT", f"{project_root()} has no study '{study}'", "unset it, or name the checkout")


@dataclass(frozen=True)
class Material:
    """`outputs`: the folder of runs/, studies/, tables/; `collected`: its completed runs, or those `read`; `kinds`: the
    folders whose studies count."""

    outputs: Path
    collected: Collected
    read: RunSources | None = None
    kinds: Sequence[str] = KINDS

    @cached_property
    def sources(self) -> RunSources:
        """What lies beside the runs."""
        return self.read or read_sources(self.outputs)

    @cached_property
    def studies(self) -> dict[str, Study]:
        """Every study of these kinds that has a file, by name. Raises ConfigError for a checkout without any."""
        found = {name: load_study(name) for name, path in study_files().items() if path.parent.name in self.kinds}
        if not found:
            raise ConfigError("SPECTRA_ROOT", f"{project_root()} has no studies", "unset it, or name the checkout")
        return found

    @cached_property
    def configurations(self) -> dict[str, Resolved]:
        """What the completed runs of each cell id are configured as."""
        return configurations_of(self.collected)

    @cached_property
    def compositions(self) -> Compositions:
        """Configurations that were composed before."""
        return stored_compositions(self.outputs)

    @cached_property
    def own(self) -> list[Section]:
        """Every cell of completed runs, a section for each group of comparable runs."""
        return cell_sections(self.collected, self.configurations, self.compositions, self.sources.launches)

    def sections_of(self, study: Study) -> tuple[list[Section], list[str]]:
        """The sections of one study, and lines of overrides that cannot be composed."""
        cells = StudyCells(study, self.compositions)
        found = study_sections(cells, self.sources.launches, self.collected, self.configurations)
        return found, [f"{study.name}: {line}: cannot be composed" for line in cells.broken]

    @cached_property
    def sections(self) -> Sections:
        """The sections of each study; under the empty name those of `own`."""
        self.collected.skipped_launches[:] = self.sources.skipped.values()
        found = {name: self.sections_of(study) for name, study in self.studies.items()}
        broken = [line for _, lines in found.values() for line in lines]
        self.collected.skipped_launches.extend(dict.fromkeys(broken))
        every_cell = self.own
        self.compositions.save()
        return Sections({name: sections for name, (sections, _) in found.items()} | {"": every_cell})

    def of_study(self, study: str) -> Material:
        """The same with the runs that stand in one study's rows, or name it; raises SpectraError when it has none."""
        sections = self.sections_of(self.studies[study])[0] if study in self.studies else []
        shared = {run_id for section in sections for row in section.rows for run_id in row.runs.values()}
        return replace(self, collected=self.collected.of_study(study, shared))


def gather(outputs: Path, study: str | None = None, runs: Sequence[str] = (), kinds: Sequence[str] = KINDS) -> Material:
    """What lies under `outputs`, or in the archives and folders `runs`, of one study if named.

    Raises SpectraError for a study without a completed run, and for an archive that cannot be used.
    """
    sources = read_sources(outputs, runs)
    found = Material(outputs, collect(outputs / "runs", sources.stored), sources, kinds)
    return found if study is None else found.of_study(study)


def name_the_odd(material: Material) -> None:
    """Say on standard error which runs and launches were left out, or are odd, and why."""
    _ = material.sections
    for name, reason in material.collected.skipped.items():
        print(f"left out {material.collected.run(name).path}: {reason}", file=sys.stderr)
    for path, reason in material.collected.damaged.items():
        print(f"left out {path}: {reason}", file=sys.stderr)
    for run_id, reason in material.collected.odd.items():
        print(f"{run_id}: {reason}", file=sys.stderr)
    for line in material.collected.skipped_launches:
        print(f"left out {line}", file=sys.stderr)

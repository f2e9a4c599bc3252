"""The page of the paper's results: its text is written by hand in paper/page.md, its numbers come from the files."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from spectra_exp.archive.file import Archive, read_archive
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.presentation.text import bounds_text, count_text, interval_text, number_text, signed_text
from spectra_exp.reporting.by_document import DOWNSTREAM
from spectra_exp.reporting.hypotheses import HYPOTHESES
from spectra_exp.reporting.paper.blocks import paper_folder
from spectra_exp.reporting.paper.interpreted import Interpreted, read_interpreted
from spectra_exp.reporting.paper.outcomes import Outcomes
from spectra_exp.reporting.paper.published_tables import NOTHING, REAL, PublishedTables, real_first, section_words
from spectra_exp.reporting.paper.run_facts import RunFacts
from spectra_exp.statistics.intervals import Interval, mean_interval
from spectra_exp.studies.definition import load_study

# Of the load CV of SPECTRA under its rule of inference (docs/metrics.md).
TARGETS = {"paper": 0.1, "ours": 0.03}


def page_text(made: Path, archive: Path) -> str:
    """The page, from the tables and figures in the folder `made` and the archive that they were made from.

    Raises SpectraError where the text asks for what no file can have.
    """
    template = paper_folder() / "page.md"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        page = environment.from_string(template.read_text(encoding="utf-8"))
        tables, runs = PublishedTables(made), read_archive(archive)
        return page.render(paper=Page(made, tables, runs), tests=Outcomes(tables), runs=RunFacts(runs))
    except (OSError, jinja2.TemplateError, KeyError) as error:
        raise SpectraError(f"{template}: {type(error).__name__}: {error}") from error


class Page:
    """Pictures, tables, cells and verdicts that the text can ask for. `made`: the folder of tables/ and figures/."""

    def __init__(self, made: Path, tables: PublishedTables, archive: Archive):
        self._made, self._tables, self._archive = made, tables, archive

    def figure(self, name: str, words: str) -> str:
        """The picture of that name with its caption's file, or that there is none yet."""
        folder = self._made / "figures"
        # Those of other text than a study's own first.
        paths = (*sorted(folder.glob(f"{name}--*.png")), folder / f"{name}.png")
        stems = [path.stem for path in paths if path.is_file()]
        pictures = [f"![{words}](figures/{stem}.png)\n\n[{words}](figures/{stem}.md)" for stem in stems]
        return "\n\n".join(pictures) or f"*{words}: {NOTHING}.*"

    def table(self, name: str, panels: int = 2) -> str:
        """The first panels of each section of the table of that name, with a link to all of it; or that no run of it is
        there yet."""
        if not self._tables.long(name):
            return f"*`{name}`: {NOTHING}*"
        text = self._tables.markdown(name)
        sections = sorted(text.split("\n## ")[1:], key=lambda section: real_first(section.partition("\n")[0]))
        parts = [self._panels(section, panels) for section in sections]
        return "\n\n".join([*parts, f"All panels, what chance gives and notes: [{name}](tables/{name}.md)"])

    @staticmethod
    def _panels(section: str, panels: int) -> str:
        """The first panels of a section as the table prints them, under the words for its runs."""
        title, _, body = section.partition("\n")
        found = [panel.strip() for panel in re.split(r"(?m)^(?=\*\*)", body.partition("\n- ")[0])]
        return "\n\n".join([f"*Runs:* {section_words(title)}", *[panel for panel in found if panel][:panels]])

    def cell(self, table: str, metric: str, row: str, section: str = REAL, rule: str = "inference") -> str:
        """Mean and interval of a metric in a row of a table, in the section with these words; or that there is none."""
        for found in self._tables.long(table):
            here = section_words(found["section"]) == section and found["row"] == row
            if here and found["metric"] == metric and found["rule"] == rule and found["mean"]:
                mean = float(found["mean"])
                low, high = (float(found[key]) if found[key] else None for key in ("low", "high"))
                return f"{interval_text(Interval(int(found['n']), mean, low, high))} (n = {found['n']})"
        return NOTHING

    def question(self, study: str) -> str:
        """What a study's file asks."""
        return load_study(study).question

    def expected(self, study: str) -> str:
        """What a study's file expects of its runs."""
        return load_study(study).hypothesis

    def verdict(self, hypothesis: str) -> str:
        """The verdicts on a hypothesis, a line each: where, what it is, and by which figures."""
        lines = []
        for row in self._tables.rows("hypotheses"):
            if row["name"] == hypothesis:
                lines.append(f"- {self._verdict(row)}: {'; '.join(filter(None, [row['figures'], row['reason']]))}")
        return "\n".join(lines) or f"- {NOTHING}"

    @cached_property
    def verdicts(self) -> str:
        """A table of all hypotheses and the verdicts on each, with where they hold."""
        lines = ["| | claim | verdict |", "|---|---|---|"]
        for name in self.hypotheses:
            rows = [row for row in self._tables.by_section("hypotheses") if row["name"] == name]
            lines.append(f"| {name} | {self.claim(name)} | {', '.join(map(self._verdict, rows)) or NOTHING} |")
        return "\n".join(lines)

    @property
    def hypotheses(self) -> list[str]:
        """Their names, in order."""
        return [hypothesis.name for hypothesis in HYPOTHESES]

    def claim(self, hypothesis: str) -> str:
        """What a hypothesis says."""
        return next(
            (row["claim"] for row in self._tables.by_section("hypotheses") if row["name"] == hypothesis), NOTHING
        )

    @cached_property
    def interpreted(self) -> list[Interpreted]:
        """The declared models that are looked into."""
        return read_interpreted()

    def inside(self, model: Interpreted) -> str:
        """The pictures of a model that was looked into, with a link to its page, or that it was not yet."""
        folder = self._archive.path.parent
        files = [path.relative_to(folder).as_posix() for path in model.files(folder)]
        if not files:
            return f"*{model.title}: {NOTHING}.*"
        pictures = (f"![{model.title}, {Path(file).stem}]({file})" for file in files)
        return "\n\n".join([f"[{model.title}]({Path(files[0]).parent.as_posix()}/index.html)", *pictures])

    def balance(self) -> str:
        """The load CV of SPECTRA in each section of the methods, beside the targets."""
        lines = []
        for row in self._tables.long("baselines"):
            is_load = (row["metric"], row["rule"]) == ("load_cv", "inference")
            if is_load and row["row"].startswith("SPECTRA") and row["n"]:
                mean = float(row["mean"])
                met = [f"below the target of {name}" for name, target in TARGETS.items() if mean < target]
                cell = self.cell("baselines", "load_cv", row["row"], section_words(row["section"]))
                words = " and ".join(met) or "above both"
                lines.append(f"- {row['row']} ({section_words(row['section'])}): load CV {cell}, {words}")
        return "\n".join(lines) or f"- {NOTHING}"

    @cached_property
    def downstream(self) -> str:
        """Accuracy on each task by configuration beside chance, and what comparisons on the same items say."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for summary in (run.required_summary for run in self._archive.runs().values()):
            for task in summary.get("downstream") or ():
                found.setdefault((summary["cell_id"], task), []).append(summary)
        if not found:
            return f"*{NOTHING}*"
        lines = []
        for (_, task), summaries in found.items():
            first, entries = summaries[0], [summary["downstream"][task] for summary in summaries]
            accuracy = interval_text(mean_interval(entry["score"] for entry in entries))
            cells = [first["label"], count_text(first["parameters"]["total"]), task, len(entries)]
            cells += [entries[0]["items"], accuracy, entries[0]["chance"]]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        head = "| model | parameters | task | seeds | items | accuracy | by chance |\n|---|--:|---|--:|--:|--:|--:|"
        compared = [
            f"- {row['comparison']}, {row['domain']}: {signed_text(float(row['difference']))} "
            f"{bounds_text(float(row['ci_low']), float(row['ci_high']))}, {row['verdict']}"
            for row in self._tables.rows("documents")
            if row["metric"].startswith(DOWNSTREAM) and row["ci_low"]
        ]
        return "\n".join([head, *sorted(lines), "", *compared])

    @cached_property
    def targets(self) -> dict[str, str]:
        """The targets of the load CV."""
        return {name: number_text(target, 2) for name, target in TARGETS.items()}

    @staticmethod
    def _verdict(row: dict[str, str]) -> str:
        where = ", ".join(filter(None, [row["rule"], section_words(row["section"])]))
        return f"**{row['verdict']}**{f' ({where})' if where else ''}"

"""The page of the paper's results: its text is written by hand in paper/page.md, its numbers come from the files."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from spectra_exp.archive.file import Archive, read_archive
from spectra_exp.config.resolved import Resolved, resolved_config
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.presentation.text import bounds_text, count_text, interval_text, number_text, signed_text
from spectra_exp.reporting.by_document import DOWNSTREAM
from spectra_exp.reporting.grid import AS_IN_ITS_FILE
from spectra_exp.reporting.hypotheses import HYPOTHESES
from spectra_exp.reporting.paper.blocks import Block, paper_folder, read_blocks
from spectra_exp.reporting.paper.interpreted import Interpreted, read_interpreted
from spectra_exp.reporting.paper.progress import LaunchProgress, known_runs, progress
from spectra_exp.statistics.intervals import Interval, mean_interval
from spectra_exp.statistics.practical import Word
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.view import duration

NOTHING = "not run yet"
# What tells runs on the real text from others in a section's title.
REAL_TEXT = re.compile(r"data\.train=\S+ data\.validation=\S+ data=files")
REAL, GENERATED = "real text", "generated text"
# Words of a launch that are the same for all on its text, or change no result.
SAME = ("data.train=", "data.validation=", "data.domain_field=", "trainer.cpu_threads=")
# Of the load CV of SPECTRA under its rule of inference (docs/metrics.md).
TARGETS = {"paper": 0.1, "ours": 0.03}
# What a test can decide, as it is listed.
DECISIONS: tuple[Word, ...] = ("better", "worse", "lower", "higher", "equivalent", "undecided")


def section_words(section: str) -> str:
    """The title of a section of comparable runs, where a text has its name in place of its files."""
    return REAL_TEXT.sub(REAL, section).replace(AS_IN_ITS_FILE, GENERATED)


def real_first(section: str) -> bool:
    """The place of a section in what is sorted by it: those on the real text come before the others."""
    return REAL not in section_words(section)


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
        return page.render(paper=Page(made, read_archive(archive)))
    except (OSError, jinja2.TemplateError, KeyError) as error:
        raise SpectraError(f"{template}: {type(error).__name__}: {error}") from error


class Page:
    """What the text can ask for. `made`: the folder of tables/ and figures/."""

    def __init__(self, made: Path, archive: Archive):
        self._made, self._archive = made, archive
        # Large tables are asked for many times.
        self._rows = cache(self._read)

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
        if not self._long(name):
            return f"*`{name}`: {NOTHING}*"
        text = (self._made / "tables" / f"{name}.md").read_text(encoding="utf-8")
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
        for found in self._long(table):
            here = section_words(found["section"]) == section and found["row"] == row
            if here and found["metric"] == metric and found["rule"] == rule and found["mean"]:
                mean = float(found["mean"])
                low, high = (float(found[key]) if found[key] else None for key in ("low", "high"))
                return f"{interval_text(Interval(int(found['n']), mean, low, high))} (n = {found['n']})"
        return NOTHING

    def differences(self, family: str, metric: str) -> str:
        """What table 13 says of a metric in the comparisons of one family: a line a verdict (and section, of several),
        and in it the difference from each row that was compared with, or of each row where several were."""
        tests = [(row, row["comparison"].partition(" − ")) for row in self._tests(family, metric)]
        several = len({method for _, (method, _, _) in tests}) > 1
        named = [(row, method if several else against) for row, (method, _, against) in tests]
        return "\n".join(f"- {line}" for line in self._by_verdict(named)) or f"- {NOTHING}"

    def beside_reference(self, study: str, table: str) -> str:
        """What the tests of a study's table decide under the inference rule: a line a metric, and in it by verdict (and
        section, of several) each row, by what tells it from the rows of reference, and its difference from its own."""
        found: dict[str, list[tuple[dict[str, str], str]]] = {}
        rows = [row for row in self._long(table) if row["rule"] == "inference"]
        tested = {row["metric"] for row in rows if row["difference"]}
        rows = [row for row in rows if row["metric"] in tested]
        # Without a difference and a note why there is none.
        references = [set(row["row"].split(", ")) for row in rows if not row["difference"] + row["test"]]
        shared = set.intersection(*references) if references else set()
        for row in rows:
            if row["difference"]:
                name = ", ".join(part for part in row["row"].split(", ") if part not in shared)
                found.setdefault(row["metric"], []).append((row, name))
        if not found:
            return "Not run yet."
        beside = ", ".join(f"`{key}={value_text(value)}`" for key, value in load_study(study).reference.items())
        lines = [f"- `{metric}`: {'; '.join(self._by_verdict(own))}" for metric, own in found.items()]
        return "\n".join([f"Beside {beside}, corrected over the table:", "", *lines])

    def apart(self, key: str, metric: str) -> str:
        """How far runs of one seed that differ in one option alone end apart in a metric, whichever is ahead."""
        found: dict[tuple[str, int], dict[Any, float]] = {}
        for run in self._archive.runs().values():
            summary = run.required_summary
            values = dict(resolved_config(run.config).values) if run.config else {}
            if key in values and metric in summary["metrics"]:
                own = values.pop(key)
                others = found.setdefault((Resolved(values, {}).signature, summary["seed"]), {})
                others[own] = summary["metrics"][metric]
        gaps = [max(values.values()) - min(values.values()) for values in found.values() if len(values) > 1]
        if not gaps:
            return NOTHING
        return f"{number_text(fmean(gaps))} in the mean and {number_text(max(gaps))} at most ({len(gaps)} pairs)"

    def question(self, study: str) -> str:
        """What a study's file asks."""
        return load_study(study).question

    def expected(self, study: str) -> str:
        """What a study's file expects of its runs."""
        return load_study(study).hypothesis

    def _by_verdict(self, rows: Sequence[tuple[dict[str, str], str]]) -> list[str]:
        """For each verdict (and section, of several) the names of the rows with it, and their differences."""
        order: dict[str, int] = {verdict: place for place, verdict in enumerate(DECISIONS)}
        found: dict[tuple[str, str], list[str]] = {}
        for row, name in rows:
            if row["difference"]:
                # Stars and the sign of an equivalence stand beside; why there is no test is said whole.
                verdict = self._decision(row) or row["verdict"]
                difference = f"{float(row['difference']):+.3f}".replace("-", "−")
                found.setdefault((row["section"], verdict), []).append(f"{name} ({difference})")
        several = len({section for section, _ in found}) > 1
        return [
            f"{f'{section_words(section)}, ' if several else ''}**{verdict}**: {', '.join(found[section, verdict])}"
            for section, verdict in sorted(
                found, key=lambda key: (real_first(key[0]), key[0], order.get(key[1], len(order)))
            )
        ]

    def counts(self, family: str, metric: str) -> str:
        """How many comparisons of one family table 13 decides which way, in words."""
        found = Counter(filter(None, map(self._decision, self._tests(family, metric))))
        return ", ".join(f"{word} in {found[word]}" for word in DECISIONS if found[word]) or NOTHING

    def difference(self, family: str, metric: str, against: str) -> str:
        """Table 13's difference from one row in a metric: its 95 % interval, p before and after correction, verdict; a
        line a section."""
        lines = []
        for row in self._tests(family, metric):
            if row["comparison"].endswith(f" − {against}") and row["ci_low"]:
                bounds = bounds_text(float(row["ci_low"]), float(row["ci_high"]))
                p = f"p {float(row['p']):.2g}, {float(row['p_holm']):.2g} corrected"
                own = f"{signed_text(float(row['difference']))} {bounds} (n = {row['n_pairs']}, {p}): {row['verdict']}"
                lines.append(f"- {row['comparison']} ({section_words(row['section'])}): {own}")
        return "\n".join(lines) or f"- {NOTHING}"

    def verdict(self, hypothesis: str) -> str:
        """The verdicts on a hypothesis, a line each: where, what it is, and by which figures."""
        lines = []
        for row in self._rows("hypotheses"):
            if row["name"] == hypothesis:
                lines.append(f"- {self._verdict(row)}: {'; '.join(filter(None, [row['figures'], row['reason']]))}")
        return "\n".join(lines) or f"- {NOTHING}"

    @cached_property
    def verdicts(self) -> str:
        """A table of all hypotheses and the verdicts on each, with where they hold."""
        lines = ["| | claim | verdict |", "|---|---|---|"]
        for name in self.hypotheses:
            rows = [row for row in self._by_section("hypotheses") if row["name"] == name]
            lines.append(f"| {name} | {self.claim(name)} | {', '.join(map(self._verdict, rows)) or NOTHING} |")
        return "\n".join(lines)

    @property
    def hypotheses(self) -> list[str]:
        """Their names, in order."""
        return [hypothesis.name for hypothesis in HYPOTHESES]

    def claim(self, hypothesis: str) -> str:
        """What a hypothesis says."""
        return next((row["claim"] for row in self._by_section("hypotheses") if row["name"] == hypothesis), NOTHING)

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
        for row in self._long("baselines"):
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
        for summary in self._summaries:
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
            for row in self._rows("documents")
            if row["metric"].startswith(DOWNSTREAM) and row["ci_low"]
        ]
        return "\n".join([head, *sorted(lines), "", *compared])

    @cached_property
    def targets(self) -> dict[str, str]:
        """The targets of the load CV."""
        return {name: number_text(target, 2) for name, target in TARGETS.items()}

    @cached_property
    def runs(self) -> str:
        """How many runs of how many configurations and seeds, and how many of each status."""
        summaries = self._summaries
        ends = Counter(summary["status"].replace("_", " ") for summary in summaries)
        cells = {summary.get("cell_id") for summary in summaries}
        seeds = {summary.get("seed") for summary in summaries}
        words = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        return f"{len(summaries)} runs ({words}) of {len(cells)} configurations on {len(seeds)} seeds"

    @cached_property
    def hardware(self) -> str:
        """The processors that the runs were made on, and the versions of the code."""
        processors = Counter(run.processor or "unknown processor" for run in self._archive.runs().values())
        codes = Counter(str(s.get("fingerprints", {}).get("code")) for s in self._summaries)
        words = [", ".join(f"{count} runs on {name}" for name, count in processors.most_common())]
        return "; ".join([*words, ", ".join(f"{count} by code {code}" for code, count in codes.most_common())])

    @cached_property
    def time(self) -> str:
        """Hours of a core of all runs together, and the time of the middle run."""
        walls = sorted(w for s in self._summaries if (w := (s.get("timings") or {}).get("wall_s")))
        if not walls:
            return NOTHING
        return f"{duration(sum(walls))} in all, {duration(walls[len(walls) // 2])} for the middle run"

    @cached_property
    def tokens(self) -> str:
        """Tokens that runs were trained on, from the smallest to the largest."""
        configs = [run.config for run in self._archive.runs().values() if run.config]
        counts = [
            math.prod(config["trainer"][key] for key in ("max_steps", "batch_size", "accumulation"))
            * config["data"]["sequence_length"]
            for config in configs
        ]
        return " to ".join(dict.fromkeys(f"{count:,}" for count in (min(counts), max(counts)))) if counts else NOTHING

    @cached_property
    def progress(self) -> str:
        """A table of the blocks: how many runs each has."""
        lines = ["| block | runs (those that studies share, in each) | what |", "|---|---|---|"]
        for block, own in self._progress:
            done, whole = sum(one.done for one in own), sum(len(one.states) for one in own)
            lines.append(f"| {block.name} | {done} of {whole} | {block.title} |")
        return "\n".join(lines)

    @cached_property
    def missing(self) -> str:
        """What has not been run, a line a launch, with the command that runs it."""
        lines = []
        for block, own in self._progress:
            for one in own:
                if one.is_done:
                    continue
                left = f"{len(one.states) - one.done} of {len(one.states)} runs" if one.states else one.unmade
                text = " TEXT=FOLDER" if one.launch.needs_text else ""
                words = " ".join(w for w in one.launch.typed if not w.startswith(SAME))
                command = f"make paper BLOCKS={block.name}{text}"
                lines.append(f"- block {block.name}, `{one.launch.study}` ({words}): {left}; `{command}`")
        return "\n".join(lines) or "Nothing: every declared run is there."

    @cached_property
    def _progress(self) -> list[tuple[Block, list[LaunchProgress]]]:
        # Of the archive alone, wherever the page is made.
        blocks = read_blocks()
        found = progress(blocks, known_runs(None, self._archive), None)
        return [(block, found[block.name]) for block in blocks]

    @cached_property
    def _summaries(self) -> Sequence[dict[str, Any]]:
        return [run.required_summary for run in self._archive.runs().values()]

    def _tests(self, family: str, metric: str) -> list[dict[str, str]]:
        rows = self._by_section("table13_significance")
        return [row for row in rows if (row["family"], row["metric"]) == (family, metric)]

    def _by_section(self, name: str) -> list[dict[str, str]]:
        return sorted(self._rows(name), key=lambda row: real_first(row["section"]))

    def _long(self, table: str) -> list[dict[str, str]]:
        return self._rows(f"{table}_long")

    def _read(self, name: str) -> list[dict[str, str]]:
        path = self._made / "tables" / f"{name}.csv"
        if not path.is_file():
            return []
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @staticmethod
    def _decision(row: dict[str, str]) -> str | None:
        """The word that a test's verdict begins with; None where there is no test."""
        word = row["verdict"].partition(" ")[0]
        return word if word in DECISIONS else None

    @staticmethod
    def _verdict(row: dict[str, str]) -> str:
        where = ", ".join(filter(None, [row["rule"], section_words(row["section"])]))
        return f"**{row['verdict']}**{f' ({where})' if where else ''}"

"""What the published tests decide, in the words of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from spectra_exp.config.typed import value_text
from spectra_exp.presentation.text import bounds_text, signed_text
from spectra_exp.reporting.paper.published_tables import NOTHING, PublishedTables, real_first, section_words
from spectra_exp.statistics.practical import Word
from spectra_exp.studies.definition import load_study

# What a test can decide, as it is listed.
DECISIONS: tuple[Word, ...] = ("better", "worse", "lower", "higher", "equivalent", "undecided")


class Outcomes:
    """Of the comparisons of table 13, and of each row of a study's table with its row of reference."""

    def __init__(self, tables: PublishedTables):
        self._tables = tables

    def differences(self, family: str, metric: str) -> str:
        """What table 13 says of a metric in the comparisons of one family: a line a verdict (and section, of several),
        and in it the difference from each row that was compared with, or of each row where several were."""
        tests = [(row, row["comparison"].partition(" − ")) for row in self._tests(family, metric)]
        several = len({method for _, (method, _, _) in tests}) > 1
        named = [(row, method if several else against) for row, (method, _, against) in tests]
        return "\n".join(f"- {line}" for line in self._by_verdict(named)) or f"- {NOTHING}"

    def beside_reference(self, study: str, table: str, metrics: Sequence[str] = ()) -> str:
        """What the tests of a study's table decide under the inference rule: a line a metric, and in it by verdict (and
        section, of several) each row, by what tells it from the rows of reference, and its difference from its own.

        `metrics`: those lines alone, all where none is named.
        """
        found: dict[str, list[tuple[dict[str, str], str]]] = {}
        rows = [row for row in self._tables.long(table) if row["rule"] == "inference"]
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
        lines = [
            f"- `{metric}`: {'; '.join(self._by_verdict(own))}"
            for metric, own in found.items()
            if not metrics or metric in metrics
        ]
        return "\n".join([f"Beside {beside}, corrected over the table:", "", *lines])

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

    def _tests(self, family: str, metric: str) -> list[dict[str, str]]:
        rows = self._tables.by_section("table13_significance")
        return [row for row in rows if (row["family"], row["metric"]) == (family, metric)]

    @staticmethod
    def _decision(row: dict[str, str]) -> str | None:
        """The word that a test's verdict begins with; None where there is no test."""
        word = row["verdict"].partition(" ")[0]
        return word if word in DECISIONS else None

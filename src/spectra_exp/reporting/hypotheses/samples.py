"""The values that a test may use: of finished, comparable runs, on the seeds that all of its arms have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spectra_exp.reporting.grid import CHOOSING_SEEDS, SEVERAL_DESIGNS, Row, Section
from spectra_exp.reporting.hypotheses.parts import Part, Ruling, Side, compared
from spectra_exp.runs.pairing import is_prediction
from spectra_exp.statistics.comparison import MIN_SEEDS, TOO_FEW
from spectra_exp.studies.decide import Design

Rows = Mapping[str, "Row | None"]


class Lack(Exception):
    """There is nothing to test: the reason, and the command that would change it; empty where none would."""

    def __init__(self, reason: str, command: str = ""):
        super().__init__(reason)
        self.reason, self.command = reason, command

    def part(self, what: str, family: str = "") -> Part:
        """The untested statement."""
        return Part(what, untested=self.reason, command=self.command, family=family)

    def ruling(self) -> Ruling:
        """The verdict on a hypothesis that lacks this."""
        return Ruling("", "not tested", self.reason, self.command)


@dataclass(frozen=True)
class Sample:
    """`values[name, metric]`: seed → value, of the same seeds throughout. `left_out`: seeds that some arm lacks.

    `design`: by which seeds were added until comparisons were decided; None where their number was given.
    """

    values: dict[tuple[str, str], dict[int, float]]
    left_out: tuple[int, ...]
    design: Design | None = None

    @property
    def note(self) -> str:
        """What a reader must know about the seeds; empty when all arms have the same."""
        return f"without its pair: seed {', '.join(map(str, self.left_out))}" if self.left_out else ""

    def compared(
        self, what: str, a: Mapping[int, float], b: Mapping[int, float], claimed: Side, family: str = ""
    ) -> Part:
        """`parts.compared` of two arms made of the sample, with what is known of its seeds."""
        return compared(what, a, b, claimed, family, self.note, self.design)

    @property
    def at_first_look(self) -> Sample:
        """The seeds that were made whatever came out, for tests that do not allow for looks; without a design all.

        Raises Lack where those are too few.
        """
        if self.design is None:
            return self
        own = self.design.first_look
        kept = {key: {s: v for s, v in values.items() if s in own} for key, values in self.values.items()}
        if min(map(len, kept.values())) < MIN_SEEDS:
            raise Lack(f"{TOO_FEW} at the first look: seeds were added until {self.design.metric} was decided")
        return Sample(kept, self.left_out)


def one_row(section: Section, wanted: Mapping[str, str]) -> Row | None:
    """The row with these values, or None."""
    return next(iter(section.find(wanted)), None)


def rules(section: Section) -> list[str]:
    """The rules (osr) that SPECTRA has in the section, in its order."""
    return list(dict.fromkeys(row.key["osr"] for row in section.find({"router": "spectra"}) if "osr" in row.key))


def fill_command(section: Section, rule: str = "") -> str:
    """What runs the section again, with its context; finished runs are not run twice."""
    osr = [f"osr={rule}"] if rule else []
    return section.asked(*osr, *section.typed)


def sample(section: Section, rows: Rows, metrics: Sequence[str], rule: str = "") -> Sample:
    """The metrics of the rows, by name of row. Raises Lack when a test may not be made of them."""
    usable = usable_rows(section, rows, metrics, rule)
    arms = {(name, m): test_values(section, row, m) for name, row in usable.items() for m in metrics}
    return same_seeds(arms, fill_command(section, rule), design_of(rows))


def design_of(rows: Rows) -> Design | None:
    """How seeds were added to rows that are usable."""
    return next((design for row in rows.values() if row for design in row.designs), None)


def same_seeds(arms: Mapping[tuple[str, str], dict[int, float]], command: str, design: Design | None = None) -> Sample:
    """The arms on the seeds that all of them have. Raises Lack where those are too few."""
    for (name, metric), values in arms.items():
        if not values:
            raise Lack(f"no {metric} in the runs of {name}")
    every = set().union(*arms.values())
    common = sorted(set.intersection(*(set(values) for values in arms.values())))
    if len(common) < MIN_SEEDS:
        names = ", ".join(dict.fromkeys(name for name, _ in arms))
        raise Lack(f"{TOO_FEW}: {len(common)} seeds have all of {names}", command)
    kept = {key: {seed: values[seed] for seed in common} for key, values in arms.items()}
    return Sample(kept, tuple(sorted(every - set(common))), design)


def usable_rows(section: Section, rows: Rows, metrics: Sequence[str], rule: str = "") -> dict[str, Row]:
    """The rows, none of which is missing. Raises Lack where their runs are no evidence in these metrics."""
    command, usable = fill_command(section, rule), dict[str, Row]()
    for name, wanted in rows.items():
        if wanted is None or not test_seeds(wanted):
            raise Lack(f"no finished run of {name}", command)
        usable[name] = wanted
    (first_name, first), *others = usable.items()
    for name, row in others:
        if problem := section.pair_problem(first, row):
            raise Lack(f"{first_name} and {name} may not be compared: {problem}")
    if len(set().union(*(row.designs for row in usable.values()))) > 1:
        raise Lack(SEVERAL_DESIGNS)
    for name, row in usable.items() if any(is_prediction(metric) for metric in metrics) else ():
        if problem := not_causal(section, name, row):
            raise Lack(problem)
    return usable


def not_causal(section: Section, name: str, row: Row) -> str | None:
    """Why a loss of the row is no evidence: a model that sees the future, or may do so, made it; or None."""
    odd = [seed for seed in test_seeds(row) if section.run(row, seed)["causal"] is not True]
    return f"{name} is not known to be causal at seed {odd[0]}: its loss is no evidence" if odd else None


def test_seeds(row: Row) -> list[int]:
    """The finished seeds of the row but for those that settings are chosen on."""
    return [seed for seed in sorted(row.runs) if seed not in CHOOSING_SEEDS]


def test_values(section: Section, row: Row, metric: str) -> dict[int, float]:
    """The metric by seed, on the seeds of `test_seeds`."""
    return {seed: value for seed, value in sorted(section.values(row, metric).items()) if seed in test_seeds(row)}


def difference(section: Section, rows: Rows, metric: str, claimed: Side, rule: str = "", family: str = "") -> Part:
    """The first row − the second one in the metric, claimed to lie below or above zero."""
    first, second = rows
    what = f"{metric}, {first} − {second}"
    try:
        found = sample(section, rows, (metric,), rule)
    except Lack as lack:
        return lack.part(what, family)
    return found.compared(what, found.values[first, metric], found.values[second, metric], claimed, family)

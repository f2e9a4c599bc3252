"""The parts of an analysis by name: what each shows, what it needs, and why one has nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.registry import Registry
from spectra_exp.interpret.results import Result

if TYPE_CHECKING:
    from spectra_exp.data.documents import Document
    from spectra_exp.interpret.subject import Subject


class Empty(SpectraError):
    """A part has nothing to show for this model and text; the message says why."""


@dataclass(frozen=True)
class Request:
    """What a part is given. `texts`: those typed or read, for case studies; `say`: takes a line of progress."""

    subject: Subject
    against: Subject | None = None
    texts: Sequence[Document] = ()
    seed: int = 0
    say: Callable[[str], None] = field(default=lambda line: None)

    @property
    def subjects(self) -> list[Subject]:
        """The model and, where one is given, the other to compare it with."""
        return [self.subject] if self.against is None else [self.subject, self.against]

    @property
    def labels(self) -> dict[str, str]:
        """What a legend calls each model, by its name: names of runs are too long."""
        return {subject.name: subject.label for subject in self.subjects}


@dataclass(frozen=True)
class Need:
    """A condition on the request; `missing`: why a part without it is empty."""

    met: Callable[[Request], bool]
    missing: str


ROUTED = Need(lambda r: r.subject.num_layers > 0, "the model has no routed layer (a dense model)")
SEVERAL_EXPERTS = Need(lambda r: r.subject.num_experts > 1, "the layers have one expert each")
# Layers choose among experts.
CHOICE = (ROUTED, SEVERAL_EXPERTS)
DOMAINS = Need(lambda r: r.subject.num_labelled_domains > 1, "the text has no domain labels (or a single domain)")
DISTRIBUTION = Need(
    lambda r: r.subject.trace.probs_NLE is not None, "the router has no distribution over experts (hash, random)"
)
RUN = Need(lambda r: r.subject.run is not None, "it is no run of this project: a stock model has no training to read")
HISTORY = Need(lambda r: r.subject.has_history, "the run left no history.parquet")

PartFunction = Callable[[Request], Result]


@dataclass(frozen=True)
class Part:
    """A registered part. `title`: its one line of help, the heading of its place on the page.

    `both`: it shows the second model beside the first; a part that does not says so on a page of two.
    """

    name: str
    title: str
    needs: tuple[Need, ...]
    order: int
    function: PartFunction
    both: bool = False

    def run(self, request: Request) -> Result:
        """The part's result; an empty one with the reason where a need is not met or there is nothing to show."""
        for need in self.needs:
            if not need.met(request):
                return Result(empty=need.missing)
        try:
            result = self.function(request)
        except Empty as reason:
            return Result(empty=str(reason))
        if request.against is not None and not self.both:
            result.notes.insert(0, f"Of {request.subject.label} only.")
        return result


PARTS: Registry[Part] = Registry("part", "spectra_exp.interpret.parts")
parts, chosen_parts = PARTS.all, PARTS.chosen


def part(title: str, *needs: Need, order: int = 50, both: bool = False) -> Callable[[PartFunction], PartFunction]:
    """A decorator that makes a function known as a part under its own name.

    `needs` are asked in their order, so that the first ones may be what the others read. `order`: its place among the
    parts, lower first. `both`: see Part. Raises ValueError for a name already taken.
    """

    def register(function: PartFunction) -> PartFunction:
        PARTS.add(Part(function.__name__, title, needs, order, function, both))
        return function

    return register

"""Which cells of a study a configuration is, and what it has beside the study's own settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from spectra_exp.config.names import METHOD_FACTORS, method_name, setting_text
from spectra_exp.config.resolved import Compositions, Resolved, beside, line_of
from spectra_exp.config.typed import value_text
from spectra_exp.studies.definition import Block, Study

# What rows must have, by factor: a value, one of several, or of those that a function finds in conf/.
Values = Any | Iterable[Any] | Callable[[], Iterable[str]]
Choice = Mapping[str, Values]


@dataclass(frozen=True)
class Place:
    """Where a run stands in a study: `key`, the value of each factor that its cell has; `context`, what else differs
    from the study's own settings, as `key=value`."""

    key: tuple[tuple[str, Any], ...]
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One point of a study: the settings that make it, what they compose to, and its values at the factors."""

    settings: Mapping[str, str]
    resolved: Resolved
    key: tuple[tuple[str, Any], ...]


class StudyCells:
    """The cells of a study, composed when they are first asked for. `broken`: overrides that compose to nothing."""

    def __init__(self, study: Study, compositions: Compositions):
        self.study, self._compositions = study, compositions
        self.factors = study_factors(study)
        self._places: dict[tuple[str, frozenset[tuple[str, str]]], list[Place]] = {}
        self.broken: list[str] = []

    @cached_property
    def own(self) -> list[Cell]:
        """The cells as in its file."""
        cells = [cell for block in self.study.blocks for cell in block.cells() if holds(block, cell)]
        for cell in cells:
            self.composed(line_of(cell))
        return self._made(iter(cells))

    @cached_property
    def _by_values(self) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for cell in self.own:
            found.setdefault(cell.resolved.signature, []).append(cell)
        return found

    def composed(self, line: Sequence[str]) -> Resolved | None:
        """What overrides compose to, None where they do not."""
        resolved = self._compositions(line)
        if resolved is None:
            self.broken.append(" ".join(line))
        return resolved

    def exact(self, found: Resolved) -> list[Place]:
        """The cells of the file with the very values; several where two names are the same configuration."""
        return [Place(cell.key) for cell in self._by_values.get(found.signature, [])]

    def places(self, found: Resolved) -> list[Place]:
        """The cells that need the fewest further settings to be this configuration.

        Of equally near ones those of the file come first, then those with another of its methods (osr=causal), then
        ones with a value that the file does not have.
        """
        # The seeds of a cell have the same.
        key = (found.signature, frozenset(found.choices.items()))
        if key not in self._places:
            self._places[key] = self.exact(found) or self._nearest(found)
        return self._places[key]

    def _nearest(self, found: Resolved) -> list[Place]:
        distance, best = math.inf, []
        for cells in (self.own, self._made(self._other_methods(found)), self._made(self._other_values(found))):
            distances = [found.distance(cell.resolved) for cell in cells]
            if distances and min(distances) < distance:
                distance = min(distances)
                best = [cell for cell, own in zip(cells, distances, strict=True) if own == distance]
                if cells is not self.own:
                    # Blocks that leave a method's option at its default are another name of the same.
                    most = max(len(cell.settings) for cell in best)
                    best = [cell for cell in best if len(cell.settings) == most]
        if not distance:
            return [Place(cell.key) for cell in best]
        extra = beside(best[0].settings, found, self._compositions)
        context = tuple(sorted(line_of(extra)))
        return [Place(cell.key, context) for cell in best]

    def _made(self, cells: Iterator[Mapping[str, str]]) -> list[Cell]:
        made = {tuple(sorted(cell.items())): cell for cell in cells}
        return [cell for settings in made.values() if (cell := self._cell(settings)) is not None]

    def _cell(self, settings: Mapping[str, str]) -> Cell | None:
        resolved = self._compositions(line_of(settings))
        if resolved is None:
            return None
        values = {key: resolved.at(key) for key in self.factors if key in settings}
        return Cell(settings, resolved, tuple((k, settings[k] if v is None else v) for k, v in values.items()))

    def _other_methods(self, found: Resolved) -> Iterator[dict[str, str]]:
        """The cells with the configuration's own options in place of the methods that a block sets."""
        for block in self.study.blocks:
            own = _own_methods(block, found)
            if own != {key: block.settings[key] for key in own}:
                yield from (cell for cell in ({**cell, **own} for cell in block.cells()) if holds(block, cell))

    def _other_values(self, found: Resolved) -> Iterator[dict[str, str]]:
        """For each block and set of keys that it varies the cell with the configuration's own values."""
        for block in self.study.blocks:
            for point in block.points:
                axes = [*point, *block.grid]
                values = {key: found.at(key) for key in axes}
                cell = {**block.settings, **_own_methods(block, found), **{k: value_text(v) for k, v in values.items()}}
                if axes and None not in values.values() and holds(block, cell):
                    yield cell


class Keyed(Protocol):
    """A row or cell, by the printed value of each factor that it has."""

    @property
    def key(self) -> Mapping[str, str]:
        """Factor: value."""


Of = TypeVar("Of", bound=Keyed)


def has_values(key: Mapping[str, str], wanted: Choice) -> bool:
    """Whether each wanted factor has the value, or one of the values."""
    return all(
        name in key and any(key[name] == value_text(value) for value in _several(values))
        for name, values in wanted.items()
    )


def reference_of(row: Of, rows: Sequence[Of], wanted: Choice) -> Of | None:
    """The row that `row` is tested against: of those wanted the first with most of its other values, its osr's say."""
    found = [other for other in rows if has_values(other.key, wanted)]
    if row in found:
        return None
    return max(found, key=lambda other: len(row.key.items() & other.key.items()), default=None)


def row_label(key: Mapping[str, Any]) -> str:
    """The method and the settings by which rows of the study differ."""
    settings = [setting_text(k, value_text(v)) for k, v in key.items() if k not in METHOD_FACTORS]
    return ", ".join([method_name(key), *settings])


def _several(values: Values) -> Iterable[Any]:
    values = values() if callable(values) else values
    return values if isinstance(values, (list, tuple, dict)) else (values,)


def study_factors(study: Study) -> tuple[str, ...]:
    """The keys that tell the study's rows apart: the method's first, then what its grid varies."""
    varied = [key for block in study.blocks for key in block.axes()]
    set_methods = [key for block in study.blocks for key in block.settings if key in METHOD_FACTORS]
    keys = list(dict.fromkeys([*set_methods, *varied]))
    methods = [key for key in METHOD_FACTORS if key in keys]
    return (*methods, *(key for key in keys if key not in methods))


def holds(block: Block, cell: Mapping[str, str]) -> bool:
    """Whether the cell has what the block is there with alone."""
    return all(cell.get(key) == value for key, value in block.only.items())


def _own_methods(block: Block, found: Resolved) -> dict[str, str]:
    keys = [key for key in block.settings if key in METHOD_FACTORS and found.choices.get(key)]
    return {key: found.choices[key] for key in keys}

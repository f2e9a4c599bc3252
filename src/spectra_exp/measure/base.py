"""The registry of metrics, and the table that their values go into."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.registry import check_free
from spectra_exp.measure.ranges import Range

Direction = Literal["lower", "higher", "none"]
# sum: counts summed over the evaluation set before the ratio; batch, sequence: a ratio for each, then averaged;
# fractions: over the routing at the kept fractions of training; steps: over the logged steps of training.
Reduction = Literal["sum", "batch", "sequence", "fractions", "steps"]
# Those of one evaluation's statistics.
OF_EVALUATION: tuple[Reduction, ...] = ("sum", "batch", "sequence")

# What chance is (see floors.py): random routing with even loads, with the router's own, or domains permuted, all of
# them or the two that differ in order alone.
NULLS = ("uniform", "marginals", "documents", "orders")

ALL = "all"
METRICS: dict[str, Metric] = {}


@dataclass(frozen=True)
class Metric:
    """One figure of one layer: a pure function with what a table must know about it."""

    name: str
    function: Callable[[Any], float | None]
    direction: Direction
    unit: str
    reduction: Reduction
    floor: str | None  # what chance is, one of NULLS, or the name of the metric that is the floor
    meaning: str
    range: Range
    margin: float | None = None  # differences as small do not matter

    @property
    def floor_name(self) -> str | None:
        """The name under which the chance floor is reported, None without one."""
        if self.floor is None:
            return None
        return self.floor if self.floor in METRICS else f"{self.name}_floor"


def metric(
    name: str,
    direction: Direction,
    unit: str = "",
    *,
    range: tuple[float | str, float | str],
    reduction: Reduction = "sum",
    floor: str | None = None,
    margin: float | None = None,
) -> Callable[[Callable[[Any], float | None]], Callable[[Any], float | None]]:
    """A decorator that registers a function of one layer under `name`; its docstring's first line is its meaning.

    `floor`: what chance is, one of NULLS, or another metric's name; the first two draw no counts by batch, sequence or
    document. `range`: the least and the largest possible value, numbers or names of `ranges.BOUNDS` such as "log E".
    `margin`: half the region of practical equivalence, in the metric's unit; None where none is declared.
    The function takes LayerStatistics (reduction sum, batch, sequence), LayerTrajectory (fractions) or LayerTraining
    (steps) and returns a float, or None where the metric is not defined. Raises ValueError for a name already taken, an
    unknown bound, or no docstring.
    """

    possible = Range(*range)

    def register(function: Callable[[Any], float | None]) -> Callable[[Any], float | None]:
        check_free("metric", name, getattr(METRICS.get(name), "function", None), function)
        meaning = (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
        if not meaning:
            raise ValueError(f"metric '{name}' has no sentence that says what it means")
        METRICS[name] = Metric(name, function, direction, unit, reduction, floor, meaning, possible, margin)
        return function

    return register


def check_floors() -> None:
    """Raise ConfigError for a metric whose floor is neither one of NULLS nor a metric."""
    for one in METRICS.values():
        if one.floor is not None and one.floor not in (*NULLS, *METRICS):
            raise ConfigError.unknown(f"floor of metric '{one.name}'", one.floor, NULLS)


def own_metrics() -> tuple[str, ...]:
    """The metrics that modules outside the package registered."""
    return tuple(m.name for m in METRICS.values() if not m.function.__module__.startswith("spectra_exp."))


def get_metric(name: str) -> Metric:
    """The metric of that name. Raises ConfigError, with the nearest name, when there is none."""
    if name not in METRICS:
        raise ConfigError.unknown("metric", name, METRICS)
    return METRICS[name]


class MetricTable(Mapping[tuple[str, str], float]):
    """(layer, metric) -> value, where layer is "0", "1", ... or "all", the mean over the layers that have one.

    Undefined values are absent, so no NaN ever reaches a file.
    """

    def __init__(self, by_layer: Mapping[str, Sequence[float | None]]):
        self._by_layer = {name: list(values) for name, values in by_layer.items()}
        self._values: dict[tuple[str, str], float] = {}
        for name, values in self._by_layer.items():
            defined = {str(layer): float(v) for layer, v in enumerate(values) if v is not None}
            self._values |= {(layer, name): v for layer, v in defined.items()}
            if defined:
                self._values[ALL, name] = sum(defined.values()) / len(defined)

    def __getitem__(self, key: tuple[str, str]) -> float:
        return self._values[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self) -> dict[str, float]:
        """Metric -> mean over layers."""
        return {name: value for (layer, name), value in self._values.items() if layer == ALL}

    def by_layer(self) -> dict[str, list[float | None]]:
        """Metric -> one value per layer, None where it is not defined."""
        return {name: list(values) for name, values in self._by_layer.items()}

    def rows(self) -> list[dict[str, str | float]]:
        """Tidy rows (layer, metric, value) for the history."""
        return [{"layer": layer, "metric": name, "value": v} for (layer, name), v in self._values.items()]

    def merged(self, other: MetricTable) -> MetricTable:
        """Both tables in one; where both have a metric the other's stands."""
        return MetricTable(self._by_layer | other._by_layer)

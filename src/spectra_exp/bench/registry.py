"""Benchmarks by name, the figures that they give, and where those are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import write_json
from spectra_exp.foundations.modules import import_all


@dataclass(frozen=True)
class Figure:
    """One measured value. `target`: what it should be at most or at least, by `better`; None where there is none."""

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """Plain values for other programs."""
        return {
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "better": self.better,
            "met": self.met,
        }


# How the names of benchmarks end that need a GPU.
ON_A_GPU = "_gpu"
# What a benchmark is given: the folder of all outputs.
Benchmark = Callable[[Path], list[Figure]]
_REGISTRY: dict[str, Benchmark] = {}


def benchmark(function: Benchmark) -> Benchmark:
    """Decorator: makes a function known as a benchmark under its own name; its docstring's first line describes it."""
    _REGISTRY[function.__name__] = function
    return function


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name; every module of `bench/benchmarks/` is found by itself."""
    import_all("spectra_exp.bench.benchmarks")
    return dict(sorted(_REGISTRY.items()))


def chosen(names: list[str]) -> dict[str, Benchmark]:
    """The benchmarks of these names, or all that need no GPU.

    Raises ConfigError with the nearest name for one that does not exist.
    """
    known = benchmarks()
    for name in names:
        if name not in known:
            raise ConfigError.unknown("benchmark", name, known)
    wanted = names or [name for name in known if not name.endswith(ON_A_GPU)]
    return {name: function for name, function in known.items() if name in wanted}


def write_figures(outputs: Path, figures: Iterable[Figure]) -> Path:
    """Add figures to `bench/summary.json` in the folder of all outputs; those of other benchmarks stay."""
    path = outputs / "bench" / "summary.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, earlier | {figure.name: figure.as_json() for figure in figures}, sort_keys=True)
    return path

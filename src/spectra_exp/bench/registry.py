"""Benchmarks by name, the figures that they give, and where those are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.foundations.registry import Registry


@dataclass(frozen=True)
class Figure:
    """One measured value. `target`: what it should be at most or at least, by `better`; None where there is none.

    `value`: None for what could not be measured; `unit` then says why.
    """

    name: str
    value: float | None
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one, and for what could not be measured."""
        if self.target is None or self.value is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """Plain values for other programs."""
        own = asdict(self)
        del own["name"]
        return own | {"met": self.met}


# How the names of benchmarks end that need a GPU.
ON_A_GPU = "_gpu"


@dataclass(frozen=True)
class Benchmark:
    """A registered benchmark; its function is given the folder of all outputs."""

    name: str
    function: Callable[[Path], Iterable[Figure]]
    order: int = 0

    def figures(self, outputs: Path) -> Iterable[Figure]:
        """What is measured, one after the other. Raises SpectraError where it needs a GPU and there is none."""
        if self.name.endswith(ON_A_GPU) and not torch.cuda.is_available():
            raise SpectraError(f"benchmark {self.name}: torch sees no GPU")
        return self.function(outputs)


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", "spectra_exp.bench.benchmarks")


def benchmark(function: Callable[[Path], Iterable[Figure]]) -> Callable[[Path], Iterable[Figure]]:
    """Decorator: makes a function known as a benchmark under its own name; its docstring's first line describes it."""
    BENCHMARKS.add(Benchmark(function.__name__, function))
    return function


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names, or all that need no GPU. ConfigError for an unknown one, with the nearest."""
    return BENCHMARKS.chosen(names or [name for name in BENCHMARKS.all() if not name.endswith(ON_A_GPU)])


def write_figures(outputs: Path, figures: Iterable[Figure]) -> Path:
    """Add figures to `bench/summary.json` in the folder of all outputs; those of other benchmarks stay."""
    path = outputs / "bench" / "summary.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, earlier | {figure.name: figure.as_json() for figure in figures}, sort_keys=True)
    return path

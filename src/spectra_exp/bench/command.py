"""`spectra-exp bench`: runs benchmarks and says which targets are met."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from spectra_exp.bench.registry import BENCHMARKS, Figure, chosen, write_figures
from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE

WORDS = {True: "yes", False: "no", None: ""}
PIPED_WIDTH = 120
SIGNS = {"lower": "<=", "higher": ">="}


@dataclass(frozen=True)
class BenchOptions(VerbOptions):
    """What is measured."""

    only: tuple[str, ...] = option((), "benchmarks, separated by commas; all that need no GPU when none is named")


def bench(options: BenchOptions) -> int:
    """Run and judge; a missed target is no error. Raises SpectraError."""
    figures: list[Figure] = []
    outputs = options.folder.resolve()
    for one in chosen(options.only):
        print(f"{one.name} ...", file=sys.stderr)
        started = time.perf_counter()
        for figure in one.figures(outputs):
            figures.append(figure)
            # At once: what is measured stays if the machine goes.
            write_figures(outputs, figures)
        print(f"{one.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    path = write_figures(outputs, figures)
    # In a file or a pipe as wide as the units need.
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table_of(figures))
    print(path)
    return DONE


def table_of(figures: Sequence[Figure]) -> Table:
    """The figures with their targets."""
    table = Table(box=box.SIMPLE)
    table.add_column("figure", no_wrap=True)
    for column in ("value", "unit", "target", "met"):
        table.add_column(column, justify="right" if column in ("value", "target") else "left")
    for figure in figures:
        target = "" if figure.target is None else f"{SIGNS[figure.better]} {figure.target:g}"
        value = "" if figure.value is None else f"{figure.value:.3g}"
        table.add_row(figure.name, value, figure.unit, target, WORDS[figure.met])
    return table


def _benchmarks_help() -> str:
    lines = [f"  {name:<16} {str(one.function.__doc__).splitlines()[0]}" for name, one in BENCHMARKS.all().items()]
    return "\n".join(["Benchmarks:", *lines])


main = Verb(
    "bench",
    BenchOptions,
    bench,
    "Runs benchmarks and says which targets are met: bench/summary.json in the folder of outputs.",
    ("", "only=layer_gpu,step_gpu"),
    more=_benchmarks_help,
    bare=("only",),
)

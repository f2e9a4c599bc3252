"""`python -m spectra_exp.bench [NAME...]`: runs benchmarks and says which targets are met."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from spectra_exp.bench.registry import Figure, benchmarks, chosen, write_figures
from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError

WORDS = {True: "yes", False: "no", None: ""}
PIPED_WIDTH = 120
SIGNS = {"lower": "<=", "higher": ">="}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2, with one line on standard error, for what cannot be done; a missed target is no error."""
    described = "\n".join(f"  {name:<16} {f.__doc__.splitlines()[0]}" for name, f in benchmarks().items())
    parser = argparse.ArgumentParser(
        prog="python -m spectra_exp.bench", description=f"Benchmarks:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="those to run; all when none is named")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    try:
        prepare_environment()
        outputs = Path(os.environ["SPECTRA_OUTPUTS"]).resolve()
        for name, function in chosen(options.names).items():
            print(f"{name} ...", file=sys.stderr)
            started = time.perf_counter()
            figures += function(outputs)
            path = write_figures(outputs, figures)
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    except SpectraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # In a file or a pipe as wide as the units need.
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table_of(figures))
    print(path)
    return 0


def table_of(figures: Sequence[Figure]) -> Table:
    """The figures with their targets."""
    table = Table(box=box.SIMPLE)
    table.add_column("figure", no_wrap=True)
    for column in ("value", "unit", "target", "met"):
        table.add_column(column, justify="right" if column in ("value", "target") else "left")
    for figure in figures:
        target = "" if figure.target is None else f"{SIGNS[figure.better]} {figure.target:g}"
        table.add_row(figure.name, f"{figure.value:.3g}", figure.unit, target, WORDS[figure.met])
    return table


if __name__ == "__main__":
    sys.exit(main())

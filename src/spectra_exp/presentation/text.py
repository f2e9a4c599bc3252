"""How numbers look: display cells, the Markdown text, the terminal's table and bar."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from spectra_exp.statistics.intervals import Interval

Item = TypeVar("Item")
WIDE = 200
# Of a float64's 17, those that sums in another order do not change.
CSV_DIGITS = 12


# Characters that no XML or HTML text may hold: a log can have them.
_CONTROL = {code: "\ufffd" for code in [*range(9), 11, 12, *range(14, 32), 127]}


def printable(text: str) -> str:
    """The text with a mark in place of each control character."""
    return text.translate(_CONTROL)


def number_text(value: float | None, decimals: int | None = None) -> str:
    """`value` with four significant digits, or with `decimals` places; very large and small ones as powers.

    Empty for None, a figure that there is not.
    """
    if value is None:
        return ""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    if decimals is None:
        decimals = max(0, 3 - _magnitude(value))
    return f"{value:.{decimals}f}"


def interval_text(interval: Interval | None) -> str:
    """`mean ± half-width`, the half-width to two significant digits and the mean to the same place or to four digits.

    Of two seeds the interval is so wide that its place alone would print different rows alike.

    Without an interval (one seed) the mean alone; without a value an empty cell.
    """
    if interval is None:
        return ""
    half = interval.half_width
    if half is None:
        return number_text(interval.mean)
    # Equal values leave rounding noise of 1e-17, which is no spread.
    if half <= 1e-12 * abs(interval.mean):
        return f"{number_text(interval.mean)} ± 0"
    decimals = min(6, max(0, 1 - _magnitude(half)))
    of_mean = max(decimals, min(6, max(0, 3 - _magnitude(interval.mean))))
    return f"{number_text(interval.mean, of_mean)} ± {number_text(half, decimals)}"


def signed_text(value: float) -> str:
    """A number with its sign."""
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{number_text(abs(value))}"


def bounds_text(low: float | None, high: float | None) -> str:
    """An interval's ends; empty without one."""
    return "" if low is None or high is None else f"[{number_text(low)}, {number_text(high)}]"


def count_text(value: float | None) -> str:
    """A count of parameters in short form, such as 1.2M; empty when unknown."""
    if value is None or math.isnan(value):
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
    return f"{value:.0f}"


# What a spreadsheet would run instead of showing: all that begins like a formula and is no figure. Text that looks as
# if it had the apostrophe already gets one too, so that `csv_source` finds every text again.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_FIGURE = re.compile(r"[+-]?([\d.]+|inf)(e[+-]?\d+)?( ± [\d.]+(e[+-]?\d+)?)?( \*+)?( \(n = \d+\))?")


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file's text: None and NaN are empty cells, text that a spreadsheet would run has an apostrophe first.

    Numbers have `CSV_DIGITS` significant digits, which other processors give as well.
    """
    return "".join(_csv_line(row) for row in (headers, *rows))


def _csv_line(row: Sequence[Any]) -> str:
    text = io.StringIO()
    # With the usual line end a carriage return in a cell is quoted too, which else would end the row.
    csv.writer(text).writerow([_csv_cell(cell) for cell in row])
    return text.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else float(f"{cell:.{CSV_DIGITS}g}")
    return f"'{cell}" if isinstance(cell, str) and _would_run(cell) else cell


def csv_source(cell: str) -> str:
    """The text of which `csv_text` made `cell`."""
    return cell[1:] if cell.startswith("'") and _would_run(cell[1:]) else cell


def _would_run(text: str) -> bool:
    return _FORMULA.match(text) is not None and _FIGURE.fullmatch(text) is None


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are padded to line up in plain text, the first one to the left."""
    cells = [[markdown_text(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headers))]
    lines = [_line(row, widths) for row in cells]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]]) + "\n"


# What Markdown takes for a tag, an entity, a link or an end of a cell or of a code span; other letters stay readable.
_MARKUP = ((r"[\\`|]", r"\\\g<0>"), (r"&(?=#?\w+;)", "&amp;"), (r"<(?=[A-Za-z/!?])", "&lt;"), (r"\](?=[(\[:])", r"\\]"))


def markdown_text(text: object) -> str:
    """Text in one line that Markdown shows as it is, whatever it holds."""
    plain = " ".join(str(text).split())
    for pattern, replacement in _MARKUP:
        plain = re.sub(pattern, replacement, plain)
    return plain


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the same table on the terminal; where it is narrow the labels wrap, and never a number."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(headers[0], overflow="fold")
    for header in headers[1:]:
        narrow = header.replace("_", "_\n") if len(header) > 12 else header
        table.add_column(narrow, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Not cut off where the output is no terminal.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE).print(table)


def along(items: Sequence[Item], words: str) -> Iterable[Item]:
    """The items one by one, with a bar of that title on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, words, console=console, transient=True, disable=not console.is_terminal)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |"


def _magnitude(value: float) -> int:
    """The power of ten of the first significant digit; 0 for zero."""
    return math.floor(math.log10(abs(value))) if value else 0

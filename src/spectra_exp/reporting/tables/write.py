"""A finished table as CSV, Markdown and LaTeX; a cell's text is the same in all of them."""

from __future__ import annotations

from pathlib import Path

from spectra_exp.foundations.files import write_text
from spectra_exp.presentation.text import csv_text, markdown_table, markdown_text, print_table
from spectra_exp.reporting.tables.long import long_frame, narrow_frame
from spectra_exp.reporting.tables.spec import Grid, Part, Table

# What LaTeX reads as something else than itself.
ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "ε": r"$\epsilon$",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "β": r"$\beta$",
    "η": r"$\eta$",
    "∈": r"$\in$",
    "→": r"$\to$",
    "⁶": "$^6$",
    "²": "$^2$",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "’": "'",
}


# LaTeX with utf8 input knows Latin letters; of others only those of ESCAPES.
FIRST_UNKNOWN = 0x180
# Rows that fit on a page, and letters of a note that fit under a table.
PAGE_ROWS = 40
LONGEST_NOTE = 300


def write_table(table: Table, folder: Path) -> list[Path]:
    """The paths of the table's `.csv`, `_long.csv`, `.md` and `.tex` in `folder`, each written whole."""
    frames = {".csv": narrow_frame(table), "_long.csv": long_frame(table)}
    texts = {end: csv_text(list(frame.columns), frame.values.tolist()) for end, frame in frames.items()}
    texts |= {".md": markdown(table), ".tex": latex(table)}
    paths = [folder / f"{table.name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def markdown(table: Table) -> str:
    """The printed parts as Markdown."""
    lines = [f"# {table.title}\n"]
    for part in table.parts:
        lines.append(f"## {markdown_text(part.title)}\n")
        for grid in part.grids:
            lines += [f"**{markdown_text(grid.title)}**\n", markdown_table(grid.headers, grid.rows)]
        lines += [f"- {markdown_text(note)}\n" for note in part.notes]
    return "\n".join(lines)


def latex(table: Table) -> str:
    r"""The printed parts as LaTeX, a `table` for each grid; best values are bold. It needs booktabs and graphicx."""
    blocks = [f"% {table.title}\n% needs \\usepackage{{booktabs,graphicx}}"]
    for part in table.parts:
        blocks += [_latex_grid(table, part, page) for grid in part.grids for page in _pages(grid)]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(ESCAPES.get(c, c if ord(c) < FIRST_UNKNOWN else "?") for c in text)


def print_parts(table: Table) -> None:
    """Print what the Markdown file shows on the terminal."""
    for part in table.parts:
        print(f"{table.name}: {part.title}")
        for grid in part.grids:
            print_table(grid.title, grid.headers, grid.rows)
        for note in part.notes:
            print(f"  {note}")


def _pages(grid: Grid) -> list[Grid]:
    """The grid in pieces that fit on a page."""
    pieces = []
    for start in range(0, max(len(grid.rows), 1), PAGE_ROWS):
        best = frozenset((r - start, c) for r, c in grid.best if start <= r < start + PAGE_ROWS)
        title = grid.title if start == 0 else f"{grid.title}, continued"
        pieces.append(Grid(title, grid.headers, grid.rows[start : start + PAGE_ROWS], best))
    return pieces


# A table wider than the text is made smaller, others stay as they are.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def _latex_grid(table: Table, part: Part, grid: Grid) -> str:
    cells = [
        [rf"\textbf{{{escape(cell)}}}" if (r, c) in grid.best else escape(cell) for c, cell in enumerate(row)]
        for r, row in enumerate(grid.rows)
    ]
    head, *lines = (f"    {' & '.join(row)} \\\\" for row in ([escape(h) for h in grid.headers], *cells))
    body = "\n".join(lines)
    notes = " ".join(note for note in part.notes if len(note) <= LONGEST_NOTE)
    where = part.title if len(part.title) <= LONGEST_NOTE else f"{part.title[:LONGEST_NOTE]}…"
    caption = escape(f"{table.title}. {grid.title} ({where}). {notes}").strip()
    return (
        "\\begin{table}\n"
        "  \\centering\n"
        f"  \\caption{{{caption}}}\n"
        f"  {FIT}\n"
        f"  \\begin{{tabular}}{{l{'r' * (len(grid.headers) - 1)}}}\n"
        f"    \\toprule\n{head}\n    \\midrule\n{body}\n    \\bottomrule\n"
        "  \\end{tabular}}\n"
        "\\end{table}"
    )

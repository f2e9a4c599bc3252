"""The tables of a published folder, read back for the page that quotes them."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

from spectra_exp.reporting.grid import AS_IN_ITS_FILE

NOTHING = "not run yet"
# What tells runs on the real text from others in a section's title.
REAL_TEXT = re.compile(r"data\.train=\S+ data\.validation=\S+ data=files")
REAL, GENERATED = "real text", "generated text"


def section_words(section: str) -> str:
    """The title of a section of comparable runs, where a text has its name in place of its files."""
    return REAL_TEXT.sub(REAL, section).replace(AS_IN_ITS_FILE, GENERATED)


def real_first(section: str) -> bool:
    """The place of a section in what is sorted by it: those on the real text come before the others."""
    return REAL not in section_words(section)


class PublishedTables:
    """Rows of `tables/NAME.csv` in the folder `made`; a table that is not there has none."""

    def __init__(self, made: Path):
        self._folder = made / "tables"
        # Large tables are asked for many times.
        self.rows = cache(self._read)

    def long(self, name: str) -> list[dict[str, str]]:
        """The rows of a table, one for each value."""
        return self.rows(f"{name}_long")

    def by_section(self, name: str) -> list[dict[str, str]]:
        """The rows of a table, those on the real text first."""
        return sorted(self.rows(name), key=lambda row: real_first(row["section"]))

    def markdown(self, name: str) -> str:
        """The table as it is printed."""
        return (self._folder / f"{name}.md").read_text(encoding="utf-8")

    def _read(self, name: str) -> list[dict[str, str]]:
        path = self._folder / f"{name}.csv"
        if not path.is_file():
            return []
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

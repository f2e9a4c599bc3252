"""What a figure is: the declaration of one, and of a report in JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spectra_exp.presentation.panels import Page
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.spec import Choice

Compose = Callable[[Section, Sequence[Row]], Page]


@dataclass(frozen=True)
class FigureSpec:
    """A figure of a study, one for each section of it.

    `needs`: what its runs must have. `compose`: computes the page from the rows that have the values `only`.
    """

    name: str
    title: str
    study: str
    needs: str
    compose: Compose
    only: Choice = field(default_factory=dict)


@dataclass(frozen=True)
class ReportSpec:
    """Figures of a study as JSON, an entry for each section: `compose` gives an entry's content."""

    name: str
    title: str
    study: str
    compose: Callable[[Section, Sequence[Row]], dict[str, Any]]
    only: Choice = field(default_factory=dict)

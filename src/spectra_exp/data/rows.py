"""What a row says: the value under a name or a dotted path, and the domain among the forms that it comes in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spectra_exp.data.documents import UNLABELLED, Document
from spectra_exp.foundations.errors import ConfigError, nearest

Row = dict[str, Any]

# What `find` gives where a row has nothing under a name; None is a null that is there.
MISSING = object()
# So many domains are never too many; beyond them there must be this many documents to a domain, on average.
FEW_DOMAINS = 10
DOCUMENTS_PER_DOMAIN = 2

# Names in one message, and characters of one.
_LISTED, _LONGEST = 20, 60


def find(row: Row, name: str) -> Any:
    """The value under a name or a dotted path (`meta.set`, `tags.0`); MISSING where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part in map(str, range(len(value))):
            value = value[int(part)]
        else:
            return MISSING
    return value


def names_of(row: Row) -> list[str]:
    """The names and dotted paths under which a row has values that are no objects."""
    names = []
    for name, value in row.items():
        inner = names_of(value) if isinstance(value, dict) else []
        names += [f"{name}.{part}" for part in inner] or [str(name)]
    return names


def listed(names: Iterable[str], asked: str = "") -> str:
    """The names in one line, the one most like `asked` named first; of very many the first ones."""
    names = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names]
    close = nearest(asked, names) if asked else None
    more = ", ..." if len(names) > _LISTED else ""
    return (f"did you mean '{close}'? " if close else "") + "there are: " + ", ".join(names[:_LISTED]) + more


def domain_of(row: Row, name: str, where: str) -> str | None:
    """The domain under `name`; None for null, nothing, or not-a-number, which tables have in place of null.

    Raises ConfigError for an object or a list, with what can be named instead.
    """
    value = find(row, name)
    if value is MISSING or value is None:
        return None
    if isinstance(value, dict):
        inner = ", ".join(f"{name}.{part}" for part in names_of(value)[:_LISTED])
        raise ConfigError("data.domain_field", f"'{name}' in {where} is an object", f"name one of its fields: {inner}")
    if isinstance(value, (list, tuple)):
        raise ConfigError(
            "data.domain_field",
            f"'{name}' in {where} is a list, {str(value)[:60]}",
            f"choose one of its entries, such as data.domain_field={name}.0, or another field; "
            + listed(names_of(row)),
        )
    if isinstance(value, float):
        if math.isnan(value):
            return None
        # Tables turn whole numbers beside a null into these.
        value = int(value) if value.is_integer() else value
    return str(value)


@dataclass
class DomainCount:
    """How many documents of a place have nothing under the `field` of the domain, and what is said of that.

    `usual`: the field's default, which data without domains need not have.
    """

    field: str | None
    usual: str | None
    without: int = 0
    documents: int = 0

    def add(self, domain: str | None) -> None:
        """Count a document."""
        self.documents += 1
        self.without += domain is None

    def refuse(self, where: str, names: Callable[[], Iterable[str]]) -> None:
        """Raise ConfigError, with the nearest of the `names` of rows, for a chosen field that no document has."""
        if self.field != self.usual and self.field is not None and self.without == self.documents:
            problem, known = f"none of the {self.documents} documents of {where} has a '{self.field}'", list(names())
            if self.field in known:
                raise ConfigError(
                    "data.domain_field", f"{problem}: all are empty", f"name another, or null; {listed(known)}"
                )
            raise ConfigError("data.domain_field", problem, f"check its name or give null; {listed(known, self.field)}")

    def notes(self, where: str, names: Callable[[], Iterable[str]]) -> list[str]:
        """The line for a reader of the figures, none where all documents have a domain or the data know none."""
        if self.field is None or not self.without:
            return []
        lacking = f"{self.without} of {self.documents} documents of {where} have no '{self.field}' (data.domain_field)"
        if self.without < self.documents or self.field != self.usual:
            return [f"{lacking}: they count as '{UNLABELLED}'"]
        known = {name.casefold(): name for name in names()}
        close = nearest(self.field.casefold(), known)
        like = known[close] if close else None
        if like == self.field:
            return [f"{lacking}: all are empty"]
        return [f"{lacking}; there is '{like}'"] if like else []


def refuse_a_domain_each(documents: Sequence[Document], names: Callable[[], Iterable[str]]) -> None:
    """Raise ConfigError where the domains are nearly as many as the documents; `names` gives those a row has."""
    domains = len({document.domain for document in documents})
    if domains > FEW_DOMAINS and domains * DOCUMENTS_PER_DOMAIN > len(documents):
        raise ConfigError(
            "data.domain_field",
            f"{domains} domains for {len(documents)} documents, nearly one each",
            "name a field of few values, or null" + (f"; {listed(known)}" if (known := list(names())) else ""),
        )

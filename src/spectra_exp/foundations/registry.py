"""Functions of one package's modules that register themselves by name, and which of them somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.modules import import_all

# Has a `name`, a `function`, and an `order`: its place among the others, lower first.
Entry = TypeVar("Entry", bound=Any)


class Registry(Generic[Entry]):
    """Entries by name. `kind`: what one is called; `package`: its modules register theirs when they are imported."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Take an entry in; a module that runs again replaces its own. ValueError for a name that another has taken."""
        if self._entries.get(entry.name, entry).function.__module__ != entry.function.__module__:
            raise ValueError(f"{self.kind} '{entry.name}' is registered twice")
        self._entries[entry.name] = entry

    def all(self) -> dict[str, Entry]:
        """All entries by name, in their order; every module of the package is found by itself."""
        import_all(self.package)
        return dict(sorted(self._entries.items(), key=lambda item: (item[1].order, item[0])))

    def chosen(self, names: Sequence[str]) -> list[Entry]:
        """The entries of these names in their order, or all. ConfigError for an unknown one, with the nearest."""
        known = self.all()
        ConfigError.refuse_unknown(f"{self.kind}s", names, known)
        return [entry for name, entry in known.items() if not names or name in names]

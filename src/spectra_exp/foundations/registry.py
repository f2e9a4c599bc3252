"""Functions of one package's modules that register themselves by name, and which of them somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.modules import import_all

# Has a `name`, a `function`, and an `order`: its place among the others, lower first.
Entry = TypeVar("Entry", bound=Any)


def check_free(kind: str, name: str, taken: Any, new: Any) -> None:
    """Raise ValueError where another class or function than `new` has the name.

    `taken`: the one registered so far, or None. A module, or a cell of a notebook, that runs again replaces its own.
    """
    if taken is not None and (taken.__module__, taken.__qualname__) != (new.__module__, new.__qualname__):
        raise ValueError(f"{kind} '{name}' is registered twice")


class Registry(Generic[Entry]):
    """Entries by name. `kind`: what one is called; `package`: its modules register theirs when they are imported."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Take an entry in. Raises ValueError as `check_free` does."""
        check_free(self.kind, entry.name, getattr(self._entries.get(entry.name), "function", None), entry.function)
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

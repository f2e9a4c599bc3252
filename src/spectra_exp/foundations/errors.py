"""The errors that a user is meant to read: one line each, and never a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Characters of one word that an error's line shows; paths are mostly shorter.
LONGEST_WORD = 240
# Valid names that a line lists.
MOST_LISTED = 150


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, or None when nothing resembles it."""
    matches = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return matches[0] if matches else None


def _shown(text: str) -> str:
    """The text with what nobody reads to its end cut: a long word, or many of them that are no list of names."""
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _cut(word[0], LONGEST_WORD), text)
    return text if ", " in text else _cut(text, 2 * LONGEST_WORD)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 40]}...{text[-37:]}"


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class SpectraError(Exception):
    """A failure that is the user's to mend; its text is one line that says how."""


class ConfigError(SpectraError, ValueError):
    """A setting that cannot be used: key path, the value given, what is accepted, the fix."""

    def __init__(self, key: str, problem: str, fix: str = ""):
        self.key, self.problem, self.fix = key, problem, fix
        text = f"{_shown(key)}: {_shown(problem)}" + (f"; {_shown(fix)}" if fix else "")
        super().__init__(" ".join(text.split()))

    @classmethod
    def unknown(cls, key: str, name: str, valid: Iterable[str]) -> ConfigError:
        """An unknown name, with the nearest valid one and the whole list, or of a long one the most alike."""
        valid = sorted(str(v) for v in valid)
        close = nearest(name, valid)
        hint = f"did you mean '{close}'? " if close else ""
        if len(valid) > MOST_LISTED:
            near = difflib.get_close_matches(str(name), valid, n=5, cutoff=0.0)
            return cls(key, f"unknown name '{name}'", f"{hint}{len(valid)} are valid, among them: {', '.join(near)}")
        return cls(key, f"unknown name '{name}'", f"{hint}valid: {', '.join(valid) or 'none'}")

    @classmethod
    def refuse_unknown(cls, key: str, names: Iterable[str], valid: Iterable[str]) -> None:
        """Raise it for the first of the names that is not a valid one."""
        for name in names:
            if name not in valid:
                raise cls.unknown(key, name, valid)

    def __reduce__(self):
        return (type(self), (self.key, self.problem, self.fix))


class NotYet(ConfigError):
    """A run that needs others first; `run_ids` are those that have not finished."""

    def __init__(self, key: str, problem: str, fix: str = "", run_ids: Iterable[str] = ()):
        super().__init__(key, problem, fix)
        self.run_ids = frozenset(run_ids)

    def __reduce__(self):
        return (type(self), (self.key, self.problem, self.fix, self.run_ids))


class RunInUse(SpectraError):
    """Another process holds the run's folder."""


class Diverged(SpectraError):
    """The loss became NaN, infinite or far above its start."""


class NotRun(SpectraError):
    """The run does not fit this machine or its time budget. `kind`: memory or time; `allowed`: MiB or seconds."""

    def __init__(self, text: str, kind: str, allowed: float):
        super().__init__(text)
        self.kind, self.allowed = kind, allowed

    def __reduce__(self):
        return (type(self), (str(self), self.kind, self.allowed))


def hub_errors() -> tuple[type[Exception], ...]:
    """What the Hugging Face client raises, for `except`: no network, refused, not found, or offline by the environment.

    The client's own errors are its HTTP library's, httpx or httpx2 by its version, and some of those no OSError.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    of_library = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return (HfHubHTTPError, of_library, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)

"""A verb of the command line: its keys as a dataclass, typed as key=value, with one form of help for all."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from spectra_exp.config.compose import check_outputs, prepare_environment
from spectra_exp.config.plugins import KEY as PLUGINS
from spectra_exp.config.plugins import load_typed_plugins
from spectra_exp.config.typed import parse_overrides
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields, describe_fields, option
from spectra_exp.foundations.shell import DONE, HELP, exit_status

TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
# The field of a verb's options that holds the words which are a run's own: model=exp10 seed=0..4.
OVERRIDES = "overrides"


@dataclass(frozen=True)
class VerbOptions:
    """The keys that every verb over finished runs has."""

    outputs: str | None = option(
        None, "folder of runs/, tables/ and the rest; SPECTRA_OUTPUTS, else outputs/", path=True
    )

    @property
    def folder(self) -> Path:
        """The folder of all outputs. Raises ConfigError for a file, and as `check_outputs` does."""
        named = self.outputs or os.environ["SPECTRA_OUTPUTS"]
        check_outputs(named)
        folder = Path(named)
        if folder.is_file():
            raise ConfigError("outputs", f"{folder} is a file", "give a folder")
        return folder


@dataclass(frozen=True)
class Verb:
    """One verb; called with the words after its name, it returns the exit status.

    `options`: the dataclass of its keys; `work`: does it and returns the status; `about`, `examples` and `more` (made
    when asked for) are its help; `bare`: the keys that words without `=` stand for, in their order; `stopped`: what is
    said after Ctrl-C.
    """

    name: str
    options: type
    work: Callable[[Any], int]
    about: str
    examples: tuple[str, ...] = ()
    more: Callable[[], str] = str
    bare: tuple[str, ...] = ()
    stopped: str = "stopped"

    def __call__(self, words: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if words is None else words
        return exit_status(lambda: self._do(words), self.stopped)

    def _do(self, words: Sequence[str]) -> int:
        prepare_environment()
        if set(HELP) & set(words):
            print(self.help(), end="")
            return DONE
        load_typed_plugins(words)
        if OVERRIDES not in {f.name for f in fields(self.options)}:
            plugins = [word for word in words if word.startswith(PLUGINS)]
            parse_overrides(plugins)
            words = [word for word in words if word not in plugins]
        return self.work(read_options(self.options, assignments(self.options, words, self.bare)))

    def help(self) -> str:
        """The keys with their meanings, ranges and defaults, what else there is, and examples."""
        rows = [row for row in describe_fields(self.options) if row["name"] != OVERRIDES]
        width = max((len(row["name"]) for row in rows), default=0)
        lines = [f"usage: spectra-exp {self.name} [key=value ...]", "", self.about, "", "Keys:"]
        for row in rows:
            unset = row["default"].lower() if row["default"] in ("True", "False") else row["default"]
            default = f"; {unset} unless set" if unset not in ("None", "()", "") else ""
            lines.append(f"  {row['name']:<{width}}  {row['told']}{default}")
        if OVERRIDES in {f.name for f in fields(self.options)}:
            lines.append("  and a run's own keys: model=exp10 trainer.max_steps=50 (spectra-exp run --help)")
        else:
            lines.append(f"  {PLUGINS[:-1]:<{width}}  {PLUGINS}[a,b]: modules to import first")
        if self.bare:
            lines.append(f"  without a key: {' '.join(key.upper() for key in self.bare)}")
        if more := self.more():
            lines += ["", more]
        if self.examples:
            lines += ["", "Examples:", *(f"  spectra-exp {self.name} {example}".rstrip() for example in self.examples)]
        return "\n".join(lines) + "\n"


def assignments(schema: type, words: Sequence[str], bare: Sequence[str] = ()) -> list[str]:
    """The words as key=value, those without `=` for the keys of `bare`; `--key VALUE`, of the last version, is told."""
    hints, found, left = get_type_hints(schema), [], list(words)
    places = list(bare)
    while left:
        word = left.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and key in hints:
            given = [value] if equals else []
            while hints[key] is not bool and not equals and left and not left[0].startswith("--"):
                given.append(left.pop(0))
                if not _is_list(hints[key]):
                    break
            found.append(f"{key}={'true' if hints[key] is bool and not equals else ','.join(given)}")
            print(f"note: '{word}' is given as {found[-1]} from the next version on", file=sys.stderr)
        elif places and not equals and not word.startswith("-"):
            key = places[0] if _is_list(hints[places[0]]) else places.pop(0)
            found.append(f"{found.pop()},{word}" if found and found[-1].startswith(f"{key}=") else f"{key}={word}")
        else:
            found.append(word)
    return found


def read_options(schema: type, words: Sequence[str]) -> Any:
    """The options that were typed. Raises ConfigError for a key that is unknown or given twice, or for a wrong value.

    A key that the schema does not have is a run's own where the schema has `overrides`.
    """
    hints, values, rest = get_type_hints(schema), {}, []
    known = [f.name for f in fields(schema) if f.name != OVERRIDES]
    meanings = {f.name: f.metadata.get("meaning", "") for f in fields(schema)}
    for word in words:
        key, equals, text = word.partition("=")
        if OVERRIDES in hints and key not in known:
            rest.append(word)
            continue
        if not equals or word.startswith("-"):
            raise ConfigError("command line", f"'{word}' is not key=value", f"keys: {', '.join(known)}; or --help")
        if key not in known:
            raise ConfigError.unknown(key, key, known)
        if key in values:
            raise ConfigError(key, f"was given twice ('{text}' the second time)", "give it once")
        if not text:
            raise ConfigError(key, "has no value", f"it is: {meanings[key]}")
        values[key] = _value(key, text, hints[key])
    options = schema(**values, **({OVERRIDES: tuple(rest)} if OVERRIDES in hints else {}))
    check_fields(options, "")
    return options


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _value(key: str, text: str, kind: Any) -> Any:
    """What a typed text stands for; texts stay as they are, also those that look like numbers or lists."""
    if isinstance(kind, types.UnionType):
        if text == "null":
            return None
        kind = next(k for k in get_args(kind) if k is not type(None))
    if _is_list(kind):
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not names:
            raise ConfigError(key, f"'{text}' names none", "give names, separated by commas")
        return names
    if kind is bool:
        if text.lower() not in TRUTHS:
            raise ConfigError(key, f"'{text}' is neither true nor false")
        return TRUTHS[text.lower()]
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(key, f"'{text}' is not a {'whole ' if kind is int else ''}number") from None


def dispatch(name: str, commands: Mapping[str, Verb], words: Sequence[str]) -> int:
    """The exit status of the one of the commands of a verb that the first word names."""
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    if words and words[0] in HELP:
        print(f"usage: spectra-exp {name} COMMAND [key=value ...]\n")
        print("\n".join(f"  {own:<8} {verb.about}" for own, verb in commands.items()))
        return DONE

    def refuse() -> int:
        raise ConfigError.unknown(name, words[0] if words else "", commands)

    return exit_status(refuse)


def renamed(module: str, verb: str, main: Callable[[Sequence[str]], int]) -> int:
    """The exit status of a verb that was called by its name in the last version, which is told."""
    print(f"note: `python -m {module}` is `spectra-exp {verb}` from the next version on", file=sys.stderr)
    return main(sys.argv[1:])

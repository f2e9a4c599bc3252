"""What the last word of a command line may become; quick where no schema is needed, since a Tab waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, get_type_hints

from spectra_exp.cli import VERBS
from spectra_exp.config.tree import KINDS, named_files, option_files, roots
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.shell import DONE

if TYPE_CHECKING:
    from spectra_exp.config.verb import Verb

# Verbs that take a run's keys and no others.
RUNS = ("run", "search")


def main(words: Sequence[str]) -> int:
    """The exit status of `query LINE`, which the shell asks, or of the command that the first word names."""
    if words and words[0] == "query":
        print("\n".join(candidates(" ".join(words[1:]))))
        return DONE
    from spectra_exp.completion.command import COMMANDS
    from spectra_exp.config.verb import dispatch

    return dispatch("completion", COMMANDS, words)


def verbs_of(name: str) -> list[Verb]:
    """A verb and those that stand below it, such as `study show`; none for those that take a run's keys alone."""
    from spectra_exp.config.verb import Verb

    module, _, function = VERBS[name][0].partition(":")
    room = import_module(f"spectra_exp.{module}")
    own = [getattr(room, function), getattr(room, "PACK", None)]
    below = import_module(__name__.replace("query", "command")) if name == "completion" else room
    return [verb for verb in (*own, *getattr(below, "COMMANDS", {}).values()) if isinstance(verb, Verb)]


def candidates(line: str) -> list[str]:
    """What the last word of a command line may become, sorted; a line that ends in a space begins a new word."""
    words = line.split()[1:] + ([""] if line.endswith(" ") else [])
    *before, word = words or [""]
    if not before:
        return _fitting(word, (f"{verb} " for verb in VERBS))
    verb, *rest = before
    if verb in RUNS:
        return _fitting(word, _of_a_run(word))
    below = {own.name.partition(" ")[2]: own for own in verbs_of(verb)} if verb in VERBS else {}
    own = below.get(rest[0] if rest else "", below.get(""))
    found = [] if rest else [f"{name} " for name in below if name]
    if own is not None:
        found += _keys(own.options)
        if word.startswith("study=") and "study=" in found:
            found += [f"study={name} " for kind in KINDS for name in named_files(kind)]
        found += _of_a_run(word) if "overrides" in {f.name for f in fields(own.options)} else []
    return _fitting(word, found)


def _fitting(word: str, found: Iterable[str]) -> list[str]:
    return sorted({one for one in found if one.startswith(word)})


def _keys(schema: type, prefix: str = "") -> list[str]:
    """The keys of a schema, with their values where those are words that are known."""
    found, hints = [], get_type_hints(schema)
    for f in fields(schema):
        values = f.metadata.get("choices") or (("true", "false") if hints[f.name] is bool else ())
        found += [f"{prefix}{f.name}=", *(f"{prefix}{f.name}={value}" for value in values)]
    return [key for key in found if key != "overrides="]


def _of_a_run(word: str) -> list[str]:
    """Groups with their options, studies, and the keys of the group that the word begins with."""
    found = [f"{kind}=" for kind in KINDS] + [f"{kind}={name} " for kind in KINDS for name in named_files(kind)]
    for group in _groups():
        found += [f"{group}=", f"{group}."]
        found += [f"{group}={name} " for name in option_files(group)] if word.startswith(f"{group}=") else []
    if "=" in word and any(one.startswith(word) for one in found):
        return found
    from spectra_exp.config.plugins import load_own_plugins
    from spectra_exp.config.register import group_schemas
    from spectra_exp.config.schema import GROUPS, RootKeys

    # What a plug-in lacks is said when a command is given; a Tab offers what there is without it.
    with suppress(ConfigError):
        load_own_plugins()
    found += _keys(RootKeys)
    group = word.partition(".")[0]
    for schema in group_schemas(group).values() if group in GROUPS and "." in word else ():
        found += _keys(schema, f"{group}.")
    return found


def _groups() -> list[str]:
    """The groups of options: the folders of `conf/`, but for those of Hydra's own."""
    folders = {path.name for root in roots() for path in (root / "conf").iterdir() if path.is_dir()}
    return sorted(name for name in folders - {"hydra"} if option_files(name))

"""Every key there is, and the error for one that is not among them."""

from __future__ import annotations

from dataclasses import fields

from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import train_words
from spectra_exp.foundations.errors import ConfigError, nearest
from spectra_exp.foundations.options import type_name


def root_keys() -> list[str]:
    """The keys outside the groups, and the groups."""
    return [*(f.name for f in fields(RootKeys)), *GROUPS]


# What the values of a type are called.
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[str]": "a list of texts: [a,b]",
}


def is_key(key: str) -> bool:
    """Whether some choice of options has the key, or it is a group's."""
    return key in root_keys() or bool(_declared(key))


def meant_by(key: str) -> str:
    """What a key takes, such as "a whole number"."""
    return " or ".join(sorted({WORDS.get(kind.removesuffix(" | None"), kind) for kind in _declared(key)}))


def _declared(key: str) -> list[str]:
    """The types that a key has, under one option of its group or another."""
    group, _, name = key.partition(".")
    nodes = group_schemas(group).values() if group in GROUPS else [RootKeys]
    wanted = name if group in GROUPS else key
    return [type_name(f) for node in nodes for f in fields(node) if f.name == wanted]


def known_keys() -> list[str]:
    """Every key of every schema, as `group.name`."""
    keys = []
    for group in GROUPS:
        for node in group_schemas(group).values():
            keys += [f"{group}.{f.name}" for f in fields(node)]
    return sorted(set(keys))


def unknown_key(key: str, typed: dict[str, str]) -> ConfigError:
    """The error for a key that does not exist (`typed`: what was given), with the nearest one that does."""
    group, _, name = key.partition(".")
    known = known_keys()
    if group not in GROUPS or not name:
        candidates = root_keys() + known
    else:
        candidates = [k for k in known if k.startswith(group + ".")]
    # A bare key such as max_steps is most likely the last part of one.
    ends = [k for k in known if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    close = ends[0] if ends else nearest(key, candidates)
    if key in known:
        choice = typed.get(group)
        chosen = f" ({group}={choice})" if choice else ""
        return ConfigError(
            key, f"the chosen {group}{chosen} has no such option", f"see `{' '.join(train_words())} --help {group}`"
        )
    topic = f" {group}" if group in GROUPS else ""
    hint = f"did you mean '{close}'?" if close else f"see `{' '.join(train_words())} --help{topic}`"
    return ConfigError(key, "unknown key", hint)

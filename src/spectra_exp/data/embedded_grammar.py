"""What the embedded domains share: topics with lasting facts, templates with slots, invented names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

from spectra_exp.data.dice import Dice

_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"\w+|[^\w\s]|\n")


class Topic(Protocol):
    """One subject of a document: facts drawn once, told again whenever the document returns to it."""

    name: str

    def __init__(self, dice: Dice): ...

    def opening(self, dice: Dice) -> str:
        """The line with which a section on this topic begins; it names the topic."""

    def line(self, dice: Dice) -> str:
        """One more line (a sentence, a statement, an entry) about the topic."""


def count_words(text: str) -> int:
    """The length of a text in words, punctuation marks and line breaks, the unit of every length here."""
    return len(_WORD.findall(text))


def invented_name(dice: Dice) -> str:
    """A capitalised name out of about a thousand, some far more frequent than others."""
    return dice.skewed(_NAMES["head"]) + dice.skewed(_NAMES["tail"])


def fill(template: str, dice: Dice, words: Mapping[str, Sequence[str]], facts: Mapping[str, str]) -> str:
    """The template with each {slot} replaced by the fact of that name, else by a word of that list."""
    return "".join(
        part if index % 2 == 0 else facts.get(part) or dice.skewed(words[part])
        for index, part in enumerate(_parse(template))
    )


def lexicon(**lists: str) -> dict[str, tuple[str, ...]]:
    """Word lists by name; a list is written as words between spaces, most frequent first."""
    return {name: tuple(text.split()) for name, text in lists.items()}


@cache
def _parse(template: str) -> tuple[str, ...]:
    return tuple(_SLOT.split(template))


_NAMES = lexicon(
    head="Mar Tel Or Bel Sun Kar Vin Dor Hal Ros Pel Lun Gar Fen Tam Wil Nor Cas Jor Ebb Rud Sil Ath Quen "
    "Bram Lys Ked Yar Mon Zef Ul Hod Prim Stel Vor Gwen Isk Ott Drav Clem",
    tail="a en or ick is el una ow in ard ette o by and eth ia mer ton usk ella ine ath ory ip ane ult ess",
)

"""The words that tokens are parts of, and how a token looks in its context.

Letters: N tokens, W occurrences of words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spectra_exp.interpret.trace import Trace

WORD = re.compile(r"[^\W_]+(?:['_-][^\W_]+)*|\S")
NONE = -1
BEFORE, AFTER = 16, 8


@dataclass(frozen=True)
class Words:
    """`occurrence_N`: which word in the text each token is a part of, -1 for blanks; `word_W`: its place in `names`."""

    occurrence_N: np.ndarray
    word_W: np.ndarray
    names: list[str]


def words_of(trace: Trace, spelling: Callable[[int], str]) -> Words:
    """The words of the text, lower case, document by document; a token that spans several counts for its first.

    A word is letters and digits, or one other character that is no blank; a token that spells nothing parts words.
    """
    # A blank in place of nothing: the next document's first word must not grow onto the last one's end.
    pieces = {token_id: spelling(token_id) or " " for token_id in np.unique(trace.token_ids_N).tolist()}
    occurrence_N = np.full(trace.num_tokens, NONE, dtype=np.int64)
    place_of: dict[str, int] = {}
    word_W: list[int] = []
    bounds = np.flatnonzero(np.diff(trace.documents_N, prepend=-1, append=-1))
    for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        spelled = [pieces[token_id] for token_id in trace.token_ids_N[first:end].tolist()]
        starts = np.cumsum([0, *map(len, spelled)])
        for found in WORD.finditer("".join(spelled)):
            # The tokens that overlap the word and belong to no earlier one.
            low = int(np.searchsorted(starts, found.start(), side="right")) - 1
            high = int(np.searchsorted(starts, found.end(), side="left"))
            mine = np.arange(first + low, first + high)
            occurrence_N[mine[occurrence_N[mine] == NONE]] = len(word_W)
            word_W.append(place_of.setdefault(found[0].lower(), len(place_of)))
    return Words(occurrence_N, np.array(word_W, dtype=np.int64), list(place_of))


def context(
    trace: Trace, token: int, piece: Callable[[int], str], around: Callable[[int], str]
) -> tuple[str, str, str]:
    """The text before a token, the token, and the text after it, all within its document and its sequence.

    `piece`: how the token is spelled; `around`: how its neighbours are.
    """
    first, last = max(0, token - BEFORE), min(trace.num_tokens, token + AFTER + 1)
    home = trace.documents_N[token], trace.sequences_N[token]
    near = [i for i in range(first, last) if (trace.documents_N[i], trace.sequences_N[i]) == home]
    before, after = (
        "".join(around(int(trace.token_ids_N[i])) for i in near if keep(i))
        for keep in (lambda i: i < token, lambda i: i > token)
    )
    return before, piece(int(trace.token_ids_N[token])), after

"""Where each expert is most wanted: its tokens of largest weight, each in its context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from spectra_exp.interpret.registry import ROUTED, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import Trace

KEPT = 10
# Of one spelling, and from one document: ten times the same place would show nothing more.
MOST_ALIKE = 2
# Tokens that are shown around one.
BEFORE, AFTER = 16, 8


@part("Top contexts of each expert, with the token marked", ROUTED, order=21)
def contexts(request: Request) -> Result:
    """The tokens that each expert serves with the largest weight, as first expert before others."""
    subject, trace = request.subject, request.subject.trace
    rows = []
    for layer in range(trace.num_layers):
        for expert in range(subject.num_experts):
            for rank, row in enumerate(top_contexts(subject, layer, expert), start=1):
                rows.append({"layer": layer, "expert": expert, "rank": rank} | row)
    unused = [
        f"layer {layer} expert {expert}"
        for layer, stats in enumerate(trace.statistics)
        for expert in np.flatnonzero(stats.counts_E == 0)
    ]
    notes = [f"At most {MOST_ALIKE} of one token id and of one document."]
    notes += [f"Without a token of this text: {', '.join(unused)}."] if unused else []
    return Result(tables={"contexts": pd.DataFrame(rows)}, notes=notes)


def top_contexts(subject: Subject, layer: int, expert: int) -> Iterator[dict[str, Any]]:
    """The tokens of `top_tokens`, each with its weight, its domain and the text around it."""
    trace = subject.trace
    for token, place in top_tokens(trace, layer, expert):
        before, marked, after = context(trace, token, subject.piece, subject.around)
        domain = int(trace.domains_N[token])
        yield {
            "token": token,
            "token_id": int(trace.token_ids_N[token]),
            "domain": subject.domains[domain] if domain >= 0 else "",
            "weight": trace.weights_NLK[token, layer, place],
            "before": before,
            "marked": marked,
            "after": after,
        }


def top_tokens(trace: Trace, layer: int, expert: int) -> list[tuple[int, int]]:
    """Up to KEPT (token, place among its experts): by place, then by falling weight, then in reading order."""
    tokens, places = np.nonzero(trace.experts_NLK[:, layer] == expert)
    weights = trace.weights_NLK[tokens, layer, places]
    found: list[tuple[int, int]] = []
    alike: Counter[tuple[str, int]] = Counter()
    for index in np.lexsort((tokens, -weights, places)):
        token = int(tokens[index])
        keys = [("id", int(trace.token_ids_N[token])), ("document", int(trace.documents_N[token]))]
        if all(alike[key] < MOST_ALIKE for key in keys):
            alike.update(keys)
            found.append((token, int(places[index])))
            if len(found) == KEPT:
                break
    return found


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

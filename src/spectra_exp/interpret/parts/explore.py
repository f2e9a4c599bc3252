"""What the page needs to let a person look at a layer's experts by hand: samples, running text, a token's ways.

Letters: N tokens, L layers, E experts, K experts per token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spectra_exp.interpret.draw import expert_colours
from spectra_exp.interpret.parts.contexts import top_contexts
from spectra_exp.interpret.parts.keywords import top_words, words_of
from spectra_exp.interpret.registry import ROUTED, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import evenly

# Most tokens of running text and token ids that can be searched; fewer where there are many layers and experts per
# token, so that the page stays a page.
EXCERPT_TOKENS, SEARCHED_IDS = 3000, 3000
EXCERPT_NUMBERS, SEARCHED_NUMBERS = 120_000, 48_000
KEYWORDS, BEST = 10, 3


@part(
    "Explorer: samples of each expert, running text and search of a token, on the page",
    ROUTED,
    order=70,
    both=True,
)
def explore(request: Request) -> Result:
    """One entry for each subject, all that the page shows of it."""
    sides = [_side(subject) for subject in request.subjects if subject.num_layers]
    shown, searched = len(sides[0]["text"]["pieces"]), len(sides[0]["search"])
    return Result(
        data={"explore": sides},
        notes=[
            f"Running text: {shown} tokens from all over the text. Search: the {searched} most frequent token ids. "
            "Shares and samples are over the whole text."
        ],
    )


def _side(subject: Subject) -> dict[str, Any]:
    trace = subject.trace
    return {
        "name": subject.name,
        "label": subject.label,
        "layers": trace.num_layers,
        "experts": subject.num_experts,
        "colours": expert_colours(subject.num_experts),
        "shares": [np.round(stats.share_E, 4) for stats in trace.statistics],
        "keywords": _keywords(subject),
        "samples": [
            [_samples(subject, layer, expert) for expert in range(subject.num_experts)]
            for layer in range(trace.num_layers)
        ],
        "text": _excerpt(subject),
        "search": _search(subject),
    }


def _keywords(subject: Subject) -> list[list[list[str]]]:
    """Words by layer and expert."""
    trace, words = subject.trace, words_of(subject.trace, subject.spelling)
    found = []
    for layer in range(trace.num_layers):
        best = top_words(trace, layer, words)
        found.append(
            [
                [words.names[t] for t in best[best["expert"] == expert]["term"].head(KEYWORDS)] if len(best) else []
                for expert in range(subject.num_experts)
            ]
        )
    return found


def _samples(subject: Subject, layer: int, expert: int) -> list[dict[str, Any]]:
    shown = ("before", "marked", "after", "domain")
    return [
        {key: found[key] for key in shown} | {"weight": round(float(found["weight"]), 3)}
        for found in top_contexts(subject, layer, expert)
    ]


def _excerpt(subject: Subject) -> dict[str, Any]:
    """Whole sequences from all over the text, so that every domain has a chance of being there."""
    trace = subject.trace
    length = int(trace.positions_N.max()) + 1
    most = min(EXCERPT_TOKENS, max(1, EXCERPT_NUMBERS // trace.experts_NLK[0].size))
    chosen = evenly(trace.num_tokens // length, max(1, most // length))
    # Of a sequence longer than the excerpt, its beginning.
    tokens = np.concatenate([np.arange(row * length, (row + 1) * length)[:most] for row in chosen])
    documents, domains = trace.documents_N[tokens], trace.domains_N[tokens]
    starts = np.flatnonzero(np.diff(documents, prepend=-1) | (trace.positions_N[tokens] == 0))
    return {
        "pieces": [subject.piece(token_id) for token_id in trace.token_ids_N[tokens].tolist()],
        "starts": starts,
        "domains": [subject.domains[d] if d >= 0 else "" for d in domains[starts].tolist()],
        "losses": np.round(trace.losses_N[tokens].astype(float), 2),
        "experts": trace.experts_NLK[tokens].transpose(1, 0, 2),
        "weights": np.round(trace.weights_NLK[tokens].transpose(1, 0, 2).astype(float), 2),
    }


def _search(subject: Subject) -> list[list[Any]]:
    """[piece, id, occurrences, by layer [expert, share of the id's assignments, ...]] of the most frequent ids."""
    trace = subject.trace
    ids, counts = np.unique(trace.token_ids_N, return_counts=True)
    most = min(SEARCHED_IDS, SEARCHED_NUMBERS // trace.num_layers)
    ranked = np.argsort(-counts, kind="stable")[:most]
    rows: list[list[Any]] = [[subject.piece(int(ids[i])), int(ids[i]), int(counts[i]), []] for i in ranked]
    for stats in trace.statistics:
        for row in rows:
            count_E = stats.counts_EV[:, row[1]]
            best = [int(e) for e in np.argsort(-count_E, kind="stable")[:BEST] if count_E[e]]
            total = max(int(count_E.sum()), 1)
            row[3].append([entry for e in best for entry in (e, round(int(count_E[e]) / total, 3))])
    return rows

"""The words and the token ids that set an expert's text apart from that of the layer's other experts.

Letters: N tokens, K experts per token, E experts, W occurrences of words, T terms (words or token ids).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import panels
from spectra_exp.interpret.registry import CHOICE, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.trace import Trace

# Terms that the text has less often say nothing about an expert.
LEAST_COUNT = 5
KEPT, DRAWN = 15, 7
MOST_DRAWN_EXPERTS = 32
WORD = re.compile(r"[^\W_]+(?:['_-][^\W_]+)*|\S")
NONE = -1


@part("Keywords of each expert: words and token ids, against the other experts", *CHOICE, order=20)
def keywords(request: Request) -> Result:
    """The first terms of each expert by how far their TF-IDF lies above its mean over the other experts."""
    subject, trace = request.subject, request.subject.trace
    words = words_of(trace, subject.spelling)
    ids, id_N = np.unique(trace.token_ids_N, return_inverse=True)
    spelled = [subject.piece(token_id) for token_id in ids.tolist()]
    every = np.arange(trace.num_tokens)
    by_word, by_id = [], []
    for layer in range(trace.num_layers):
        by_word.append(top_words(trace, layer, words))
        by_id.append(top_terms(term_counts(trace, layer, every, id_N, len(ids)), np.bincount(id_N)))
    if not any(len(found) for found in by_word + by_id):
        raise Empty(f"no word and no token id occurs {LEAST_COUNT} times in the text")
    result = Result(
        notes=[
            f"Words and ids with fewer than {LEAST_COUNT} occurrences in the text are left out. A word counts once for "
            "each expert that any of its tokens used. `contrast`: TF-IDF less its mean over the layer's other experts; "
            "`lift`: share of the expert's terms over share of the text's."
        ]
    )
    result.tables["keywords"] = _joined(by_word, lambda term: {"term": words.names[term]})
    result.tables["token_ids"] = _joined(by_id, lambda term: {"token_id": int(ids[term]), "piece": spelled[term]})
    result.add_picture(
        "keywords",
        "The first words of each expert by contrast, layer by layer.",
        lambda figure: _draw(figure, by_word, words.names, subject.num_experts),
    )
    return result


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


def top_words(trace: Trace, layer: int, words: Words) -> pd.DataFrame:
    """`top_terms` of the words; `term`: the place in `words.names`."""
    counts_ET = term_counts(trace, layer, words.occurrence_N, words.word_W, len(words.names))
    return top_terms(counts_ET, np.bincount(words.word_W, minlength=len(words.names)))


def term_counts(trace: Trace, layer: int, occurrence_N: np.ndarray, term_W: np.ndarray, num_terms: int) -> np.ndarray:
    """int64 [E, T]: occurrences of each term of which any token used the expert; -1 marks a token without one."""
    num_experts = trace.statistics[layer].num_experts
    experts_NK = trace.experts_NLK[:, layer].astype(np.int64)
    occurrence_NK = np.broadcast_to(occurrence_N[:, None], experts_NK.shape)
    real = (experts_NK >= 0) & (occurrence_NK >= 0)
    pairs = np.unique(occurrence_NK[real] * num_experts + experts_NK[real])
    cells = (pairs % num_experts) * num_terms + term_W[pairs // num_experts]
    return np.bincount(cells, minlength=num_experts * num_terms).reshape(num_experts, num_terms)


def top_terms(counts_ET: np.ndarray, text_T: np.ndarray) -> pd.DataFrame:
    """For each expert its KEPT terms of largest positive contrast; `text_T`: occurrences in the text.

    TF-IDF is scikit-learn's, with the experts as documents.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    kept_T = np.flatnonzero(text_T >= LEAST_COUNT)
    num_experts = len(counts_ET)
    if not len(kept_T) or num_experts < 2:
        return pd.DataFrame()
    few_ET = counts_ET[:, kept_T]
    tfidf_ET = TfidfTransformer().fit_transform(few_ET).toarray()
    contrast_ET = (num_experts * tfidf_ET - tfidf_ET.sum(axis=0)) / (num_experts - 1)
    share_ET = few_ET / np.maximum(few_ET.sum(axis=1, keepdims=True), 1)
    share_T = text_T[kept_T] / text_T[kept_T].sum()
    rows = []
    for expert in range(num_experts):
        # Stable: of equal ones the first in the text comes first.
        best = np.argsort(-contrast_ET[expert], kind="stable")[:KEPT]
        for rank, place in enumerate(best[contrast_ET[expert, best] > 0], start=1):
            rows.append(
                {
                    "expert": expert,
                    "rank": rank,
                    "term": int(kept_T[place]),
                    "count": int(few_ET[expert, place]),
                    "in_text": int(text_T[kept_T[place]]),
                    "lift": share_ET[expert, place] / share_T[place],
                    "tfidf": tfidf_ET[expert, place],
                    "contrast": contrast_ET[expert, place],
                }
            )
    return pd.DataFrame(rows)


def _joined(by_layer: list[pd.DataFrame], name) -> pd.DataFrame:
    rows = []
    for layer, found in enumerate(by_layer):
        for row in found.to_dict("records"):
            named = name(row.pop("term"))
            rows.append({"layer": layer, "expert": row.pop("expert"), "rank": row.pop("rank")} | named | row)
    return pd.DataFrame(rows)


def _draw(figure: Figure, by_layer: list[pd.DataFrame], names: list[str], num_experts: int) -> None:
    shown = min(num_experts, MOST_DRAWN_EXPERTS)
    for layer, axes in enumerate(panels(figure, len(by_layer), (3.5, 0.19 * shown + 0.45), columns=2)):
        axes.set_axis_off()
        more = f" (experts 0 to {shown - 1})" if shown < num_experts else ""
        axes.set_title(f"layer {layer}{more}", loc="left")
        axes.set_ylim(shown - 0.5, -0.5)
        axes.set_xlim(0, 1)
        found = by_layer[layer]
        for expert in range(shown):
            mine = found[found["expert"] == expert]["term"].head(DRAWN) if len(found) else []
            line = "   ".join(names[term] for term in mine) or "(none)"
            axes.text(0.0, expert, str(expert), fontweight="bold", va="center", fontsize=6.5)
            # A dollar sign would begin a formula.
            axes.text(0.07, expert, line.replace("$", r"\$")[:70], va="center", fontsize=6.5)

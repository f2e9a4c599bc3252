"""Case studies: a text followed token by token through the layers of one model or of two.

Letters: N tokens, L layers, K experts per token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import expert_colours, panels
from spectra_exp.interpret.registry import ROUTED, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import Trace, mean_of

MOST_CASES, MOST_TOKENS = 12, 256
# Of the held-out text, where no text is given.
HELD_OUT_TOKENS = 96
DRAWN_TOKENS = 48
# A segment ends with a line or a sentence.
SEGMENT_END = re.compile(r"\n|[.!?]\s*$")


@dataclass(frozen=True)
class Case:
    """A text as one subject routes it."""

    title: str
    subject: Subject
    pieces: list[str]
    trace: Trace

    def segments(self) -> Iterator[tuple[int, int]]:
        """(first, end) of each segment, in tokens."""
        first = 0
        for place, piece in enumerate(self.pieces, start=1):
            if place == len(self.pieces) or SEGMENT_END.search(piece):
                yield first, place
                first = place


@part("Case studies: texts token by token, experts and weights side by side", ROUTED, order=60, both=True)
def cases(request: Request) -> Result:
    """A trace of each text given (text=, texts=), or of the first documents of the held-out text's domains."""
    titled = _titled(request)
    if not titled:
        raise Empty("no text was given and there is no held-out text")
    notes = []
    if len(titled) > MOST_CASES:
        notes.append(f"The first {MOST_CASES} of {len(titled)} texts.")
    made = [
        [_case(title, text, subject) for subject in request.subjects if subject.num_layers]
        for title, text in titled[:MOST_CASES]
    ]
    if any(len(case.pieces) == MOST_TOKENS for sides in made for case in sides):
        notes.append(f"Texts are cut at {MOST_TOKENS} tokens.")
    flat = [(number, case) for number, sides in enumerate(made, start=1) for case in sides]
    shown = [{"title": sides[0].title, "sides": [_as_json(case) for case in sides]} for sides in made]
    result = Result(notes=notes, data={"cases": shown})
    result.tables["tokens"] = pd.DataFrame([row for number, case in flat for row in _token_rows(number, case)])
    result.tables["segments"] = pd.DataFrame([row for number, case in flat for row in _segment_rows(number, case)])
    result.add_picture(
        "tokens",
        f"First expert of each of the first {DRAWN_TOKENS} tokens, layer by layer.",
        lambda figure: _draw(figure, [case for _, case in flat][:8]),
    )
    return result


def _titled(request: Request) -> list[tuple[str, str]]:
    """(title, text) of each case."""
    if request.texts:
        return [(document.id, document.text) for document in request.texts]
    subject, text = request.subject, request.subject.held_out
    ids, documents, domains = (array.ravel() for array in text.arrays)
    starts = np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))
    found: dict[int, tuple[str, str]] = {}
    for start in starts.tolist():
        domain = int(domains[start])
        if domain in found:
            continue
        mine = ids[start : start + HELD_OUT_TOKENS][documents[start : start + HELD_OUT_TOKENS] == documents[start]]
        spelled = subject.tokenizer.decode(mine.tolist(), skip_special_tokens=True)
        if spelled.strip():
            found[domain] = (subject.domains[domain] if domain >= 0 else "held-out text", spelled)
    return [found[domain] for domain in sorted(found)]


def _case(title: str, text: str, subject: Subject) -> Case:
    ids = subject.encode(text)[:MOST_TOKENS]
    if not ids:
        raise Empty(f"the text '{title}' has no token for the tokenizer of {subject.name}")
    trace = subject.trace_of(ids)
    return Case(title, subject, [subject.piece(token_id) for token_id in trace.token_ids_N.tolist()], trace)


def _as_json(case: Case) -> dict[str, Any]:
    trace = case.trace
    return {
        "name": case.subject.name,
        "label": case.subject.label,
        "colours": expert_colours(case.subject.num_experts),
        "pieces": case.pieces,
        "losses": np.round(trace.losses_N.astype(float), 3),
        # By layer, token, place.
        "experts": trace.experts_NLK.transpose(1, 0, 2),
        "weights": np.round(trace.weights_NLK.transpose(1, 0, 2).astype(float), 3),
    }


def _token_rows(number: int, case: Case) -> Iterator[dict[str, Any]]:
    trace = case.trace
    for token, piece in enumerate(case.pieces):
        for layer in range(trace.num_layers):
            experts, weights = trace.experts_NLK[token, layer], trace.weights_NLK[token, layer]
            real = experts >= 0
            yield {
                "case": number,
                "title": case.title,
                "name": case.subject.name,
                "token": token,
                "piece": piece,
                "loss": trace.losses_N[token],
                "layer": layer,
                "experts": " ".join(map(str, experts[real])),
                "weights": " ".join(f"{weight:.3f}" for weight in weights[real]),
            }


def _segment_rows(number: int, case: Case) -> Iterator[dict[str, Any]]:
    trace = case.trace
    for segment, (first, end) in enumerate(case.segments()):
        for layer in range(trace.num_layers):
            share_E = expert_shares(trace, layer, first, end, case.subject.num_experts)
            best = np.argsort(-share_E, kind="stable")[:2]
            yield {
                "case": number,
                "title": case.title,
                "name": case.subject.name,
                "segment": segment,
                "text": "".join(case.pieces[first:end]),
                "tokens": end - first,
                "loss": mean_of(trace.losses_N[first:end]),
                "layer": layer,
                "expert": int(best[0]) if share_E[best[0]] > 0 else None,
                "share": float(share_E[best[0]]),
                "second": int(best[1]) if len(best) > 1 and share_E[best[1]] > 0 else None,
                "second_share": float(share_E[best[1]]) if len(best) > 1 else None,
            }


def expert_shares(trace: Trace, layer: int, first: int, end: int, num_experts: int) -> np.ndarray:
    """[E] each expert's share of the weight of the tokens from `first` to before `end`; zeros without any weight."""
    experts, weights = trace.experts_NLK[first:end, layer], trace.weights_NLK[first:end, layer]
    real = experts >= 0
    total_E = np.bincount(experts[real].astype(np.int64), weights=weights[real].astype(float), minlength=num_experts)
    return total_E / total_E.sum() if total_E.sum() > 0 else total_E


def _draw(figure: Figure, drawn: list[Case]) -> None:
    height = 0.16 * max(case.trace.num_layers for case in drawn) + 0.75
    for case, axes in zip(drawn, panels(figure, len(drawn), (6.6, height), 1), strict=True):
        first_LN = case.trace.first_NL[:DRAWN_TOKENS].T.astype(float)
        colours = expert_colours(case.subject.num_experts)
        # Half a step each way keeps the only expert of a layer inside the scale.
        axes.imshow(
            np.ma.masked_less(first_LN, 0),
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(colours) - 0.5,
            aspect="auto",
            interpolation="nearest",
        )
        axes.grid(False)
        axes.set_title(f"{case.title}: {case.subject.label}", loc="left")
        axes.set_ylabel("layer")
        axes.set_yticks(range(case.trace.num_layers))
        shown = [piece.replace("\n", "⏎").replace("$", r"\$") for piece in case.pieces[:DRAWN_TOKENS]]
        axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=5)
        if first_LN.size <= 400:
            for (layer, token), expert in np.ndenumerate(first_LN):
                axes.text(token, layer, f"{expert:.0f}", ha="center", va="center", fontsize=4.5, color="white")

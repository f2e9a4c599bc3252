"""Maps of spaces in two dimensions: hidden states by expert and domain, and the experts themselves.

t-SNE keeps neighbours together and nothing else: distances between groups, and their sizes, mean little.

Letters: H tokens drawn, L layers, E experts, d width of a vector.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectra_exp.interpret.draw import domain_markers, expert_colours, panels, say_empty
from spectra_exp.interpret.registry import CHOICE, ROUTED, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import evenly

MOST_TOKENS, MOST_LAYERS = 1000, 4
TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
# Fewer points have no neighbourhoods to keep.
LEAST_POINTS = 4
Mapper = Callable[[np.ndarray, int], np.ndarray]


@part("t-SNE (and UMAP) of hidden states by expert and domain", ROUTED, order=40, both=True)
def hidden_map(request: Request) -> Result:
    """Where the layers' inputs lie, coloured by first expert and marked by domain; a row for each subject."""
    result = Result(
        notes=[
            f"At most {MOST_TOKENS} tokens and {MOST_LAYERS} layers. "
            "Colour: the token's first expert; marker: its domain."
        ]
    )
    for name, mapper in mappers().items():
        drawn = [
            (subject, layer, *_mapped(request, subject, layer, mapper))
            for subject in request.subjects
            for layer in _layers(subject)
        ]
        if not drawn:
            raise Empty(f"fewer than {LEAST_POINTS} tokens have an expert")
        result.tables[name] = pd.concat([_token_rows(*one) for one in drawn], ignore_index=True)
        columns = max(len(_layers(subject)) for subject in request.subjects)
        result.add_picture(
            name,
            f"{TITLES[name]} of the routed layers' inputs, by first expert and domain.",
            partial(_draw_tokens, drawn=drawn, columns=columns),
        )
    if len(result.tables) == 1:
        result.notes.append("No UMAP: it is not installed (pip install 'spectra-exp[umap]').")
    return result


@part("t-SNE of expert representations (figure 2)", *CHOICE, order=41, both=True)
def expert_map(request: Request) -> Result:
    """Where the experts lie, by their mean outputs and by what the router holds of them; a row for each subject."""
    points = [
        (subject, kind, *_experts(subject, kind, request.seed))
        for subject in request.subjects
        for kind in ("outputs", "representations")
    ]
    if all(places is None for *_, places in points):
        raise Empty(f"fewer than {LEAST_POINTS} experts have a vector")
    rows = [
        {"name": subject.name, "vectors": kind, "layer": layer, "expert": expert, "x": x, "y": y}
        for subject, kind, labels, places in points
        if places is not None
        for (layer, expert), (x, y) in zip(labels, places, strict=True)
    ]
    result = Result(tables={"experts": pd.DataFrame(rows)})
    result.add_picture(
        "experts",
        "t-SNE of the experts of all layers: mean outputs, and vectors in the router.",
        lambda figure: _draw_experts(figure, points),
    )
    result.notes.append(
        "All layers in one map, coloured by layer, numbered by expert. Mean outputs share the residual stream; the "
        "routers' vectors of different layers share no space, so only their groups within a layer mean something."
    )
    return result


def mappers() -> dict[str, Mapper]:
    """The methods at hand, by name."""
    found: dict[str, Mapper] = {"tsne": tsne}
    if importlib.util.find_spec("umap") is not None:
        found["umap"] = umap
    return found


def tsne(points_Hd: np.ndarray, seed: int) -> np.ndarray:
    """[H, 2]; the same for the same points and seed. Cosine distances, as the routers compare directions."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points_Hd) - 1) / 3)
    # Several threads would add in another order each time.
    with threadpool_limits(1):
        method = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed, n_jobs=1)
        return method.fit_transform(points_Hd.astype(np.float32))


def umap(points_Hd: np.ndarray, seed: int) -> np.ndarray:
    """[H, 2]; the same for the same points and seed."""
    from umap import UMAP

    neighbours = min(15, len(points_Hd) - 1)
    return UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1).fit_transform(points_Hd)


def _layers(subject: Subject) -> list[int]:
    """The layers drawn: all, or some from the first to the last."""
    return evenly(subject.num_layers, MOST_LAYERS).tolist()


def _mapped(request: Request, subject: Subject, layer: int, mapper: Mapper) -> tuple[np.ndarray, np.ndarray]:
    """The tokens drawn and their places."""
    trace = subject.trace
    first_H = trace.first_NL[trace.sample_H, layer]
    usable = np.flatnonzero((first_H >= 0) & np.isfinite(trace.hidden_LHd[layer]).all(axis=1))
    if len(usable) > MOST_TOKENS:
        usable = np.sort(np.random.default_rng(request.seed).choice(usable, MOST_TOKENS, replace=False))
    if len(usable) < LEAST_POINTS:
        raise Empty(f"fewer than {LEAST_POINTS} tokens have an expert and a finite hidden state")
    request.say(f"map of layer {layer}")
    return trace.sample_H[usable], mapper(trace.hidden_LHd[layer][usable], request.seed)


def _token_rows(subject: Subject, layer: int, tokens_H: np.ndarray, places_H2: np.ndarray) -> pd.DataFrame:
    trace, domains = subject.trace, subject.domains
    return pd.DataFrame(
        {
            "name": subject.name,
            "layer": layer,
            "token": tokens_H,
            "piece": [subject.piece(i) for i in trace.token_ids_N[tokens_H].tolist()],
            "domain": [domains[m] if m >= 0 else "" for m in trace.domains_N[tokens_H].tolist()],
            "expert": trace.first_NL[tokens_H, layer],
            "x": places_H2[:, 0],
            "y": places_H2[:, 1],
        }
    )


def _experts(subject: Subject, kind: str, seed: int) -> tuple[list[tuple[int, int]], np.ndarray | None]:
    """(layer, expert) of each vector that has a direction, and their places; None with too few, or of two widths."""
    stats = subject.trace.statistics
    held = [s.output_mean_ED if kind == "outputs" else s.representation_ED for s in stats]
    by_layer = [vectors for vectors in held if vectors is not None]
    if len(by_layer) < len(stats) or len({vectors.shape[1] for vectors in by_layer}) != 1:
        return [], None
    labels = [
        (layer, expert)
        for layer, v in enumerate(by_layer)
        for expert in range(len(v))
        if np.isfinite(v[expert]).all() and np.any(v[expert])
    ]
    if len(labels) < LEAST_POINTS:
        return [], None
    return labels, tsne(np.stack([by_layer[layer][expert] for layer, expert in labels]), seed)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=6.5)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_tokens(figure: Figure, drawn: list, columns: int) -> None:
    subjects = list({id(subject): subject for subject, *_ in drawn}.values())
    all_axes = panels(figure, columns * len(subjects), (2.3, 2.3), columns)
    for row, subject in enumerate(subjects):
        mine = [one for one in drawn if one[0] is subject]
        colours, markers = expert_colours(subject.num_experts), domain_markers(max(len(subject.domains), 1))
        for axes, (_, layer, tokens_H, places_H2) in zip(all_axes[row * columns :], mine, strict=False):
            trace = subject.trace
            domains_H = trace.domains_N[tokens_H]
            for domain in np.unique(domains_H):
                here = domains_H == domain
                shades = [colours[e] for e in trace.first_NL[tokens_H[here], layer]]
                x, y = places_H2[here].T
                axes.scatter(x, y, c=shades, marker=markers[max(domain, 0)], s=6, linewidths=0.2)
            _plain(axes, f"{subject.label}, layer {layer}")
        for axes in all_axes[row * columns + len(mine) : (row + 1) * columns]:
            axes.set_axis_off()
    widest = max(subjects, key=lambda subject: subject.num_experts)
    colours = expert_colours(widest.num_experts)
    handles = [
        Line2D([], [], marker="s", linestyle="", color=c, label=f"expert {e}") for e, c in enumerate(colours[:16])
    ]
    handles += [
        Line2D([], [], marker=m, linestyle="", color="#666666", label=name)
        for m, name in zip(domain_markers(len(widest.domains)), widest.domains, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, max(3, 2 * columns)), markerscale=1.0)


def _draw_experts(figure: Figure, points: list) -> None:
    rows = len(points) // 2
    titles = {"outputs": "mean outputs", "representations": "vectors in the router"}
    for axes, (subject, kind, labels, places) in zip(panels(figure, 2 * rows, (3.2, 3.0), 2), points, strict=True):
        _plain(axes, f"{subject.label}: {titles[kind]}")
        if places is None:
            say_empty(axes, "none")
            continue
        colours = expert_colours(subject.num_layers)
        for (layer, expert), (x, y) in zip(labels, places, strict=True):
            axes.plot(x, y, "o", color=colours[layer], markersize=9, alpha=0.35)
            axes.text(x, y, str(expert), ha="center", va="center", fontsize=6)
        for layer in range(subject.num_layers):
            axes.plot([], [], "o", color=colours[layer], label=f"layer {layer}")
        if rows == 1 or kind == "outputs":
            axes.legend(fontsize=5.5, loc="best", ncols=2 if subject.num_layers > 6 else 1)

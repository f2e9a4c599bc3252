"""How an analysis draws: heat maps and panels in the style of the figures, colours per expert and marks per domain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from spectra_exp.presentation.style import GREY, MARKERS, PLAIN

# Cells up to so many columns have their figure printed in them.
MOST_PRINTED = 12


def panels(figure: Figure, count: int, size: tuple[float, float], columns: int = 4) -> list[Axes]:
    """`count` axes of `size` inches each in rows of at most `columns`, which the figure is made to fit."""
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    figure.set_size_inches(size[0] * columns, size[1] * rows)
    grid = figure.add_gridspec(rows, columns)
    return [figure.add_subplot(grid[divmod(index, columns)]) for index in range(count)]


def heat(
    axes: Axes,
    cells: np.ndarray,
    title: str,
    *,
    limits: tuple[float, float] | None = None,
    scale: str = "viridis",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """A heat map of a matrix; NaN cells are grey; figures are printed where there is room."""
    colours = matplotlib.colormaps[scale].with_extremes(bad="#D9D9D9")
    low, high = limits or _range(cells)
    image = axes.imshow(np.ma.masked_invalid(cells), cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.grid(False)
    axes.set_title(title)
    for names, axis in ((columns, axes.xaxis), (rows, axes.yaxis)):
        count = cells.shape[1] if axis is axes.xaxis else cells.shape[0]
        if names is None:
            step = max(1, math.ceil(count / 16))
            axis.set_ticks(range(0, count, step), [str(i) for i in range(0, count, step)])
        else:
            axis.set_ticks(range(count), list(names))
    if columns is not None and max(map(len, columns), default=0) > 3:
        axes.tick_params(axis="x", rotation=60)
    if cells.shape[1] <= MOST_PRINTED and cells.shape[0] <= MOST_PRINTED:
        for (y, x), value in np.ndenumerate(cells):
            if np.isfinite(value):
                shade = colours((value - low) / (high - low) if high > low else 0.5)
                dark = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.5
                # Adding zero makes a rounded -0.00 a 0.00.
                axes.text(
                    x,
                    y,
                    f"{round(float(value), 2) + 0.0:.2f}",
                    ha="center",
                    va="center",
                    fontsize=5.0,
                    color="white" if dark else "black",
                )
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def with_arms(rows: pd.DataFrame, name: str) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """The R rows that have the value `name`, the values, and their arms down and up, [2, R]; none where a bound is
    empty."""
    known = rows.dropna(subset=[name])
    value = known[name].astype(float)
    low, high = (known[f"{name}_{side}"].astype(float).fillna(value) for side in ("low", "high"))
    return known, value, np.stack([value - low, high - value])


def added_by_layer(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    """The loss `added` over the column `x` with its intervals, in a colour for each layer."""
    for layer, own in rows.dropna(subset=["added"]).groupby("layer"):
        known, added, arms = with_arms(own, "added")
        axes.errorbar(
            known[x],
            added,
            yerr=arms,
            fmt="o",
            elinewidth=0.6,
            markersize=3,
            color=PLAIN[layer % len(PLAIN)],
            label=f"layer {layer}",
        )
    axes.axhline(0, color="black", linewidth=0.6)


def draw_against_chance(figure: Figure, table: pd.DataFrame) -> None:
    """A panel for each metric: its value by layer over the range of chance."""
    metrics = list(dict.fromkeys(table["metric"]))
    for axes, metric in zip(panels(figure, len(metrics), (3.0, 2.2)), metrics, strict=True):
        rows = table[table["metric"] == metric].astype({"value": float, "chance_low": float, "chance_high": float})
        layers = rows["layer"].to_numpy()
        middle = rows["chance"].astype(float).to_numpy()
        # A skewed draw has its mean outside of the range.
        low = np.maximum(middle - rows["chance_low"].to_numpy(), 0)
        high = np.maximum(rows["chance_high"].to_numpy() - middle, 0)
        axes.errorbar(layers, middle, yerr=[low, high], fmt="_", color=GREY, capsize=3, label="chance")
        axes.plot(layers, rows["value"], "o", color=PLAIN[0], label="measured")
        axes.set_title(metric)
        axes.set_xlabel("layer")
        axes.set_xticks(layers)
        axes.margins(x=0.2)
        axes.legend()


def expert_colours(count: int) -> list[str]:
    """A colour for each expert: told apart by colour-blind readers up to seven, then around a wheel."""
    if count <= len(PLAIN):
        return list(PLAIN[:count])
    wheel = matplotlib.colormaps["turbo"]
    # Neighbours in number lie apart on the wheel.
    step = next(s for s in range(max(1, round(count * 0.38)), count + 2) if math.gcd(s, count) == 1)
    return [to_hex(wheel((i * step % count + 0.5) / count)) for i in range(count)]


def domain_markers(count: int) -> list[str]:
    """A marker for each domain."""
    return [MARKERS[i % len(MARKERS)] for i in range(count)]


def say_empty(axes: Axes, words: str) -> None:
    """An axes without data says so."""
    axes.text(0.5, 0.5, words, ha="center", va="center", color=GREY, transform=axes.transAxes, wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])


def _range(cells: np.ndarray) -> tuple[float, float]:
    finite = cells[np.isfinite(cells)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)

"""A figure against what chance gives: permutation p-values, and the picture of both by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.interpret.draw import panels
from spectra_exp.presentation.style import GREY, PLAIN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Fewer draws give a mean, but no p-value worth printing.
LEAST_DRAWS = 19


def against_chance(value: float | None, drawn: Sequence[float]) -> dict[str, float | None]:
    """The value, the mean and the 95 % range of chance, and the one-sided p that chance gives as much or more.

    p = (1 + draws at least as large) / (1 + draws), so that it is never 0. *Source:* Phipson and Smyth 2010. None for
    what cannot be said.
    """
    found: dict[str, float | None] = {
        "value": value, "chance": None, "chance_low": None, "chance_high": None, "p": None, "draws": len(drawn),
    }  # fmt: skip
    if value is None or not len(drawn):
        return found
    low, high = np.quantile(drawn, [0.025, 0.975])
    found |= {"chance": float(np.mean(drawn)), "chance_low": float(low), "chance_high": float(high)}
    if len(drawn) >= LEAST_DRAWS:
        # Rounding must not decide between equal figures.
        as_large = int((np.asarray(drawn) >= value - 1e-12).sum())
        found["p"] = (1 + as_large) / (1 + len(drawn))
    return found


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

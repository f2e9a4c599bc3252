"""The picture of a figure by layer over the range that chance gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.interpret.draw import panels
from spectra_exp.presentation.style import GREY, PLAIN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


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

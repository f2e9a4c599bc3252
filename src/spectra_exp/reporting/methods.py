"""Which colour each method has, in every table, figure and page."""

from __future__ import annotations

# Okabe and Ito's colours (2008), told apart by colour-blind readers, and three darker ones of the same hues.
COLOURS = {
    "SPECTRA (causal)": "#0072B2",
    "SPECTRA (paper)": "#56B4E9",
    "SPECTRA": "#0072B2",
    "Switch top-1": "#F0A35E",
    "Switch top-2": "#D55E00",
    "Switch": "#D55E00",
    "Expert Choice": "#CC79A7",
    "Loss-free": "#009E73",
    "Sinkhorn": "#8C6BB1",
    "Hash": "#B8A000",
    "Random": "#999999",
    "Dense": "#000000",
    "Temperature": "#7A5C3E",
    "− GRU": "#E69F00",
    "− Expression": "#CC79A7",
    "− Repulsion": "#8C6BB1",
    "− Quota": "#009E73",
    "− Ortho constraint": "#D55E00",
    "− Speciality penalty": "#B8A000",
    "− OSR": "#7A5C3E",
    "− All": "#999999",
    "Full": "#0072B2",
    # The ladder's rungs, from dark to light as parts are added.
    "1 Switch-style": "#440154",
    "2 + expression": "#414487",
    "3 + recurrence": "#2A788E",
    "4 + OSR": "#22A884",
    "5 + orthogonality": "#7AD151",
    "6 + quota": "#BBBB00",
}
SPARE = "#555555"


def colour(label: str) -> str:
    """The colour of a method or an ablation wherever it is drawn."""
    if label in COLOURS:
        return COLOURS[label]
    # Of "SPECTRA (paper) − GRU" and "SPECTRA (paper), ..." the part that tells it from others of its picture.
    for part in (label.partition(") ")[2], label.partition(",")[0]):
        if part in COLOURS:
            return COLOURS[part]
    return SPARE

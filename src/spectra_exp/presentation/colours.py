"""The colour of each method wherever it is drawn, on light and dark paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from spectra_exp.config.presets import ablations, baselines
from spectra_exp.config.schema import AblationConfig, BaselineConfig
from spectra_exp.config.tree import roots

# Okabe and Ito's colours (2008), told apart by colour-blind readers; those of ablations and baselines, with some darker
# ones of the same hues, are in their files.
COLOURS = {
    "SPECTRA (causal)": "#0072B2",
    "SPECTRA (paper)": "#56B4E9",
    "SPECTRA": "#0072B2",
    "Switch": "#D55E00",
    "Temperature": "#7A5C3E",
}
SPARE = "#555555"
# Black has as much contrast as white on a colour of this luminance: (L + 0.05) / 0.05 = 1.05 / (L + 0.05).
BLACK_ABOVE = 0.179
# Okabe and Ito's colours, for curves that are no methods.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7A5C3E")


@cache
def _known(roots: tuple[Path, ...]) -> dict[str, str]:
    """The colours that are declared, by label; `roots`: where conf/ lies."""
    declared: list[BaselineConfig | AblationConfig] = [*baselines().values(), *ablations().values()]
    return COLOURS | {preset.label: preset.colour for preset in declared if preset.label and preset.colour}


def colour(label: str) -> str:
    """The colour of a method or an ablation wherever it is drawn."""
    known = _known(roots())
    if label in known:
        return known[label]
    # Of "SPECTRA (paper) − GRU" and "SPECTRA (paper), ..." the part that tells it from others of its picture.
    for part in (label.partition(") ")[2], label.partition(",")[0]):
        if part in known:
            return known[part]
    return SPARE


def ink(label: str) -> str:
    """The CSS colour of a method; one too dark for dark paper becomes light there."""
    return readable(colour(label))


def readable(code: str) -> str:
    """A colour `#rrggbb` as CSS; one too dark for dark paper becomes light there."""
    return code if luminance(_parts(code)) > 0.02 else f"light-dark({code}, #f2f2f2)"


def luminance(parts: Sequence[float]) -> float:
    """Relative luminance of red, green and blue in 0..1. *Source:* WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _parts(code: str) -> list[float]:
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]

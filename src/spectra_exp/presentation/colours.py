"""The colour of each method wherever it is drawn, on light and dark paper too, and the ramps of heat maps."""

from __future__ import annotations

from spectra_exp.config.presets import ablations, baselines

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
LIGHT_END, DARK_END = (236, 244, 250), (8, 64, 120)
COOL, EVEN, WARM = (0, 114, 178), (245, 245, 242), (213, 94, 0)
Rgb = tuple[int, int, int]
# Okabe and Ito's colours, for curves that are no methods.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7A5C3E")


def colour(label: str) -> str:
    """The colour of a method or an ablation wherever it is drawn."""
    declared = [*baselines().values(), *ablations().values()]
    known = COLOURS | {preset.label: preset.colour for preset in declared if preset.label and preset.colour}
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
    return code if luminance(_rgb(code)) > 0.02 else f"light-dark({code}, #f2f2f2)"


def ramp(share: float) -> Rgb:
    """From light to dark as `share` goes from 0 to 1."""
    return _mix(LIGHT_END, DARK_END, share)


def diverging(value: float, centre: float, reach: float) -> Rgb:
    """Blue below the centre, orange above, even at it; full at `reach` from it."""
    away = max(-1.0, min(1.0, (value - centre) / reach)) if reach > 0 else 0.0
    return _mix(EVEN, WARM, away) if away >= 0 else _mix(EVEN, COOL, -away)


def text_on(fill: Rgb) -> str:
    """Black or white, whichever is read more easily on `fill`."""
    lightness = luminance(fill)
    return "#000" if (lightness + 0.05) / 0.05 > 1.05 / (lightness + 0.05) else "#fff"


def css(fill: Rgb) -> str:
    """`fill` as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*fill)


def luminance(fill: Rgb) -> float:
    """Relative luminance, 0..1. *Source:* WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in fill)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(code: str) -> Rgb:
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def _mix(low: Rgb, high: Rgb, share: float) -> Rgb:
    share = max(0.0, min(1.0, share))
    return tuple(round(a + (b - a) * share) for a, b in zip(low, high, strict=True))

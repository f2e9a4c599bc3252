"""Pictures of the load per layer: each layer's experts by rank, beside the even share."""

from __future__ import annotations

import numpy as np

from spectra_exp.presentation.html import Block, Chart, Choice, Group
from spectra_exp.presentation.panels import CellPanel, HeatCell
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material

STUDIES = ("baselines", "core")
PICTURE = 173.0  # width of all experts, in points
PRINTED = 8  # up to so many experts each cell holds its figure
LEAD = (
    "Load of the experts of each layer at the end of training over the even share, so that 1 is balance; the busiest "
    "expert first, since an expert's number means nothing across seeds; mean over seeds. Orange is above, blue below."
)


def load_block(material: Material) -> Block | None:
    """A picture for each row of the studies that has routing at hand; None without any."""
    panels = []
    for study in STUDIES:
        for section in material.sections.get(study, []):
            pictures = [p for row in section.rows if (p := load_chart(section, row)) is not None]
            if pictures:
                panels.append((f"{study}, {section.title}", Group("charts small", pictures)))
    return Block("loads", "Load per layer", LEAD, Choice("Study", panels)) if panels else None


def relative_load(counts_LE: np.ndarray) -> np.ndarray:
    """[L, E] counts over their layer's mean; zero in a layer without any."""
    mean_L1 = counts_LE.mean(axis=1, keepdims=True)
    return np.divide(counts_LE, mean_L1, out=np.zeros(counts_LE.shape), where=mean_L1 > 0)


def load_panel(load_LE: np.ndarray, rows: list[str], columns: list[str], words: str) -> CellPanel:
    """A heat map of loads over the even share, empty where there is none (NaN).

    `words`: what a row is and what a column is, with {row}, {column}.
    """
    experts = load_LE.shape[1]

    def cell(value: float, row: str, column: str) -> HeatCell:
        place = words.format(row=row, column=column)
        if np.isnan(value):
            return HeatCell(None, "", f"{place}: not used")
        return HeatCell(float(value), f"{value:.2f}" if experts <= PRINTED else "", f"{place}: {value:.3f}")

    cells = tuple(
        tuple(cell(value, row, column) for value, column in zip(line, columns, strict=True))
        for line, row in zip(load_LE, rows, strict=True)
    )
    names = columns if experts <= 2 * PRINTED else [n if i % 8 == 0 else "" for i, n in enumerate(columns)]
    size = max(2.0, PICTURE / experts), 14.0
    return CellPanel("", "", tuple(names), tuple(rows), cells, (0.0, 2.0), even=1.0, size=size)


def load_chart(section: Section, row: Row) -> Chart | None:
    """The row's loads by layer and rank, mean over seeds; None without routing at hand."""
    found = [run.snapshots[max(run.snapshots)].counts_LE for run in section.stored(row).values() if run.snapshots]
    shapes = {counts.shape for counts in found if counts.size}
    # Layers and experts of runs of one cell are the same, or a folder was tampered with.
    if len(shapes) != 1:
        return None
    load_LE = np.mean([-np.sort(-relative_load(counts), axis=1) for counts in found], axis=0)
    layers, experts = load_LE.shape
    rows, columns = [f"layer {i}" for i in range(layers)], [str(i + 1) for i in range(experts)]
    label = f"Load by layer and rank of {row.label}, mean over {len(found)} seeds"
    panel = load_panel(load_LE, rows, columns, "{row}, expert of rank {column}")
    return Chart(panel, label, row.label, f", n {len(found)}")

"""Outputs for the tests of the figures, and what is read back from drawn axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_studies import given, make_study
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectra_exp.presentation.draw import draw_page, our_style
from spectra_exp.presentation.panels import Page
from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures.spec import FigureSpec
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import History
from spectra_exp.statistics.intervals import Interval, mean_interval
from spectra_exp.studies.definition import load_study, study_files

SEEDS = (0, 1, 2)
FIGURES = [spec for spec in all_figures(map(load_study, study_files())) if isinstance(spec, FigureSpec)]
SPECS = {spec.name: spec for spec in FIGURES}


def figures(job: Any) -> dict[str, Any]:
    """Other figures for every cell and seed, so that a mix-up shows."""
    rng = np.random.default_rng(int(job.run_id.rpartition("-")[2], 16))
    cell = np.random.default_rng(sum(map(ord, job.planned.identity.cell_id)))
    causal = given(job).get("baseline") != "expert_choice"
    # What is not causal is better than all else, and on no front all the same.
    level = cell.uniform(0.1, 0.6) if causal else 0.0
    own = {name: float(level + rng.uniform(0, 0.05)) for name in ("load_cv", "max_vio", "routing_entropy", "load_gini")}
    loss = 5 + level + float(rng.uniform(0, 0.1))
    metrics = own | {"val_loss": loss, "train_loss": loss - 0.1}
    other = {"dual": {"val_loss": loss + 1, "load_cv": own["load_cv"] + 1}}
    return {
        "metrics": metrics,
        "metrics_by_inference": other,
        "metrics_training_rule": {"load_cv": own["load_cv"] / 2},
        "causal": causal,
    }


def page_of(name: str, material: Material) -> tuple[Page, Section]:
    """The page of the figure's first section."""
    spec = SPECS[name]
    section = material.sections[spec.study][0]
    return spec.compose(section, section.find(spec.only)), section


def drawn(page: Page) -> Figure:
    with our_style():
        return draw_page(page)


def line_of(axes: Axes, label: str) -> Any:
    return next(line for line in axes.get_lines() if line.get_label() == label)


def band_of(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, low and high of a band as it lies on the axes."""
    (found,) = [c for c in axes.collections if c.get_gid() == f"band {label}"]
    corners = np.concatenate([path.vertices for path in found.get_paths()])
    x = np.unique(corners[:, 0])
    sides = [corners[corners[:, 0] == at, 1] for at in x]
    return x, np.array([side.min() for side in sides]), np.array([side.max() for side in sides])


def history(section: Section, row: Row, seed: int, split: str, metric: str) -> dict[int, float]:
    """The curve straight from the file."""
    frame = History.load(RunFolder(section.collected.runs_folder, row.runs[seed]).history).frame()
    own = frame[(frame["split"] == split) & (frame["metric"] == metric) & (frame["layer"] == "all")]
    return dict(zip(own["step"].tolist(), own["value"].tolist(), strict=True))


def expected(section: Section, row: Row, split: str, metric: str) -> dict[int, Interval]:
    """The interval over seeds at each step, from the files."""
    curves = [history(section, row, seed, split, metric) for seed in sorted(row.runs)]
    return {step: mean_interval(curve[step] for curve in curves) for step in curves[0]}


def check_curve(axes: Axes, label: str, wanted: dict[int, Interval]) -> None:
    """Raises AssertionError unless line and band are the intervals."""
    line = line_of(axes, label)
    assert line.get_xdata().tolist() == list(wanted)
    assert line.get_ydata() == pytest.approx([interval.mean for interval in wanted.values()])
    x, low, high = band_of(axes, label)
    assert x.tolist() == list(wanted)
    assert low == pytest.approx([interval.low for interval in wanted.values()])
    assert high == pytest.approx([interval.high for interval in wanted.values()])


def some(job: Any) -> dict[str, Any] | None:
    """The same, but at seed 2 one method has no run."""
    return None if given(job).get("baseline") == "hash" and job.experiment.seed == 2 else figures(job)


def make_baselines(folder: Path) -> None:
    """Four methods with three seeds, one of them with two, and with curves."""
    make_study(folder, "baselines", some, ("seed=0..2", "baseline=switch_top2,expert_choice,hash,dense"), curves=True)

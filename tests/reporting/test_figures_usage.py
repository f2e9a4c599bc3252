"""The load on the experts and the temperature study as drawn and as reported, against the snapshots and the tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from figure_world import SEEDS, drawn, figures, history, make_baselines, page_of
from made_studies import make_study

from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures.expert_usage import BESIDE_A_ROW, LayerUsage, usage
from spectra_exp.reporting.figures.spec import ReportSpec
from spectra_exp.reporting.figures.temperatures import best_constant, constant
from spectra_exp.reporting.material import Material, gather
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths
from spectra_exp.statistics.intervals import mean_interval
from spectra_exp.studies.definition import load_study, study_files

REPORTS = [spec for spec in all_figures(map(load_study, study_files())) if isinstance(spec, ReportSpec)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_baselines(folder)
        make_study(folder, "core", figures, ("seed=0..2", "ablation=none"), curves=True)
        options = "temperature=t0_5,t1_0,t10_0,linear,cosine"
        make_study(folder, "temperature", figures, ("seed=0..2", options), curves=True)
        yield folder


@pytest.fixture(scope="module")
def material(outputs: Path) -> Material:
    return gather(outputs)


def test_shares_are_ranked_in_each_run_and_sum_to_one(material: Material) -> None:
    page, section = page_of("figure04_expert_usage", material)
    row = section.find({"osr": "paper", "ablation": "none"})[0]
    ends = []
    for seed in SEEDS:
        paths = snapshot_paths(RunFolder(section.collected.runs_folder, row.runs[seed]).routing)
        counts = load_snapshot(paths[250]).counts_LE
        shares = counts / counts.sum(axis=1, keepdims=True)
        ends.append(np.cumsum(np.sort(shares, axis=1)[:, ::-1].mean(axis=0)))
    axes = drawn(page).axes[0]
    for rank in range(8):
        wanted = mean_interval(end[rank] for end in ends)
        assert page.panels[0].edges[rank][-1] == wanted
        area = next(c for c in axes.collections if c.get_gid() == f"rank {rank}")
        corners = np.concatenate([path.vertices for path in area.get_paths()])
        assert corners[corners[:, 0] == 250, 1].max() == pytest.approx(wanted.mean)
    assert wanted.mean == pytest.approx(1)
    own = usage(section.stored(row)[0])
    assert own.steps == (0, 25, 62, 125, 188, 250) and np.all(np.diff(own.shares_TLE[-1], axis=1) <= 0)


def test_histograms_have_a_panel_for_each_method_and_layer(material: Material) -> None:
    page, section = page_of("usage_histograms", material)
    found = drawn(page).axes
    row = section.find({"baseline": "switch_top2"})[0]
    for layer in range(2):
        ends = []
        for seed in SEEDS:
            paths = snapshot_paths(RunFolder(section.collected.runs_folder, row.runs[seed]).routing)
            counts = load_snapshot(paths[250]).counts_LE[layer]
            ends.append(np.sort(counts / counts.sum())[::-1])
        heights = [bar.get_height() for bar in found[layer].patches]
        assert heights == pytest.approx([mean_interval(values).mean for values in zip(*ends, strict=True)])
    assert [found[i].get_title() for i in range(3)] == ["Layer 0", "Layer 1", ""]
    odd = [any("n = 2" in text.get_text() for text in axes.texts) for axes in found]
    hashed = [row.method for row in section.rows if row.runs].index("Hash")
    assert [i // 2 for i, one in enumerate(odd) if one] == [hashed, hashed]
    assert "inference rule" in " ".join(page.footnotes)
    long = LayerUsage(lambda row: "Switch, fine-grained, shared expert")(section, section.rows)
    assert max(map(len, long.panels[0].y_label.splitlines())) <= BESIDE_A_ROW


def test_the_temperature_figures_show_the_tables_figures(material: Material) -> None:
    page, section = page_of("temperature_ablation_comprehensive", material)
    found = drawn(page).axes
    rows = sorted((row for row in section.rows if constant(row) and row.runs), key=lambda row: constant(row))
    line = found[2].get_lines()[0]
    assert line.get_xdata().tolist() == [0.5, 1.0, 10.0]
    means = [mean_interval(section.values(row, "val_loss").values()).mean for row in rows]
    assert line.get_ydata() == pytest.approx(means)
    assert best_constant(section, section.rows) is rows[int(np.argmin(means))]
    page, _ = page_of("schedule_comparison", material)
    labels = [text.get_text() for text in drawn(page).axes[3].get_xticklabels()]
    assert labels == ["Linear", "Cosine", f"T = {constant(rows[int(np.argmin(means))]):g}"]


def test_the_reports_hold_the_same_intervals(material: Material) -> None:
    section = material.sections["temperature"][0]
    summary, special = (report.compose(section, section.rows) for report in REPORTS)
    row = section.find({"temperature": "t0_5"})[0]
    wanted = mean_interval(section.values(row, "val_loss").values())
    own = next(entry for entry in summary["rows"] if entry["option"] == "t0_5")
    assert own["metrics"]["val_loss"] == {
        "n": 3,
        "mean": wanted.mean,
        "low": wanted.low,
        "high": wanted.high,
        "floor": None,
    }
    losses = {
        n: mean_interval(section.values(section.find({"temperature": n})[0], "val_loss").values()).mean
        for n in ("linear", "cosine")
    }
    assert [name.lower() for name in summary["schedules_by_val_loss"]] == sorted(losses, key=lambda n: losses[n])
    own = next(entry for entry in special["rows"] if entry["option"] == "t0_5")
    change = [history(section, row, seed, "validation", "routing_entropy") for seed in SEEDS]
    assert own["entropy_change_nats"]["mean"] == pytest.approx(np.mean([c[250] - c[0] for c in change]))
    assert sum(share["mean"] for share in own["shares_by_rank"]) == pytest.approx(1)
    variances = [usage(section.stored(row)[seed]).shares_TLE[-1].var(axis=1).mean() for seed in SEEDS]
    assert own["share_variance"]["mean"] == pytest.approx(np.mean(variances))

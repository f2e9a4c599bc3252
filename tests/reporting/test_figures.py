"""What figures show equals what the tables say, read back from the drawn axes: curves, sweeps, the Pareto plot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_world import SEEDS, SPECS, check_curve, drawn, expected, figures, history, line_of, make_baselines, page_of
from made_studies import make_study
from matplotlib.axes import Axes

from spectra_exp.presentation.colours import colour
from spectra_exp.presentation.draw import draw_page, our_style
from spectra_exp.presentation.panels import Line, LinePanel, Page, Spot, SpotPanel
from spectra_exp.presentation.style import COLUMN, DOUBLE, method_mark
from spectra_exp.presentation.text import interval_text
from spectra_exp.reporting.figures.sweeps import SweepHeat
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material, gather
from spectra_exp.statistics.intervals import Interval, mean_interval
from spectra_exp.statistics.pareto import pareto_front


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_baselines(folder)
        make_study(folder, "core", figures, ("seed=0..2", "ablation=none,no_gru"), curves=True)
        make_study(folder, "core", figures, ("seed=0..2", "osr=causal", "ablation=none,no_gru"), curves=True)
        grid = ("osr.sinkhorn_epsilon=0.03,0.1,0.2", "osr.sinkhorn_iterations=2,3,8")
        make_study(folder, "b_sinkhorn", figures, ("seed=0..1", *grid))
        make_study(folder, "c_repulsion", figures, ("seed=0..2", "osr.repulsion_weight=0,0.5,0.8"))
        make_study(folder, "a_quota", figures, ("seed=0..1",))
        yield folder


@pytest.fixture(scope="module")
def material(outputs: Path) -> Material:
    return gather(outputs)


def test_curves_are_means_over_seeds_and_end_where_the_tables_say(material: Material) -> None:
    page, section = page_of("figure05_routing_entropy", material)
    (axes,) = drawn(page).axes
    for row in section.rows:
        if len(row.runs) == 3:
            label = f"{row.method} †" if row.key.get("baseline") == "expert_choice" else row.method
            wanted = expected(section, row, "validation", "routing_entropy")
            check_curve(axes, label, wanted)
            assert wanted[250] == mean_interval(section.values(row, "routing_entropy").values())
            assert line_of(axes, label).get_color() == colour(row.method)


def plant_tokens_for_seeds(page: Page) -> Page:
    """A band as narrow as tokens as the unit would make it."""
    lines = page.panels[0].lines
    narrow = [replace(p, low=p.mean - 1e-4, high=p.mean + 1e-4) for p in lines[0].points]
    return with_lines(page, (replace(lines[0], points=tuple(narrow)), *lines[1:]))


def plant_mixed_methods(page: Page) -> Page:
    """Two methods under each other's name."""
    first, second, *rest = page.panels[0].lines
    return with_lines(page, (replace(first, label=second.label), replace(second, label=first.label), *rest))


def plant_lost_seed(page: Page) -> Page:
    """One method with the first of its steps left out."""
    first, *rest = page.panels[0].lines
    return with_lines(page, (replace(first, x=first.x[1:], points=first.points[1:]), *rest))


def with_lines(page: Page, lines: tuple[Any, ...]) -> Page:
    return replace(page, panels=(replace(page.panels[0], lines=lines), *page.panels[1:]))


@pytest.mark.parametrize("plant", [plant_tokens_for_seeds, plant_mixed_methods, plant_lost_seed])
def test_planted_faults_in_curves_are_seen(plant: Callable[[Page], Page], material: Material) -> None:
    page, section = page_of("figure05_routing_entropy", material)
    row = section.find({"baseline": "switch_top2"})[0]
    assert page.panels[0].lines[0].label == row.method
    (axes,) = drawn(plant(page)).axes
    with pytest.raises(AssertionError):
        check_curve(axes, row.method, expected(section, row, "validation", "routing_entropy"))


def test_a_seed_of_another_method_changes_the_band(material: Material) -> None:
    _, section = page_of("figure05_routing_entropy", material)
    switch, dense = (section.find({"baseline": name})[0] for name in ("switch_top2", "dense"))
    mixed = replace(switch, runs=switch.runs | {1: dense.runs[1]})
    page = SPECS["figure05_routing_entropy"].compose(section, [mixed])
    (axes,) = drawn(page).axes
    with pytest.raises(AssertionError):
        check_curve(axes, switch.method, expected(section, switch, "validation", "routing_entropy"))


def test_the_rules_of_training_are_never_in_one_panel(material: Material) -> None:
    page, section = page_of("figure03_loss_curves", material)
    found = drawn(page).axes
    assert [axes.get_title() for axes in found] == ["SPECTRA (paper)"] * 3 + ["SPECTRA (causal)"] * 3
    for offset, osr in ((0, "paper"), (3, "causal")):
        full, no_gru = (section.find({"osr": osr, "ablation": name})[0] for name in ("none", "no_gru"))
        check_curve(found[offset], "Full", expected(section, full, "train", "train_loss"))
        check_curve(found[offset], "− GRU", expected(section, no_gru, "train", "train_loss"))
        own = [[history(section, row, s, "validation", "val_loss") for s in SEEDS] for row in (no_gru, full)]
        pairs = {step: mean_interval(a[step] - b[step] for a, b in zip(*own, strict=True)) for step in own[0][0]}
        check_curve(found[offset + 2], "− GRU", pairs)
        assert "Full" not in [line.get_label() for line in found[offset + 2].get_lines()]


def check_heat(axes: Axes, section: Section, domain: str, metric: str) -> None:
    """Raises AssertionError unless the cell under each pair of tick labels is its row's mean."""
    means = np.asarray(axes.get_images()[0].get_array())
    x, y = ([text.get_text() for text in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels()))
    assert axes.get_xlabel() in ("", "Sinkhorn ε") and axes.get_ylabel() in ("", "Iterations")
    seen = 0
    for row in section.rows:
        if row.key["osr.log_sinkhorn_enabled"] == domain:
            at = y.index(row.key["osr.sinkhorn_iterations"]), x.index(row.key["osr.sinkhorn_epsilon"])
            assert means[at] == pytest.approx(mean_interval(section.values(row, metric).values()).mean)
            seen += 1
    assert seen == means.size == 9


def test_heat_maps_have_each_point_under_its_own_labels(material: Material) -> None:
    page, section = page_of("sweep_b", material)
    found = [axes for axes in drawn(page).axes if axes.get_images()]
    for index, metric in enumerate(("val_loss", "load_cv", "routing_entropy")):
        check_heat(found[2 * index], section, "false", metric)
        check_heat(found[2 * index + 1], section, "true", metric)
    printed = {text.get_text() for text in found[0].texts}
    row = section.find({"osr.log_sinkhorn_enabled": "false"})[0]
    interval = mean_interval(section.values(row, "val_loss").values())
    assert interval_text(interval).replace(" ± ", "\n±") in printed  # the table's own text
    means = np.asarray(found[0].get_images()[0].get_array())
    (box,) = found[0].patches
    best = np.unravel_index(means.argmin(), means.shape)
    assert (round(box.get_y() + 0.46), round(box.get_x() + 0.47)) == best


def test_a_heat_map_without_texts_has_a_panel_for_each_value_of_its_rows() -> None:
    values = [{"a": a, "b": "1", "kind.of": kind} for kind in ("x", "y") for a in ("1", "2")]
    section = Section(None, (), (), [Row(value, "") for value in values], None)
    section.interval = lambda row, metric: Interval(2, float(row.key["a"]), 0.0, 4.0)
    page = SweepHeat("a", "b", "kind.of", ("val_loss",))(section, section.rows)
    assert [panel.title for panel in page.panels] == ["SPECTRA, of x", "SPECTRA, of y"] and page.columns == 2
    assert not SweepHeat("a", "b", "kind.of", ("val_loss",))(section, []).panels


def test_a_panel_without_a_run_has_the_places_of_the_others(material: Material) -> None:
    _, section = page_of("sweep_b", material)
    rows = [row for row in section.rows if row.key["osr.log_sinkhorn_enabled"] == "true"]
    page = SPECS["sweep_b"].compose(section, rows)
    empty, full, *_ = (axes for axes in drawn(page).axes if axes.get_images())
    check_heat(full, section, "true", "val_loss")
    assert [t.get_text() for t in empty.get_xticklabels()] == [t.get_text() for t in full.get_xticklabels()]
    assert {text.get_text() for text in empty.texts} == {"–"}


def test_planted_fault_swapped_axes_of_a_heat_map_are_seen(material: Material) -> None:
    page, section = page_of("sweep_b", material)
    panel = page.panels[0]
    swapped = replace(panel, cells=tuple(zip(*panel.cells, strict=True)))
    axes = drawn(replace(page, panels=(swapped, *page.panels[1:]))).axes[0]
    with pytest.raises(AssertionError):
        check_heat(axes, section, "false", "val_loss")


def test_other_rules_of_inference_stand_in_a_figure_of_their_own(material: Material) -> None:
    page, section = page_of("sweep_b_inference", material)
    found = [axes for axes in drawn(page).axes if axes.get_images()]
    assert len(found) == 4  # two metrics under the one other rule, two domains
    check_heat(found[0], section, "false", "val_loss_inference_dual")
    assert not found[0].patches  # whether that rule is causal is not measured


def test_sweep_curves_have_a_line_for_each_rule_and_their_floor(material: Material) -> None:
    page, section = page_of("sweep_c", material)
    loss, balance = drawn(page).axes[:2]
    for axes, metric, label in (
        (loss, "val_loss", "SPECTRA (paper), rule of the run"),
        (balance, "load_cv", "SPECTRA (paper), rule of the run"),
        (balance, "load_cv_training_rule", "SPECTRA (paper), training rule"),
    ):
        wanted = {
            float(row.key["osr.repulsion_weight"]): mean_interval(section.values(row, metric).values())
            for row in section.rows
        }
        check_curve(axes, label, wanted)
    assert [line.get_ydata()[0] for line in balance.get_lines() if line.get_gid() == "floor"] == [0.01]
    assert len([line for line in loss.get_lines() if line.get_label().startswith("SPECTRA")]) == 1


def test_the_quota_sweep_joins_no_points(material: Material) -> None:
    page, section = page_of("sweep_a", material)
    axes = drawn(page).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "top-k",
        "quota 1",
        "quota 1.25",
        "quota 1.5",
        "quota 2",
    ]
    line = line_of(axes, "SPECTRA (paper), rule of the run")
    assert line.get_linestyle() == "None" and np.round(line.get_xdata()).tolist() == [0, 1, 2, 3, 4]
    means = [mean_interval(section.values(row, "val_loss").values()).mean for row in section.rows]
    assert line.get_ydata() == pytest.approx(means)


def test_the_pareto_front_is_that_of_causal_means(material: Material) -> None:
    page, section = page_of("pareto", material)
    (axes,) = drawn(page).axes
    means, points = {}, []
    for row in section.rows:
        if row.runs:
            x, y = (mean_interval(section.values(row, metric).values()) for metric in ("load_cv", "val_loss"))
            means[row.method] = (x.mean, y.mean)
            causal = row.key.get("baseline") != "expert_choice"
            points.append((x.mean, y.mean) if causal else (None, None))
    front = [means[m] for m, on in zip(means, pareto_front(points, ["lower", "lower"]), strict=True) if on]
    (line,) = [line for line in axes.get_lines() if line.get_gid() == "front"]
    assert np.array(sorted(zip(*line.get_data(), strict=True))) == pytest.approx(np.array(sorted(front)))
    # Of it, and of nothing else, those are named where they stand that have the room.
    assert axes.texts and all(np.isclose(front, text.xy).all(axis=1).any() for text in axes.texts)
    for text in axes.texts:
        spot = line_of(axes, text.get_text())
        assert (spot.get_xdata()[0], spot.get_ydata()[0]) == text.xy

    for label, method in (("Switch top-2", "Switch top-2"), ("Expert Choice †", "Expert Choice")):
        spot = line_of(axes, label)
        assert (spot.get_xdata()[0], spot.get_ydata()[0]) == pytest.approx(means[method])
    assert line_of(axes, "Expert Choice †").get_markerfacecolor() == "white"
    assert "† not shown to be causal" in " ".join(page.footnotes)


def test_names_on_a_front_do_not_cover_each_other() -> None:
    at = [(0.1, 3.6), (0.11, 3.599), (0.5, 3.5), (0.9, 4.0)]
    names = ["the first of all", "the second, beside it", "far from both", "at the right edge, without any room"]
    spots = [
        Spot(name, method_mark(name, 0), Interval(5, x, x, x), Interval(5, y, y, y), True, True)
        for name, (x, y) in zip(names, at, strict=True)
    ]
    (axes,) = drawn(Page((SpotPanel("", "x", "y", tuple(spots)),), 1, (COLUMN, 3.7), ())).axes
    assert [text.get_text() for text in axes.texts] == ["the first of all", "far from both"]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not boxes[0].overlaps(boxes[1])


def test_other_numbers_of_seeds_are_named(material: Material) -> None:
    page, _ = page_of("figure05_routing_entropy", material)
    labels = [line.label for line in page.panels[0].lines]
    assert "Hash (n = 2)" in labels and "Switch top-2" in labels
    assert page.footnotes[0] == "Mean over n = 3 seeds unless said; band: 95 % t interval."


def test_no_legend_covers_data_and_nothing_is_clipped(material: Material) -> None:
    for name in ("figure05_routing_entropy", "pareto", "sweep_c", "figure03_loss_curves", "usage_histograms"):
        page, _ = page_of(name, material)
        with our_style():
            figure = draw_page(page)
            figure.draw_without_rendering()
            whole = figure.bbox
            legends = [legend.get_window_extent() for legend in figure.legends]
            for axes in figure.axes:
                box = axes.get_tightbbox()
                assert whole.x0 - 1 <= box.x0 and box.x1 <= whole.x1 + 1, (name, box)
                assert whole.y0 - 1 <= box.y0 and box.y1 <= whole.y1 + 1, (name, box)
                assert not any(legend.overlaps(axes.get_window_extent()) for legend in legends), name


@pytest.mark.parametrize(("methods", "width"), [(3, COLUMN), (31, DOUBLE)])
def test_a_legend_of_many_methods_leaves_its_panel_as_high_as_one_of_few(methods: int, width: float) -> None:
    points = tuple(Interval(3, value, value - 1, value + 1) for value in (2.0, 1.0))
    names = [f"Switch top-2, variant {i}" for i in range(methods)]
    lines = tuple(Line(name, method_mark(name, i), (0.0, 1.0), points) for i, name in enumerate(names))
    page = Page((LinePanel("", "Step", "Routing entropy (nats)", lines),), 1, (COLUMN, 3.6), ("A footnote.",))
    with our_style(), warnings.catch_warnings():
        # Of a layout that leaves nothing for the panel.
        warnings.simplefilter("error")
        figure = draw_page(page)
        figure.canvas.draw()
    panel, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert figure.get_size_inches()[0] == width and panel.height > 1.9 * figure.dpi
    assert legend.y1 <= panel.y0 and legend.y0 >= 0


def test_one_seed_is_a_line_without_a_band(material: Material) -> None:
    spec = SPECS["figure05_routing_entropy"]
    section = material.sections[spec.study][0]
    rows = [replace(row, runs={0: row.runs[0]}) for row in section.rows if row.runs]
    page = spec.compose(section, rows)
    assert page.footnotes[0] == "One seed (n = 1): no band."
    (axes,) = drawn(page).axes
    assert line_of(axes, "Switch top-2").get_ydata().tolist() == list(
        history(section, rows[0], 0, "validation", "routing_entropy").values()
    )
    for band in axes.collections:
        assert not any(np.isfinite(path.vertices).all(axis=1).any() for path in band.get_paths())

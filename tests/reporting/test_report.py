"""The report's pages as text: same figures as the tables, nothing lost, nothing unescaped, nothing fetched."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from made_studies import DOMAINS
from markupsafe import Markup
from report_world import EVIL, Page, shared_world

from spectra_exp.config.tree import option_files
from spectra_exp.presentation import html
from spectra_exp.presentation.html import Block, Cell, Row, Table, file_link, html_page
from spectra_exp.presentation.text import interval_text, number_text
from spectra_exp.reporting.declared import Picture
from spectra_exp.reporting.grid import Row as GridRow
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.make_report import main, write_report
from spectra_exp.reporting.make_tables import all_tables
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.report import grids, routing, sweeps
from spectra_exp.reporting.report.index import index_page
from spectra_exp.reporting.report.run_page import TEMPLATE, run_page
from spectra_exp.reporting.tables.spec import Grid
from spectra_exp.reporting.tables.spec import Table as Made
from spectra_exp.runs.routing_files import load_snapshot
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.intervals import Interval, mean_interval


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_world(tmp_path_factory)


@pytest.fixture(scope="module")
def material(world: Path) -> Material:
    """The world, read once."""
    return gather(world)


@pytest.fixture(scope="module")
def tables(material: Material) -> list[Made]:
    """Every table of it."""
    return all_tables(material)


@pytest.fixture(scope="module")
def index(world: Path) -> Page:
    return Page((world / "report" / "index.html").read_text(encoding="utf-8"))


def page_of(world: Path, pattern: str, place: int = 0) -> Page:
    found = sorted((world / "report" / "runs").glob(pattern))[place]
    return Page(found.read_text(encoding="utf-8"))


def unsaid(tables: list[Made], page: Page) -> list[tuple[str, str, list[str]]]:
    """The printed rows of the tables that the page does not show as they are."""
    lost = []
    for table in tables:
        for part in table.parts:
            for grid in part.grids:
                shown = page.grids.get(grid.title, [])
                lost += [(table.name, grid.title, row) for row in [grid.headers, *grid.rows] if row not in shown]
    return lost


def test_every_row_of_every_table_is_shown_with_the_same_strings(tables: list[Made], index: Page) -> None:
    assert sum(len(grid) for grid in index.grids.values()) > 200
    assert unsaid(tables, index) == []


def test_a_cell_that_differs_from_its_table_is_found(
    material: Material, tables: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grids._cell
    monkeypatch.setattr(grids, "_cell", lambda text, *rest: real(text.replace(" ± ", " ± 1"), *rest))
    page = Page(index_page(material, tables))
    assert unsaid(tables, page)


def test_the_cells_are_those_of_the_csv_files(world: Path, index: Page) -> None:
    with open(world / "tables" / "table12_stability.csv", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    shown = next(rows for title, rows in index.grids.items() if title.startswith("Between 10, 25"))
    head = shown[0]
    # SPECTRA, every baseline but `none`, and the temperature router.
    assert len(records) == len(shown) - 1 == len(option_files("baseline")) + 1
    for record, row in zip(records, shown[1:], strict=True):
        cell = dict(zip(head, row, strict=True))
        assert cell["label"] == record["label"]
        for metric in ("routing_consistency", "usage_variance", "usage_kendall_tau", "router_saturation"):
            assert cell[metric] == record[metric]


def test_the_headline_shows_each_methods_figures_and_each_verdict_of_table_13(
    world: Path, material: Material, index: Page
) -> None:
    section = material.sections["baselines"][0]
    headline = index.source[index.source.index('id="headline"') : index.source.index('id="hypotheses"')]
    for row in section.rows:
        for metric in ("val_loss", "load_cv", "max_vio", "expert_overlap"):
            figure = interval_text(mean_interval(section.values(row, metric).values()))
            assert f">{figure}</text>" in headline, (row.label, metric)
    rows = index.grids["SPECTRA (paper) − each baseline: difference [95 % interval]"]
    assert rows[0] == ["against", "val_loss", "load_cv", "max_vio", "expert_overlap"]
    with open(world / "tables" / "table13_significance.csv", encoding="utf-8") as file:
        records = {(r["comparison"], r["metric"]): r for r in csv.DictReader(file)}
    against = {row[0]: row[1:] for row in rows[1:]}
    assert len(against) == len(option_files("baseline"))  # the baselines but `none`, and the count
    for name, cells in list(against.items())[:8]:
        for metric, cell in zip(rows[0][1:], cells, strict=True):
            record = records[f"SPECTRA (paper) − {name}", metric]
            assert cell.startswith(record["verdict"]) and record["verdict"]
            shown = re.search(r"[-\d.e]+(?= \[|$)", cell.removeprefix(record["verdict"]))[0]
            assert float(shown) == pytest.approx(float(record["difference"]), rel=1e-3)


def test_the_forest_holds_each_difference_from_full(material: Material, index: Page) -> None:
    section = material.sections["core"][0]
    (full,), (gru,) = section.find({"ablation": "none"}), section.find({"ablation": "no_gru"})
    test = section.compare(gru, full, "val_loss")
    forest = index.source[index.source.index('id="ablations"') : index.source.index('id="sweeps"')]
    shown = ("−" if test.difference < 0 else "+") + number_text(abs(test.difference))
    assert re.findall(r"<text[^>]*>([^<]*)</text>", forest[: forest.index("</svg>")])[-2].split()[0] == shown
    assert forest.count("<option>") == 6 and "− OSR" in forest and "− Quota" not in forest


def test_the_front_is_of_causal_rows_alone(material: Material, index: Page) -> None:
    section = material.sections["baselines"][0]
    means = {}
    for row in section.rows:
        x, y = (mean_interval(section.values(row, m).values()) for m in ("load_cv", "val_loss"))
        if row.method != "Expert Choice":
            means[row.label] = x.mean, y.mean
    front = {
        a for a, (x, y) in means.items() if not any(u <= x and v <= y and (u, v) != (x, y) for u, v in means.values())
    }
    first = index.grids["The points"][1 : 1 + len(section.rows)]
    assert {row[0] for row in first if row[-1].startswith("front")} == front
    assert next(row[-1] for row in first if row[0] == "Expert Choice") == "not causal"


def test_the_heat_maps_hold_each_cells_mean_in_its_place(material: Material, index: Page) -> None:
    section = material.sections["b_sinkhorn"][0]
    means = {
        tuple(
            row.key[f"osr.{name}"] for name in ("log_sinkhorn_enabled", "sinkhorn_epsilon", "sinkhorn_iterations")
        ): number_text(mean_interval(section.values(row, "val_loss").values()).mean)
        for row in section.rows
    }
    wanted = [means[d, e, i] for d in ("false", "true") for e in ("0.03", "0.05", "0.1", "0.2") for i in ("2", "3")]
    sweep = index.source[index.source.index("Sweep B") :]
    assert re.findall(r"<text[^>]*>(\d\.\d{3})</text>", sweep)[:16] == wanted


def test_the_load_pictures_are_means_over_seeds_by_rank(world: Path, material: Material, index: Page) -> None:
    (row,) = material.sections["baselines"][0].find({"baseline": "switch_top2"})
    ranked = []
    for run_id in row.runs.values():
        counts_LE = load_snapshot(world / "runs" / run_id / "routing" / "step-00000250.npz").counts_LE
        ranked.append(np.sort(counts_LE / counts_LE.mean(axis=1, keepdims=True))[:, ::-1])
    picture = index.source[index.source.index("Load by layer and rank of Switch top-2, mean over 3 seeds") :]
    shown = [float(text) for text in re.findall(r"<text[^>]*>(\d\.\d\d)</text>", picture)[:16]]
    assert shown == pytest.approx(np.mean(ranked, axis=0).ravel().tolist(), abs=0.0051)


def test_every_gap_is_listed_with_its_command(tables: list[Made], index: Page) -> None:
    rows = [tuple(row[:4]) for row in index.grids["Gaps"]]
    gaps = [gap for table in tables for gap in table.gaps]
    assert len(gaps) > 20
    for gap in gaps:
        command = f"{gap.command}Copy" if gap.command else "none: its runs do not measure it"
        assert (gap.row, gap.what, gap.reason, command) in rows, gap


def test_left_out_odd_and_stale_runs_are_named(material: Material, index: Page) -> None:
    odd = {row[0]: row[1:] for row in index.grids["Odd runs"]}
    collected = material.collected
    assert len(collected.skipped) == 3
    for name, reason in collected.skipped.items():
        assert odd[name] == ["left out", reason]
    marks = {row[0]: row[-1] for row in index.grids["Runs"]}
    assert [name for name, said in marks.items() if "stale" in said] == [
        name for name, run in collected.by_run.items() if run["stale"]
    ]
    assert len([name for name, said in marks.items() if said == "not causal"]) == 2
    assert "1 of" in index.text and "Not causal: Expert Choice." in index.text


def test_each_run_has_a_page_and_the_links_go_both_ways(world: Path, index: Page) -> None:
    folder = world / "report"
    pages = [link for link in index.links if link.startswith("runs/")]
    assert len(set(pages)) == len(list((folder / "runs").iterdir()))
    for link in pages:
        page = Page((folder / unquote(link)).read_text(encoding="utf-8"))
        (back,) = [to for to in page.links if to.startswith("../index.html#")]
        assert back.partition("#")[2] in index.ids
    inner = {link[1:] for link in index.links if link.startswith("#")}
    assert len([name for name in inner if name.startswith("cell-")]) > 10
    assert inner <= set(index.ids) and len(set(index.ids)) == len(index.ids)


def test_a_run_page_holds_configuration_curves_routing_and_log(world: Path) -> None:
    page = page_of(world, "switch-*-e8*")
    for ident in ("facts", "curves", "routing", "figures", "configuration", "log"):
        assert ident in page.ids
    assert all(f"val_perplexity_{domain}" in page.text.replace("_ ", "_") for domain in DOMAINS)
    assert "num_experts: 8" in page.text and "training begins" in page.text
    for words in ("Loss over training: train_loss, val_loss", "Domains of layer 1", "Load of layer 0 over training"):
        assert f'aria-label="{words}' in page.source
    assert "literature, expert 7" in page.text


def test_a_damaged_run_has_a_page_that_says_what_is_damaged(world: Path) -> None:
    page = page_of(world, "hash-*", 1)
    assert "in no table" in page.text and "not readable as JSON" in page.text
    assert "not readable as a run's history" in page.text and "not a whole routing snapshot" in page.text
    assert str(world) not in page.text.replace(f"outputs: {world}", "")
    assert "training begins" in page.text and "routing" in page.ids


def test_labels_logs_and_names_stay_text(world: Path, index: Page) -> None:
    page = page_of(world, "dense-*")
    assert EVIL in page.text and EVIL not in page.source and EVIL not in index.source
    assert page.tags.count("script") == index.tags.count("script") == 1
    assert "\x1b" not in page.source and "left <b>out & 100%" in index.text
    assert "runs/left%20%3Cb%3Eout%20%26%20100%25.html" in index.links


def test_a_missing_escape_is_found(world: Path, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = html._environment.__wrapped__(TEMPLATE.parent)
    bare.autoescape = False
    monkeypatch.setattr(html, "_environment", lambda folder: bare)
    monkeypatch.setattr(html, "escape", Markup)
    name = sorted((world / "runs").glob("dense-*"))[0]
    page = Page(run_page(StoredRun(name), material.collected))
    assert page.tags.count("script") > 1


def test_nothing_is_fetched(world: Path, index: Page) -> None:
    for page in (index, page_of(world, "switch-*")):
        assert page.fetched == ["data:,"]
        assert not re.search(r"https?://|@import|url\((?!#)", page.source)
        assert "</script" not in page.source.partition("<script>")[2].partition("</script>")[0]


def test_two_processes_write_the_same_bytes(world: Path) -> None:
    before = {path: path.read_bytes() for path in (world / "report").rglob("*.html")}
    command = [sys.executable, "-m", "spectra_exp", "report", f"outputs={world}"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert {path: path.read_bytes() for path in (world / "report").rglob("*.html")} == before


def test_pages_of_runs_that_are_gone_go_too(tmp_path: Path) -> None:
    old = tmp_path / "report" / "runs" / "gone-s0-12345678.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    write_report(gather(tmp_path))
    assert not old.exists()


def test_without_any_run_it_says_how_to_start(tmp_path: Path) -> None:
    assert main([f"outputs={tmp_path}"]) == 0
    page = Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    assert "No finished run yet" in page.text and "make demo" in page.text
    assert "runs" not in page.ids and "missing" in page.ids


def test_one_run_alone_makes_a_report(world: Path, tmp_path: Path) -> None:
    source = sorted((world / "runs").glob("switch-*"))[0]
    shutil.copytree(source, tmp_path / "runs" / source.name)
    shutil.copytree(world / "studies", tmp_path / "studies")
    assert main([f"outputs={tmp_path}"]) == 0
    page = Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    assert source.name in page.text and "front" not in page.ids and "nan" not in page.text.lower().split()


def test_one_study_alone(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    before = {path: path.read_bytes() for path in (copy / "report").rglob("*.html")}
    assert main([f"outputs={copy}", "study=b_sinkhorn"]) == 0
    assert {path: path.read_bytes() for path in (copy / "report").rglob("*.html")} == before
    page = Page((copy / "report-b_sinkhorn" / "index.html").read_text(encoding="utf-8"))
    assert "16 runs" in page.text and "headline" not in page.ids and "sweeps" in page.ids
    assert main([f"outputs={copy}", "study=nothing"]) == 1
    assert "no completed run of study 'nothing'" in capsys.readouterr().err


def shown_table(table: Table) -> str:
    return html_page(html.TEMPLATES / "page.html", "<T>", [Block("one", "One", None, table)])


def test_text_is_escaped_everywhere_in_a_table() -> None:
    cell = Cell("<b>", "n", swatch='"<', small="<i>", number=0.5, ident='"x')
    shown = shown_table(Table("<c>", ["a<", "<val>"], [Row(["<r>_&_\x1b of a long name", cell], '"y')]))
    assert "<title>&lt;T&gt;</title>" in shown and "<caption>&lt;c&gt;</caption>" in shown
    assert '<th scope="row">&lt;r&gt;_<wbr>&amp;_<wbr>� of a long name</th>' in shown
    assert '<td class="n" data-value="0.5">' in shown and "&lt;b&gt; <small>&lt;i&gt;</small></td>" in shown
    assert not re.search(r'(id|style)="[^"]*["<][^ >]', shown) and "<r>" not in shown
    assert file_link("..", "a b#.html") == "../a%20b%23.html"


def test_a_verdict_and_a_best_value_are_marked() -> None:
    grid = Grid("g", ["label", "x", "verdict"], [["a", "1 ± 2 *", "supported"]], frozenset({(0, 1)}))
    shown = shown_table(grids.grid_table(grid))
    assert '<td class="n best">1 ± 2 *</td>' in shown
    assert '<span class="badge good">supported</span>' in shown


def test_an_expert_that_serves_nobody_leaves_the_picture_of_the_domains_there() -> None:
    counts_LME = np.array([[[30, 10, 0], [10, 30, 0], [0, 0, 0]]])
    snapshot = SimpleNamespace(
        counts_LE=counts_LME.sum(axis=1), domain_counts_LME=counts_LME, fraction=1.0, step=9, num_tokens=80
    )
    block = routing.routing_block(SimpleNamespace(snapshots={9: snapshot}, curves={}))
    (group,) = block.body
    _, domains = group.content
    assert domains.panel.y_ticks == ("domain 0", "domain 1")
    assert [[cell.value for cell in row] for row in domains.panel.cells] == [[1.5, 0.5, None], [0.5, 1.5, None]]
    assert domains.panel.cells[0][2].tip == "domain 0, expert 2: not used"


def test_what_stands_apart_by_a_setting_has_colours_of_its_own() -> None:
    rows = [GridRow({"data": name, "router.dim": "8"}, f"SPECTRA, {name}") for name in "ab"]
    section = Section(None, (), (), rows, None)
    section.interval = lambda row, metric: Interval(1, 1.0, None, None)
    (chart,) = sweeps._steps(Picture("mine", "Mine", "curve", ("router.dim",), apart="data"), section, "val_loss")
    assert [name for name, _ in chart.key] == ["a", "b"] and len({shade for _, shade in chart.key}) == 2


def test_affinity_compares_a_domain_with_all_tokens() -> None:
    found = routing.affinity(np.array([[30, 10], [10, 30], [0, 0]]))
    assert found[:2].tolist() == [[1.5, 0.5], [0.5, 1.5]] and np.isnan(found[2]).all()

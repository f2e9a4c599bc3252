"""Tables of whole studies whose every figure was made, so that each cell is predicted."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_studies import given, make_study
from scipy import stats

from spectra_exp.config.tree import option_files
from spectra_exp.data.embedded_rounds import ROUNDS_PAIR
from spectra_exp.downstream.scores import keep_scores
from spectra_exp.measure import METRICS
from spectra_exp.reporting.declared import all_contrasts, study_tables
from spectra_exp.reporting.make_tables import _makers, all_tables, main, tables_of
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.tables import build, significance
from spectra_exp.reporting.tables.catalogue import ROUTING_METRICS
from spectra_exp.reporting.tables.long import long_frame
from spectra_exp.reporting.tables.pairs import PairSpec, build_pairs
from spectra_exp.reporting.tables.spec import Table
from spectra_exp.reporting.tables.write import escape, latex, markdown
from spectra_exp.studies.definition import load_study, study_files

SEEDS = range(5)
NOISE = np.random.default_rng(7).normal(0, 0.01, size=(64, 5))


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    return tmp_path


def tables(outputs: Path) -> dict[str, Table]:
    return {table.name: table for table in all_tables(gather(outputs))}


def declared(outputs: Path, name: str) -> Table:
    """The table of that name that a study's file declares, without the others."""
    material = gather(outputs)
    study = next(s for s, file in material.studies.items() if name in {spec.name for spec in study_tables(file)})
    return {table.name: table for table in tables_of(material, study)}[name]


def rows(table: Table, column: str = "label") -> dict[str, dict]:
    return {row[column]: row for row in table.frame.to_dict("records")}


ORDER = ("none", "no_expression", "no_gru", "no_repulsion", "no_ortho", "no_speciality", "no_osr", "no_all", "no_quota")


def ablation_loss(ablation: str, seed: int) -> float:
    place = ORDER.index(ablation) if ablation in ORDER else 20
    return 4.0 + 0.1 * place + float(NOISE[place, seed])


def core(job) -> dict:
    return {"metrics": {"val_loss": ablation_loss(given(job)["ablation"], job.experiment.seed)}}


def made(factory: pytest.TempPathFactory, study: str, figures) -> Path:
    """Outputs of five seeds of a study, to be read alone."""
    folder = factory.mktemp(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_study(folder, study, figures, ("seed=0..4",))
    return folder


@pytest.fixture(scope="module")
def core_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory, "core", core)


@pytest.fixture(scope="module")
def baselines_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory, "baselines", baselines)


def test_every_table_of_the_contract_is_declared_once_over_studies_and_metrics_that_exist() -> None:
    specs = [ROUTING_METRICS, *(spec for name in study_files() for spec in study_tables(load_study(name)))]
    names = [*(spec.name for spec in specs), "table13_significance"]
    assert len(set(names)) == len(names)
    contract = {
        "routing_metrics",
        "table07_ablation",
        "table10_scaling_model",
        "table11_scaling_experts",
        "table12_stability",
        "table13_significance",
        "sweep_a",
        "sweep_b",
        "sweep_c",
        "sweep_d",
        "sweep_e",
        "temperature",
    }
    assert contract <= set(names)
    rounds = {f"val_loss_{domain}" for domain in ROUNDS_PAIR}
    known = {*METRICS, "val_loss", "downstream_score", "gap_closure", *rounds}
    for spec in (*specs, *all_contrasts(map(load_study, study_files()))):
        assert spec.study in {"", *study_files()}
        for metric in spec.metrics:
            assert re.sub("_(training_rule|inference_(true|false|dual))$", "", metric) in known, metric


def test_the_ablation_table_has_a_row_an_ablation_tested_against_the_full_method(core_world: Path) -> None:
    table = declared(core_world, "table07_ablation")
    found = rows(table, "ablation")
    assert list(found) == list(ORDER)
    raw = {}
    for ablation, row in found.items():
        own = np.array([ablation_loss(ablation, seed) for seed in SEEDS])
        full = np.array([ablation_loss("none", seed) for seed in SEEDS])
        assert row["n"] == row["val_loss_n"] == 5
        assert row["val_loss_mean"] == pytest.approx(own.mean())
        low, high = stats.t.interval(0.95, 4, own.mean(), stats.sem(own))
        assert (row["val_loss_ci_low"], row["val_loss_ci_high"]) == (pytest.approx(low), pytest.approx(high))
        if ablation != "none":
            assert row["val_loss_difference"] == pytest.approx((own - full).mean())
            raw[ablation] = stats.ttest_rel(own, full).pvalue
            assert row["val_loss_p"] == pytest.approx(raw[ablation])
    # The other tested metrics are equal in all rows: no p-value, so they do not count in the family.
    ranked = sorted(raw, key=raw.get)
    largest = 0.0
    for place, ablation in enumerate(ranked):
        largest = max(largest, raw[ablation] * (len(ranked) - place))
        assert found[ablation]["val_loss_p_corrected"] == pytest.approx(min(1.0, largest))
    assert found["no_all"]["val_loss"].endswith(" ***") and "*" not in found["none"]["val_loss"]
    (part,) = table.parts
    assert "Stars: against SPECTRA (paper), Holm over 8 tests." in part.notes
    assert any(note.startswith("No test, zero variance: SPECTRA (paper) − Expression (load_cv)") for note in part.notes)


def test_cells_are_the_same_text_in_every_format_and_the_best_is_bold(core_world: Path) -> None:
    table = declared(core_world, "table07_ablation")
    cells = [row["val_loss"] for row in table.frame.to_dict("records")]
    plain, tex = markdown(table), latex(table)
    for cell in cells:
        assert f"{cell} |" in re.sub(" +", " ", plain)
        assert cell.replace("±", r"$\pm$") in tex
    # Lower is better, and the first row is the lowest.
    assert bold(cells[0]) in tex and bold(cells[1]) not in tex


def bold(cell: str) -> str:
    return "\\textbf{" + escape(cell) + "}"


def test_a_loss_that_saw_the_future_is_never_the_best(outputs: Path) -> None:
    def figures(job):
        return core(job) | {"causal": given(job)["ablation"] != "none"}

    make_study(outputs, "core", figures, ("seed=0..2",))
    table = declared(outputs, "table07_ablation")
    first, second = (row["val_loss"] for row in table.frame.to_dict("records")[:2])
    assert bold(second) in latex(table) and bold(first) not in latex(table)
    assert [row[2] for row in table.parts[0].grids[0].rows[:2]] == ["no", "yes"]


def test_a_sweep_marks_the_front_and_corrects_over_its_grid(outputs: Path) -> None:
    values = {"0": (0.5, 0.1, 4.2), "0.1": (0.4, 0.2, 4.1), "0.3": (0.3, 0.3, 4.0), "0.5": (0.6, 0.6, 4.6)}

    def figures(job):
        cv, overlap, loss = values.get(given(job)["osr.repulsion_weight"], (0.7, 0.7, 4.7))
        noise = float(NOISE[int(10 * cv), job.experiment.seed])
        return {"metrics": {"load_cv": cv + noise, "expert_overlap": overlap, "val_loss": loss + noise}}

    make_study(outputs, "c_repulsion", figures, ("seed=0..4",))
    table = declared(outputs, "sweep_c")
    found = rows(table, "osr.repulsion_weight")
    assert {weight: row["pareto"] for weight, row in found.items()} == {
        "0": "yes",
        "0.1": "yes",
        "0.3": "yes",
        "0.5": "",
        "0.8": "",
        "1": "",
    }
    tested = [w for w in found if w != "0.5"]
    raw = [found[w][f"{m}_p"] for w in tested for m in ("val_loss", "load_cv")]
    corrected = [found[w][f"{m}_p_corrected"] for w in tested for m in ("val_loss", "load_cv")]
    assert corrected == pytest.approx(stats.false_discovery_control(raw))
    assert pd.isna(found["0.5"]["val_loss_p"])


def scaling(job) -> dict:
    experts, seed = int(given(job)["model.num_experts"]), job.experiment.seed
    gain = 0.01 * experts if given(job).get("router") == "spectra" else 0.0
    return {"metrics": {"val_loss": 4.0 - gain + float(NOISE[experts if gain else 0, seed]), "load_cv": 1.0 / experts}}


def test_pairs_stand_side_by_side_by_size_with_their_paired_difference(outputs: Path) -> None:
    make_study(outputs, "scaling_experts", scaling, ("seed=0..4",))
    table = declared(outputs, "table11_scaling_experts")
    found = rows(table, "model.num_experts")
    assert list(found) == ["4", "8", "16", "32"]
    for experts, row in found.items():
        difference = [-0.01 * int(experts) + NOISE[int(experts), s] - NOISE[0, s] for s in SEEDS]
        assert row["val_loss_difference"] == pytest.approx(np.mean(difference))
        assert row["val_loss_p"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
        assert row["SPECTRA: val_loss_mean"] < row["Switch top-2: val_loss_mean"]
    assert found["32"]["Δ val_loss"].startswith("−0.3") and found["32"]["Δ val_loss"].endswith("***")
    assert found["4"]["SPECTRA: downstream_score"] == ""


def test_downstream_scores_are_paired_by_size_and_one_over_other_items_is_left_out_and_named(outputs: Path) -> None:
    jobs = make_study(outputs, "scaling_experts", scaling, ("seed=0..3", "model.num_experts=4,8"))
    scores = {}
    for job in jobs:
        experts, seed = int(given(job)["model.num_experts"]), job.experiment.seed
        ours = given(job).get("router") == "spectra"
        tasks = {}
        for place, task in enumerate(("local_qasc", "local_pubmedqa")):
            score = 0.4 + 0.01 * seed + (0.02 * experts + 0.003 * seed**2 if ours else 0.0) + 0.1 * place
            tasks[task] = {"score": score, "error": 0.02, "chance": 0.2 + 0.1 * place, "settings": {"limit": None}}
        if (ours, experts, seed) == (True, 8, 3):
            other, tasks["local_qasc"] = job.run_id, tasks["local_qasc"] | {"score": 0.9, "settings": {"limit": 10}}
        summary = keep_scores(job.planned.folder, tasks)
        scores[ours, experts, seed] = summary["metrics"]["downstream_score"]
    found = rows(declared(outputs, "table11_scaling_experts"), "model.num_experts")
    for experts, seeds, test in ((4, 4, stats.ttest_rel), (8, 3, partial(stats.ttest_ind, equal_var=False))):
        ours, theirs = ([scores[method, experts, s] for s in range(n)] for method, n in ((True, seeds), (False, 4)))
        row = found[str(experts)]
        # Without the seed of the score that was left out they are no pairs any more.
        assert row["downstream_score_test"] == ("paired t" if seeds == 4 else "Welch's t")
        assert row["downstream_score_p"] == pytest.approx(test(ours, theirs).pvalue)
        assert row["downstream_score_difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert row["SPECTRA: downstream_score_mean"] == pytest.approx(np.mean(ours))
        assert row["SPECTRA: downstream_score_floor"] == pytest.approx(0.25)
    assert found["8"]["SPECTRA: downstream_score_n"] == 3
    part, *_ = declared(outputs, "table11_scaling_experts").parts
    assert [note for note in part.notes if note.startswith(f"{other}: its downstream scores are over other tasks")]


def baselines(job) -> dict:
    name, seed = given(job).get("baseline", given(job).get("router")), job.experiment.seed
    loss = {"spectra": 4.0, "switch_top2": 4.3, "hash": 4.0}.get(name, 5.0)
    noise = {"hash": 0.0005, "spectra": 0.0}.get(name, 1.0) * NOISE[len(name), seed]
    shared = 0.3 * seed  # far larger than any effect: only a paired test finds it
    return {"metrics": {"val_loss": loss + shared + float(noise), "load_cv": 0.2 + shared}}


def test_the_long_file_has_the_differences_of_any_two_methods(baselines_world: Path) -> None:
    switch, hashed = {"baseline": "switch_top2"}, {"baseline": "hash"}
    spec = PairSpec("pairs", "Pairs", "baselines", switch, hashed, ("val_loss",), ("val_loss",))
    found = long_frame(build_pairs(spec, gather(baselines_world).sections["baselines"])).set_index("row")["difference"]
    expected = 0.3 + np.mean([NOISE[len("switch_top2"), s] - 0.0005 * NOISE[len("hash"), s] for s in SEEDS])
    assert found["Switch top-2"] == pytest.approx(expected) and pd.isna(found.drop("Switch top-2")).all()


def test_significance_is_paired_corrected_and_said_in_words(baselines_world: Path) -> None:
    table = tables(baselines_world)["table13_significance"]
    own = table.frame[table.frame["metric"] == "val_loss"].set_index("comparison")
    switch = own.loc["SPECTRA (paper) − Switch top-2"]
    expected = np.array([-0.3 - NOISE[len("switch_top2"), s] for s in SEEDS])
    assert switch["difference"] == pytest.approx(expected.mean())
    assert switch["p"] == pytest.approx(stats.ttest_1samp(expected, 0).pvalue)
    assert switch["d_z"] == pytest.approx(expected.mean() / expected.std(ddof=1))
    assert switch["n_pairs"] == 5 and pd.isna(switch["wilcoxon_p"]) and switch["verdict"] == "better ***"
    assert switch["p_holm"] >= switch["p"]
    assert own.loc["SPECTRA (paper) − Hash"]["verdict"].startswith("equivalent (")
    assert own.loc["SPECTRA (paper) − Hash"]["equivalent_p"] < 0.05
    equal = table.frame[(table.frame["metric"] == "load_cv") & (table.frame["n_pairs"] > 0)]
    assert len(equal) == len(option_files("baseline")) - 1  # all but none
    assert set(equal["verdict"]) == {"zero variance"} and equal["p"].isna().all()


def test_planted_fault_an_unpaired_test_would_find_nothing(baselines_world: Path) -> None:
    (section,) = gather(baselines_world).sections["baselines"]
    a, b = section.find({"router": "spectra"})[0], section.find({"baseline": "switch_top2"})[0]
    arms = [list(section.values(row, "val_loss").values()) for row in (a, b)]
    assert stats.ttest_ind(*arms, equal_var=False).pvalue > 0.05 > section.compare(a, b, "val_loss").p


def test_fewer_than_three_seeds_give_no_p_value_and_no_stars(outputs: Path) -> None:
    make_study(outputs, "baselines", baselines, ("seed=0..1",))
    table = tables(outputs)["table13_significance"]
    own = table.frame.query("metric == 'val_loss' and n_pairs > 0 and family.str.endswith('against the baselines')")
    assert len(own) == len(option_files("baseline")) - 1  # all but none
    assert own["p"].isna().all() and set(own["verdict"]) == {"n<3"}
    assert "*" not in "".join(rows(declared(outputs, "table07_ablation")))


def test_a_study_without_its_baseline_is_tabulated_and_says_so(outputs: Path) -> None:
    def figures(job):
        return None if given(job)["ablation"] == "none" else core(job)

    make_study(outputs, "core", figures, ("seed=0..4",))
    table = declared(outputs, "table07_ablation")
    found = rows(table, "ablation")
    assert found["none"]["val_loss"] == "" and found["no_gru"]["val_loss_n"] == 5
    assert "No tests: no finished run of the row to test against (ablation=none)." in table.parts[0].notes
    (gap,) = [gap for gap in table.gaps if gap.reason == "missing"]
    assert gap.command == "python train.py -m router=spectra osr=paper ablation=none study=core seed=0,1,2,3,4"


def test_what_is_missing_is_listed_with_a_command_that_makes_it(outputs: Path) -> None:
    def figures(job):
        return None if given(job)["osr.repulsion_weight"] == "0.3" and job.experiment.seed in (1, 3) else {}

    jobs = make_study(outputs, "c_repulsion", figures, ("seed=0..4", "trainer.max_steps=9"))
    assert main([f"outputs={outputs}"]) == 0
    with open(outputs / "tables" / "missing.csv", encoding="utf-8") as file:
        gaps = list(csv.DictReader(file))
    (own,) = [gap for gap in gaps if gap["table"] == "sweep_c"]
    assert (own["part"], own["what"], own["reason"]) == ("trainer.max_steps=9", "seeds 1, 3", "missing")
    words = own["command"].removeprefix("python train.py -m ").split()
    expected = next(job for job in jobs if given(job)["osr.repulsion_weight"] == "0.3")
    assert set(expected.overrides) - {"seed=0"} == set(words) - {"seed=1,3"} and "seed=1,3" in words
    never = {gap["table"]: gap["command"] for gap in gaps if gap["reason"] == "never launched"}
    assert never["sweep_b"] == "make sweep-b" and never["table11_scaling_experts"] == "make scaling"


def test_both_rules_are_in_one_table_each_tested_against_its_own_baseline(outputs: Path) -> None:
    for typed in (("seed=0..4",), ("seed=0..4", "osr=causal")):
        make_study(outputs, "core", core, typed)
    table = declared(outputs, "table07_ablation")
    assert "Stars: against SPECTRA (paper) or SPECTRA (causal), Holm over 15 tests." in table.parts[0].notes
    assert len(table.frame) == len(ORDER) + len(ORDER) - 1  # osr=causal has no quota to take away


def test_other_rules_of_inference_have_columns_of_their_own(outputs: Path) -> None:
    def figures(job):
        return {"metrics_by_inference": {"true": {"load_cv": 0.5}, "dual": {"load_cv": 0.25}}}

    make_study(outputs, "a_quota", figures, ("seed=0..2",))
    table = declared(outputs, "sweep_a")
    row = table.frame.to_dict("records")[0]
    assert (row["load_cv_inference_true_mean"], row["load_cv_inference_dual_mean"]) == (0.5, 0.25)
    headers = table.parts[0].grids[-1].headers
    assert "load_cv_inference_dual" in headers and "load_cv_inference_false" not in headers


def test_methods_of_a_study_that_varies_settings_are_named_beside_them(outputs: Path) -> None:
    make_study(outputs, "recurrence", lambda job: {}, ("seed=0..2",))
    grid = declared(outputs, "recurrence").parts[0].grids[0]
    assert grid.headers[:3] == ["method", "carry", "sequence"]
    names = [tuple(row[:3]) for row in grid.rows]
    assert len(set(names)) == len(names) == 12
    assert {("β-memory", "", ""), ("SPECTRA (causal)", "token", "min_gru")} <= set(names)
    make_study(outputs, "e_context", lambda job: {}, ("seed=0",))
    grid = declared(outputs, "sweep_e").parts[0].grids[0]
    assert grid.headers[0] == "ablation" and {row[0] for row in grid.rows} == {"none", "no_gru"}


def test_a_row_of_a_sweep_is_tested_at_its_own_setting(outputs: Path) -> None:
    def by_length(job):
        loss = 4 + int(given(job)["data.sequence_length"]) / 1e5 + 0.1 * (given(job)["ablation"] == "no_gru")
        return {"metrics": {"val_loss": loss + 0.01 * int(given(job)["seed"]) * (given(job)["ablation"] == "none")}}

    make_study(outputs, "e_context", by_length, ("seed=0..4",))
    found = [r for r in declared(outputs, "sweep_e").frame.to_dict("records") if r["ablation"] == "no_gru"]
    assert [row["val_loss_difference"] for row in found] == pytest.approx([0.08] * 4)


def test_the_long_file_has_no_row_for_what_a_section_did_not_measure(outputs: Path) -> None:
    def of_one_text(job):
        return {"metrics": {"val_loss_records": 1.0}} if "trainer.max_steps=9" in job.overrides else {}

    for typed in ((), ("trainer.max_steps=9",)):
        make_study(outputs, "a_quota", of_one_text, ("seed=0..1", *typed))
    (table,) = (t for t in all_tables(gather(outputs)) if t.name == ROUTING_METRICS.name)
    found = long_frame(table)
    assert len(table.parts) == 2 and found["section"].nunique() == 2
    assert (found["n"] > 0).all() and found[found["metric"] == "val_loss_records"]["section"].nunique() == 1


def test_planted_fault_a_swapped_reference_turns_the_signs(core_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = rows(declared(core_world, "table07_ablation"), "ablation")["no_all"]["val_loss_difference"]
    monkeypatch.setattr(
        build,
        "reference_of",
        lambda row, rows, wanted: next((r for r in rows if r.matches({"ablation": "no_all"})), None),
    )
    assert good > 0 > rows(declared(core_world, "table07_ablation"), "ablation")["none"]["val_loss_difference"]


@pytest.mark.parametrize("damage", ["truncated", "half json", "older schema", "foreign"])
def test_a_damaged_run_costs_its_own_seed_alone(
    core_world: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = Path(shutil.copytree(core_world, tmp_path / "outputs"))
    summaries = [json.loads(path.read_text()) for path in outputs.glob("runs/*/summary.json")]
    run_id = next(s["run_id"] for s in summaries if (s["ablation"], s["seed"]) == ("no_gru", 2))
    path = outputs / "runs" / run_id / "summary.json"
    text = path.read_text()
    older = text.replace('"schema": 1', '"schema": 0')
    broken = {"truncated": "", "half json": text[: len(text) // 2], "older schema": older, "foreign": '{"loss": 3}'}
    path.write_text(broken[damage])
    assert main([f"outputs={outputs}", "show=table07_ablation"]) == 0
    assert run_id in capsys.readouterr().err
    found = rows(declared(outputs, "table07_ablation"), "ablation")
    assert (found["no_gru"]["n"], found["no_gru"]["n_expected"], found["none"]["n"]) == (4, 5, 5)
    assert found["no_gru"]["val_loss_test"] == "Welch's t"


def test_each_table_is_built_under_its_own_name(core_world: Path) -> None:
    material = gather(core_world)
    for study in (None, "core"):
        made = {name: make() for name, make in _makers(material, study).items()}
        assert {name: table.name for name, table in made.items() if table} == {
            name: name for name, table in made.items() if table
        }


def test_a_wrong_table_to_show_is_told_before_any_is_written(core_world: Path, tmp_path: Path, capsys) -> None:
    outputs = Path(shutil.copytree(core_world, tmp_path / "outputs", ignore=shutil.ignore_patterns("tables")))
    assert main([f"outputs={outputs}", "show=table07_ablations"]) == 2
    assert "table07_ablation" in capsys.readouterr().err and not (outputs / "tables").exists()


def test_margins_and_verdicts_follow_the_direction_of_the_metric() -> None:
    from spectra_exp.statistics.comparison import compare

    a, b = {s: 1.0 + 0.01 * s for s in SEEDS}, {s: 2.0 + 0.012 * s for s in SEEDS}
    test = compare(a, b)
    assert significance.verdict(test, 0.0001, "val_loss") == "better ***"
    assert significance.verdict(test, 0.0001, "val_accuracy") == "worse ***"
    assert significance.verdict(test, 0.0001, "executed_k") == "lower ***"
    assert significance.verdict(test, 0.2, "val_loss") == "undecided"
    # A difference that is certain, and negligible: 0.01 against a region of 0.02.
    near = compare({s: 1.01 + 0.0001 * s for s in SEEDS}, dict.fromkeys(SEEDS, 1.0))
    assert significance.verdict(near, 0.0001, "val_loss") == "equivalent (higher)"
    assert significance.verdict(near, 0.0001, "val_perplexity") == "worse ***"
    assert significance.verdict(compare({}, {}), None, "val_loss") == ""


def weights(job, **changes) -> dict:
    """Loss and CV that fall with the weight of the repulsion; `changes` to the run of the largest weight."""
    weight = float(given(job)["osr.repulsion_weight"])
    figures = {"metrics": {"val_loss": 5.0 - weight, "load_cv": 0.5 - weight / 4, "expert_overlap": 0.5 - weight / 4}}
    return figures | (changes if weight == 1 else {})


@pytest.mark.parametrize(
    "changes", [{}, {"max_steps": 77}, {"fingerprints": {"evaluation": "other"}}, {"causal": False}]
)
def test_rows_that_may_not_be_compared_are_never_the_best(outputs: Path, changes: dict) -> None:
    make_study(outputs, "c_repulsion", lambda job: weights(job, **changes), ("seed=0..2",))
    table = declared(outputs, "sweep_c")
    found = rows(table, "osr.repulsion_weight")
    best = "0.8" if changes else "1"
    # Other steps are a section of their own.
    front = table.frame[table.frame["pareto"] == "yes"]
    fronts = {section: own["osr.repulsion_weight"].tolist() for section, own in front.groupby("section")}
    assert fronts.pop("as in its file") == [best] and (not fronts or fronts == {"trainer.max_steps=77": ["1"]})
    assert bold(found[best]["val_loss"]) in latex(table)
    assert best == "1" or bold(found["1"]["val_loss"]) not in latex(table)


def test_a_row_that_lacks_a_hard_seed_is_not_the_best(outputs: Path) -> None:
    def figures(job):
        seed, odd = job.experiment.seed, given(job)["osr.repulsion_weight"] == "0.5"
        # Seed 2 is hard; the row without it has the lower mean and is worse at every seed.
        return None if odd and seed == 2 else {"metrics": {"val_loss": (5.0, 5.1, 9.0)[seed] + (0.5 if odd else 0.0)}}

    make_study(outputs, "c_repulsion", figures, ("seed=0..2",))
    table = declared(outputs, "sweep_c")
    found = rows(table, "osr.repulsion_weight")
    assert found["0.5"]["val_loss_mean"] < found["0"]["val_loss_mean"]
    assert bold(found["0.5"]["val_loss"]) not in latex(table) and bold(found["0"]["val_loss"]) in latex(table)


def test_a_row_with_more_seeds_is_ranked_over_those_that_the_others_have(outputs: Path) -> None:
    def figures(job):
        # The last weight is the best at the seeds that all have, and the one with harder seeds beside them.
        loss = 5.0 - float(given(job)["osr.repulsion_weight"]) + (9.0 if job.experiment.seed > 1 else 0.0)
        return {"metrics": {"val_loss": loss, "load_cv": loss / 10, "expert_overlap": loss / 10}}

    make_study(outputs, "c_repulsion", figures, ("seed=0..1",))
    make_study(outputs, "c_repulsion", figures, ("osr.repulsion_weight=1", "seed=2..3"))
    table = declared(outputs, "sweep_c")
    assert table.frame[table.frame["pareto"] == "yes"]["osr.repulsion_weight"].tolist() == ["1"]
    assert bold(rows(table, "osr.repulsion_weight")["1"]["val_loss"]) in latex(table)


def test_rows_of_which_no_data_has_more_than_another_have_no_best(outputs: Path) -> None:
    def figures(job):
        return weights(job) | {"fingerprints": {"data": str(float(given(job)["osr.repulsion_weight"]) < 0.4)}}

    make_study(outputs, "c_repulsion", figures, ("seed=0..2",))
    table = declared(outputs, "sweep_c")
    assert len(table.parts) == 1 and set(table.frame["pareto"]) == {""}


def test_seeds_that_settings_are_chosen_on_are_a_section_of_their_own(outputs: Path) -> None:
    make_study(outputs, "c_repulsion", weights, ("seed=0..1",))
    make_study(outputs, "c_repulsion", weights, ("seed=100..102",))
    plain, chosen = declared(outputs, "sweep_c").parts
    assert plain.title == "as in its file" and chosen.title.startswith("seeds 100 to 102")
    assert set(declared(outputs, "sweep_c").frame["n"]) == {2, 3}


def test_the_twin_of_a_run_stands_for_it_and_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = make_study(outputs, "c_repulsion", weights, ("seed=0..2",))
    folder = jobs[0].planned.folder.path
    twin = folder.with_name(folder.name[:-8] + "00000000")
    shutil.copytree(folder, twin)
    (twin / "summary.json").write_text((twin / "summary.json").read_text().replace(folder.name, twin.name))
    assert main([f"outputs={outputs}"]) == 0
    assert f"the same configuration and seed as {twin.name}" in capsys.readouterr().err
    assert set(declared(outputs, "sweep_c").frame["n"]) == {3}


def test_tables_of_one_study_have_the_runs_that_it_shares_with_another(outputs: Path) -> None:
    def not_shared(job):
        return None if given(job)["ablation"] == "none" else core(job)

    make_study(outputs, "c_repulsion", weights, ("seed=0..2", "osr=paper"))
    make_study(outputs, "core", not_shared, ("seed=0..2", "osr=paper"))
    assert main([f"outputs={outputs}"]) == 0 == main([f"outputs={outputs}", "study=core"])
    whole, own = outputs / "tables", outputs / "tables" / "core"
    assert rows(declared(outputs, "table07_ablation"))["SPECTRA (paper)"]["n"] == 3
    for name in ("table07_ablation.csv", "table07_ablation_long.csv", "table07_ablation.md"):
        assert (own / name).read_bytes() == (whole / name).read_bytes()
    assert "done" not in (own / "missing.csv").read_text()


def test_tables_of_one_study_leave_the_others_as_they_are(outputs: Path) -> None:
    make_study(outputs, "c_repulsion", weights, ("seed=0..2",))
    make_study(outputs, "temperature", lambda job: {}, ("seed=0..2",))
    assert main([f"outputs={outputs}"]) == 0
    before = {path.name: path.read_bytes() for path in (outputs / "tables").iterdir()}
    assert main([f"outputs={outputs}", "study=c_repulsion"]) == 0
    after = {path.name: path.read_bytes() for path in (outputs / "tables").iterdir() if path.is_file()}
    assert after == before
    own = {path.name for path in (outputs / "tables" / "c_repulsion").iterdir()}
    assert {"routing_metrics.csv", "sweep_c.csv", "sweep_c_long.csv", "missing.csv"} < own
    assert (outputs / "tables" / "c_repulsion" / "sweep_c.csv").read_bytes() == before["sweep_c.csv"]


def test_a_loss_between_models_not_both_causal_has_no_verdict_and_no_star(outputs: Path) -> None:
    def figures(job):
        return baselines(job) | {"causal": "baseline" in given(job)}

    make_study(outputs, "baselines", figures, ("seed=0..4",))
    found = tables(outputs)
    frame = found["table13_significance"].frame
    own = frame.query("metric == 'val_loss' and n_pairs > 0 and family.str.endswith('against the baselines')")
    assert set(own["verdict"]) == {"not causal"} and set(own["causal"]) == {"no / yes"}
    assert "*" not in rows(found["baselines"])["SPECTRA (paper)"]["val_loss"]


def test_chance_floors_are_printed_and_those_of_other_rules_are_not_made_up(outputs: Path) -> None:
    def figures(job):
        other = {"true": {"load_cv": 0.5, "routing_consistency": 0.4}}
        return {"floors": {"load_cv": 0.0123, "routing_consistency": 0.3}, "metrics_by_inference": other}

    make_study(outputs, "a_quota", figures, ("seed=0..2",))
    table = declared(outputs, "sweep_a")
    grid = next(grid for grid in table.parts[0].grids if grid.title.startswith("What chance gives"))
    assert "0.01230" in grid.rows[0]
    row = table.frame.to_dict("records")[0]
    assert row["load_cv_inference_true_floor"] == pytest.approx(0.0123)
    assert row["routing_consistency_floor"] == 0.3 and pd.isna(row["routing_consistency_inference_true_floor"])


def test_a_huge_figure_costs_its_interval_and_not_the_tables(outputs: Path) -> None:
    def figures(job):
        return {"metrics": {"val_loss": 4.0, "val_perplexity": 1e160 if job.experiment.seed else 50.0}}

    make_study(outputs, "c_repulsion", figures, ("seed=0..2",))
    assert main([f"outputs={outputs}"]) == 0
    row = tables(outputs)["routing_metrics"].frame.to_dict("records")[0]
    assert row["val_perplexity_mean"] > 1e159 and pd.isna(row["val_perplexity_ci_low"])


@pytest.mark.parametrize(
    "key, value",
    [
        ("timings", []),
        ("metrics_by_inference", {"true": []}),
        ("initial_weights", {"a": 3}),
        ("studies", 5),
        ("max_steps", []),
        ("causal", {}),
        ("flops_per_token", "many"),
        ("fingerprints", {"batches": []}),
        ("metrics_by_layer", {"load_cv": 3}),
        ("timings", {"step_time_ms": "fast"}),
        ("studies", ["../../x"]),
    ],
)
def test_a_value_of_the_wrong_kind_costs_its_own_run_alone(
    outputs: Path, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_study(outputs, "d_sharpness", lambda job: {}, ("seed=0",))
    path = jobs[0].planned.folder.summary
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert main([f"outputs={outputs}"]) == 0
    assert f"'{key}' is not what a summary holds there" in capsys.readouterr().err
    assert sorted(rows(declared(outputs, "sweep_d"), "router.entropy_coef")[v]["n"] for v in ("0", "0.0001")) == [0, 1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_every_table_compiles_in_a_real_latex(outputs: Path, tmp_path: Path) -> None:
    for study, figures in (("core", core), ("baselines", baselines), ("scaling_experts", scaling)):
        make_study(outputs, study, figures, ("seed=0..2",))
    assert main([f"outputs={outputs}"]) == 0
    found = sorted((outputs / "tables").glob("*.tex"))
    assert len(found) >= 14
    inputs = "\n".join(rf"\input{{{path}}}\clearpage" for path in found)
    document = tmp_path / "all.tex"
    document.write_text(
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    faults = [line for line in answer.stdout.splitlines() if line.startswith(("!", "Overfull \\hbox"))]
    assert answer.returncode == 0 and not faults, "\n".join(faults) or answer.stdout[-3000:]

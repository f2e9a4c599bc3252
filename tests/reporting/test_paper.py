"""The paper's results: the declared runs, how far they are, and the folder that their archive alone gives."""

from __future__ import annotations

import ast
import csv
import json
import random
import re
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_studies import given, make_study

from spectra_exp.archive.command import main as archive
from spectra_exp.archive.file import Archive, read_archive
from spectra_exp.cli import command
from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.config.tree import project_root
from spectra_exp.downstream.tasks import task_files
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.interpret.registry import chosen_parts
from spectra_exp.reporting.paper import progress as paper_progress
from spectra_exp.reporting.paper import publish as publish_module
from spectra_exp.reporting.paper.blocks import Chosen, Launch, paper_folder, read_blocks
from spectra_exp.reporting.paper.interpreted import read_interpreted
from spectra_exp.reporting.paper.outcomes import Outcomes
from spectra_exp.reporting.paper.page import Page, page_text
from spectra_exp.reporting.paper.progress import LaunchProgress, in_words, known_runs, progress
from spectra_exp.reporting.paper.publish import ARCHIVE, PAGE, publish, published
from spectra_exp.reporting.paper.published_tables import PublishedTables
from spectra_exp.reporting.paper.run_facts import RunFacts
from spectra_exp.reporting.paper.scored import read_scored
from spectra_exp.studies.state import Speed

COMMITTED = project_root() / "docs" / "results" / "paper"
LARGEST_BYTES = 25_000_000
LAUNCHES = [(block.name, launch) for block in read_blocks() for launch in block.launches]


def figures(job) -> dict:
    rng = random.Random(job.run_id)
    return {"metrics": {name: 0.2 + 0.05 * rng.random() for name in ("load_cv", "expert_overlap", "routing_entropy")}}


def two_methods(job) -> dict | None:
    switch = given(job).get("baseline") == "switch_top2"
    return figures(job) if switch or given(job).get("router") == "spectra" else None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder of two small studies."""
    outputs, folder = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        typed = ("seed=0..2", "osr=causal")
        make_study(outputs, "core", figures, (*typed, "ablation=none,no_gru"), curves=True)
        make_study(outputs, "baselines", two_methods, typed, curves=True)
    assert archive([str(folder / ARCHIVE), f"outputs={outputs}"]) == 0
    publish(folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def given_again(made: Path) -> dict[str, bytes]:
    """What the archive of `made` gives another time."""
    return published(made)


def check_folder(folder: Path, wanted: dict[str, bytes]) -> None:
    """Every file of a published folder, page included, is what its archive gives, byte for byte."""
    # What stands in interpretation/ is made of weights.
    there = {name: content for name, content in files_of(folder).items() if not name.startswith("interpretation/")}
    del there[ARCHIVE]
    assert there.keys() == wanted.keys()
    assert [name for name in wanted if there[name] != wanted[name]] == []


def test_a_folder_comes_from_its_archive_byte_for_byte(made: Path, given_again: dict[str, bytes]) -> None:
    check_folder(made, given_again)
    assert {"README.md", "report.html", "tables/hypotheses.csv", "figures/figure03_loss_curves.png"} <= set(
        files_of(made)
    )


if (COMMITTED / ARCHIVE).exists():

    @pytest.mark.full
    def test_the_committed_folder_comes_from_its_archive_byte_for_byte() -> None:
        wanted = published(COMMITTED)
        if (
            f"matplotlib=={metadata.version('matplotlib')}"
            not in (project_root() / "constraints.txt").read_text().split()
        ):
            # Another version draws the same pictures with other bytes.
            wanted |= {name: there for name, there in files_of(COMMITTED).items() if name.endswith(".png")}
        check_folder(COMMITTED, wanted)

    def test_the_committed_page_comes_from_the_tables_beside_it() -> None:
        assert page_text(COMMITTED, COMMITTED / ARCHIVE) == (COMMITTED / PAGE).read_text(encoding="utf-8")

    def test_the_committed_folder_is_small_and_names_no_place() -> None:
        there = files_of(COMMITTED)
        assert sum(map(len, there.values())) < LARGEST_BYTES
        texts = [content for name, content in there.items() if not name.endswith((".png", ".parquet"))]
        assert not [text for text in texts if re.search(rb"(?<![\w./:-])/(home|root|tmp|work|Users|mnt)/\w", text)]
        assert (COMMITTED / ARCHIVE).stat().st_size < 15_000 * len(read_archive(COMMITTED / ARCHIVE).run_ids)


def test_a_changed_table_is_found(made: Path, given_again: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "paper")
    table = tmp_path / "paper" / "tables" / "table07_ablation.csv"
    table.write_text(table.read_text().replace("0.2", "0.3", 1))
    with pytest.raises(AssertionError):
        check_folder(tmp_path / "paper", given_again)


def test_what_the_archive_no_longer_gives_is_removed(
    made: Path, given_again: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "published", lambda folder: given_again)
    shutil.copytree(made, tmp_path / "paper")
    old = tmp_path / "paper" / "figures" / "gone.png"
    old.write_bytes(b"old")
    publish(tmp_path / "paper")
    assert not old.exists() and files_of(tmp_path / "paper") == files_of(made)


def test_the_report_of_the_folder_has_no_link_to_a_page_that_is_not_there(made: Path) -> None:
    assert b'href="runs/' not in (made / "report.html").read_bytes()


# The page


def test_the_text_has_no_number_of_its_own() -> None:
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|`[^`]*`|\([^)]*\)|\[[^]]*\]", "", (paper_folder() / "page.md").read_text())
    # Of 95 % intervals, and numbers of sections.
    numbers = [n for n in re.findall(r"(?<![\w#])\d+(?:\.\d+)?", re.sub(r"(?m)^#+ \d+\.", "", text)) if n != "95"]
    assert numbers == []


def test_cells_of_the_page_are_those_of_the_tables(made: Path) -> None:
    page = Page(made, PublishedTables(made), read_archive(made / ARCHIVE))
    found = page.cell("table07_ablation", "val_loss", "SPECTRA (causal)", "generated text")
    line = next(
        l for l in (made / "tables" / "table07_ablation.csv").read_text().splitlines() if "SPECTRA (causal)," in l
    )
    assert found.endswith("(n = 3)") and found.partition(" (n")[0] in line
    assert page.cell("table07_ablation", "val_loss", "nobody", "generated text") == "not run yet"
    assert page.cell("table07_ablation", "val_loss", "SPECTRA (causal)") == "not run yet"
    balance = page.cell("baselines", "load_cv", "SPECTRA (causal)", "generated text")
    assert f"load CV {balance}" in (made / PAGE).read_text()


def test_the_real_text_comes_first_and_each_text_has_its_own_cells(tmp_path: Path) -> None:
    real = "data.train=words/train.jsonl data.validation=words/validation.jsonl data=files"
    (tmp_path / "tables").mkdir()
    (tmp_path / "figures").mkdir()
    for stem in ("f", f"f--{real.replace(' ', '_').replace('/', '_')}"):
        (tmp_path / "figures" / f"{stem}.png").touch()
    (tmp_path / "tables" / "t.md").write_text(f"# T\n\n## as in its file\n\n| 1 |\n\n## {real}\n\n| 2 |\n")
    (tmp_path / "tables" / "t_long.csv").write_text(
        f"section,row,metric,rule,mean,low,high,n\nas in its file,a,m,inference,1,,,1\n{real},a,m,inference,2,,,1\n"
    )
    (tmp_path / "tables" / "table13_significance.csv").write_text(
        "section,family,metric,comparison,difference,verdict\n"
        f"as in its file,a against b,m,a − b,1,worse\n{real},a against b,m,a − b,-1,better\n{real},x,m,a − b,1,worse\n"
        f"{real},x,m,c − b,1,worse\n"
    )
    page = Page(tmp_path, PublishedTables(tmp_path), Archive(tmp_path))
    outcomes = Outcomes(PublishedTables(tmp_path))
    assert page.cell("t", "m", "a") == "2.000 (n = 1)" and page.cell("t", "m", "a", "generated text") == "1.000 (n = 1)"
    assert re.findall(r"\*Runs:\* (.*)", page.table("t")) == ["real text", "generated text"]
    assert "f--" in page.figure("f", "F").split("\n")[0]
    told = outcomes.differences("a against b", "m")
    assert told == "- real text, **better**: b (−1.000)\n- generated text, **worse**: b (+1.000)"
    assert outcomes.differences("x", "m") == "- **worse**: a (+1.000), c (+1.000)"


def test_every_cell_that_the_text_asks_for_is_in_the_published_tables() -> None:
    asked = re.findall(r"paper\.cell\((.*?)\) \}\}", (paper_folder() / "page.md").read_text())
    page = Page(COMMITTED, PublishedTables(COMMITTED), read_archive(COMMITTED / ARCHIVE))
    calls = [ast.parse(f"f({words})", mode="eval").body for words in asked]
    cells = [([a.value for a in call.args], {k.arg: k.value.value for k in call.keywords}) for call in calls]
    missing = [words for words, named in cells if page.cell(*words, **named) == "not run yet"]
    assert asked and missing == []


def test_what_a_sweep_shows_are_the_tests_of_its_table() -> None:
    outcomes = Outcomes(PublishedTables(COMMITTED))
    rows = list(csv.DictReader((COMMITTED / "tables" / "sweep_a_long.csv").open(encoding="utf-8")))
    tests = [row for row in rows if row["difference"] and row["rule"] == "inference"]
    said = outcomes.beside_reference("a_quota", "sweep_a")
    assert said.startswith("Beside `selection=quota`, `selection.capacity_factor=1.25`")
    assert len(re.findall(r"\([+−]", said)) == len(tests) and set(re.findall(r"- `(\w+)`", said)) == {
        row["metric"] for row in tests
    }
    for row in tests:
        line = next(line for line in said.splitlines() if line.startswith(f"- `{row['metric']}`"))
        difference = f"{float(row['difference']):+.3f}".replace("-", "−")
        word, own = row["verdict"].split()[0], row["row"].split(", ")[-1]
        assert re.search(rf"\*\*{word}\*\*: [^;]*{re.escape(f'{own} ({difference})')}", line)
    assert outcomes.beside_reference("own_options", "own_options") == "Not run yet."


def test_rows_with_a_reference_each_keep_what_tells_them_apart(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    lines = ["section,row,metric,rule,difference,test,verdict"]
    for length in (256, 512):
        lines += [f's,"SPECTRA, length {length}",val_loss,inference,,,']
        lines += [f's,"SPECTRA − GRU, length {length}",val_loss,inference,0.{length},paired t,worse *']
    (tmp_path / "tables" / "sweep_e_long.csv").write_text("\n".join(lines), encoding="utf-8")
    said = Outcomes(PublishedTables(tmp_path)).beside_reference("e_context", "sweep_e")
    assert "**worse**: SPECTRA − GRU, length 256 (+0.256), SPECTRA − GRU, length 512 (+0.512)" in said


def test_differences_are_those_of_the_tests_by_verdict(made: Path) -> None:
    outcomes = Outcomes(PublishedTables(made))
    family = "SPECTRA (causal) against its ablations"
    with open(made / "tables" / "table13_significance.csv", encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["family"] == family and r["metric"] == "val_loss"]
    compared = [r for r in rows if r["difference"]]
    lines = outcomes.differences(family, "val_loss").splitlines()
    assert compared and sum(line.count("(causal) − ") for line in lines) == len(compared)
    for row in compared:
        other = row["comparison"].removeprefix("SPECTRA (causal) − ")
        sign = "−" if float(row["difference"]) < 0 else "+"
        told = f"{other} ({sign}{abs(float(row['difference'])):.3f})"
        verdict = re.sub(r" (\*+|\(lower\)|\(higher\))$", "", row["verdict"])
        assert any(told in line and f"**{verdict}**" in line for line in lines), told
    assert outcomes.differences(family, "nothing") == "- not run yet"


def test_one_difference_has_its_interval_and_both_p(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table13_significance.csv").write_text(
        "family,section,metric,comparison,difference,ci_low,ci_high,n_pairs,p,p_holm,verdict\n"
        "f,s,m,a − b,-0.04,-0.05,-0.03,5,0.00123,0.0456,better *\nf,s,m,a − b wide,-0.5,-0.6,-0.4,5,0.1,0.2,undecided\n"
        "f,s,m,a − c,0.25,,,1,,,one seed\n"
    )
    outcomes = Outcomes(PublishedTables(tmp_path))
    expected = "- a − b (s): −0.04000 [-0.05000, -0.03000] (n = 5, p 0.0012, 0.046 corrected): better *"
    assert outcomes.difference("f", "m", "b") == expected
    assert outcomes.difference("f", "m", "c") == "- not run yet"


def test_differences_without_a_test_say_the_whole_reason(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table13_significance.csv").write_text(
        "family,section,metric,comparison,difference,verdict\n"
        "f,s,m,a − b,0.5,equivalent (higher)\nf,s,m,a − c,0.25,not causal\nf,s,m,a − d,-0.1,better **\n"
    )
    outcomes = Outcomes(PublishedTables(tmp_path))
    told = outcomes.differences("f", "m").splitlines()
    assert told == ["- **better**: d (−0.100)", "- **equivalent**: b (+0.500)", "- **not causal**: c (+0.250)"]
    # What no test decides is not counted.
    assert outcomes.counts("f", "m") == "better in 1, equivalent in 1"
    assert outcomes.counts("f", "other") == "not run yet"


def test_the_verdicts_stand_in_one_table(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "hypotheses.csv").write_text(
        "name,claim,rule,section,verdict,figures,reason\n"
        "H2,It is so,causal,s,supported,f,\nH2,It is so,paper,s,contradicted,f,\nT1,Warm,,,not tested,,no run\n"
    )
    page = Page(tmp_path, PublishedTables(tmp_path), Archive(tmp_path))
    lines = page.verdicts.splitlines()
    assert "| H2 | It is so | **supported** (causal, s), **contradicted** (paper, s) |" in lines
    assert "| T1 | Warm | **not tested** |" in lines and "| H1 | not run yet | not run yet |" in lines
    assert len(lines) == 2 + len(page.hypotheses)
    assert page.verdict("T1") == "- **not tested**: no run"


def test_runs_apart_in_one_option_are_compared_seed_by_seed(tmp_path: Path) -> None:
    def run(osr: dict[str, object], seed: int, loss: float) -> SimpleNamespace:
        return SimpleNamespace(config={"osr": osr}, required_summary={"seed": seed, "metrics": {"val_loss": loss}})

    made = [({"a": True}, 0, 1.0), ({"a": False}, 0, 1.5), ({"a": False}, 1, 9.0), ({"a": True, "b": 1}, 1, 2.0)]
    made += [({"a": True}, 2, 3.0), ({"a": False}, 2, 2.0), ({"b": 1}, 0, 7.0)]
    facts = RunFacts(SimpleNamespace(runs=lambda: {str(i): run(*words) for i, words in enumerate(made)}))
    assert facts.apart("osr.a", "val_loss") == "0.7500 in the mean and 1.000 at most (2 pairs)"
    assert facts.apart("osr.a", "load_cv") == facts.apart("osr.c", "val_loss") == "not run yet"


def test_downstream_scores_stand_by_configuration_beside_chance(tmp_path: Path) -> None:
    def run(cell: str, score: float | None) -> SimpleNamespace:
        entry = {"score": score, "items": 300, "chance": 0.25}
        scores = {} if score is None else {"downstream": {"local_qasc": entry}}
        return SimpleNamespace(
            required_summary={"cell_id": cell, "label": cell, "parameters": {"total": 3_868_800}, **scores}
        )

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "documents.csv").write_text(
        "comparison,metric,domain,difference,ci_low,ci_high,verdict\n"
        "a − b,val_loss,all,-0.1,-0.2,0,better\na − b,downstream_q,q,-0.0125,-0.05,0.025,undecided\n"
    )
    runs = {"1": run("a", 0.25), "2": run("a", 0.27), "3": run("b", 0.5), "4": run("c", None)}
    told = Page(tmp_path, PublishedTables(tmp_path), SimpleNamespace(runs=lambda: runs)).downstream.splitlines()
    assert told[2:] == [
        "| a | 3.87M | local_qasc | 2 | 300 | 0.2600 ± 0.13 | 0.25 |",
        "| b | 3.87M | local_qasc | 1 | 300 | 0.5000 | 0.25 |",
        "",
        "- a − b, q: −0.01250 [-0.05000, 0.02500], undecided",
    ]
    assert Page(tmp_path, PublishedTables(tmp_path), Archive(tmp_path)).downstream == "*not run yet*"


def test_a_table_without_a_run_is_not_printed(made: Path) -> None:
    page = Page(made, PublishedTables(made), read_archive(made / ARCHIVE))
    assert (made / "tables" / "sweep_e.md").is_file() and page.table("sweep_e") == "*`sweep_e`: not run yet*"
    assert "SPECTRA (causal)" in page.table("table07_ablation")


def test_a_table_is_printed_by_its_first_panels_with_a_link_to_the_rest(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t_long.csv").write_text("row\na\n")
    files = "data.train=words/train.jsonl data.validation=words/validation.jsonl data=files"
    (tmp_path / "tables" / "t.md").write_text(
        f"# T\n\n## osr=causal {files}\n\n**One**\n\n| 1 |\n\n**Two**\n\n| 2 |\n\n**What chance gives**\n\n| 3 |\n\n"
        "- A note.\n\n## all finished runs\n\n| 4 |\n\n- A note.\n"
    )
    page = Page(tmp_path, PublishedTables(tmp_path), Archive(tmp_path))
    end = "All panels, what chance gives and notes: [t](tables/t.md)"
    second = f"*Runs:* all finished runs\n\n| 4 |\n\n{end}"
    first = "*Runs:* osr=causal real text\n\n**One**\n\n| 1 |"
    assert page.table("t", panels=1) == f"{first}\n\n{second}"
    assert page.table("t") == f"{first}\n\n**Two**\n\n| 2 |\n\n{second}"


def test_the_page_lists_what_is_missing_with_its_command(made: Path) -> None:
    text = (made / PAGE).read_text(encoding="utf-8")
    missing = text.partition("## What is missing")[2]
    for name, launch in LAUNCHES:
        assert f"block {name}, `{launch.study}`" in missing
        assert f"`make paper BLOCKS={name}{' TEXT=FOLDER' if launch.needs_text else ''}`" in missing


# The models that are looked into


def test_each_declared_model_is_one_run_of_its_block_and_prints_no_text() -> None:
    models = read_interpreted()
    assert len({model.name for model in models}) == len(models) == 6
    for model in models:
        assert len(model.chosen.lines(read_blocks())) == 1
        assert set(model.parts).isdisjoint({"contexts", "cases", "explore", "ambiguity", "unseen_domain"})
        chosen_parts(model.parts)
        assert set(model.pictures) <= set(model.parts)


def test_runs_for_downstream_tasks_are_those_of_all_seeds() -> None:
    scored = read_scored()
    assert set(scored.tasks) <= set(task_files())
    assert [len(chosen.lines(read_blocks())) for chosen in scored.runs] == [5, 5, 24, 18]


def test_settings_of_no_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="block a: no run of core has seed=9"):
        Chosen("a", "core", frozenset({"seed=9"})).lines(read_blocks())


# The declared runs


@pytest.mark.parametrize(("block", "launch"), LAUNCHES)
def test_every_declared_run_can_be_composed(block: str, launch: Launch) -> None:
    prepare_environment()
    lines = launch.lines
    assert bool(lines) == launch.is_known
    for line in lines[:1] + lines[-1:]:
        load_experiment(line)


def test_blocks_on_the_real_text_say_that_they_need_it_and_name_no_place() -> None:
    assert {name for name, launch in LAUNCHES if launch.needs_text} == set("abcdfh")
    assert "/" not in re.sub(r"docs/results/paper|TEXT/", "", (paper_folder() / "blocks.yaml").read_text())
    known = known_runs(None, Archive(Path("none.parquet")))
    for own in progress(read_blocks(), known, None).values():
        assert not any(one.is_done for one in own)
        assert all(one.unmade for one in own if one.launch.needs_text or not one.launch.is_known)


def test_what_is_known_of_the_time_left_is_said_beside_how_many_runs_are_like_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seconds(speeds, cell_id, experiment) -> float | None:
        return None if experiment.choices["ablation"] == "no_gru" else 600.0

    monkeypatch.setattr(paper_progress, "expected_seconds", seconds)
    lines = [(f"ablation={ablation}", f"seed={seed}") for ablation in ("none", "no_gru") for seed in range(3)]
    speeds = [Speed("spectra", "tiny", "", 10, 1.0, 1.0, None)]

    def words(states: dict) -> str:
        found = LaunchProgress(Launch("core", ()), states, None, speeds)
        return in_words([], {"a": [found]}, 2)

    states = dict.fromkeys(lines, "missing") | {lines[0]: "done"}
    assert words(states) == "all: 10 min 0 s left with 2 processes, and 3 runs like none that has finished"
    assert words(states | {lines[1]: "done", lines[2]: "diverged"}) == (
        "all: time left not known: no run like these has finished"
    )
    assert words(dict.fromkeys(lines, "done")) == "all: done"


# Making them

SMALL = (
    "trainer.cpu_threads=1, model.num_layers=2, model.hidden_size=32, model.num_heads=2, model.expert_size=32, "
    "model.num_experts=4, data.sequence_length=32, data.vocabulary_size=300, data.evaluation_tokens=1024, "
    "data.probe_tokens=256, trainer.batch_size=4, trainer.max_steps=3, logger.progress=false"
)
BLOCKS = f"""
with: [{SMALL}]
blocks:
  - name: a
    title: Real text
    with: [data=files, data.train=TEXT/train.jsonl, data.validation=TEXT/validation.jsonl, data.domain_field=domain]
    lines:
      - {{study: core, with: [ablation=none], seeds: "0"}}
  - name: e
    title: Generated text
    with: [data=embedded, data.train_words=4000, data.validation_words=2000]
    lines:
      - {{study: core, with: [ablation=no_gru], seeds: "0"}}
downstream:
  tasks: [local_qasc]
  runs:
    - {{block: e, study: core, run: [ablation=no_gru]}}
interpreted:
  parts: [load, landscape]
  pictures: {{load: load}}
  models:
    - {{name: small, title: A small model, block: e, study: core, run: [ablation=no_gru, seed=0]}}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's options and studies, with two declared runs of the smallest size."""
    for name in ("conf", "sweeps", "ablations", "downstream"):
        (tmp_path / name).symlink_to(project_root() / name)
    (tmp_path / "paper").mkdir()
    shutil.copy(paper_folder() / "page.md", tmp_path / "paper")
    (tmp_path / "paper" / "blocks.yaml").write_text(BLOCKS)
    text = tmp_path / "words"
    text.mkdir()
    for name, count in (("train.jsonl", 300), ("validation.jsonl", 60)):
        rows = [
            {"text": f"line {i} of {name} says {i * 7919 % 1000}. " * 4, "domain": "ab"[i % 2]} for i in range(count)
        ]
        (text / name).write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("SPECTRA_ROOT", str(tmp_path))
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path


@pytest.mark.full
@pytest.mark.slow
def test_it_is_made_block_by_block_and_goes_on_from_the_archive_alone(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "docs" / "results" / "paper"
    assert command(["paper", "processes=1"]) == 1
    out, err = capsys.readouterr()
    assert "a  0 of 1 runs" in out and "e  1 of 1 runs; done" in out and "needs the real text; give text=FOLDER" in err
    assert len(read_archive(folder / ARCHIVE).run_ids) == 1
    inside = folder / "interpretation" / "small"
    looked_into = {path.name: path.read_bytes() for path in inside.iterdir()}
    assert looked_into.keys() == {"index.html", "load.png"}
    assert "[A small model](interpretation/small/index.html)" in (folder / PAGE).read_text(encoding="utf-8")
    # Parts that somebody looks at for himself stay out of what is published: they may print held-out text.
    (run,) = (root / "outputs" / "paper" / "runs").iterdir()
    assert command(["interpret", f"run={run.name}", f"outputs={run.parent.parent}", "parts=contexts"]) == 0
    assert {"contexts", "load"} <= {path.name for path in (run / "analysis").iterdir()}
    assert command(["paper", "run=false"]) == 0
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == looked_into
    items = root / "items"
    items.mkdir()
    rows = [{"question": f"What is {n}?", "choices": ["one", "two", "three"], "answer": n % 3} for n in range(6)]
    (items / "qasc.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "1 runs have no downstream scores; give downstream=FOLDER" in err
    assert command(["paper", "processes=1", f"downstream={items}"]) == 1
    (summary,) = [run.summary for run in read_archive(folder / ARCHIVE).runs().values()]
    assert summary["downstream"]["local_qasc"]["items"] == 6 and "downstream_score" in summary["metrics"]
    # On another machine, from the archive: only what is missing is made.
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(root / "elsewhere"))
    assert command(["paper", "processes=1", f"text={root / 'words'}"]) == 0
    assert "all: done" in capsys.readouterr().out
    (run,) = (root / "elsewhere" / "paper" / "runs").iterdir()
    assert "-files-" in run.name
    assert len(read_archive(folder / ARCHIVE).run_ids) == 2
    # What was looked into stays where the weights no longer are.
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == looked_into
    # A second time there is nothing to do, and nothing changes.
    before = files_of(folder)
    assert command(["paper", "processes=1", f"text={root / 'words'}"]) == 0
    assert command(["paper", "run=false"]) == 0
    assert files_of(folder) == before
    assert str(root).encode() not in b"".join(before.values())
    check_folder(folder, published(folder))
    capsys.readouterr()
    assert command(["paper", "status=true"]) == 0
    assert "all: done" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["text=nowhere", "downstream=nowhere", "blocks=z", "processes=17"])
def test_wrong_words_are_one_line(root: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["paper", word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {word.partition('=')[0]}: ")

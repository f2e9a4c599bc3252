"""Published effects: worlds in which they are there, are not, or cannot be told; the table and the page of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis_worlds import jitter, retold, study_of

from spectra_exp.archive.command import main as archive
from spectra_exp.archive.file import read_archive
from spectra_exp.cli import command
from spectra_exp.reporting.declared import study_effects
from spectra_exp.reporting.make_replications import page_text
from spectra_exp.reporting.make_tables import replications_table
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.published import findings, together
from spectra_exp.reporting.tables.write import markdown
from spectra_exp.studies.definition import load_study

STUDY = "loss_free_balance"


@contextmanager
def alone(folder: Path, study: str) -> Iterator[Material]:
    """A finished run for each job of the study, and no other study: none is composed."""
    with study_of(folder, study) as material:
        vars(material)["studies"] = {study: load_study(study)}
        yield material


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    with alone(tmp_path_factory.mktemp("outputs"), STUDY) as material:
        yield material


def told(world: Material, max_vio: float, val_loss: float, noise: float = 0.004, facts=lambda run: {}) -> Material:
    """Loss-free as much above the auxiliary loss as given."""

    def figures(run):
        own = run["baseline"] == "loss_free"
        return {
            "max_vio": 0.6 + own * max_vio + jitter(run, "vio", noise),
            "val_loss": 4.2 + 0.1 * run["seed"] + own * val_loss + jitter(run, "loss", noise),
        }

    return retold(world, figures, facts)


def verdict(material: Material, study: str = STUDY) -> tuple[str, list[str]]:
    (found,) = findings(study_effects(load_study(study)), material.sections[study])
    return together(found), [finding.outcome for finding in found]


@pytest.mark.parametrize(
    ("max_vio", "val_loss", "noise", "said"),
    [
        (-0.4, -0.05, 0.004, ("reproduced", ["reproduced", "reproduced"])),
        # Equal within the tolerance is no higher, but it is no lower either.
        (0.0, 0.0, 0.004, ("contradicted", ["contradicted", "reproduced"])),
        (0.4, 0.0, 0.004, ("contradicted", ["contradicted", "reproduced"])),
        (-0.4, 0.1, 0.004, ("contradicted", ["reproduced", "contradicted"])),
        (-0.4, 0.0, 0.2, ("inconclusive", ["reproduced", "inconclusive"])),
    ],
)
def test_an_effect_is_reproduced_contradicted_or_left_open(world, max_vio, val_loss, noise, said) -> None:
    assert verdict(told(world, max_vio, val_loss, noise)) == said


def test_runs_that_lack_or_do_not_compare_say_nothing(world) -> None:
    def unmade(run):
        return None if run["baseline"] == "loss_free" else {}

    assert verdict(told(world, -0.4, 0.0, facts=unmade))[0] == "not run"

    def other_batches(run):
        return {"batches": "another"} if run["baseline"] == "loss_free" else {}

    assert verdict(told(world, -0.4, 0.0, facts=other_batches))[0] == "not run"

    # A loss that sees the future is no evidence; the balance is.
    def seeing(run):
        return {"causal": run["baseline"] != "loss_free"}

    assert verdict(told(world, -0.4, 0.0, facts=seeing)) == ("not run", ["reproduced", "not run"])


def test_the_future_is_claimed_under_the_rule_of_training(tmp_path: Path) -> None:
    with alone(tmp_path, "expert_choice_future") as world:

        def figures(run):
            own = run["baseline"] == "expert_choice"
            loss = 4.2 + 0.1 * run["seed"] + jitter(run, "loss", 0.004)
            return {"val_loss": loss + own * 0.1, "val_loss_training_rule": loss - 0.1 if own else None}

        assert verdict(retold(world, figures), "expert_choice_future")[0] == "reproduced"


def test_a_figure_against_chance_and_a_row_with_further_settings(tmp_path: Path) -> None:
    with alone(tmp_path, "hash_routing") as world:
        random = {
            run for run in world.collected.by_run if world.collected.run(run).config["router"].get("kind") == "random"
        }

        def figures(run):
            loss = 4.2 + 0.1 * run["seed"] + jitter(run, "loss", 0.004) + (run["baseline"] == "hash") * 0.1
            return {"val_loss": loss, "load_cv": (0.3 if run["run_id"] in random else 0.05, 0.01)}

        assert verdict(retold(world, figures), "hash_routing") == ("reproduced", ["reproduced"] * 3)


def test_the_table_and_the_page_hold_source_figure_test_and_verdict(world) -> None:
    material = told(world, -0.4, -0.05)
    table = replications_table(material)
    own = table.frame[table.frame["study"] == STUDY]
    assert list(own["verdict"]) == ["reproduced", "reproduced"] and set(own["effect_verdict"]) == {"reproduced"}
    assert own["difference"].iloc[0] == pytest.approx(-0.4, abs=0.02) and own["n_pairs"].iloc[0] == 5
    page = page_text(material)
    for text in (
        "balance better than that of an auxiliary loss",
        "arXiv 2408.15664",
        "lower, tolerance 0.05",
        "**reproduced**",
    ):
        assert text in page
    assert "| reproduced |" in markdown(table).replace("  ", " ").replace("  ", " ")


def test_the_page_comes_from_its_archive_alone(tmp_path: Path, capsys, monkeypatch) -> None:
    with study_of(tmp_path / "outputs" / "replications", STUDY):
        pass
    folder = tmp_path / "page"
    words = ["replications", f"outputs={tmp_path / 'outputs'}", f"to={folder}"]
    assert command([*words, "run=false"]) == 0
    page = (folder / "replications.md").read_text()
    assert page == page_text(
        gather(tmp_path / "elsewhere", runs=[str(folder / "replications.parquet")], kinds=["replications"])
    )
    assert command([*words, f"studies={STUDY}", "status=true"]) == 0
    assert "10 of 10 runs; done" in capsys.readouterr().out
    # Nothing is left to run.
    assert command([*words, f"studies={STUDY}"]) == 0
    assert archive(["list", str(folder / "replications.parquet")]) == 0


def test_runs_that_another_archive_has_are_taken_and_not_made(tmp_path: Path, capsys) -> None:
    with study_of(tmp_path / "paper", STUDY):
        pass
    file = tmp_path / "paper.parquet"
    assert archive([str(file), f"outputs={tmp_path / 'paper'}"]) == 0
    words = ["replications", f"outputs={tmp_path / 'outputs'}", f"to={tmp_path / 'page'}", f"studies={STUDY}"]
    assert command([*words, f"runs={file}", "status=true"]) == 0
    told = capsys.readouterr()
    assert "10 runs taken" in told.err and "10 of 10 runs; done" in told.out
    # Once they are there, without the archive that they came from.
    file.unlink()
    assert command(words) == 0 and not (tmp_path / "outputs" / "replications" / "runs").exists()
    taken = read_archive(tmp_path / "page" / "replications.parquet")
    assert len(taken.run_ids) == 10 and {s for r in taken.runs().values() for s in r.summary["studies"]} == {STUDY}
    assert command([*words, f"runs={file}"]) == 1
    assert f"{file}: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["studies=nothing", "text=nowhere", "processes=0", "seed=x=1", "trainer.max_step=2"])
def test_wrong_words_are_one_line(tmp_path: Path, word: str, capsys) -> None:
    assert command(["replications", f"outputs={tmp_path}", f"to={tmp_path}", word]) == 2
    assert capsys.readouterr().err.strip().rpartition("\n")[2].count("error:") == 1

"""`temperature=best_long`: which constant wins, what is asked for while runs are missing, and which run it then is."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import config_cases
import pytest
from config_cases import identity, run_id

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.config.tree import option_files
from spectra_exp.config.typed import expand_jobs
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs import best_long
from spectra_exp.runs.best_long import CONSTANTS, resolve_best_long

BASE = "router=switch"
# 1.5 has the lowest validation loss, 10 the lowest training loss.
VALIDATION = dict(zip(CONSTANTS, (5.4, 5.3, 5.2, 5.0, 5.1, 5.2, 5.3, 5.5), strict=True))
TRAINING = dict(zip(CONSTANTS, (4.4, 4.3, 4.2, 4.6, 4.1, 4.0, 3.9, 3.0), strict=True))
GROUPS = ("router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")


def load(line: str) -> Experiment:
    """A composed experiment with the outputs of the test at hand; composing is what takes the time."""
    return replace(config_cases.load(line), outputs=os.environ["SPECTRA_OUTPUTS"])


@pytest.fixture(autouse=True)
def quick_composing(outputs, monkeypatch):
    monkeypatch.setattr(best_long, "load_experiment", lambda overrides: load(shlex.join(overrides)))


def make_run(line: str, val_loss: float | None, train_loss: float = 1.0, status: str = "completed") -> None:
    """The summary that the run of this command line would leave."""
    experiment = load(line)
    name = identity(experiment)
    summary = {
        "schema": 1,
        "run_id": name.run_id,
        "cell_id": name.cell_id,
        "name": name.run_id.rsplit("-s", 1)[0],
        "label": "made",
        "status": status,
        "seed": experiment.seed,
        **{group: experiment.choices[group] for group in GROUPS},
        "metrics": {"val_loss": val_loss, "train_loss": train_loss},
        **{key: {} for key in ("metrics_training_rule", "floors", "parameters", "fingerprints")},
    }
    folder = Path(experiment.outputs) / "runs" / name.run_id
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))


def make_all(line: str = BASE, losses: dict[str, float] = VALIDATION, but: tuple[str, ...] = ()) -> None:
    for name, loss in losses.items():
        if name not in but:
            make_run(f"{line} temperature={name}", loss, TRAINING[name])


def resolved(line: str = BASE):
    return resolve_best_long(load(f"{line} temperature=best_long"), lambda x: identity(x).run_id)


def test_the_constants_are_all_of_conf_lowest_first():
    values = [load(f"temperature={name}").temperature.value for name in CONSTANTS]
    assert values == sorted(values) == [0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0]
    assert set(CONSTANTS) == {name for name in option_files("temperature") if name[0] == "t" and name[1].isdigit()}


def test_the_best_by_validation_loss_wins_and_trains_twice_the_steps():
    make_all()
    experiment = resolved()
    assert (experiment.temperature.schedule, experiment.temperature.value) == ("constant", 1.5)
    assert experiment.trainer.max_steps == 500
    assert experiment.choices["temperature"] == "best_long"
    assert experiment.overrides[-1] == "temperature=best_long"


def test_it_is_the_run_that_its_resolved_values_describe():
    make_all()
    assert identity(resolved()) == identity(load(f"{BASE} temperature=t1_5 trainer.max_steps=500"))
    assert identity(resolved()).run_id != run_id(f"{BASE} temperature=t1_5")


def test_any_other_temperature_is_left_as_it_is():
    experiment = load(f"{BASE} temperature=cosine")
    assert resolve_best_long(experiment, lambda x: identity(x).run_id) is experiment


def test_of_equal_losses_the_lower_temperature_wins():
    make_all(losses=dict.fromkeys(CONSTANTS, 5.0) | {"t0_5": 5.1})
    assert resolved().temperature.value == 0.7


def test_a_diverged_run_is_the_worst_whatever_its_summary_says():
    make_all(but=("t1_5",))
    make_run(f"{BASE} temperature=t1_5", 0.1, status="diverged")
    assert resolved().temperature.value == 2.0


def test_all_diverged_is_one_line():
    for name in CONSTANTS:
        make_run(f"{BASE} temperature={name}", None, status="diverged")
    with pytest.raises(ConfigError, match="every constant diverged"):
        resolved()


def missing_and_command(error: ConfigError) -> tuple[list[str], list[str]]:
    text = str(error)
    assert "\n" not in text and error.key == "temperature"
    named = text.split("these have not: ")[1].split(";")[0].split(", ")
    return named, shlex.split(text.split("; run ")[1])


def test_candidates_are_composed_like_any_run(monkeypatch):
    monkeypatch.setattr(best_long, "load_experiment", load_experiment)
    make_all()
    assert resolved().temperature.value == 1.5


def test_missing_runs_are_named_with_the_command_that_makes_them():
    make_all(f"{BASE} seed=2", but=("t0_7", "t10_0"))
    with pytest.raises(ConfigError) as error:
        resolved(f"{BASE} seed=2")
    named, command = missing_and_command(error.value)
    assert named == ["t0_7", "t10_0"]
    assert command[:3] == ["python", "train.py", "-m"]
    # The jobs of the command are those runs and no others.
    asked = {run_id(shlex.join(job)) for job in expand_jobs(command[3:], multirun=True)}
    assert asked == {run_id(f"{BASE} seed=2 temperature={name}") for name in named}
    for name in named:
        make_run(f"{BASE} seed=2 temperature={name}", VALIDATION[name])
    assert resolved(f"{BASE} seed=2").temperature.value == 1.5


@pytest.mark.parametrize("status", ["failed", "stopped", "running"])
def test_a_run_that_has_not_ended_well_is_missing(status):
    make_all(but=("t1_5",))
    make_run(f"{BASE} temperature=t1_5", 1.0, status=status)
    with pytest.raises(ConfigError) as error:
        resolved()
    assert missing_and_command(error.value)[0] == ["t1_5"]


def test_the_command_is_not_launched_as_the_study_was():
    with pytest.raises(ConfigError) as error:
        resolved(f"{BASE} launch.until_decided=val_loss:0.02 launch.max_seeds=5")
    assert not [word for word in missing_and_command(error.value)[1] if "launch" in word]


def test_values_with_special_characters_survive_in_the_command():
    with pytest.raises(ConfigError) as error:
        resolved(f"{BASE} \"study='a b, c'\"")
    job = expand_jobs(missing_and_command(error.value)[1][3:], multirun=True)[0]
    assert load_experiment(job).study == "a b, c"


@pytest.mark.parametrize("other", [f"{BASE} seed=1", f"{BASE} trainer.max_steps=301", "router=temperature"])
def test_runs_of_another_seed_or_configuration_do_not_count(other):
    reversed_losses = dict(zip(CONSTANTS, reversed(VALIDATION.values()), strict=True))
    make_all(other, reversed_losses)
    with pytest.raises(ConfigError) as error:
        resolved()
    assert missing_and_command(error.value)[0] == list(CONSTANTS)
    make_all()
    assert resolved().temperature.value == 1.5


def test_each_seed_of_a_multirun_has_its_own_winner():
    make_all(f"{BASE} seed=0")
    make_all(f"{BASE} seed=1", VALIDATION | {"t3_0": 4.9})
    jobs = expand_jobs([BASE, "temperature=best_long", "seed=0,1"], multirun=True)
    chosen = [resolved(shlex.join(w for w in job if not w.startswith("temperature"))) for job in jobs]
    assert [x.temperature.value for x in chosen] == [1.5, 3.0]


def test_an_ablation_compares_its_own_runs():
    line = "ablation=no_gru"
    make_all(line)
    assert identity(resolved(line)) == identity(load(f"{line} temperature=t1_5 trainer.max_steps=500"))


@pytest.mark.parametrize("typed", ["temperature.value=1.3", "temperature.learned=layer", "temperature.schedule=linear"])
@pytest.mark.parametrize("line", [BASE, "ablation=no_gru"])
def test_a_temperature_typed_beside_it_is_refused(line, typed):
    with pytest.raises(ConfigError) as error:
        load(f"{line} temperature=best_long {typed}")
    assert error.value.key == typed.split("=")[0]


def test_a_default_typed_beside_it_does_not_reach_the_candidates():
    make_all()
    assert resolved(f"{BASE} temperature.value=1.0").temperature.value == 1.5


def test_a_router_without_logits_is_refused_at_once():
    with pytest.raises(ConfigError, match="no logits to divide"):
        load("router=hash temperature=best_long")


def test_planning_resolves_it_before_anything_else(monkeypatch):
    from spectra_exp.runs import plan as module

    def no_corpus(experiment):
        raise AssertionError("the corpus was read")

    monkeypatch.setattr(module, "_corpus", no_corpus)
    with pytest.raises(ConfigError, match="these have not: t0_5"):
        module.plan(load(f"{BASE} trainer.device=cpu temperature=best_long"))


def test_a_planted_choice_by_training_loss_is_seen(monkeypatch):
    def by_training_loss(folder):
        return folder.read_summary()["metrics"]["train_loss"]

    monkeypatch.setattr(best_long, "_final_loss", by_training_loss)
    with pytest.raises(AssertionError):
        test_the_best_by_validation_loss_wins_and_trains_twice_the_steps()


def test_a_planted_search_that_ignores_the_seed_is_seen(monkeypatch):
    original = best_long.load_experiment

    def without_seed(overrides):
        return original([o for o in overrides if not o.startswith("seed=")])

    monkeypatch.setattr(best_long, "load_experiment", without_seed)
    make_all(f"{BASE} seed=0", VALIDATION | {"t0_5": 1.0})
    make_all(f"{BASE} seed=1")
    assert resolved(f"{BASE} seed=1").temperature.value == 0.5

from __future__ import annotations

import math
import sys

import pandas as pd
import pytest

pytest.importorskip("wandb")

import wandb
from test_runs import stable, stop_at
from wandb_file import Piece, pieces

from spectra_exp.config import rules_running
from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.training.execute import execute
from spectra_exp.training.recorder import Recorder

SWITCH = ("baseline=switch_top2", "trainer.max_steps=6")


def only_piece(p) -> Piece:
    found = pieces(p.folder.path)
    assert len(found) == 1
    return found[0]


def test_each_run_of_a_process_is_a_wandb_run_of_its_own(planned, capfd) -> None:
    plans = [planned("logger=wandb", "study=pair", "logger.project=mine", f"seed={seed}", *SWITCH) for seed in (0, 1)]
    for p in plans:
        assert execute(p, "") == "completed"
    for seed, p in enumerate(plans):
        piece = only_piece(p)
        run = piece.run
        assert run.run_id == p.identity.run_id
        assert (run.project, run.run_group, run.display_name) == ("mine", "pair", f"Switch top-2 s{seed}")
        assert list(run.tags) == ["router=switch", "baseline=switch_top2"]
        assert piece.config["seed"] == seed and piece.config["cell_id"] == p.identity.cell_id
        assert piece.config["router"]["name"] == "switch" and piece.config["trainer"]["max_steps"] == 6
        assert piece.exit_code == 0 and not run.resume and not piece.preempting
    assert wandb.run is None
    assert "wandb" not in capfd.readouterr().err


def test_entity_group_and_tags_are_the_users(planned) -> None:
    words = ["logger.entity=team", "logger.group=first", "logger.tags=[night,'two words']"]
    p = planned("logger=wandb", "trainer.max_steps=1", *SWITCH[:1], *words)
    assert p.identity == planned("trainer.max_steps=1", *SWITCH[:1]).identity
    execute(p, "")
    run = only_piece(p).run
    assert (run.entity, run.run_group) == ("team", "first")
    assert list(run.tags) == ["router=switch", "baseline=switch_top2", "night", "two words"]


def test_a_tag_that_wandb_would_refuse_is_refused_first() -> None:
    with pytest.raises(ConfigError, match="logger.tags: .* is empty or longer than 64 characters"):
        load_experiment(["logger=wandb", f"logger.tags=[{'a' * 65}]"])
    with pytest.raises(ConfigError, match=r"^logger.tags: 'night' was given; it is a list of texts: \[a,b\]$"):
        load_experiment(["logger=wandb", "logger.tags=night"])


def test_without_a_study_the_seeds_of_a_cell_are_a_group(planned) -> None:
    p = planned("logger=wandb", "trainer.max_steps=1", "ablation=no_gru")
    execute(p, "")
    piece = only_piece(p)
    assert piece.run.run_group == p.identity.cell_id
    assert list(piece.run.tags) == ["router=spectra", "osr=causal", "ablation=no_gru"]


def test_the_rows_are_those_of_the_history(planned) -> None:
    p = planned("logger=wandb")
    execute(p, "")
    piece, history = only_piece(p), pd.read_parquet(p.folder.history)
    history = history[history.layer == "all"]
    logged: dict[str, dict[tuple[int, str], float]] = {"train": {}, "eval": {}}
    for row in piece.rows:
        for key, value in row.items():
            prefix, _, metric = key.partition("/")
            if metric and metric != "epoch":
                logged[prefix][row["step"], metric] = value
    # How far the load swings from step to step is known at the end only.
    swing = history.metric == "max_vio_swing"
    assert logged["train"] == rows_of(history[(history.split == "train") & ~swing])
    validation = rows_of(history[history.split == "validation"])
    assert logged["eval"].items() <= validation.items()
    # Stability compares evaluations and is known at the end only.
    assert all(step == 12 for step, _ in validation.keys() - logged["eval"].keys())
    assert {(0, "val_loss"), (12, "val_loss"), (12, "load_cv"), (12, "val_perplexity")} <= logged["eval"].keys()
    assert {(3, "train_loss"), (12, "train_loss"), (12, "speciality_loss")} <= logged["train"].keys()


def rows_of(history: pd.DataFrame) -> dict[tuple[int, str], float]:
    found = {(int(r.step), str(r.metric)): r.value for r in history.itertuples()}
    assert not any(math.isnan(value) for value in found.values())
    return found


def test_the_summary_has_the_final_metrics_and_the_floors(planned) -> None:
    p = planned("logger=wandb")
    execute(p, "")
    piece, summary = only_piece(p), p.folder.read_summary()
    assert {name: piece.summary[name] for name in summary["metrics"]} == summary["metrics"]
    assert "routing_consistency" in piece.summary
    assert piece.summary["floors"] == summary["floors"] != {}


def test_a_resumed_run_goes_on_in_its_wandb_run(planned, monkeypatch) -> None:
    p = planned("logger=wandb")
    stop_at(monkeypatch, 7)
    assert execute(p, "") == "stopped"
    stopped = only_piece(p)
    assert (stopped.exit_code, stopped.preempting) == (1, True)
    monkeypatch.undo()
    assert execute(planned("logger=wandb"), "") == "completed"
    first, second = pieces(p.folder.path)
    assert first.run.run_id == second.run.run_id == p.identity.run_id
    # `wandb sync` appends the piece that says so.
    assert (first.run.resume, second.run.resume) == (False, True)
    assert (first.steps, second.steps) == ([0, 1, 3, 6], [9, 12])
    assert (second.exit_code, second.preempting) == (0, False)


def test_a_failed_run_is_finished_as_failed_and_the_next_is_its_own(planned, monkeypatch) -> None:
    plain = Recorder.end_step

    def failing(self):
        if len(self.step_seconds) == 4:
            raise RuntimeError("planted")
        return plain(self)

    monkeypatch.setattr(Recorder, "end_step", failing)
    p = planned("logger=wandb", *SWITCH)
    assert execute(p, "") == "failed"
    piece = only_piece(p)
    assert piece.exit_code == 1 and not piece.preempting and piece.steps == [0, 1, 2, 3, 4]
    assert "train_loss" in piece.summary and wandb.run is None
    monkeypatch.undo()
    other = planned("logger=wandb", "seed=1", *SWITCH)
    assert execute(other, "") == "completed"
    assert only_piece(other).exit_code == 0


def test_a_diverged_run_counts_as_failed(planned, monkeypatch) -> None:
    monkeypatch.setattr(Recorder, "end_step", lambda self: math.nan)
    p = planned("logger=wandb", *SWITCH)
    assert execute(p, "") == "diverged"
    assert only_piece(p).exit_code == 1


def test_the_logger_changes_neither_the_run_nor_its_result(planned) -> None:
    p = planned(*SWITCH, "model.dropout=0.1")
    execute(p, "")
    weights = (p.folder.latest_checkpoint() / "model.safetensors").read_bytes()
    without, history = stable(p.folder), pd.read_parquet(p.folder.history)
    logged = planned(*SWITCH, "model.dropout=0.1", "logger=wandb", "logger.project=mine", "force=true")
    assert logged.identity == p.identity
    assert execute(logged, "") == "completed"
    assert stable(logged.folder) == without
    assert (logged.folder.latest_checkpoint() / "model.safetensors").read_bytes() == weights
    assert history.equals(pd.read_parquet(logged.folder.history))


def test_a_run_made_again_leaves_no_piece_of_the_first(planned) -> None:
    for overrides in ((), ("force=true",)):
        p = planned("logger=wandb", *SWITCH, *overrides)
        execute(p, "")
    piece = only_piece(p)
    assert piece.steps == [0, 1, 2, 3, 4, 6] and not piece.run.resume


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_refused(monkeypatch, name) -> None:
    monkeypatch.setattr(rules_running, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"logger.name: the package {name} is not installed"):
        load_experiment([f"logger={name}"])


def test_a_folder_called_wandb_is_not_the_package(monkeypatch, tmp_path) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb")
    with pytest.raises(ConfigError, match="not installed"):
        load_experiment(["logger=wandb"])


@pytest.mark.parametrize("key", ["logger.project=mine", "logger.mode=online", "logger.entity=team", "logger.tags=[a]"])
@pytest.mark.parametrize("logger", ["none", "tensorboard"])
def test_keys_of_wandb_are_refused_under_another_logger(key, logger) -> None:
    with pytest.raises(ConfigError, match="would have no effect with no logger=wandb"):
        load_experiment([f"logger={logger}", key])


@pytest.mark.parametrize("project", ["a/b", "a:b", "a" * 129, "''"])
def test_a_project_name_that_wandb_would_refuse_is_refused_first(project) -> None:
    with pytest.raises(ConfigError, match="logger.project"):
        load_experiment(["logger=wandb", f"logger.project={project}"])


def test_online_needs_a_key_and_asks_for_none(monkeypatch, tmp_path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match="logger.mode.*no W&B key"):
        load_experiment(["logger=wandb", "logger.mode=online"])
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert load_experiment(["logger=wandb", "logger.mode=online"]).logger.mode == "online"

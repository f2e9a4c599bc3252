"""data.final_evaluation_tokens: the end of a run is scored on a larger set, its course on the usual one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.data.corpus import Corpus
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure.base import METRICS
from spectra_exp.runs.identity import identify
from spectra_exp.runs.plan import Plan, plan
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths
from spectra_exp.training.evaluation import Evaluator
from spectra_exp.training.execute import execute

# The full method trains by another rule than it infers by, and has other rules of inference.
SMALL = [
    *MODEL,
    "data.sequence_length=32",
    "data.train_words=14000",
    "data.validation_words=6000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=1024",
    "data.probe_tokens=256",
    "trainer.max_steps=4",
    "trainer.batch_size=4",
    "logger.progress=false",
]
LARGE, END = 4096, 4  # tokens of the larger set; the last step
COURSE = {m.name for m in METRICS.values() if m.reduction in ("fractions", "steps")}


@dataclass
class Run:
    """A finished run, read back."""

    corpus: Corpus
    summary: dict[str, Any]
    history: pd.DataFrame
    documents: pd.DataFrame
    routing: Path
    log: str

    def rows(self, split: str) -> dict[tuple[int, str, str], float]:
        """Value by step, layer and metric."""
        h = self.history[self.history.split == split]
        return dict(zip(zip(h.step, h.layer, h.metric, strict=True), h.value, strict=True))


def prepare(folder: Path, *overrides: str) -> Plan:
    """A small run in `folder`, with its data, about to begin."""
    prepare_environment()
    given = {o.split("=")[0] for o in overrides}
    small = [o for o in SMALL if o.split("=")[0] not in given]
    return plan(load_experiment([*small, f"outputs={folder}", *overrides]))


def make(folder: Path, *overrides: str) -> Run:
    """A run of a few steps in `folder`, to its end."""
    p = prepare(folder, *overrides)
    assert execute(p, "") == "completed"
    history, documents = pd.read_parquet(p.folder.history), pd.read_parquet(p.folder.documents)
    return Run(p.corpus, p.folder.read_summary(), history, documents, p.folder.routing, p.folder.log.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same training three times: scored on the small set, on the large one, on the large one at the end only."""
    folder = tmp_path_factory.mktemp("final")
    return {
        "small": make(folder),
        "large": make(folder, f"data.evaluation_tokens={LARGE}"),
        "both": make(folder, f"data.final_evaluation_tokens={LARGE}"),
    }


def without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def only(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def test_the_final_figures_are_those_of_a_run_scored_on_the_larger_set(runs) -> None:
    small, large, both = (runs[name].summary for name in ("small", "large", "both"))
    assert runs["large"].corpus.eval_blocks.size == runs["both"].corpus.final.eval_blocks.size == LARGE
    for part in ("metrics", "metrics_by_layer", "floors"):
        expected = without(large[part], COURSE)
        assert without(both[part], COURSE) == expected != without(small[part], COURSE), part
    assert {"val_loss", "val_loss_prose", "load_cv", "max_vio"} <= set(both["metrics"])
    for part in ("metrics_training_rule", "metrics_by_inference", "unigram_loss"):
        assert both[part] == large[part] != small[part], part
    assert both["metrics"]["load_cv"] != small["metrics"]["load_cv"]


@pytest.mark.parametrize("name", ["small", "large", "both"])
def test_the_scores_of_documents_are_those_behind_the_final_losses(runs, name: str) -> None:
    run = runs[name]
    documents, metrics = run.documents, run.summary["metrics"]
    assert documents["loss"].sum() / documents["tokens"].sum() == pytest.approx(metrics["val_loss"], abs=1e-12)
    assert documents["correct"].sum() / documents["tokens"].sum() == pytest.approx(metrics["val_accuracy"], abs=1e-12)
    for domain, rows in documents.groupby("domain", observed=True):
        assert rows["loss"].sum() / rows["tokens"].sum() == pytest.approx(metrics[f"val_loss_{domain}"], abs=1e-12)
    # By hand: a token is scored where it is not the first of its sequence, and belongs to the document it is in.
    corpus = run.corpus.final if name == "both" else run.corpus
    ids = corpus.eval_document_ids - corpus.eval_document_ids.min()
    numbers, tokens = np.unique(ids[:, 1:], return_counts=True)
    assert documents["id"].tolist() == numbers.tolist() and documents["tokens"].tolist() == tokens.tolist()
    assert documents["domain"].tolist() == [
        corpus.domains[corpus.eval_domain_ids[ids == number][0]] for number in numbers
    ]


def test_the_metrics_over_training_stay_on_the_usual_set(runs) -> None:
    small, large, both = (runs[name].summary for name in ("small", "large", "both"))
    for part in ("metrics", "metrics_by_layer", "floors"):
        found = only(both[part], COURSE)
        assert found == only(small[part], COURSE) != only(large[part], COURSE), part
    assert {"routing_consistency", "usage_variance", "usage_kendall_tau"} <= set(both["metrics"])
    assert both["causality_change_training"] == small["causality_change_training"]


def test_every_snapshot_is_of_the_usual_set(runs) -> None:
    usual, found = (snapshot_paths(runs[name].routing) for name in ("small", "both"))
    assert list(found) == list(usual) and END in found
    for step, path in found.items():
        one, other = load_snapshot(path).to_arrays(), load_snapshot(usual[step]).to_arrays()
        assert one["num_tokens"] == 1024
        assert all(np.array_equal(one[name], other[name]) for name in other), step


def test_the_history_has_both_sets_under_their_own_names(runs) -> None:
    small, large, both = runs["small"], runs["large"], runs["both"]
    added = {"final", "final_training_rule"}
    assert set(both.history.split) - set(small.history.split) == added
    assert set(small.history.split) == {"train", "validation", "validation_training_rule", "chance"}
    assert set(both.history.split) == {"train", "validation", "chance"} | added
    assert both.rows("validation") == small.rows("validation")
    assert (END, "0", "routing_consistency") in both.rows("validation")
    at_the_end = {key: v for key, v in large.rows("validation").items() if key[0] == END and key[2] not in COURSE}
    assert both.rows("final") == at_the_end
    assert both.rows("final_training_rule") == large.rows("validation_training_rule")
    floors = {f"{name}_floor" for name in COURSE}
    chance, expected = (
        {key: v for key, v in run.rows("chance").items() if key[2] not in floors} for run in (both, large)
    )
    assert chance == expected


def test_the_fingerprint_of_the_evaluation_covers_both_sets(runs, tmp_path) -> None:
    prints = {name: run.summary["fingerprints"]["evaluation"] for name, run in runs.items()}
    assert prints["both"] == runs["both"].corpus.final.evaluation_fingerprint
    for name, usual, final in (("other end", 1024, LARGE // 2), ("other course", 2048, LARGE)):
        planned = prepare(tmp_path, f"data.evaluation_tokens={usual}", f"data.final_evaluation_tokens={final}")
        prints[name] = planned.corpus.final.evaluation_fingerprint
    assert len(set(prints.values())) == 5
    assert len({run.summary["fingerprints"]["batches"] for run in runs.values()}) == 1


def test_null_is_as_if_there_were_no_such_option(runs) -> None:
    assert runs["small"].corpus.final is None
    prepare_environment()
    ids = {}
    for value in ("null", None, LARGE):
        typed = [] if value is None else [f"data.final_evaluation_tokens={value}"]
        experiment = load_experiment([*SMALL, *typed])
        found = identify(experiment, "content", "cpu")
        assert ("final_evaluation_tokens" in found.signature["data"]) == (value == LARGE)
        ids[value] = found.run_id
    assert ids["null"] == ids[None] != ids[LARGE]


def test_a_number_below_the_usual_set_is_refused() -> None:
    prepare_environment()
    with pytest.raises(ConfigError, match="1023 is below data.evaluation_tokens=1024") as caught:
        load_experiment([*SMALL, "data.final_evaluation_tokens=1023"])
    assert caught.value.key == "data.final_evaluation_tokens"
    load_experiment([*SMALL, "data.final_evaluation_tokens=1024"])


def test_more_than_there_is_takes_all_and_says_so(runs, tmp_path) -> None:
    run = make(tmp_path, "data.final_evaluation_tokens=1000000", "baseline=dense")
    scored = run.corpus.final.eval_blocks.size
    assert LARGE < scored < 1_000_000
    assert f"all of its {scored} tokens" in run.log and "WARNING" in run.log
    assert "WARNING" not in runs["both"].log
    # A dense model has losses only.
    assert {key[2] for key in run.rows("final")} == {m for m in run.summary["metrics"] if m.startswith("val_")}
    assert run.rows("final")[END, "all", "val_loss"] == run.summary["metrics"]["val_loss"]


def test_the_larger_set_begins_with_the_usual_one(runs) -> None:
    corpus = runs["both"].corpus
    for name in ("eval_blocks", "eval_document_ids", "eval_domain_ids"):
        usual, larger = getattr(corpus, name), getattr(corpus.final, name)
        assert np.array_equal(larger[: len(usual)], usual) and larger.dtype == np.int32 and not larger.flags.writeable


def test_documents_kept_apart_are_sequences_of_their_own():
    """And not where attention crosses from one to the next: the metrics by sequence are then of whole blocks."""
    batch = {
        "input_ids": torch.zeros(2, 4, dtype=torch.long),
        "document_ids": torch.tensor([[3, 3, 4, 4], [4, 5, 5, 5]]),
        "domain_ids": torch.zeros(2, 4, dtype=torch.long),
    }
    apart, across = (
        Evaluator._tokens(SimpleNamespace(first_document=3, cross_document=cross), batch).sequence_ids_N.tolist()
        for cross in (False, True)
    )
    assert apart == [0, 0, 1, 1, 2, 3, 3, 3] and across == [0, 0, 0, 0, 1, 1, 1, 1]

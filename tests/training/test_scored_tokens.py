"""Runs on little or partly scored data: the guard, the probe tokens, and what is said on the terminal."""

from __future__ import annotations

import json

import pandas
import pyarrow
import pyarrow.parquet
import pytest
import torch
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.data.batches import collate
from spectra_exp.runs.plan import Plan, plan
from spectra_exp.training.execute import execute
from spectra_exp.training.guard import CHECKED_TOKENS, LossDisagreement, check_losses, scored_tokens, sequences_to_check
from spectra_exp.training.session import Session

SMALL = [
    *MODEL,
    "router.dim=4",
    "data.sequence_length=32",
    "data.vocabulary_size=300",
    "data.evaluation_tokens=4096",
    "data.probe_tokens=256",
    "trainer.max_steps=6",
    "trainer.batch_size=2",
    "trainer.log_every=1",
    "trainer.checkpoint_every=6",
    "logger.progress=false",
]


@pytest.fixture
def long_prompts(tmp_path) -> Plan:
    """A run that scores the short answers to long prompts."""
    prepare_environment()
    folder = tmp_path / "talk"
    folder.mkdir()
    for split, first, count in (("train", 0, 30), ("test", 30, 9)):
        rows = [
            [
                {"role": "user", "content": f"question {i} " + "which of these " * 100},
                {"role": "assistant", "content": f"number {i}"},
            ]
            for i in range(first, first + count)
        ]
        table = pyarrow.table({"messages": rows, "source": ["s"] * count})
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in ("train", "test"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: all\n  data_files:\n{files}---\n")
    data = ["data=smoltalk", f"data.path={folder}", "data.loss_on=assistant"]
    return plan(load_experiment([*SMALL, *data, f"outputs={tmp_path}"]))


def test_every_step_has_a_loss_and_the_share_left_out_is_said(long_prompts, capsys) -> None:
    assert execute(long_prompts, "") == "completed"
    history = pandas.read_parquet(long_prompts.folder.history)
    losses = history[history.metric == "train_loss"].value
    assert len(losses) == 6 and (losses > 1).all()
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "not trained on" in line)
    assert "% of the training sequences have no token that the loss counts" in line
    assert line in long_prompts.folder.log.read_text()


def test_the_guard_looks_at_scored_tokens(long_prompts) -> None:
    p = long_prompts
    session = Session(p.experiment, p.corpus, p.folder, p.device)
    few, many = (collate(sequences_to_check(session.blocks, most)) for most in (1, 50))
    assert len(few["labels"]) == 1 and scored_tokens(few) > 0
    assert scored_tokens(many) >= CHECKED_TOKENS and len(many["labels"]) < 50
    assert check_losses(session.trainer, session.evaluator, few, step=0) > 5
    # It still sees a wrong start, and a label that is shifted.
    shifted = many | {"labels": torch.roll(many["labels"], -1, dims=1)}
    with pytest.raises(LossDisagreement, match="training loss of a batch"):
        check_losses(session.trainer, session.evaluator, shifted, step=1)
    with torch.no_grad():
        session.model.get_output_embeddings().weight.mul_(90)
    with pytest.raises(LossDisagreement, match="not near ln"):
        check_losses(session.trainer, session.evaluator, many, step=0)


def test_a_small_validation_split_gives_fewer_probe_tokens_which_is_said(tmp_path, capsys) -> None:
    prepare_environment()
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"a short text of number {i}, no more"}) + "\n" for i in range(100)))
    p = plan(load_experiment([*SMALL, "data=files", f"data.train={path}", f"outputs={tmp_path}"]))
    size = p.corpus.eval_blocks.size
    assert size < p.experiment.data.probe_tokens
    assert execute(p, "") == "completed"
    said = f"data.probe_tokens=256 is more than the validation tokens that are scored: the routing of all {size} is"
    assert said in capsys.readouterr().err

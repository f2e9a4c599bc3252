from __future__ import annotations

import pytest
import torch

from spectra_exp.data import batches
from spectra_exp.moe import model as model_module
from spectra_exp.training import trainer as trainer_module
from spectra_exp.training.execute import execute
from spectra_exp.training.guard import LossDisagreement, check_losses
from spectra_exp.training.session import Session


def session_of(p) -> Session:
    return Session(p.experiment, p.corpus, p.folder, p.device)


def first_batch(session: Session) -> dict[str, torch.Tensor]:
    return batches.collate([session.blocks[i] for i in range(4)])


def test_losses_agree_and_start_near_the_logarithm_of_the_vocabulary(planned) -> None:
    session = session_of(planned())
    loss = check_losses(session.trainer, session.evaluator, first_batch(session), step=0)
    assert loss == pytest.approx(torch.tensor(512.0).log().item(), rel=0.05)


def shifted_collate(examples):
    """The known trap: labels shifted once by the data and once more by the loss."""
    batch = batches.collate(examples)
    batch["labels"] = torch.roll(batch["labels"], -1, dims=1)
    return batch


def unshifted_loss(logits_BSV, labels_BS):
    """The known trap: logits at t scored on the token at t itself."""
    return torch.nn.functional.cross_entropy(logits_BSV.flatten(0, 1).float(), labels_BS.flatten())


@pytest.mark.parametrize("plant", ["data", "loss"])
def test_a_planted_label_shift_stops_the_run(planned, monkeypatch, capsys, plant) -> None:
    if plant == "data":
        monkeypatch.setattr(trainer_module, "collate", shifted_collate)
        monkeypatch.setattr("spectra_exp.training.session.collate", shifted_collate)
    else:
        monkeypatch.setattr(
            model_module, "chunked_lm_loss", lambda hidden, head, labels: unshifted_loss(head(hidden), labels)
        )
    p = planned()
    assert execute(p, "") == "failed"
    error = p.folder.read_summary()["error"]
    assert "training loss of a batch" in error and "evaluation loss" in error
    assert error in capsys.readouterr().err
    assert p.folder.read_summary()["steps"] == 0


def test_a_wrong_start_is_caught(planned) -> None:
    session = session_of(planned())
    with torch.no_grad():
        session.model.get_output_embeddings().weight.mul_(60)
    with pytest.raises(LossDisagreement, match="not near ln"):
        check_losses(session.trainer, session.evaluator, first_batch(session), step=0)
    assert check_losses(session.trainer, session.evaluator, first_batch(session), step=5) > 0

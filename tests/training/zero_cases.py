"""What two processes do under DeepSpeed's ZeRO; `test_zero.py` spawns them."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

from ranks_cases import FAILS_AT, SWITCH, as_rank, at_step, made

from spectra_exp.foundations import stopping
from spectra_exp.training import trainer
from spectra_exp.training.session import Session
from spectra_exp.training.zero import zero_config

SPECTRA = ["router=spectra", "router.dim=4"]
FINISH = Session._finish


def nothing_kept_whole(experiment):
    """The configuration under which zero3 shares out small parameters too, as only large ones are by default."""
    config = zero_config(experiment)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


def sizes(session: Session) -> dict:
    """How the run is distributed, and how many numbers this rank holds of those that there are."""
    engine = session.trainer.deepspeed
    parameters = list(session.model.parameters())
    states = engine.optimizer.optimizer.state.values()
    return {
        "type": session.trainer.accelerator.distributed_type.value,
        "all": sum(getattr(p, "ds_numel", p.numel()) for p in parameters),
        "parameters": sum(p.ds_tensor.numel() if hasattr(p, "ds_tensor") else p.numel() for p in parameters),
        "optimizer": sum(state["exp_avg"].numel() for state in states),
    }


def on_rank(rank: int, folder: str, small: list[str]) -> None:
    """Entry of one spawned process; each run has outputs of its own below `folder`."""
    as_rank(rank, folder)

    def finish(session: Session):
        stage = session.experiment.trainer.deepspeed
        (Path(folder) / f"{stage}.rank{rank}.json").write_text(json.dumps(sizes(session)))
        return FINISH(session)

    with patch.object(Session, "_finish", finish), patch.object(trainer, "zero_config", nothing_kept_whole):
        for stage in ("zero1", "zero2"):
            assert made(small, f"{folder}/{stage}", *SWITCH, f"trainer.deepspeed={stage}") == "completed"
        whole = [*SPECTRA, "trainer.deepspeed=zero3"]
        assert made(small, f"{folder}/zero3", *whole) == "completed"
        with at_step(FAILS_AT, lambda: stopping.ask("SIGTERM") if rank else None):
            assert made(small, f"{folder}/resumed", *whole) == "stopped"
        stopping.ask(None)
        assert made(small, f"{folder}/resumed", *whole) == "completed"

"""What two gloo processes do that make whole runs together; `test_ranks.py` spawns them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from unittest.mock import patch

from torch.nn.parallel import DistributedDataParallel

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations import stopping
from spectra_exp.runs.plan import plan
from spectra_exp.runs.ranks import RENDEZVOUS
from spectra_exp.training import recorder, trainer
from spectra_exp.training.callbacks.clock import Clock
from spectra_exp.training.execute import execute

RANKS = 2
# No jitter: ranks draw noise of their own, one process draws other.
SWITCH = ["baseline=switch_top2", "router.jitter=0", "losses.balance_scope=global_batch", "trainer.accumulation=2"]
# Dropout: its random state must come back with a checkpoint, on each rank its own.
SPECTRA = ["router=spectra", "router.dim=4", "model.dropout=0.1"]
# No dropout, which differs by rank.
SETTLED = ["router=spectra", "router.dim=4"]
# Empty experts, and one that every token passes.
EMPTY = [*SWITCH[1:], "baseline=null_experts"]
SHARED = [*SWITCH[1:], "baseline=shared_expert"]
# Accumulation, so that a step's gradient comes in parts.
MUON = [*SWITCH, "optim=muon"]
FAILS_AT = 4


def made(small: list[str], outputs: str, *overrides: str) -> str:
    """The status of a run by all ranks."""
    return execute(plan(experiment_of(small, outputs, *overrides)), "")


def experiment_of(small: list[str], outputs: str, *overrides: str):
    """The experiment of the small run's overrides where others do not take their place."""
    given = {o.partition("=")[0] for o in overrides}
    other_data = ("data.train_words", "data.validation_words") if "data" in given else ()
    kept = [o for o in small if o.partition("=")[0] not in given and not o.startswith(other_data or " ")]
    return load_experiment([*kept, f"outputs={outputs}", *overrides])


@contextmanager
def at_step(step: int, do):
    """Call `do()` when an optimizer step begins."""
    begin = Clock.on_step_begin

    def on_step_begin(self, args, state, *rest, **kwargs):
        if state.global_step == step:
            do()
        begin(self, args, state, *rest, **kwargs)

    with patch.object(Clock, "on_step_begin", on_step_begin):
        yield


@contextmanager
def own_gradients():
    """A block in which no rank's gradient is averaged with the others'."""
    with patch.object(DistributedDataParallel, "_pre_forward", unsynchronised(DistributedDataParallel._pre_forward)):
        yield


def unsynchronised(pre_forward):
    """`pre_forward` of a model that keeps its gradients to itself."""

    def alone(model, *inputs, **kwargs):
        model.require_backward_grad_sync = False
        return pre_forward(model, *inputs, **kwargs)

    return alone


def itself(values):
    """The wrong version of what ranks share: each keeps its own."""
    return values


def fail() -> None:
    raise RuntimeError("planted")


def as_rank(rank: int, folder: str) -> None:
    """Make this process a rank, as the launcher does; the ranks meet in `folder`."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        RENDEZVOUS: f"{folder}/store",
    }
    prepare_environment()


def on_rank(rank: int, folder: str, small: list[str], talk: list[str]) -> None:
    """Entry of one spawned process; each run has outputs of its own below `folder`. `talk`: the data of some runs."""
    as_rank(rank, folder)
    assert made(small, f"{folder}/switch", *SWITCH) == "completed"
    assert made(small, f"{folder}/talk", *SWITCH, *talk) == "completed"
    with patch.object(trainer, "share_of_labels", lambda counted: 1.0):
        made(small, f"{folder}/unweighted_talk", *SWITCH, *talk)
    with patch.multiple(recorder, mean_over_ranks=itself, rows_of_all_ranks=itself):
        made(small, f"{folder}/own", *SWITCH)
    assert made(small, f"{folder}/muon", *MUON) == "completed"
    with own_gradients():
        made(small, f"{folder}/muon_own", *MUON)
    with at_step(FAILS_AT, lambda: stopping.ask("SIGTERM") if rank else None):
        assert made(small, f"{folder}/muon_resumed", *MUON) == "stopped"
    stopping.ask(None)
    assert made(small, f"{folder}/muon_resumed", *MUON) == "completed"
    assert made(small, f"{folder}/settled", *SETTLED) == "completed"
    assert made(small, f"{folder}/empty", *EMPTY) == made(small, f"{folder}/shared", *SHARED) == "completed"
    assert made(small, f"{folder}/whole", *SPECTRA) == "completed"
    # One rank is asked to stop, and all do.
    with at_step(FAILS_AT, lambda: stopping.ask("SIGTERM") if rank else None):
        assert made(small, f"{folder}/resumed", *SPECTRA) == "stopped"
    stopping.ask(None)
    assert made(small, f"{folder}/resumed", *SPECTRA) == "completed"
    with at_step(FAILS_AT, fail if rank else lambda: None):
        assert made(small, f"{folder}/failed", *SPECTRA) == "failed"

"""One run from configuration to summary: identity, lock, resume, training, what is left behind."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.console import Console

from spectra_exp.config.plugins import plugins_of
from spectra_exp.config.schema import Experiment
from spectra_exp.foundations import stopping
from spectra_exp.foundations.collective import from_first_rank, many_ranks, own_rank
from spectra_exp.foundations.devices import claim_gpu, full_float32
from spectra_exp.foundations.errors import Diverged, NotRun, RunInUse, SpectraError
from spectra_exp.foundations.files import one_line_errors, write_json, write_text
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.identity import digest
from spectra_exp.runs.limits import memory_allowed_mb, peak_resident_mb, within_memory
from spectra_exp.runs.plan import FINAL, Plan
from spectra_exp.runs.provenance import by_other_code, code_version, environment
from spectra_exp.runs.ranks import LOST, lost_connection, process_group, rank_summary, supervised
from spectra_exp.runs.summary import change_summary, check_files, sealed, summary_edited
from spectra_exp.runs.summary_head import summary_head
from spectra_exp.training.terminal import closing_table

if TYPE_CHECKING:
    from spectra_exp.moe.accounting import Size

log = logging.getLogger(__name__)

# Set while a launch's live table has the terminal: it shows progress and errors, and runs keep quiet.
QUIET = "SPECTRA_QUIET"


def execute(planned: Plan, hydra_config: str) -> str:
    """Run, resume or skip; returns the status. A failure is logged in one line and kept in the summary.

    Where several ranks make the run, each of them calls this, and the first one writes.
    """
    with process_group(planned.device), ExitStack() as held:
        begun = from_first_rank(lambda: _begin(planned, held))
        if begun.status is not None:
            return begun.status
        status = _attempt(planned, hydra_config, begun.checkpoint)
        if status in ("completed", "stopped"):
            # The summary is there when the first rank to leave leaves.
            from_first_rank(lambda: None)
        return status


@dataclass(frozen=True)
class Begun:
    """`status`: of a run that there is nothing to do for; else None, and `checkpoint` is what to go on from."""

    status: str | None
    checkpoint: Path | None = None


def _begin(planned: Plan, held: ExitStack) -> Begun:
    """Take the folder, for as long as `held`, and find out what is left to do."""
    experiment, folder = planned.experiment, planned.folder
    try:
        held.enter_context(folder.hold())
    except RunInUse as error:
        print(f"error: {error}", file=sys.stderr)
        return Begun("in use")
    folder.check()
    status = folder.status()
    if planned.stands() and not experiment.force and not (experiment.refresh == "stale" and _by_other_code(folder)):
        join_study(planned)
        print(f"{folder.run_id}: already {status}{_how_it_differs(folder)}; force=true runs it again", file=sys.stderr)
        return Begun(status)
    with _logging_to(folder.log), one_line_errors(folder.path):
        if experiment.force or status in FINAL:
            folder.clear()
        checkpoint = folder.resumable_checkpoint()
        if checkpoint is None:
            folder.clear()
    return Begun(None, checkpoint)


def _attempt(planned: Plan, hydra_config: str, checkpoint: Path | None) -> str:
    experiment, folder = planned.experiment, planned.folder
    torch.set_num_threads(experiment.trainer.cpu_threads)
    # Ranks have the GPUs of their numbers.
    if planned.device == "cuda" and not many_ranks():
        claim_gpu(give_up=stopping.asked, sharers=experiment.launch.per_gpu)
        if stopping.asked():
            return "not started"
    from spectra_exp.training.callbacks.wandb_run import wandb_run

    with _logging_to(folder.log if own_rank() == 0 else folder.path / f"train.rank{own_rank()}.log"):
        from_first_rank(lambda: _describe_run(planned, hydra_config, checkpoint))
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        summary = summary_head(planned, {"code_version": code_version(plugins_of(experiment))}, started)
        console = Console(stderr=True)
        # Under a launch's live table a run has no bar of its own.
        bar = experiment.logger.progress and console.is_terminal and QUIET not in os.environ and own_rank() == 0
        shown = console if bar else None
        try:
            with (
                wandb_run(experiment, folder, summary, resumed=checkpoint is not None) as callbacks,
                within_memory(memory_allowed_mb(experiment), planned.device),
                full_float32(),
            ):
                _train(planned, checkpoint, summary, shown, callbacks)
        except Diverged as error:
            summary |= {"status": "diverged", "error": str(error)}
        except NotRun as error:
            limit = {"limit_kind": error.kind, "limit_allowed": error.allowed}
            summary |= {"status": "not_run", "error": str(error)} | limit
        except SpectraError as error:
            summary |= {"status": "failed", "error": str(error)}
        except (Exception, KeyboardInterrupt) as error:
            # To the log file only: the terminal gets the one line below.
            log.info("%s", traceback.format_exc())
            text = " ".join(str(error).split()) or type(error).__name__
            stopped = isinstance(error, KeyboardInterrupt)
            summary |= {"status": "stopped" if stopped else "failed", "error": f"{type(error).__name__}: {text}"}
            if lost_connection(error):
                summary["error"] = LOST
        summary["finished"] = datetime.now().astimezone().isoformat(timespec="seconds")
        if own_rank() == 0:
            write_json(folder.summary, sealed(folder.path, summary))
        elif supervised():
            write_json(folder.path / rank_summary(own_rank()), summary)
        told_by_launcher = QUIET in os.environ or supervised() or own_rank() != 0
        if summary["error"] and not told_by_launcher:
            print(failure_line(folder.run_id, summary), file=sys.stderr)
        elif shown is not None and summary["status"] == "completed":
            shown.print(closing_table(summary))
    return summary["status"]


def failure_line(run_id: str, summary: dict[str, Any]) -> str:
    """What the terminal shows of a run that did not complete."""
    return f"error: {run_id}: {summary['status'].replace('_', ' ')}: {summary['error']}"


def mark_failed(planned: Plan, error: str) -> None:
    """Note in the summary that the run failed without having been able to say so itself; its checkpoints stay."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    with planned.folder.hold():
        head = summary_head(planned, {"code_version": code_version(plugins_of(planned.experiment))}, now)
        content = head | {"status": "failed", "error": error, "finished": now}
        write_json(planned.folder.summary, sealed(planned.folder.path, content))


def _train(
    planned: Plan, checkpoint: Path | None, summary: dict[str, Any], console: Console | None, callbacks: list[Any]
) -> None:
    """Train and fill the summary with whatever is known, also when training raises."""
    from transformers.utils import logging as transformers_logging

    from spectra_exp.training.session import Session

    transformers_logging.disable_progress_bar()
    session = Session(planned.experiment, planned.corpus, planned.folder, planned.device, console)
    for callback in callbacks:
        session.trainer.add_callback(callback)
    summary |= _size(session.size)
    summary["fingerprints"]["initial_weights"] = digest(session.initial_weights, 32)
    summary["initial_weights"] = session.initial_weights
    log.info("training begins: %d parameters, %d active", session.size.total, session.size.active)
    try:
        result = session.run(checkpoint)
    finally:
        recorder = session.recorder
        summary["steps"] = session.trainer.state.global_step
        summary["fingerprints"]["batches"] = recorder.batches_hash
        summary["fingerprints"]["code"] = "+".join(recorder.code_versions)
        summary["timings"] = recorder.timings(session.tokens_per_step) | {
            "wall_s": session.wall_s,
            "total_wall_s": recorder.total_s,
            "peak_memory_mb": peak_memory_mb(planned.device),
        }
        if recorder.max_residual:
            summary["max_sinkhorn_residual"] = recorder.max_residual
        if "train_loss" in recorder.latest:
            summary["metrics"] = {"train_loss": recorder.latest["train_loss"]}
    summary |= _size(session.size) | {
        "status": result.status,
        "size_as_measured": result.size_as_measured,
        "metrics": summary["metrics"] | result.metrics,
        "metrics_by_layer": result.metrics_by_layer,
        "metrics_training_rule": result.metrics_training_rule,
        "metrics_by_inference": result.metrics_by_inference,
        "floors": result.floors,
        **result.causality,
    }


def _size(size: Size) -> dict[str, Any]:
    """The summary's keys of a model's size."""
    return {
        "parameters": {"total": size.total, "active": size.active},
        "flops_per_token": size.flops_per_token,
    }


def in_study(planned: Plan) -> bool:
    """Whether a finished run's summary names the study that asks for it now, or none asks."""
    study = planned.experiment.study
    return not study or study in planned.folder.read_summary().get("studies", [])


def join_study(planned: Plan) -> None:
    """Note in a finished run's summary that another study asked for it too; the folder must be held."""
    study, summary = planned.experiment.study, planned.folder.read_summary()
    if study and study not in (others := summary.get("studies", [])):
        change_summary(planned.folder.summary, {"studies": [*others, study]})


def _by_other_code(folder: RunFolder) -> bool:
    """Whether the finished run was made by other code than this, or by more than one version of it."""
    return by_other_code(folder.read_summary().get("fingerprints", {}).get("code"))


def _how_it_differs(folder: RunFolder) -> str:
    """What a user who asks for a finished run again may not expect, in words; empty for a run as it would be now."""
    summary = folder.read_summary()
    edited = [*check_files(folder.path, summary), *(["summary.json"] if summary_edited(summary) else [])]
    told = " by other code than today's (refresh=stale runs such runs again)" if _by_other_code(folder) else ""
    return told + (f", and {', '.join(edited)} changed since" if edited else "")


def _describe_run(planned: Plan, hydra_config: str, checkpoint: Path | None) -> None:
    """Write configuration and environment; that of the run's first start stays."""
    experiment, folder = planned.experiment, planned.folder
    write_text(folder.config, yaml.safe_dump(_plain(experiment), sort_keys=False))
    folder.hydra.mkdir(exist_ok=True)
    write_text(folder.hydra / "overrides.yaml", yaml.safe_dump(experiment.overrides))
    write_text(folder.hydra / "hydra.yaml", hydra_config)
    write_text(folder.hydra / "config.yaml", yaml.safe_dump(planned.identity.signature, sort_keys=False))
    if checkpoint is None or not folder.environment.exists():
        now = environment(experiment.seed, {"run_id": planned.identity.run_id, "device": planned.device})
        write_json(folder.environment, now)
        return
    log.info("going on from %s", checkpoint.name)


def _plain(experiment: Experiment) -> dict[str, Any]:
    return {k: v for k, v in asdict(experiment).items() if k != "overrides"}


def peak_memory_mb(device: str) -> float:
    """Peak memory in MiB: allocated on the GPU, or resident in this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_mb()


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send this package's log to the run's file for the block; warnings still reach the terminal."""
    package = logging.getLogger("spectra_exp")
    with one_line_errors(path):
        handlers: list[logging.Handler] = [logging.FileHandler(path)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if QUIET not in os.environ and own_rank() == 0 and logging.lastResort is not None:
        # Where records of a program without any handler go.
        handlers.append(logging.lastResort)
    for handler in handlers:
        package.addHandler(handler)
    level = package.level
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.setLevel(level)
        for handler in handlers:
            package.removeHandler(handler)
        handlers[0].close()

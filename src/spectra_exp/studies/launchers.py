"""How the jobs of a launch are run outside this process: in worker processes, or by submitit, SLURM or Ray."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config.compose import explain, own_hydra
from spectra_exp.config.typed import typed_lists
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.folder import RunFolder
from spectra_exp.studies.job import Job
from spectra_exp.studies.work import NOT_STARTED
from spectra_exp.training.execute import QUIET

# Keys that decide where and how jobs run, the same for all jobs of one launch.
LAUNCH_KEYS = ("launch", "launch.", "hydra", "outputs")
# What launchers raise when a worker process dies. Those not installed cannot have raised: classes by name.
CRASHES = {
    "joblib.BrokenProcessPool",
    "joblib.TerminatedWorkerError",
    "submitit.UncompletedJobError",
    "ray.WorkerCrashedError",
    "ray.OutOfMemoryError",
    "ray.NodeDiedError",
}
LONGEST_REASON = 300
POLL_S = 0.2
# Between two jobs of one worker no worker shows for a moment.
PAUSE_S = 2.0


class Broken(Exception):
    """A worker process died under the launcher, which gave up on all of its jobs."""


@dataclass
class Engine:
    """`launch` runs jobs and returns what each returned, in order. `jobs_at_once`: launch.jobs."""

    launcher: Launcher
    jobs_at_once: int = 1
    launched: int = 0

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """The status that the task of each job returned. Raises Broken when a worker process died."""
        first, self.launched = self.launched, self.launched + len(jobs)
        return self.call(jobs, first)

    def call(self, jobs: Sequence[Job], first: int) -> list[Any]:
        """As `launch`; the jobs are numbered from `first`."""
        try:
            returns = self.launcher.launch([tuple(job.overrides) for job in jobs], initial_job_idx=first)
        except Exception as error:
            if is_crash(error):
                reason = textwrap.shorten(" ".join(str(error).split()), LONGEST_REASON)
                raise Broken(f"{type(error).__name__}: {reason}") from error
            raise
        # A job that raised raises here: the task turns every foreseen failure into a status.
        return [job.return_value for job in returns]


class RemoteEngine(Engine):
    """Calls the launcher from threads, so that this one can tell of each run's end and of being asked to stop."""

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """As Engine.launch; says of each run where it is and what it failed of, as soon as it ends."""
        first, self.launched = self.launched, self.launched + len(jobs)
        calls = self.split(jobs)
        starts = itertools.accumulate([first, *map(len, calls)])
        waiting = list(zip(range(len(calls)), calls, starts, strict=False))[::-1]
        ends: list[list[Any] | BaseException] = [[NOT_STARTED] * len(call) for call in calls]
        threads = [
            threading.Thread(target=self._work, args=(waiting, ends), daemon=True)
            for _ in range(min(self.jobs_at_once, len(calls)))
        ]
        ended, told = EndedRuns(jobs), False
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(POLL_S)
            ended.tell()
            if stopping.asked() and not told:
                # Also for workers that could not take the signal yet.
                stopping.tell_to_stop()
                told = True
                if self.leaves():
                    break
        ended.tell()
        errors = [end for end in ends if isinstance(end, BaseException)]
        for error in sorted(errors, key=lambda e: isinstance(e, Broken)):
            raise error
        return [status for end in ends if not isinstance(end, BaseException) for status in end]

    def split(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """The jobs of each call of the launcher."""
        return [jobs]

    def leaves(self) -> bool:
        """Whether this process ends before its jobs when it is asked to stop."""
        return False

    def _work(self, waiting: list[tuple[int, Sequence[Job], int]], ends: list[list[Any] | BaseException]) -> None:
        """Make one call after another until none waits or a stop was asked for."""
        self.enter_thread()
        while waiting and not stopping.asked():
            try:
                index, jobs, first = waiting.pop()
            except IndexError:
                # Another thread took the last.
                return
            try:
                ends[index] = self.call(jobs, first)
            except BaseException as error:
                # For the thread that waits, which raises it.
                ends[index] = error

    def enter_thread(self) -> None:
        """What a thread does before its first call."""


class Submitit(RemoteEngine):
    """A process of its own for each job, launch.jobs at once; one that dies takes no other down."""

    def split(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        return [[job] for job in jobs]

    def enter_thread(self) -> None:
        # Inherited by the job's process until it can note them, and by the one between, which would kill the job.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)


class Slurm(RemoteEngine):
    """One array of jobs in the queue, which goes on without this process."""

    def __post_init__(self) -> None:
        if shutil.which("srun") is None:
            problem = "'slurm' was given, but this machine has no command srun"
            raise ConfigError("launch", problem, "launch it on a machine of the cluster, or give launch=submitit")

    def leaves(self) -> bool:
        print("the jobs stay in the queue (scancel ends them)", file=sys.stderr)
        return True


class Ray(RemoteEngine):
    """Tasks of a Ray that lives as long as this process. `launcher`: that of hydra-ray-launcher."""

    launcher: Any

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """As RemoteEngine.launch; when a worker died, the others finish first."""
        import ray

        if not ray.is_initialized():
            with own_signals():
                ray.init(**cast("dict[str, Any]", OmegaConf.to_container(self.launcher.ray_cfg.init, resolve=True)))
        try:
            return super().launch(jobs)
        except Broken:
            since = time.monotonic()
            while time.monotonic() - since < PAUSE_S:
                if stopping.workers():
                    since = time.monotonic()
                time.sleep(POLL_S)
            raise


@contextmanager
def own_signals() -> Iterator[None]:
    """A block after which the signals are handled as before it: Ray takes SIGTERM for itself."""
    before = {s: signal.getsignal(s) for s in stopping.SIGNALS}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


# Hydra's launcher of jobs one after another, in whose place they run here as they were composed.
IN_PROCESS = "basic"
REMOTE = {"submitit_local": Submitit, "submitit_slurm": Slurm, "ray": Ray}


class EndedRuns:
    """Prints the folder of each run that ended since the launch, and the error of each that failed."""

    def __init__(self, jobs: Sequence[Job]):
        folders = [job.known.folder for job in jobs]
        self._open: dict[RunFolder, int | None] = {folder: _written(folder) for folder in folders}

    def tell(self) -> None:
        """Tell of the runs that ended since the last call."""
        for folder, before in list(self._open.items()):
            if _written(folder) in (None, before):
                continue
            del self._open[folder]
            summary = folder.read_summary()
            if summary.get("error") and QUIET not in os.environ:
                status = summary["status"].replace("_", " ")
                print(f"error: {folder.run_id}: {status}: {summary['error']}", file=sys.stderr)
            print(folder.path, flush=True)


def _written(folder: RunFolder) -> int | None:
    """When the run's summary was written, in ns; None while there is none."""
    try:
        return folder.summary.stat().st_mtime_ns
    except FileNotFoundError:
        return None


@contextmanager
def composed(overrides: list[str]) -> Iterator[tuple[DictConfig, HydraContext]]:
    """Hydra's whole configuration of a multirun, and what its plugins are made in. Raises ConfigError, in the block
    too."""
    try:
        with own_hydra() as hydra:
            config = hydra.compose_config("config", overrides, RunMode.MULTIRUN, with_log_configuration=False)
            yield config, HydraContext(hydra.config_loader, Callbacks(config))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error


def make_engine(typed: list[str], task: Callable[..., Any]) -> Engine | None:
    """The engine that the typed launch keys choose, None for this process. ConfigError for one that cannot be used."""
    overrides = []
    for key, lines in typed_lists(typed).items():
        if key == LAUNCH_KEYS[0] or key.startswith(LAUNCH_KEYS[1:]):
            if len(lines) > 1:
                raise ConfigError(key, "several values were given", "a launch has one launcher and one folder")
            overrides += lines
    try:
        with composed(overrides) as (config, context):
            launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            return None if chosen == IN_PROCESS else REMOTE.get(chosen, Engine)(launcher, config.launch.jobs)
    except ImportError as error:
        raise ConfigError("hydra/launcher", str(error), "install the launcher's package") from error


def is_crash(error: BaseException) -> bool:
    """Whether a launcher's exception says that a worker process died, rather than that the code is wrong."""
    from concurrent.futures.process import BrokenProcessPool

    if isinstance(error, BrokenProcessPool):
        return True
    return bool(CRASHES & {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__})

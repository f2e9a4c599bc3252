"""The Hydra launcher that runs jobs: in this process, in worker processes, or on a cluster."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config.compose import explain
from spectra_exp.config.tree import project_root
from spectra_exp.config.typed import typed_lists
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.loader import SharedLoader

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


class Broken(Exception):
    """A worker process died under the launcher, which gave up on all of its jobs."""


@dataclass
class Engine:
    """`launch` runs jobs and returns what each returned, in order. `jobs_at_once`: launch.jobs."""

    launcher: Launcher
    jobs_at_once: int = 1
    launched: int = 0

    def launch(self, jobs: list[list[str]]) -> list[Any]:
        """The status that the task of each job returned. Raises Broken when a worker process died."""
        first, self.launched = self.launched, self.launched + len(jobs)
        return self.call(jobs, first)

    def call(self, jobs: list[list[str]], first: int) -> list[Any]:
        """As `launch`; the jobs are numbered from `first`."""
        try:
            returns = self.launcher.launch([tuple(job) for job in jobs], initial_job_idx=first)
        except Exception as error:
            if is_crash(error):
                reason = textwrap.shorten(" ".join(str(error).split()), LONGEST_REASON)
                raise Broken(f"{type(error).__name__}: {reason}") from error
            raise
        # A job that raised raises here: the task turns every foreseen failure into a status.
        return [job.return_value for job in returns]


def make_engine(typed: list[str], task: Callable[..., Any]) -> Engine:
    """The engine that the typed launch keys choose. Raises ConfigError for one that cannot be used."""
    from spectra_exp.studies.apart import APART

    overrides = []
    for key, lines in typed_lists(typed).items():
        if key == LAUNCH_KEYS[0] or key.startswith(LAUNCH_KEYS[1:]):
            if len(lines) > 1:
                raise ConfigError(key, "several values were given", "a launch has one launcher and one folder")
            overrides += lines
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            loader = SharedLoader(hydra.config_loader.config_search_path)
            config = hydra.compose_config("config", overrides, RunMode.MULTIRUN, with_log_configuration=False)
            context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=task, config=config
            )
            kind = APART.get(config.hydra.runtime.choices["hydra/launcher"], Engine)
            return kind(launcher, config.launch.jobs)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, typed) from error
    except ImportError as error:
        raise ConfigError("hydra/launcher", str(error), "install the launcher's package") from error
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def is_crash(error: BaseException) -> bool:
    """Whether a launcher's exception says that a worker process died, rather than that the code is wrong."""
    from concurrent.futures.process import BrokenProcessPool

    if isinstance(error, BrokenProcessPool):
        return True
    return bool(CRASHES & {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__})

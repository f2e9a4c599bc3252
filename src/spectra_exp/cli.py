"""The command line: check everything, then let Hydra launch the jobs."""

from __future__ import annotations

import os
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spectra_exp.errors import SpectraError

# Exit status of a process ended by SIGINT, as shells report it.
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
    except SpectraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def _main(argv: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    from spectra_exp.config.compose import expand_jobs, load_experiment, prepare_environment, project_root

    prepare_environment()
    if any(a in ("--help", "-h") for a in argv):
        from spectra_exp.config.help import print_help

        print_help([a for a in argv if not a.startswith("-")])
        return 0
    args = get_args_parser().parse_args(argv)
    if args.cfg or args.info or args.hydra_help or args.shell_completion:
        return _hydra_main(argv, project_root() / "conf", _no_task)
    jobs = [load_experiment(job) for job in expand_jobs(args.overrides, args.multirun)]
    # Content is hashed and tokenised once, and a bad file is found before the first job.
    from spectra_exp.runs.execute import plan

    plans = [plan(experiment) for experiment in jobs]
    _hydra_main(argv, project_root() / "conf", task)
    return 0 if all(p.finished() for p in plans) else 1


def _hydra_main(argv: list[str], conf: Any, function: Any) -> int:
    import hydra

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.argv = [sys.argv[0], *argv]
    hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(function)()
    return 0


def _no_task(config: DictConfig) -> None:
    """For Hydra's own listings, which never run a job."""


def task(config: DictConfig) -> str:
    """One job: trains, and prints the run's folder as the last line on standard output. Returns its status.

    A failed job prints its one line and lets the others of a multirun go on.
    """
    from hydra.core.hydra_config import HydraConfig

    from spectra_exp.config.compose import load_experiment, prepare_environment
    from spectra_exp.runs.execute import execute, plan

    prepare_environment()
    overrides = list(HydraConfig.get().overrides.task)
    hydra_config = OmegaConf.to_yaml(HydraConfig.instance().cfg.hydra)
    planned = plan(load_experiment(overrides))
    status = execute(planned, hydra_config)
    print(planned.folder.path, flush=True)
    if status == "stopped":
        raise KeyboardInterrupt
    return status

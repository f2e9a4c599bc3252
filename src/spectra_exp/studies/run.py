"""`spectra-exp run` (`python train.py`) and `spectra-exp search`: check everything, then train one run or many."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from spectra_exp.config.tree import KINDS, train_words
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.shell import DONE, FAILED, HELP, exit_status
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.ranks import rank, supervised, world_size

STOPPED = "stopped; the same command goes on from the last checkpoint"
FLAGS = ("--help", "--multirun", "--cfg", "--info", "--resolve", "--package", "--hydra-help", "--version")
# Flags of Hydra's that would lead it to another configuration than the one checked here.
UNUSED_FLAGS = ("config_path", "config_name", "config_dir", "experimental_rerun")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # What goes wrong, goes wrong in all ranks of a run.
    return exit_status(lambda: _main(argv), "" if supervised() else STOPPED, told=rank() == 0)


def search(argv: Sequence[str]) -> int:
    """As `main`, of a search: SPECTRA's main knobs unless another is named."""
    named = any(word.startswith(("search=", "hydra/sweeper=")) for word in argv)
    return main(["-m", *([] if named or set(HELP) & set(argv) else ["search=spectra"]), *argv])


def _main(argv: list[str]) -> int:
    from spectra_exp.config.compose import prepare_environment
    from spectra_exp.config.plugins import load_typed_plugins

    prepare_environment()
    load_typed_plugins(argv)
    if set(HELP) & set(argv):
        from spectra_exp.config.help import print_help

        print_help([a for a in argv if a not in HELP and not a.startswith("-") and "=" not in a])
        return DONE
    args = parse_arguments(argv)
    if args.hydra_help or args.shell_completion:
        return _hydra_main(argv)
    chosen = [o for o in args.overrides if o.partition("=")[0] in KINDS]
    if chosen or args.multirun:
        return _many(args, chosen)
    return _one(args, argv)


def _one(args: argparse.Namespace, argv: list[str]) -> int:
    """A single run."""
    from spectra_exp.config.compose import load_experiment
    from spectra_exp.data.sources import check_data
    from spectra_exp.studies.launchers import make_engine
    from spectra_exp.studies.search_space import asks_for_search
    from spectra_exp.studies.work import run_in_worker

    if key := asks_for_search(args.overrides):
        raise ConfigError(key, "a search is many runs", "add -m")
    experiment = load_experiment(args.overrides)
    if experiment.choices["launch"] != "local":
        given = experiment.choices["launch"]
        raise ConfigError("launch", f"'{given}' has no effect on a single run", "add -m or drop it")
    if experiment.launch.until_decided is not None:
        fix = "name a study: sweeps=NAME or ablations=NAME"
        raise ConfigError("launch.until_decided", "has no effect on a single run", fix)
    if own := [o for o in args.overrides if o.startswith("hydra")]:
        # A misspelt launcher is named as such before it is called of no effect.
        make_engine(own, run_in_worker)
        raise ConfigError(own[0].partition("=")[0], "has no effect on a single run", "add -m or drop it")
    if args.cfg or args.info:
        return _hydra_main(argv)
    check_data(experiment.data)
    make_outputs(Path(experiment.outputs))
    from spectra_exp.runs.plan import plan
    from spectra_exp.studies.work import run_here

    planned = plan(experiment)
    # A process that a run's launcher started follows that one.
    with nullcontext() if supervised() else stopping.launching():
        status = run_here(planned)
    if status == "completed":
        # A stop asked for in the last evaluation came too late to stop anything.
        return DONE
    if stopping.asked():
        raise KeyboardInterrupt
    return FAILED


def _many(args: argparse.Namespace, chosen: list[str]) -> int:
    """The jobs of a study, or of a multirun."""
    from spectra_exp.studies.command import launch_multirun, launch_study
    from spectra_exp.studies.search_space import asks_for_search

    if world_size() > 1:
        raise ConfigError(
            "command line", "torchrun makes one run", "start python without it: trainer.processes=N holds for every run"
        )
    if args.cfg or args.info:
        raise ConfigError("command line", "--cfg and --info show one run", "see spectra-exp study show")
    typed = [o for o in args.overrides if o not in chosen]
    if asks_for_search(typed):
        from spectra_exp.studies.search import launch_search

        if chosen:
            raise ConfigError("command line", f"'{chosen[0]}' and a search were given", "drop one of the two")
        return launch_search(typed)
    if not chosen:
        return launch_multirun(typed)
    if len(chosen) > 1:
        raise ConfigError("command line", f"'{chosen[0]}' and '{chosen[1]}' were given", "launch one study at a time")
    return launch_study(chosen[0], typed)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order. ConfigError for a flag that is unknown or of no use here."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError("command line", message, f"see `{' '.join(train_words())} --help`")

    parser.error = refuse  # type: ignore[method-assign]
    args, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError.unknown("command line", unknown[0], FLAGS)
    for name in UNUSED_FLAGS:
        if getattr(args, name) is not None:
            refuse(f"--{name.replace('_', '-')} is not used here")
    if (args.resolve or args.package) and not args.cfg:
        refuse("--resolve and --package go with --cfg")
    if sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.shell_completion))) > 1:
        refuse("--run, --multirun, --cfg and --info exclude each other")
    return args


def _hydra_main(argv: list[str]) -> int:
    """Hydra's own listings."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from spectra_exp.config.tree import project_root

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.argv = [sys.argv[0], *argv]
    before = HydraConfig.instance().cfg
    try:
        hydra.main(version_base="1.3", config_path=str(project_root() / "conf"), config_name="config")(_no_task)()
    finally:
        # It would answer the ${hydra:...} of whatever this process composes later.
        HydraConfig.instance().cfg = before
    return DONE


def _no_task(config: DictConfig) -> None:
    """For the listings, which never run a job."""

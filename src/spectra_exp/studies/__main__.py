"""`python -m spectra_exp.studies`: list the studies, show the runs of one, tell how all stand."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.page import studies_page
from spectra_exp.studies.show import print_runs, show_json, shown_runs
from spectra_exp.studies.status import all_statuses, print_status

# Exit status of a program whose reader went away, as shells report it.
PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2, with one line on standard error, for what cannot be done."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # argparse takes no overrides after a flag, and the flags here have no values.
    options = _parser().parse_args(sorted(arguments, key=lambda word: word.startswith("-")))
    prepare_environment()
    try:
        return options.function(options)
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (SpectraError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spectra_exp.studies", description="Studies and how they stand.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the studies there are, and what each asks")
    listing.set_defaults(function=_list)
    show = commands.add_parser("show", help="the runs of one study, without running any")
    show.add_argument("study", help="its name, such as b_sinkhorn")
    show.add_argument("overrides", nargs="*", help="as for a launch: seed=0..4 osr=causal trainer.max_steps=50")
    show.set_defaults(function=_show)
    status = commands.add_parser("status", help="expected, done, running, failed and missing runs of every study")
    status.set_defaults(function=_status)
    page = commands.add_parser("page", help="docs/studies.md: every study as its file declares it")
    page.set_defaults(function=_page)
    for command in (show, status):
        command.add_argument("--json", action="store_true", help="for other programs")
    return parser


def _console() -> Console:
    # Not cut off where the output is no terminal.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _list(options: argparse.Namespace) -> int:
    for name in study_files():
        study = load_study(name)
        print(f"{study.choice:<28} {study.question}\n{'':<28} {study.command}")
    return 0


def _page(options: argparse.Namespace) -> int:
    print(studies_page(), end="")
    return 0


def _show(options: argparse.Namespace) -> int:
    study = load_study(options.study)
    shown = shown_runs(study, options.overrides)
    if options.json:
        print(json.dumps(show_json(study, shown), indent=1))
    else:
        print_runs(_console(), study, shown)
    return 0


def _status(options: argparse.Namespace) -> int:
    outputs = Path(os.environ["SPECTRA_OUTPUTS"])
    if options.json:
        statuses, skipped = all_statuses(outputs)
        print(json.dumps({"studies": [s.as_json() for s in statuses], "skipped": skipped}, indent=1))
    else:
        print_status(_console(), outputs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

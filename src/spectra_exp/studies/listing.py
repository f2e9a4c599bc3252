"""`spectra-exp study`: list the studies, show the runs of one, tell how all stand."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from spectra_exp.config.verb import Verb, VerbOptions, dispatch
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import one_line_errors
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.page import studies_page
from spectra_exp.studies.show import print_runs, show_json, shown_runs
from spectra_exp.studies.status import all_statuses, print_status


@dataclass(frozen=True)
class ShowOptions(VerbOptions):
    """Which study, sliced and changed as for a launch."""

    study: str | None = option(None, "its name, such as b_sinkhorn")
    json: bool = option(False, "for other programs")
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatusOptions(VerbOptions):
    """In which form."""

    json: bool = option(False, "for other programs")


def _console() -> Console:
    # Not cut off where the output is no terminal.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _list(options: VerbOptions) -> int:
    for name in study_files():
        study = load_study(name)
        print(f"{study.choice:<28} {study.question}\n{'':<28} {study.asked()}")
    return DONE


def _show(options: ShowOptions) -> int:
    if options.study is None:
        raise ConfigError("study", "is missing", "`spectra-exp study list` names them")
    study = load_study(options.study)
    placed = [f"outputs={options.outputs}"] if options.outputs else []
    with one_line_errors(options.folder):
        shown = shown_runs(study, [*options.overrides, *placed])
    if options.json:
        print(json.dumps(show_json(study, shown), indent=1))
    else:
        print_runs(_console(), study, shown)
    return DONE


def _status(options: StatusOptions) -> int:
    with one_line_errors(options.folder):
        if options.json:
            statuses, skipped = all_statuses(options.folder)
            print(json.dumps({"studies": [s.as_json() for s in statuses], "skipped": skipped}, indent=1))
        else:
            print_status(_console(), options.folder)
    return DONE


def _page(options: VerbOptions) -> int:
    print(studies_page(), end="")
    return DONE


COMMANDS = {
    verb.name.split()[1]: verb
    for verb in (
        Verb("study list", VerbOptions, _list, "The studies there are, and what each asks."),
        Verb(
            "study show",
            ShowOptions,
            _show,
            "The runs of one study, their states and the time left, without running any.",
            ("b_sinkhorn", "b_sinkhorn seed=0..4 osr=causal json=true"),
            bare=("study",),
        ),
        Verb("study page", VerbOptions, _page, "Every study as its file declares it, as Markdown: docs/studies.md."),
        Verb(
            "study status",
            StatusOptions,
            _status,
            "Expected, done, running, failed and missing runs of every study.",
            ("", "json=true"),
        ),
    )
}


def main(words: Sequence[str]) -> int:
    """The exit status of what the first word names."""
    return dispatch("study", COMMANDS, words)

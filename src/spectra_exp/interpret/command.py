"""`spectra-exp interpret`: what the experts of one trained model do, or of the newest runs of a study."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.shell import DONE, FAILED, WRONG_INPUT
from spectra_exp.interpret.options import Options, check_options
from spectra_exp.interpret.registry import chosen_parts, parts

if TYPE_CHECKING:
    from spectra_exp.interpret.analysis import Analysis


def interpret(options: Options) -> int:
    """The exit status, after the page of each analysis was printed; of a study's runs one may fail alone."""
    check_options(options)
    chosen_parts(options.parts)
    from spectra_exp.interpret.analysis import analyse, newest_of_study

    outputs, console = options.folder, Console(stderr=True)
    if options.run is not None:
        return _told(analyse(options.run, options, outputs, console))
    assert options.study is not None
    status = DONE
    for run_id in newest_of_study(outputs, options.study):
        try:
            status = max(status, _told(analyse(run_id, options, outputs, console)))
        except SpectraError as error:
            print(f"error: {run_id}: {error}", file=sys.stderr)
            status = max(status, WRONG_INPUT if isinstance(error, ConfigError) else FAILED)
    return status


def _told(made: Analysis) -> int:
    """The exit status of one analysis, after its page and what failed in it were printed."""
    print(made.page, flush=True)
    for name, reason in made.failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return FAILED if made.failed else DONE


def _parts_help() -> str:
    return "\n".join(["Parts:", *(f"  {name:<18} {part.title}" for name, part in parts().items())])


main = Verb(
    "interpret",
    Options,
    interpret,
    "What the experts of a trained model do: tables, pictures and a page, in analysis/ of the run's folder.",
    (
        "run=outputs/runs/ID",
        "run=ID against=OTHER_ID",
        'run=ID parts=cases text="def add(a, b): return a + b"',
        "run=FOLDER_OF_OLMOE texts=validation.jsonl",
    ),
    more=_parts_help,
    stopped="stopped; what is finished stays, and parts=NAME makes the rest",
)

"""`python -m spectra_exp.interpret run=PATH [against=PATH2] [parts=keywords,domains] ...`; `--help` says it all."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret.options import Options, help_text, parse_options
from spectra_exp.interpret.registry import chosen_parts, parts

if TYPE_CHECKING:
    from spectra_exp.interpret.analysis import Analysis

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2, with one line on standard error, for what cannot be done."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-h", "help"} & set(arguments):
        print(help_text({name: part.title for name, part in parts().items()}), end="")
        return 0
    try:
        prepare_environment()
        options = parse_options(arguments)
        chosen_parts(options.parts)
        return _analyse(options)
    except SpectraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what is finished stays, and parts=NAME makes the rest", file=sys.stderr)
        return INTERRUPTED


def _analyse(options: Options) -> int:
    """The exit status, after the page of each analysis was printed; of a study's runs one may fail alone."""
    from spectra_exp.interpret.analysis import analyse, newest_of_study

    outputs, console = Path(os.environ["SPECTRA_OUTPUTS"]), Console(stderr=True)
    if options.run is not None:
        return _told(analyse(options.run, options, outputs, console))
    status = 0
    for run_id in newest_of_study(outputs, options.study):
        try:
            status = max(status, _told(analyse(run_id, options, outputs, console)))
        except SpectraError as error:
            print(f"error: {run_id}: {error}", file=sys.stderr)
            status = 2
    return status


def _told(made: Analysis) -> int:
    """The exit status of one analysis, after its page and what failed in it were printed."""
    print(made.page, flush=True)
    for name, reason in made.failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 2 if made.failed else 0


if __name__ == "__main__":
    sys.exit(main())

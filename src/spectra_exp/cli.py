"""The command `spectra-exp VERB key=value ...`. A verb's module is imported when the verb is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.shell import DONE, HELP, INTERRUPTED, exit_status

# Verb: the function behind it, and what it does.
VERBS = {
    "run": (
        "studies.run:main",
        "train and measure one run, or with -m, sweeps=NAME, ablations=NAME or replications=NAME many",
    ),
    "study": (
        "reporting.plan_seeds:main",
        "list the studies, show the runs of one, plan its seeds, tell how all stand",
    ),
    "search": ("studies.run:search", "search SPECTRA's main knobs, or what is typed; again goes on"),
    "tables": ("reporting.make_tables:main", "every table from the finished runs"),
    "figures": ("reporting.make_figures:main", "every figure from the finished runs"),
    "report": ("reporting.make_report:main", "a page over all runs and a page for each"),
    "interpret": ("interpret.command:main", "what the experts of a trained model do"),
    "doctor": ("doctor.command:main", "checks of a sparse model's routing: causality, batches, losses, precision"),
    "downstream": ("downstream.command:main", "scores of finished runs on downstream tasks"),
    "paper": ("reporting.make_paper:main", "the runs of the paper's results, and the folder made of them"),
    "replications": (
        "reporting.make_replications:main",
        "effects that others published, looked for again: runs, verdicts, page",
    ),
    "archive": ("archive.command:main", "runs packed into one file that tables, figures and report read"),
    "share": ("reporting.share:main", "a finished run's model and model card for others to load"),
    "remeasure": ("interpret.remeasure:main", "metrics that finished runs lack, from what they kept"),
    "rescore": ("interpret.rescore:main", "scores of held-out documents that finished runs lack, from a checkpoint"),
    "compare": ("reporting.by_document:main", "two models, or two methods over seeds, document by document"),
    "bench": ("bench.command:main", "benchmarks against their targets"),
    "gpu-check": (
        "bench.gpu_check.command:main",
        "what only a GPU shows: agreement with the CPU, waiting, memory, speed",
    ),
    "completion": ("completion.query:main", "what Tab completes in the shell: verbs, keys, options"),
    "overhead": ("bench.overhead:main", "time and FLOPs of each part of routing (table 9)"),
}

__all__ = ["INTERRUPTED", "VERBS", "command", "main"]


def command(argv: Sequence[str] | None = None) -> int:
    """The exit status of the verb that the first word names: 0 done, 1 not all came out, 2 wrong input, 130 stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in HELP:
        return exit_status(_help)
    if words[0] not in VERBS:
        return exit_status(lambda: _unknown(words[0]))
    module, _, function = VERBS[words[0]][0].partition(":")
    return getattr(import_module(f"spectra_exp.{module}"), function)(words[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """`python train.py ...`, which is `spectra-exp run ...`."""
    return command(["run", *(sys.argv[1:] if argv is None else argv)])


def help_text() -> str:
    """The verbs, a line each."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{meaning}" for name, (_, meaning) in VERBS.items()]
    return "\n".join(
        [
            "usage: spectra-exp VERB [key=value ...]",
            "",
            *lines,
            "",
            "spectra-exp VERB --help lists its keys. Exit status: 0 done, 1 something asked for did not come out,",
            "2 wrong input, 130 stopped.",
            "",
        ]
    )


def _help() -> int:
    print(help_text(), end="")
    return DONE


def _unknown(verb: str) -> int:
    if "=" in verb or verb.startswith("-"):
        raise ConfigError("command line", f"'{verb}' comes before the verb", f"give spectra-exp run {verb}")
    raise ConfigError.unknown("command line", verb, VERBS)


if __name__ == "__main__":
    raise SystemExit(main())

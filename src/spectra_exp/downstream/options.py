"""The options of `spectra-exp downstream`."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.config.verb import VerbOptions
from spectra_exp.foundations.bounds import LARGEST_COUNT, LARGEST_LENGTH
from spectra_exp.foundations.options import option


@dataclass(frozen=True)
class EvaluateOptions(VerbOptions):
    """What is evaluated on which tasks."""

    run: str = option("", "runs: ids or folders, separated by commas; patterns such as 'spectra-*'")
    tasks: str = option("local", "local: all that ship with the project; else names, separated by commas")
    data: str | None = option(None, "folder with the files of the local tasks, such as openbookqa.jsonl", path=True)
    limit: int | None = option(
        None, "first items of each task; null: all", unit="items", minimum=1, maximum=LARGEST_COUNT
    )
    fewshot: int | None = option(
        None, "worked examples before each item; null: as the task has it", minimum=0, maximum=LARGEST_COUNT
    )
    batch_size: int = option(32, "sequences in one batch", minimum=1, maximum=LARGEST_LENGTH)
    max_length: int | None = option(
        None,
        "longest sequence, cut at its beginning; null: that of the training blocks",
        unit="tokens",
        minimum=2,
        maximum=LARGEST_LENGTH,
    )
    device: str = option("auto", "where it runs; auto takes a GPU when there is one", choices=["auto", "cpu", "cuda"])
    online: bool = option(False, "let the harness download the data sets of its own tasks")
    run_code: bool = option(False, "run code that the model writes, for tasks such as humaneval")
    force: bool = option(False, "score again what has a score by the same settings")

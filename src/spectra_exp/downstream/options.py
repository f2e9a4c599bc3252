"""The options of `python -m spectra_exp.downstream`, typed as key=value and checked like a run's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectra_exp.config.compose import explain
from spectra_exp.foundations.bounds import LARGEST_COUNT, LARGEST_LENGTH
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields, option


@dataclass
class EvaluateOptions:
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


def parse_options(words: Sequence[str]) -> EvaluateOptions:
    """The options that were typed. Raises ConfigError."""
    known = {f.name for f in fields(EvaluateOptions)}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise ConfigError("command line", f"'{word}' is not an assignment", "give key=value; see --help")
        if key not in known:
            raise ConfigError.unknown(key, key, known)
    try:
        # Texts stay as they are typed, also those that look like numbers or lists.
        given = {key: value for key, _, value in (word.partition("=") for word in words)}
        given = {key: None if value in ("null", "none", "") else value for key, value in given.items()}
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(EvaluateOptions), given))
    except OmegaConfBaseException as error:
        raise explain(error, []) from error
    check_fields(options, "")
    if not options.run:
        raise ConfigError("run", "no run was given", "give run=ID, a folder, or a pattern such as run='spectra-*'")
    return options

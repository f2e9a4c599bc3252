"""The command line of an analysis: key=value, each checked, the nearest valid name for a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spectra_exp.foundations.bounds import LARGEST_SEED
from spectra_exp.foundations.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
KEYS = {
    "run": "folder or id of a finished run, or folder of a stock Hugging Face MoE model",
    "study": "instead of run: the newest finished run of each method of this study",
    "against": "a second one to compare with; results then go to analysis/against-<its name>/",
    "parts": "which parts, separated by commas; all when left out",
    "text": "a text to follow token by token; quote it: text=\"...\"",
    "texts": "a .jsonl, .parquet or .txt file of such texts; for a stock model also what it is looked at on",
    "tokens": "held-out tokens to look at; 32768 or what the run was scored on when left out",
    "seed": "seed of samples, permutations and maps (0)",
    "out": "folder of the results, in place of analysis/ in the run's folder",
    "device": "auto, cpu or cuda",
}


@dataclass(frozen=True)
class Options:
    """What was asked for; see KEYS."""

    run: str | None = None
    study: str | None = None
    against: str | None = None
    parts: tuple[str, ...] = ()
    text: str | None = None
    texts: str | None = None
    tokens: int | None = None
    seed: int = 0
    out: str | None = None
    device: str = field(default="auto")


def parse_options(arguments: Sequence[str]) -> Options:
    """The options typed. Raises ConfigError, one line, for a key that is unknown, given twice or of a wrong value."""
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or argument.startswith("-"):
            raise ConfigError("command line", f"'{argument}' is not key=value", f"keys: {', '.join(KEYS)}; or --help")
        if key not in KEYS:
            raise ConfigError.unknown("command line", key, KEYS)
        if key in values:
            raise ConfigError(key, f"was given twice ('{value}' the second time)", "give it once")
        # A text may be empty or all spaces; nothing else may.
        if not value and key != "text":
            raise ConfigError(key, "has no value", f"it is: {KEYS[key]}")
        values[key] = READ.get(key, _as_typed)(key, value)
    options = Options(**values)
    if (options.run is None) == (options.study is None):
        raise ConfigError("run", "give either run=PATH or study=NAME", "see --help")
    if options.study is not None and (options.out or options.against):
        raise ConfigError("study", "goes with neither out nor against", "analyse one run: run=PATH")
    return options


def help_text(parts: dict[str, str]) -> str:
    """What `--help` prints; `parts`: the line of each part by name."""
    keys = "\n".join(f"  {name:<9} {meaning}" for name, meaning in KEYS.items())
    listed = "\n".join(f"  {name:<18} {title}" for name, title in parts.items())
    return (
        "python -m spectra_exp.interpret run=PATH [key=value ...]\n\n"
        "What the experts of a trained model do: tables, pictures and a page, in analysis/ of the run's folder.\n\n"
        f"Keys:\n{keys}\n\nParts:\n{listed}\n\n"
        "Examples:\n"
        "  python -m spectra_exp.interpret run=outputs/runs/<id>\n"
        "  python -m spectra_exp.interpret run=<id> against=<other id>\n"
        "  python -m spectra_exp.interpret run=<id> parts=cases text=\"def add(a, b): return a + b\"\n"
        "  python -m spectra_exp.interpret run=FOLDER_OF_OLMOE texts=validation.jsonl\n"
    )


def _as_typed(key: str, value: str) -> str:
    return value


def _names(key: str, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise ConfigError(key, f"'{value}' names none", f"it is: {KEYS[key]}")
    return names


def _whole_number(least: int, most: int) -> Callable[[str, str], int]:
    def read(key: str, value: str) -> int:
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
            raise ConfigError(key, f"'{value}' is not a whole number from {least} to {most}")
        return int(value)

    return read


def _device(key: str, value: str) -> str:
    if value not in DEVICES:
        raise ConfigError.unknown(key, value, DEVICES)
    return value


READ: dict[str, Callable[[str, str], Any]] = {
    "parts": _names,
    "tokens": _whole_number(1, 10**9),
    "seed": _whole_number(0, LARGEST_SEED),
    "device": _device,
}

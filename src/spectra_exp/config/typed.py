"""What was typed, read before anything is composed; what Hydra would misread or ignore is refused here."""

from __future__ import annotations

import math
import re
import shlex
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from spectra_exp.config.keys import is_key, unknown_key
from spectra_exp.config.schema import GROUPS
from spectra_exp.config.tree import option_files, train_words
from spectra_exp.foundations.bounds import MOST_OF_A_SWEEP
from spectra_exp.foundations.errors import ConfigError

# Keys of Hydra's own that are the user's to set; the others decide where files go or what is swept.
HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")
# seed=0..4: from 0 to 4, both included.
_SEEDS = re.compile(r"^seed=(\d{1,10})\.\.(\d{1,10})$")
# A preset's keys describe it.
DESCRIBED = ("ablation", "baseline")


def parse_overrides(overrides: list[str]) -> list[Override]:
    """The overrides, each read and checked alone. Raises ConfigError."""
    parsed = [_parse(text) for text in overrides]
    first: dict[str, str] = {}
    for override in parsed:
        _check(override)
        key = override.key_or_group
        if key in first:
            raise ConfigError(key, f"'{first[key]}' and '{override.input_line}' were given", "give it once")
        first[key] = as_typed(override)
    return parsed


def as_typed(override: Override) -> str:
    """The whole of an override, `key=value`, as it was typed."""
    return str(override.input_line)


def typed_values(overrides: list[str]) -> dict[str, str]:
    """What was typed for each key or group, as text without quotes; several values as they stand."""
    return {o.key_or_group: _text(o) for o in parse_overrides(overrides)}


def without(overrides: list[str], group: str) -> list[str]:
    """The overrides but for the choice of `group`."""
    return [as_typed(o) for o in parse_overrides(overrides) if o.key_or_group != group]


def expand_jobs(overrides: list[str], multirun: bool) -> list[list[str]]:
    """The jobs that a command line stands for: one, or the product of its sweeps in Hydra's own order."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = parse_overrides(overrides)
    swept = [o for o in parsed if o.is_sweep_override()]
    if not multirun and swept:
        raise ConfigError(swept[0].key_or_group, "several values were given", "add -m (--multirun) to run them all")
    if not multirun:
        return [overrides]
    jobs = 1
    for override in swept:
        if (count := _count(override)) is None:
            raise ConfigError(
                override.key_or_group,
                f"the values of '{override.input_line}' cannot be listed",
                f"give them separated by commas, or search them ({' '.join(train_words())} --help search)",
            )
        jobs *= count
        if jobs > MOST_OF_A_SWEEP:
            problem = f"'{override.input_line}' makes {jobs} jobs of this line"
            raise ConfigError(override.key_or_group, problem, f"give values for at most {MOST_OF_A_SWEEP}")
    return [job for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]


def _count(override: Override) -> int | None:
    """How many values a sweep has; None for one without an end, or whose values nobody can list."""
    values = override.value()
    if isinstance(values, RangeSweep):
        # Hydra declares that they may lack, as they do in no range that was read.
        span: Any = values.start, values.stop, values.step
        start, stop, step = span
        return max(0, math.ceil((stop - start) / step)) if step and math.isfinite(start + stop + step) else None
    return len(values.list) if isinstance(values, ChoiceSweep) else None


def typed_lists(overrides: list[str]) -> dict[str, list[str]]:
    """The values that were typed for each key or group, one assignment `key=value` each."""
    return {
        override.key_or_group: [job[0] for job in expand_jobs([as_typed(override)], multirun=True)]
        for override in parse_overrides(overrides)
    }


# A launch reads the same text once a job and more.
@lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(_SEEDS.sub(_seed_range, text))
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals:
            fix = f"give {text}=OPTION" if text in GROUPS else "give group=option or group.key=value"
            raise ConfigError("command line", f"'{text}' is not an assignment", fix) from error
        bare = key.strip().lstrip("+~")
        if bare and not is_key(bare) and not bare.startswith("hydra"):
            raise unknown_key(bare, {}) from error
        raise ConfigError(bare or "command line", f"'{text}' cannot be read", _how_to_write(bare, value)) from error


def _how_to_write(key: str, value: str) -> str:
    """How to type a value that Hydra's grammar does not take as it is."""
    if "${" in value:
        return "'${' begins a reference to another key, such as ${seed}: give the value itself"
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return "quote a value that holds special characters: " + shlex.quote(f'{key}="{text}"')


def _seed_range(match: re.Match[str]) -> str:
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ConfigError("seed", f"'{match[0]}' holds no seed", f"give seed={last}..{first}")
    return f"seed=range({first},{last + 1})"


def _check(override: Override) -> None:
    key, given = override.key_or_group, as_typed(override)
    if key.startswith("hydra"):
        if not key.startswith(HYDRA_KEYS):
            raise ConfigError(key, "is set by the program", "give outputs=FOLDER to place files, -m to sweep")
        return
    if not key:
        raise ConfigError("command line", f"'{given}' names no key", "give group=option or group.key=value")
    if key.partition(".")[0] in DESCRIBED and "." in key:
        group = key.partition(".")[0]
        raise ConfigError(key, f"describes the {group} and cannot be set", f"choose one with {group}=NAME")
    if not is_key(key):
        raise unknown_key(key, {})
    if override.package is not None:
        raise ConfigError(key, f"'{given}': a group's place cannot be changed", f"give {key}={_text(override)}")
    if override.is_delete():
        raise ConfigError(key, f"'{given}': nothing can be taken out of the configuration", "give it another value")
    if override.is_add() or override.is_force_add():
        raise ConfigError(key, f"'{given}': nothing can be added to the configuration", f"give {given.lstrip('+')}")
    if key in GROUPS and not override.is_sweep_override() and _text(override) not in option_files(key):
        raise ConfigError.unknown(key, _text(override), option_files(key))


def _text(override: Override) -> str:
    """The value without the quotes around it."""
    if override.is_sweep_override():
        return as_typed(override).partition("=")[2]
    value = override.value()
    return value if isinstance(value, str) else override.get_value_element_as_str()


def value_text(value: Any) -> str:
    """A value as it is typed and printed: true, 0.1, 1, null."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    return "null" if value is None else str(value)

"""What a search may vary, and what it holds fixed; every value that it could try is checked before the first trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from spectra_exp.config.compose import check_values, load_experiment
from spectra_exp.config.schema import result_values
from spectra_exp.config.typed import as_typed, parse_overrides, typed_lists
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.identity import digest

EXAMPLE = "give one, such as 'osr.sinkhorn_epsilon=tag(log, interval(0.05, 2))'"
# Keys that tell how to search, and not what a trial is.
SEARCH_GROUPS = ("search", "hydra/sweeper")
SEARCH_PREFIXES = ("search.", "hydra/sweeper/", "hydra.sweeper.")


@dataclass(frozen=True)
class Space:
    """`fixed`: what all trials share; `axes`: what is varied, `key=interval(...)` or `key=a,b`, by key."""

    fixed: list[str]
    axes: dict[str, str]


def is_search_key(key: str) -> bool:
    """Whether an override of that key tells how to search."""
    return key in SEARCH_GROUPS or key.startswith(SEARCH_PREFIXES)


def asks_for_search(typed: list[str]) -> str | None:
    """The first key that makes what was typed a search, or None."""
    chosen = [o for o in parse_overrides(typed) if is_search_key(o.key_or_group)]
    # Keys of the group alone choose nothing.
    asking = [o for o in chosen if not o.key_or_group.startswith("search.") and o.value() != "none"]
    return asking[0].key_or_group if asking else None


def read_space(typed: list[str], params: Mapping[str, str]) -> Space:
    """The space of hydra.sweeper.params and of what was typed, which wins. Raises ConfigError."""
    given = {o.key_or_group: o for o in parse_overrides([f"{key}={value}" for key, value in params.items()])}
    given |= {o.key_or_group: o for o in parse_overrides(typed) if not is_search_key(o.key_or_group)}
    axes, fixed = {}, []
    for key, override in given.items():
        if override.is_sweep_override():
            axes[key] = as_typed(override)
        elif not key.startswith("hydra"):
            fixed.append(as_typed(override))
    if "seed" in axes:
        raise ConfigError("seed", f"'{axes['seed']}' was given, but a trial is one run", "give one seed")
    if not axes:
        raise ConfigError("search", "no key has an interval or several values", EXAMPLE)
    return Space(fixed, axes)


def check_space(space: Space) -> list[str]:
    """The overrides of one point that can run. Raises ConfigError for values out of limits, or when no point can.

    Rules between keys are checked at three points: the defaults, all low ends, all high ends. A rule that refuses other
    points makes those trials failed ones.
    """
    ends = {}
    for override in parse_overrides(list(space.axes.values())):
        key = override.key_or_group
        lines = [f"{key}={value}" for value in _extremes(override)]
        values = [result_values(check_values([*space.fixed, line])) for line in lines]
        if len({digest(value) for value in values}) < 2:
            raise ConfigError(key, f"'{override.input_line}' makes no difference to a run", "leave it out")
        ends[key] = lines
    points = [[], [lines[0] for lines in ends.values()], [lines[-1] for lines in ends.values()]]
    refusals = []
    for point in points:
        try:
            load_experiment([*space.fixed, *point])
            return [*space.fixed, *point]
        except ConfigError as error:
            refusals.append(error)
    raise refusals[0]


def _extremes(override: Override) -> Iterator[str]:
    """The least and the largest value of an interval or range, or every value of a list."""
    key, given, sweep = override.key_or_group, as_typed(override), override.value()
    if isinstance(sweep, ChoiceSweep):
        for line in typed_lists([given])[key]:
            # Also the name of an option is looked up.
            parse_overrides([line])
            yield line.partition("=")[2]
        return
    low: Any
    high: Any
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
    elif isinstance(sweep, RangeSweep) and not sweep.shuffle:
        # The plugin tries `stop` too, which Hydra's own range leaves out.
        low, high = sweep.start, sweep.stop
    else:
        raise ConfigError(key, f"'{given}' cannot be searched", "give an interval, or values separated by commas")
    if not low < high:
        raise ConfigError(key, f"'{given}' holds no value", "give the smaller end first")
    if "log" in sweep.tags and low <= 0:
        raise ConfigError(key, f"'{given}' has no logarithm at {low}", "give an end above 0, or take the tag away")
    yield str(low)
    yield str(high)

"""Configurations as plain values by dotted key, whether composed now or stored with a run, and what tells two apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from spectra_exp.config.compose import check_values, prepare_environment
from spectra_exp.config.presets import baselines
from spectra_exp.config.register import group_schemas, schema_cache
from spectra_exp.config.relative_sizes import before_sizes
from spectra_exp.config.schema import GROUPS, LABELS, Experiment
from spectra_exp.config.source_model import resolve_source
from spectra_exp.config.tree import option_files, roots
from spectra_exp.config.typed import parse_overrides, typed_values, value_text
from spectra_exp.data.documents import digest
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import short_path, write_json
from spectra_exp.foundations.options import default_of
from spectra_exp.routing.temperature import BEST_LONG, LENGTHENING

# What no result depends on, and what tells the runs of one cell apart.
OUTSIDE = (*LABELS, "seed")
# Groups without an option that changes a result.
WITHOUT_RESULT = ("logger", "launch", "search")
# Options that choose those of other groups.
PRESETS = ("baseline", "ablation", "debug", "model")


@dataclass(frozen=True)
class Resolved:
    """`values`: all that can change a result, by dotted key, without the seed; `choices`: the option of each group."""

    values: dict[str, Any]
    choices: dict[str, str]

    @cached_property
    def signature(self) -> str:
        """The same for equal values."""
        return json.dumps(self.values, sort_keys=True, default=str)

    def at(self, key: str) -> Any:
        """The option of a group or the value of a dotted key; None where there is none."""
        return self.choices.get(key) if key in GROUPS else self.values.get(key)

    def differences(self, other: Resolved) -> dict[str, Any]:
        """Own values that the other has otherwise; an option that only one of them knows is none, but by its group.

        Where an option is left out at its default, to have it is to have another value.
        """
        found = {}
        for key, value in self.values.items():
            if key in other.values:
                if value != other.values[key]:
                    found[key] = value
            elif key in _options()[1] or self._chosen(key) != other._chosen(key):
                found[key] = value
        return found

    def distance(self, other: Resolved) -> int:
        """How many options differ."""
        gone = sum(key not in self.values for key in other.differences(self))
        return len(self.differences(other)) + gone

    def _chosen(self, key: str) -> str | None:
        return self.choices.get(key.partition(".")[0])


def resolved_experiment(experiment: Experiment) -> Resolved:
    """What was composed."""
    return _resolved(asdict(experiment), experiment.choices)


def resolved_config(config: Mapping[str, Any]) -> Resolved:
    """What a run's config.yaml says."""
    choices = config.get("choices")
    found = _resolved(config, choices if isinstance(choices, Mapping) else {})
    if found.choices.get("temperature") == BEST_LONG and isinstance(found.values.get("trainer.max_steps"), int):
        # The file holds the longer run that came of it.
        found.values["trainer.max_steps"] //= LENGTHENING
    return found


def _resolved(config: Mapping[str, Any], choices: Mapping[str, Any]) -> Resolved:
    values = {key: _told(key, value) for key, value in _flat(config) if not _left_out(key, value)}
    chosen = {str(group): str(option) for group, option in choices.items()}
    if chosen.get("temperature") == BEST_LONG:
        # Which constant it becomes is a result.
        values = {key: value for key, value in values.items() if not key.startswith("temperature.")}
    preset = baselines().get(chosen.get("baseline", ""))
    if preset is not None and preset.sizes:
        # So that runs of one model are told by what was given for it, whatever each method made of that.
        values = before_sizes(preset.sizes, values)
        values |= {f"baseline.sizes.{name}": rule for name, rule in preset.sizes.items()}
    return Resolved(values, chosen)


def _flat(node: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        if above or name not in OUTSIDE:
            key = f"{above}{name}"
            yield from _flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]


def _told(key: str, value: Any) -> Any:
    # The content of data tells two apart (its fingerprint), wherever it lies.
    return short_path(value) if isinstance(value, str) and key in _options()[2] else value


def _left_out(key: str, value: Any) -> bool:
    return key in _options()[0] or (key in _options()[1] and value == _options()[1][key])


@schema_cache(maxsize=1)
def _options() -> tuple[frozenset[str], dict[str, Any], frozenset[str]]:
    """The keys that no result depends on, the defaults of those that runs from before them do not have, and the keys
    that name files of data."""
    every = {f"{group}.{f.name}": f for group in GROUPS for node in group_schemas(group).values() for f in fields(node)}
    every |= {f.name: f for f in fields(Experiment)}
    without = frozenset(key for key, f in every.items() if f.metadata.get("affects_result") is False)
    files = frozenset(key for key, f in every.items() if key.startswith("data.") and f.metadata.get("path"))
    return without, {key: default_of(f) for key, f in every.items() if f.metadata.get("later")}, files


class Compositions:
    """What lines of overrides compose to, without the rules between keys; each is composed once.

    `file` keeps each for the next process, for as long as the code (`version`) and what it was composed of in conf/
    stay as they are.
    """

    def __init__(self, file: Path | None = None, version: str = ""):
        prepare_environment()
        self._file, self._version, self._new = file, version, False
        self._stored = _read(file, version)

    def __call__(self, line: Iterable[str]) -> Resolved | None:
        """None for a line that cannot be composed."""
        parts = tuple(sorted(line))
        key = " ".join(parts)
        if key not in self._stored:
            self._stored[key] = _composed(parts, roots())
            self._new = True
        return self._stored[key]

    def keep(self, line: Iterable[str], found: Resolved) -> None:
        """Note what a line was composed to elsewhere."""
        self._stored[" ".join(sorted(line))] = found
        self._new = True

    def save(self) -> None:
        """Write what was composed since the file was read, where it can be written."""
        if self._new and self._file is not None:
            content = {
                key: [_files_of(found), *([found.values, found.choices] if found else [])]
                for key, found in self._stored.items()
            }
            with suppress(OSError, SpectraError):
                write_json(self._file, {"version": self._version, "compositions": content})
            self._new = False


@schema_cache(maxsize=4096)
def _composed(line: tuple[str, ...], roots: tuple[Path, ...]) -> Resolved | None:
    """`roots`: where conf/ lies."""
    try:
        experiment = check_values(list(line))
        resolve_source(experiment, typed_values(list(line)))
    except ConfigError:
        return None
    return resolved_experiment(experiment)


def of_the_cell(line: Iterable[str]) -> list[str]:
    """The overrides of a job that belong to its cell: all but its seed, its study and what changes no result.

    Overrides that cannot be read are given back whole: they compose to nothing, and are named.
    """
    line = list(line)
    try:
        parsed = parse_overrides(line)
    except ConfigError:
        return line
    outside = {"seed", "study", "outputs", "force", "refresh", *WITHOUT_RESULT, "hydra"}
    return [str(o.input_line) for o in parsed if o.key_or_group.partition(".")[0].partition("/")[0] not in outside]


def beside(settings: Mapping[str, str], found: Resolved, compositions: Compositions) -> dict[str, str]:
    """What must be set beside `settings` to be this configuration, by key: options of groups where they say most of it,
    then values."""
    now = compositions(line_of(settings))
    if now is None:
        return {}
    line, extra = dict(settings), {}
    for group in (*PRESETS, *(group for group in GROUPS if group not in (*PRESETS, *WITHOUT_RESULT))):
        option = found.choices.get(group)
        if option is None or option == now.choices.get(group):
            continue
        trial = compositions(line_of({**line, group: option}))
        if trial is not None and found.distance(trial) < found.distance(now):
            line[group] = extra[group] = option
            now = trial
    return extra | {key: value_text(value) for key, value in found.differences(now).items()}


def line_of(settings: Mapping[str, str]) -> list[str]:
    """The overrides that set them."""
    return [f"{key}={value}" for key, value in settings.items()]


def _read(file: Path | None, version: str) -> dict[str, Resolved | None]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else {}
        kept = content["compositions"] if content.get("version") == version else {}
        found = {key: (files, Resolved(*parts) if parts else None) for key, (files, *parts) in kept.items()}
        return {key: resolved for key, (files, resolved) in found.items() if files == _files_of(resolved)}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        # Damaged or gone, it is made anew.
        return {}


def _files_of(found: Resolved | None) -> str:
    """A hash of the files of conf/ that a composition was made of; of all of them for a line that does not compose."""
    places = roots()
    options = (
        found.choices.items() if found else [(group, option) for group in GROUPS for option in option_files(group)]
    )
    made_of = [(places, group, option) for group, option in options if group not in WITHOUT_RESULT]
    return digest(
        _content(places[0] / "conf" / "config.yaml"), *(text for key in made_of for text in _option_texts(*key))
    )


@cache
def _option_texts(places: tuple[Path, ...], group: str, option: str) -> tuple[str | bytes, ...]:
    """What stands in an option's file, and in those of its group that it includes; `places`: where conf/ lies."""
    text = _content(option_files(group).get(option))
    entries = (yaml.safe_load(text) or {}).get("defaults", [])
    included = [entry for entry in entries if isinstance(entry, str) and not entry.startswith(("schema", "_self_"))]
    return group, option, text, *(part for name in included for part in _option_texts(places, group, name))


def _content(file: Path | None) -> bytes:
    # A plug-in may register an option without a file.
    return file.read_bytes() if file is not None and file.is_file() else b""

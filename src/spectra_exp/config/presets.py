"""What the files of ablations and baselines say of themselves, read from `conf/`."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from spectra_exp.config.schema import AblationConfig, BaselineConfig
from spectra_exp.config.tree import option_files, read_yaml, roots
from spectra_exp.foundations.errors import ConfigError

FULL = "none"


def ablations() -> dict[str, AblationConfig]:
    """Each ablation by name, the full method among them, in the order in which studies and tables have them.

    Raises ConfigError for a file that cannot be used.
    """
    found = _described("ablation", AblationConfig, roots())
    return dict(sorted(found.items(), key=lambda item: item[1].position))


def baselines() -> dict[str, BaselineConfig]:
    """Each baseline by name, without `none`. Raises ConfigError for a file that cannot be used."""
    found = _described("baseline", BaselineConfig, roots())
    return {name: baseline for name, baseline in found.items() if name != FULL}


def single_ablations() -> list[str]:
    """The ablations that take one part of the method away, or all of them: each names a metric that this worsens."""
    return [name for name, ablation in ablations().items() if ablation.metric]


def ladder() -> list[str]:
    """The ablations that add the parts one by one."""
    return [name for name, ablation in ablations().items() if name != FULL and not ablation.metric]


@lru_cache(maxsize=8)
def _described(group: str, schema: type, roots: tuple[Path, ...]) -> dict[str, Any]:
    """By option, what its file sets of its own group; `roots`: where conf/ lies."""
    known = [f.name for f in fields(schema)]
    found = {}
    for name, path in option_files(group).items():
        content = read_yaml(path)
        own = content.get(group, content)
        if not isinstance(own, dict):
            raise ConfigError(f"{path} {group}", f"{own} was given", "write its keys below it, or leave it out")
        for key in own:
            if key not in [*known, "defaults"]:
                raise ConfigError.unknown(f"{path} {group}", str(key), known)
        found[name] = schema(**{key: value for key, value in own.items() if key != "defaults"})
        # Places are compared before a run composes, and so checks, the file.
        if not isinstance(place := getattr(found[name], "position", 0), int):
            raise ConfigError(f"{path} {group}.position", f"'{place}' is not a whole number")
    return found

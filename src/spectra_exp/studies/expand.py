"""The jobs that a study and what was typed beside it stand for."""

from __future__ import annotations

from functools import cache
from itertools import product

import yaml

from spectra_exp.config.typed import typed_lists
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.definition import Block, Study


def study_jobs(study: Study, typed: list[str]) -> list[list[str]]:
    """One list of overrides a job, seeds innermost.

    A typed key that the study varies picks those of its values; values that it does not have take the place of its
    own. A key that some of its blocks set is replaced in those alone; any other key holds for every job. Raises
    ConfigError when nothing is left.
    """
    given = typed_lists(typed)
    given.setdefault("seed", typed_lists([f"seed={study.seeds}"])["seed"])
    given.setdefault("study", [f"study={study.name}"])
    varied = study.varied()
    picked = {key for key in given if any(_among(value, given[key]) for value in varied.get(key, ()))}
    found = [job for block in study.blocks for job in _block_jobs(study, block, given, set(varied), picked)]
    jobs = [list(job) for job in dict.fromkeys(tuple(job) for job in found)]
    if not jobs:
        fix = _needs(study, picked) or _varied_values(study)
        raise ConfigError(study.choice, "no run is left of what was typed", fix)
    _check_all_used(study, picked, given, jobs)
    return jobs


def file_seeds(study: Study) -> list[int]:
    """The seeds that the study's file gives."""
    return [int(line.partition("=")[2]) for line in typed_lists([f"seed={study.seeds}"])["seed"]]


def _check_all_used(study: Study, picked: set[str], given: dict[str, list[str]], jobs: list[list[str]]) -> None:
    """Raise ConfigError for a typed value that picks no run, where others beside it do."""
    made = {(key, meaning(value)) for job in jobs for key, _, value in (part.partition("=") for part in job)}
    for key in sorted(picked):
        for line in given[key]:
            value = line.partition("=")[2]
            if (key, meaning(value)) not in made:
                fix = _needs(study, {key}) or _varied_values(study)
                raise ConfigError(key, f"'{value}' picks no run of {study.choice}, as others typed do", fix)


def _needs(study: Study, keys: set[str]) -> str:
    """What some of the study's values of these keys are there with alone; empty when with anything."""
    blocks = [block for block in study.blocks if block.only and keys and keys <= set(block.axes())]
    needed = dict.fromkeys(f"{key}={value}" for block in blocks for key, value in block.only.items())
    return f"some of its values are there only with {' or '.join(needed)}" if needed else ""


def _block_jobs(
    study: Study, block: Block, given: dict[str, list[str]], varied: set[str], picked: set[str]
) -> list[list[str]]:
    set_elsewhere = {key for other in study.blocks for key in other.settings}
    axes = block.axes()
    if any(key not in axes for key in picked):
        return []
    jobs = []
    for cell in block.cells():
        if any(key not in cell or not _among(cell[key], given[key]) for key in picked):
            continue
        free = {
            key: values
            for key, values in given.items()
            if key not in picked and (key in cell or key not in varied | set_elsewhere)
        }
        kept = [f"{key}={value}" for key, value in cell.items() if key not in free]
        for chosen in product(*free.values()):
            assigned = dict(zip(free, chosen, strict=True))
            if all(_holds(key, value, cell, assigned) for key, value in block.only.items()):
                jobs.append(_ordered(assigned, kept))
    return jobs


def _ordered(assigned: dict[str, str], kept: list[str]) -> list[str]:
    """The study first and the seed last, so that a reader finds them."""
    middle = [line for key, line in assigned.items() if key not in ("study", "seed")]
    return [assigned["study"], *kept, *middle, assigned["seed"]]


def _holds(key: str, value: str, cell: dict[str, str], assigned: dict[str, str]) -> bool:
    found = assigned[key].partition("=")[2] if key in assigned else cell.get(key)
    return found is not None and meaning(found) == meaning(value)


def _among(value: str, lines: list[str]) -> bool:
    return any(meaning(line.partition("=")[2]) == meaning(value) for line in lines)


@cache
def meaning(text: str) -> object:
    """What a typed value means: 0.10 is 0.1."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, (dict, list)):
        return text
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _varied_values(study: Study) -> str:
    return "it varies " + "; ".join(f"{key}={','.join(own)}" for key, own in study.varied().items())

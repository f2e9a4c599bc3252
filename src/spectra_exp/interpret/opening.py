"""From what was typed for run= or against= to an opened subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from spectra_exp.foundations.errors import ConfigError, nearest
from spectra_exp.interpret.subject import Subject


def open_subject(
    key: str, given: str, outputs: Path, *, tokens: int | None, texts: str | None, seed: int, device: torch.device
) -> Subject:
    """The run (by folder or id under `outputs`) or stock model at `given`; `key`: run or against, for messages.

    Raises SpectraError, one line, for what is neither.
    """
    path = locate(key, given, outputs)
    if (path / "config.yaml").is_file():
        from spectra_exp.interpret.open_run import open_run

        found = open_run(path, tokens, seed, device)
    elif (path / "config.json").is_file():
        from spectra_exp.interpret.open_stock import open_stock

        found = open_stock(key, path, tokens, texts, seed, device)
    else:
        problem = f"{path} holds neither a run (config.yaml) nor a model (config.json)"
        raise ConfigError(key, problem, "name the folder of one of the two")
    known = (outputs / "runs" / path.name).resolve() == path
    return replace(found, typed=path.name if known else str(path))


def locate(key: str, given: str, outputs: Path) -> Path:
    """The folder that `given` names: a path, or a run's id under `outputs`. ConfigError with the nearest id."""
    for path in (Path(given).expanduser(), outputs / "runs" / given):
        if path.is_dir():
            return path.resolve()
    runs = outputs / "runs"
    known = sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []
    close = nearest(Path(given).name, known)
    fix = f"did you mean '{close}'?" if close else f"there are {len(known)} runs in {runs}"
    raise ConfigError(key, f"there is no folder or run '{given}'", fix)

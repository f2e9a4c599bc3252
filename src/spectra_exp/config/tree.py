"""Where `conf/` lies and which options its groups have."""

from __future__ import annotations

import os
from pathlib import Path

# The folders that hold studies; each is also the word that chooses one on the command line.
KINDS = ("sweeps", "ablations")


def project_root() -> Path:
    """The checkout that holds `conf/`; train.py names it in SPECTRA_ROOT."""
    return Path(os.environ.get("SPECTRA_ROOT", Path(__file__).resolve().parents[3]))


def option_files(group: str) -> dict[str, Path]:
    """The file of each option of a group, in the order of their names."""
    return {path.stem: path for path in sorted((project_root() / "conf" / group).glob("*.yaml"))}

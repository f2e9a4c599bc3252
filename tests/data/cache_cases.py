"""A look at cached data that reads every byte."""

from __future__ import annotations

import json
from pathlib import Path

from spectra_exp.data.cache import _MANIFEST, _sha256


def damaged_files(folder: Path) -> list[str]:
    """The names of the entry's files whose content no longer has the manifest's sha256."""
    files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
    return [name for name, record in files.items() if _sha256(folder / name) != record["sha256"]]

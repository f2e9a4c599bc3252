"""What the stages found on one card, as one JSON file and one Markdown page, made of the stages' own files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectra_exp.bench.gpu_check.stage import WORDS, Finding
from spectra_exp.foundations.files import write_json, write_text

NOT_A_COLUMN = ("name", "passed")


def write_page(folder: Path, order: Mapping[str, object]) -> Path:
    """Write `folder`.json and `folder`.md from the stages' files in it, in the order of `order`; the page's path."""
    files = [folder / f"{name}.json" for name in order]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists()]
    write_json(folder.with_suffix(".json"), {"card": folder.name, "stages": found})
    path = folder.with_suffix(".md")
    write_text(path, page(folder.name, found, order))
    return path


def page(card: str, found: list[dict[str, Any]], order: Mapping[str, object]) -> str:
    """The Markdown of the stages: what each looks at, and a table of what it found."""
    lines = [f"# {card}", ""]
    for stage in found:
        passed = all(finding["passed"] for finding in stage["findings"])
        state = WORDS[passed] if stage["done"] else "broken off"
        lines += [f"## {stage['stage']}: {state}", ""]
        lines += [" ".join((order[stage["stage"]].__doc__ or "").split()), ""]
        lines += [f"torch {stage['torch']}, CUDA {stage['cuda']}, {stage['seconds']:.0f} s.", ""]
        lines += [*table(stage["findings"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(findings: list[Finding]) -> list[str]:
    """A row a finding; columns are the figures that any of them has."""
    columns = list(dict.fromkeys(name for finding in findings for name in finding if name not in NOT_A_COLUMN))
    rows = [["", *columns, ""], ["---"] * (len(columns) + 2)]
    rows += [[f["name"], *(_cell(f.get(name)) for name in columns), WORDS[f["passed"]]] for f in findings]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")

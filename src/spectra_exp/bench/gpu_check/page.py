"""What the stages found on one card, as one JSON file and one Markdown page, made of the stages' own files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spectra_exp.bench.gpu_check.stage import WORDS, Finding, outcome
from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import write_json, write_text

# Of a stage's file, what the page takes.
PARTS = {"stage", "torch", "cuda", "seconds", "done", "findings"}
NOT_A_COLUMN = ("name", "passed")


def write_page(folder: Path, order: Mapping[str, object]) -> Path:
    """Write `folder`.json and `folder`.md from the stages' files in it, in the order of `order`; the page's path."""
    found = stored_stages(folder, order)
    write_json(folder.with_suffix(".json"), {"card": folder.name, "stages": found})
    path = folder.with_suffix(".md")
    write_text(path, page(folder.name, found, order))
    return path


def stored_stages(folder: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """What the stages of these names have written. Raises SpectraError for a file that no stage wrote."""
    found = []
    for path in (folder / f"{name}.json" for name in names):
        if not path.exists():
            continue
        try:
            stage = json.loads(path.read_text(encoding="utf-8"))
            if lacking := PARTS - (stage.keys() if isinstance(stage, dict) else set()):
                raise ValueError(f"no {', '.join(sorted(lacking))}")
        except (OSError, ValueError) as error:
            fix = f"delete it, or check again: only={path.stem}"
            raise SpectraError(f"{path}: is not what a stage writes ({first_line(error)}); {fix}") from error
        found.append(stage)
    return found


def page(card: str, found: list[dict[str, Any]], order: Mapping[str, object]) -> str:
    """The Markdown of the stages: what each looks at, and a table of what it found."""
    lines = [f"# {card}", ""]
    for stage in found:
        state = WORDS[outcome(stage["findings"])] if stage["done"] else "broken off"
        lines += [f"## {stage['stage']}: {state}", ""]
        lines += [" ".join((order[stage["stage"]].__doc__ or "").split()), ""]
        lines += [f"torch {stage['torch']}, CUDA {stage['cuda']}, {stage['seconds']:.0f} s.", ""]
        lines += [*table(stage["findings"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(findings: list[Finding]) -> list[str]:
    """A row a finding; columns are the figures that any of them has."""
    columns = list(dict.fromkeys(name for finding in findings for name in finding if name not in NOT_A_COLUMN))
    rows = [["", *columns, ""], ["---"] * (len(columns) + 2)]
    rows += [[f["name"], *(_cell(f.get(name)) for name in columns), _word(f)] for f in findings]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _word(finding: Finding) -> str:
    return "target missed" if finding["passed"] and finding.get("met") is False else WORDS[finding["passed"]]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")

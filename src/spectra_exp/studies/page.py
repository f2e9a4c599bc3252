"""docs/studies.md: every study as its file declares it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spectra_exp.config.typed import value_text
from spectra_exp.studies.definition import CHARTS, Study, load_study, study_files

HEAD = """# Studies

Made from the files in `sweeps/`, `ablations/` and `replications/` by `make studies-page`; a test holds it current. A
study is one file: its question and hypothesis, what it varies, the row that others are tested against, its comparisons
of table 13 (`contrasts`), the effects of others that it looks for (`published`), tables and pictures. To add one, write
the file; `make study STUDY=name`, its table, its figure and its part of the report follow.

| study | asks | runs a seed | launch |
|---|---|---|---|
"""


def studies_page() -> str:
    """The page as Markdown: a line for each study, then its declaration."""
    studies = [load_study(name) for name in study_files()]
    lines = [f"| [`{s.name}`](#{s.name}) | {s.question} | {_runs(s)} | `{s.command}` |" for s in studies]
    return HEAD + "\n".join(lines) + "\n" + "".join(map(_part, studies))


def _part(study: Study) -> str:
    points = {
        "Hypothesis": study.hypothesis,
        "File": f"`{study.kind}/{study.name}.yaml`",
        "Set": ", ".join(dict.fromkeys(f"`{key}={value}`" for b in study.blocks for key, value in b.settings.items())),
        "Varied": ", ".join(f"`{key}={','.join(own)}`" for key, own in study.varied().items()),
        "Reference": ", ".join(f"`{key}={value_text(value)}`" for key, value in study.reference.items()),
        "Tables": ", ".join(f"`{node.get('name', study.name)}`" for node in study.tables or ({},)),
        "Published": "; ".join(f"{node['source']}: {node['figure']}" for node in study.published),
        "Figures": ", ".join(f"`{name}`" for name in _figures(study)),
    }
    body = "\n".join(f"- {name}: {text}" for name, text in points.items() if text)
    return f"\n## {study.name}\n\n{study.title}. {study.question}\n\n{body}\n"


def _runs(study: Study) -> str:
    return ", ".join(str(n) if key == "any" else f"{n} ({key})" for key, n in study.runs.items())


def _figures(study: Study) -> list[str]:
    names: Iterable[Mapping[str, Any]] = (node for node in study.pictures if node.get("kind") not in CHARTS)
    return [name for node in names if (name := node.get("figure", study.name)) is not None]

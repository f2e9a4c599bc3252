"""The list of metrics in docs/metrics.md, made of the registry: `python tests/measure/metrics_page.py` writes it."""

from __future__ import annotations

import re

from spectra_exp.config.tree import project_root
from spectra_exp.measure import METRICS, describe_metrics

PAGE = project_root() / "docs" / "metrics.md"
HEAD = "| name | definition | range | better | chance floor |\n|---|---|---|---|---|\n"
FLOORS = {
    None: "–",
    "uniform": "uniform",
    "marginals": "own loads",
    "documents": "permuted documents",
    "orders": "permuted documents of the two",
}
BETTER = {"lower": "lower", "higher": "higher", "none": "–"}


def listed(text: str) -> str:
    """The list as it stands in the page's text, its header included; empty without one."""
    found = re.search(re.escape(HEAD) + r"(?:\|.*\n)*", text)
    return found[0] if found else ""


def made() -> str:
    """The list as it should stand there."""
    return HEAD + "".join(_row(metric) for metric in describe_metrics())


def _row(metric: dict[str, str]) -> str:
    null = METRICS[metric["name"]].floor
    nats = " nats" if metric["unit"] == "nats" else ""
    cells = (
        f"`{metric['name']}`",
        metric["meaning"],
        metric["range"] + nats,
        BETTER[metric["direction"]],
        FLOORS.get(null, f"`{null}`"),
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text.replace(listed(text), made()))

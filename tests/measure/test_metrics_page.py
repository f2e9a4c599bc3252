"""docs/metrics.md lists the registered metrics, each with what the registry says of it, and nothing else."""

from __future__ import annotations

import re

import pytest

from spectra_exp.config.tree import project_root
from spectra_exp.measure import METRICS, describe_metrics

PAGE = project_root() / "docs" / "metrics.md"
FLOORS = {None: "–", "uniform": "uniform", "marginals": "own loads", "documents": "permuted documents"}
BETTER = {"lower": "lower", "higher": "higher", "none": "–"}


def listed(text: str) -> list[list[str]]:
    """The cells of the table's rows, without the header."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| `", line)]
    return [[cell.strip() for cell in row] for row in rows]


def check(text: str) -> None:
    rows = listed(text)
    described = describe_metrics()
    assert [row[0] for row in rows] == [f"`{m['name']}`" for m in described]
    for (name, definition, limits, better, floor), metric in zip(rows, described, strict=True):
        assert definition == metric["meaning"], name
        assert better == BETTER[metric["direction"]], name
        null = METRICS[metric["name"]].floor
        assert floor == FLOORS.get(null, f"`{null}`"), name
        nats = " nats" if metric["unit"] == "nats" else ""
        assert limits == metric["range"] + nats, name


def test_the_page_lists_every_registered_metric_and_nothing_else():
    check(PAGE.read_text())


@pytest.mark.parametrize(
    "pattern, planted",
    [
        (r"\| `load_gini`.*\n", ""),
        (r"(\| `)load_gini(`)", r"\1load_ginni\2"),
        (r"(\| `load_gini`.*\n)", r"\1\1"),
        (r"(`load_gini`.*\|) lower \|", r"\1 higher |"),
        (r"(`load_gini`.*\|) uniform \|", r"\1 own loads |"),
        (r"Gini coefficient of the experts' load", "Gini coefficient"),
        (r"(`load_gini`.*\| 0 to) 1 − 1/E", r"\1 1"),
    ],
)
def test_a_planted_row_that_is_missing_or_wrong_is_seen(pattern, planted):
    text, changes = re.subn(pattern, planted, PAGE.read_text())
    assert changes == 1
    with pytest.raises(AssertionError):
        check(text)

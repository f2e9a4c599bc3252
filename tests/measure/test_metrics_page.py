"""docs/metrics.md lists the registered metrics, each with what the registry says of it, and nothing else."""

from __future__ import annotations

import re

import pytest
from metrics_page import PAGE, listed, made


def check(text: str) -> None:
    assert listed(text) == made(), "run python tests/measure/metrics_page.py"


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

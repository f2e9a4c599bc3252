"""What a picture takes of a row is read from its configuration, and never from its name."""

from __future__ import annotations

import pytest

from spectra_exp.config.resolved import Compositions
from spectra_exp.reporting.figures.temperatures import by_temperature, constant
from spectra_exp.reporting.grid import Row
from spectra_exp.reporting.report.sweeps import _on_one_scale


def row(*line: str) -> Row:
    """A row whose name says nothing of its values."""
    return Row({"temperature": "mine"}, "mine", Compositions()(["router=temperature", *line]))


def test_a_constant_temperature_is_the_configured_one() -> None:
    assert constant(row("temperature.value=1.3")) == 1.3 and by_temperature(row("temperature.value=1.3")) == "T = 1.3"
    assert constant(row("temperature=cosine")) is None and constant(row("temperature=best_long")) is None


@pytest.mark.parametrize(
    "a, b, joined",
    [
        ("temperature=t0_5", "temperature=t10_0", True),
        ("temperature=t10_0", "temperature=cosine", False),
        ("temperature=cosine", "temperature=exponential", False),
        ("selection.capacity_factor=1", "selection.capacity_factor=1.5", True),
        ("selection=topk", "selection=quota", False),
    ],
)
def test_steps_are_joined_where_they_differ_in_numbers_alone(a: str, b: str, joined: bool) -> None:
    assert _on_one_scale(row(a), row(b)) is joined

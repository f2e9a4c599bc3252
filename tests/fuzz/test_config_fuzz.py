"""The fuzzer of command lines in its small form, and that it sees what it is for."""

from __future__ import annotations

import time

import pytest
from config_fuzz import apart, fuzz, planned_only, tiny, try_line

from spectra_exp.config import compose
from spectra_exp.foundations.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path):
    with apart(tmp_path):
        yield tmp_path


def test_every_command_line_is_accepted_or_refused_in_one_plain_line():
    outcomes = fuzz(100, seed=20)
    assert not [(o.words, o.finding, o.said) for o in outcomes if o.finding]
    # Neither all nonsense nor all plain.
    assert 20 < sum(o.accepted for o in outcomes) < 80


def internal(*_):
    raise KeyError("baselines")


def of_the_parser(*_):
    raise ConfigError("study", "LexerNoViableAltException: ${")


class Long(ConfigError):
    def __str__(self) -> str:
        return "study: " + "far too long " * 200


def too_long(*_):
    raise Long("study", "x")


@pytest.mark.parametrize(
    "fault, finding",
    [(internal, "KeyError"), (of_the_parser, "words of the parser"), (too_long, "more than 1,000 characters")],
)
def test_a_planted_fault_is_found(fault, finding, monkeypatch):
    monkeypatch.setattr(compose, "check_fields", fault)
    planned = []
    with planned_only(planned):
        outcome = try_line(["seed=1"], planned)
    assert finding in outcome.finding and not planned


def test_a_hang_is_found(monkeypatch):
    monkeypatch.setattr("config_fuzz.PATIENCE_S", 0.2)
    monkeypatch.setattr(compose, "check_fields", lambda *_: time.sleep(5))
    with planned_only([]):
        assert "hangs" in try_line(["seed=1"], []).finding


def test_sizes_are_replaced_and_the_rest_kept():
    words = tiny(["model.hidden_size=4096", "router=switch", "optim.beta1=0.5"])
    assert {"model.hidden_size=16", "router=switch", "optim.beta1=0.5", "trainer.max_steps=3"} <= set(words)
    assert "model.hidden_size=4096" not in words

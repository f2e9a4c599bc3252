"""The fuzzers of run folders and of kills in a small form, and that they find what is planted. In full: `make fuzz`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import folder_fuzz
import kill_fuzz
import pytest
from forks import CRASHED

# Drawing and interpretation take their time; the full form has them.
QUICK = ("tables", "status", "share")


@pytest.fixture(scope="module")
def world() -> Iterator[folder_fuzz.World]:
    with folder_fuzz.made_world(QUICK) as made:
        yield made


@pytest.mark.slow
def test_damaged_folders_are_named_and_the_rest_is_tabulated(world) -> None:
    assert folder_fuzz.fuzz(world, Random(15), 10, print) == []


def test_planted_faults_of_readers_are_found(world) -> None:
    world.restore()
    usual = folder_fuzz.ask(world)
    assert list(folder_fuzz.faults(world, False, usual)) == []
    assert list(folder_fuzz.faults(world, True, usual)) == ["the damaged run is not named"]
    for told, words in (
        ((CRASHED, "KeyError: 'baselines'"), "status 70: KeyError"),
        ((None, ""), "did not end"),
        ((1, ""), "without a word"),
        ((1, f"left out {world.other.name}: odd"), "another run is named"),
    ):
        found = list(folder_fuzz.faults(world, False, usual | {"share": told}))
        assert len(found) == 1 and words in found[0]
    table = world.outputs / "tables/routing_metrics.csv"
    table.write_text(table.read_text(encoding="utf-8") + "-5.25\n", encoding="utf-8")
    assert list(folder_fuzz.faults(world, False, usual)) == ["tables: numbers that no run has: -5.25"]
    table.write_text("", encoding="utf-8")
    for other in table.parent.glob("*.csv"):
        other.unlink()
    assert "numbers of other runs are gone" in next(folder_fuzz.faults(world, False, usual))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_numbers_and_a_planted_change_is_found(tmp_path: Path) -> None:
    made = kill_fuzz.make_world(tmp_path)
    assert kill_fuzz.fuzz(made, Random(3), 2, print)[1] == []
    # Another seed is another run, in all of it.
    words = " ".join(kill_fuzz.differences(made.whole, made.other))
    assert all(part in words for part in ("summary.metrics", "the history", "routing/step-", "the weights"))

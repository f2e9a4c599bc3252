"""Hypotheses of rows whose seeds were added until decided: their tests allow for the looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis_worlds import LUCK, Run, is_spectra, retold, study_of, verdicts_on
from made_studies import given
from test_hypotheses_ablations import contributing

from spectra_exp.reporting.grid import SEVERAL_DESIGNS
from spectra_exp.reporting.hypotheses import hypotheses_table
from spectra_exp.reporting.hypotheses.samples import Lack, Sample
from spectra_exp.reporting.material import Material
from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.looks import look
from spectra_exp.studies.decide import Design

DESIGN = Design("val_loss", 0.02, 10, 0)
NEEDED = {"none", "switch_top2"}
# p 0.02 of five pairs, where the look at five allows 0.013.
NOISE = {seed: 0.755 * z for seed, z in enumerate([-1, -0.5, 0, 0.5, 1])}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """SPECTRA and Switch top-2, five seeds."""
    kept = {"figures": lambda job: {} if given(job).get("baseline", "none") in NEEDED else None}
    with study_of(tmp_path_factory.mktemp("added"), "baselines", "seed=0..4", "osr=causal", **kept) as material:
        yield material


@contextmanager
def launched_by(world: Material, *designs: Design) -> Iterator[None]:
    """As if the world's launch had had these designs."""
    (path,) = (world.outputs / "studies").iterdir()
    kept = path.read_text()
    made = {path.with_name(f"{number}.json"): design for number, design in enumerate(designs)}
    path.unlink()
    try:
        for other, design in made.items():
            other.write_text(json.dumps(json.loads(kept) | {"design": asdict(design)}))
        yield
    finally:
        for other in made:
            other.unlink()
        path.write_text(kept)


def lower(run: Run) -> dict[str, float]:
    shift = 0.01 * (1 + NOISE[run["seed"]]) if is_spectra(run) else 0.0
    luck = 4.0 + LUCK[run["seed"]]
    return {"expert_overlap": luck - shift, "output_gram_orthogonality": luck + shift}


def test_the_sequential_test_decides(world: Material) -> None:
    pairs = [-0.01 * (1 + noise) for noise in NOISE.values()]
    assert compare(dict(enumerate(pairs)), dict.fromkeys(range(5), 0.0)).p < 0.025
    assert verdicts_on("H2", retold(world, lower))["causal"].verdict == "supported"
    with launched_by(world, DESIGN):
        (told,) = verdicts_on("H2", retold(world, lower)).values()
    assert told.verdict == "inconclusive" and f"p {look(pairs, 10).p:.4f}" in told.figures
    assert "n 5 (looks 3, 5 of 10)" in told.figures and "detectable" not in told.figures
    notes = hypotheses_table([told]).parts[0].notes
    assert any("all looks together" in note for note in notes) and len(notes) == 3


def test_rows_of_two_designs_are_not_tested(world: Material) -> None:
    with launched_by(world, DESIGN, Design("val_loss", 0.02, 20, 0)):
        (told,) = verdicts_on("H2", retold(world, lower)).values()
    assert (told.verdict, told.reason) == ("not tested", SEVERAL_DESIGNS)


def test_trends_are_of_the_seeds_that_were_made_whatever_came_out(tmp_path: Path) -> None:
    with study_of(tmp_path, "core", "seed=0..4", "osr=causal") as world:
        (plain,) = verdicts_on("H5", retold(world, contributing())).values()
        assert "Page's L" in plain.figures and ", n 5, p" in plain.figures.split("Page's L")[1]
        with launched_by(world, DESIGN):
            (told,) = verdicts_on("H5", retold(world, contributing())).values()
    assert ", n 3, p" in told.figures.split("Page's L")[1] and "n 5 (looks 3, 5 of 10)" in told.figures


def test_too_few_seeds_of_the_first_look_are_a_lack() -> None:
    values = {("a", "val_loss"): dict.fromkeys(range(2, 7), 1.0)}
    assert Sample(values, ()).at_first_look.values == values
    assert list(Sample(values, (), Design("val_loss", 0.02, 10, 3)).at_first_look.values["a", "val_loss"]) == [3, 4, 5]
    with pytest.raises(Lack, match="at the first look"):
        _ = Sample(values, (), DESIGN).at_first_look

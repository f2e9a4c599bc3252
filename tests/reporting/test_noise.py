"""How far two arms of one configuration differ: measured by A/A pairs, said beside each table's smallest claim."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from made_studies import given, make_study

from spectra_exp.reporting.declared import all_contrasts, study_tables
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.noise import noise_of, not_measured
from spectra_exp.reporting.tables.build import build_table

OWN = [3.00, 3.10, 3.05, 3.20, 3.15, 3.02]
ROUNDED = [0.001, -0.002, 0.0, 0.001, 0.002, -0.001]


def noisy(job):
    threads, seed = int(given(job)["trainer.cpu_threads"]), job.experiment.seed
    return {"metrics": {"val_loss": OWN[seed] + (ROUNDED[seed] if threads == 2 else 0.0)}}


def claimed(job):
    """Hash is better by 0.1, random by 0.3, at every seed but for a little."""
    shift = {"hash": -0.1, "random": -0.3}.get(given(job)["baseline"], 0.0)
    return {"metrics": {"val_loss": 4.0 + 0.1 * job.experiment.seed + shift * (1 + 0.01 * job.experiment.seed)}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("aa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        make_study(outputs, "aa", noisy, ("seed=0..5",))
        make_study(outputs, "baselines", claimed, ("seed=0..4", "baseline=switch_top2,hash,random"))
    return outputs


def notes(material: Material) -> list[str]:
    """Of the table of the baselines."""
    study = material.studies["baselines"]
    sections, _ = material.sections_of(study)
    spec = next(spec for spec in study_tables(study) if spec.tested)
    return [note for part in build_table(spec, sections).parts for note in part.notes]


def group(material: Material) -> tuple[str, ...]:
    run = next(iter(material.collected.by_run.values()))
    return tuple(str(run[key]) for key in ("data_fingerprint", "evaluation_fingerprint", "max_steps"))


def test_the_spread_is_that_of_the_seeds_and_of_the_rounding(world: Path) -> None:
    material = gather(world)
    found = noise_of(material.collected, group(material), "val_loss")
    assert found.seeds.sd == pytest.approx(np.std(OWN, ddof=1)) and found.seeds.df == 5
    assert found.rounding.sd == pytest.approx(np.std(ROUNDED, ddof=1))
    assert found.unpaired(5) == pytest.approx(np.std(OWN, ddof=1) * np.sqrt(2 / 5))
    assert noise_of(material.collected, ("other", *group(material)[1:]), "val_loss") is None
    assert noise_of(material.collected, group(material), "no_metric") is None


def test_it_stands_beside_the_smallest_claim_of_the_table(world: Path) -> None:
    (note,) = [note for note in notes(gather(world)) if note.startswith("Smallest claim")]
    numbers = [float(text) for text in re.findall(r"\d\.\d+", note)]
    own, rounded = np.std(OWN, ddof=1) * np.sqrt(2 / 5), np.std(ROUNDED, ddof=1) / np.sqrt(5)
    assert "(Hash)" in note and numbers == pytest.approx([0.102, own, rounded], rel=1e-3)
    # Also in a table of one study alone, whose runs are not those of the pairs.
    assert note in notes(gather(world, "baselines"))


def test_what_was_not_measured_says_how(world: Path) -> None:
    material = gather(world)
    runs = material.collected.runs
    runs["studies"] = [() if "aa" in names else names for names in runs["studies"]]
    assert not_measured() in notes(material) and "make aa," in not_measured()


def test_pairs_are_no_claims_of_their_own(world: Path) -> None:
    material = gather(world)
    sections, _ = material.sections_of(material.studies["aa"])
    assert all_contrasts([material.studies["aa"]]) == []
    (spec,) = study_tables(material.studies["aa"])
    table = build_table(spec, sections)
    assert [row["val_loss_verdict"] for row in table.frame.to_dict("records")][1:] == ["equivalent (higher)"]

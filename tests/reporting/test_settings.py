"""A table that spans several settings: its methods ranked over all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_studies import given, make_study

from spectra_exp.reporting.declared import study_tables
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.tables.build import build_table
from spectra_exp.reporting.tables.pairs import build_pairs
from spectra_exp.reporting.tables.settings import settings_part
from spectra_exp.reporting.tables.spec import Table
from spectra_exp.studies.decide import Design

BETTER = {"switch_top2": 0.0, "hash": -0.2, "random": 0.3}


def table(outputs: Path, name: str, build) -> Table:
    material = gather(outputs)
    study = material.studies[name]
    sections: list[Section] = material.sections_of(study)[0]
    return build(next(spec for spec in study_tables(study) if spec.tested), sections)


def losses(job):
    """Hash is the better one at every seed of both lengths, but for the first of the longer one."""
    words = given(job)
    shift = BETTER[words["baseline"]]
    if words.get("trainer.max_steps") == "20" and job.experiment.seed == 0:
        shift = -shift
    scale = 10.0 if "trainer.max_steps" in words else 1.0
    return {"metrics": {"val_loss": scale * (4.0 + 0.001 * job.experiment.seed + 0.1 * shift)}, "causal": shift != 0.3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        cells = ("seed=0..3", "baseline=switch_top2,hash,random")
        make_study(outputs, "baselines", losses, cells)
        make_study(outputs, "baselines", losses, (*cells, "trainer.max_steps=20"))
        sizes = ("seed=0..2", "model.num_experts=4,8", "osr=causal")
        make_study(outputs, "scaling_experts", lambda job: {}, sizes)
    return outputs


def test_with_looks_it_is_of_the_seeds_of_the_first_one(world: Path) -> None:
    material = gather(world)
    sections = material.sections_of(material.studies["baselines"])[0]
    methods = [
        (section, {row.label: row for row in section.rows if row.runs}) for section in sections if not section.choosing
    ]
    plain = {str(i): one for i, one in enumerate(methods) if one[1]}
    rows = next(iter(plain.values()))[1]
    loss = settings_part(plain, ("load_cv",), "Switch top-2")
    for row in rows.values():
        row.designs.add(Design("val_loss", 0.02, 10, 1))
    assert len(loss) == 1 and len(settings_part(plain, ("load_cv",), "Switch top-2")) == 1
    # Of the first look there are two seeds of three.
    for row in rows.values():
        row.designs = {Design("val_loss", 0.02, 10, 2)}
    assert settings_part(plain, ("load_cv",), "Switch top-2") == []


def test_a_study_under_several_settings_ranks_its_methods_over_them(world: Path) -> None:
    part = table(world, "baselines", build_table).parts[-1]
    assert part.title == "Over all settings" and "trainer.max_steps=20" in part.notes[0]
    loss, cv = part.grids[:2]
    # Of eight ranks of each the middle half; seven of eight seeds are won, 16 of 16 and 12 of 16 pairs.
    assert [row[0] for row in loss.rows] == ["Hash", "Switch top-2"] and loss.headers[
        2
    ] == "P(better than Switch top-2)"
    assert loss.rows[0][1].startswith("1.000 [") and loss.rows[0][2].startswith("0.8750 [") and loss.rows[1][2] == ""
    # A loss says nothing of a model that is not causal; its balance does.
    assert {row[0] for row in cv.rows} == {"Hash", "Switch top-2", "Random"} and cv.title == "load_cv: 2 settings"


def test_sizes_are_settings(world: Path) -> None:
    found = [part for part in table(world, "scaling_experts", build_pairs).parts if part.title == "Over all settings"]
    assert found and found[0].grids[0].headers[0] == "method" and len(found[0].grids[0].rows) == 2


def test_one_setting_is_none(world: Path) -> None:
    material = gather(world)
    study = material.studies["baselines"]
    sections = material.sections_of(study)[0]
    spec = next(spec for spec in study_tables(study) if spec.tested)
    assert "Over all settings" not in [part.title for part in build_table(spec, sections[:1]).parts]

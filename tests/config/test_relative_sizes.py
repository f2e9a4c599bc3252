"""Presets whose sizes follow from the model's own: at any size of model, as the runs of before, and told by what was
given."""

from __future__ import annotations

import pytest
from config_cases import load

from spectra_exp.config.presets import baselines
from spectra_exp.config.relative_sizes import apply_sizes, before_sizes
from spectra_exp.config.resolved import Compositions, beside, resolved_experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.identity import identify

SIZES = ("num_experts", "expert_size", "top_k", "null_experts", "num_shared")
# Of the tiny model, of one with other sizes, of the reference.
MADE = {
    "fine_grained": [(32, 64, 8, 0, 0), (64, 32, 12, 0, 0)],
    "shared_expert": [(7, 256, 1, 0, 1), (15, 128, 2, 0, 1)],
    "null_experts": [(12, 256, 3, 4, 0), (24, 128, 6, 8, 0)],
}
OTHER = {"fine_grained": 3, "shared_expert": 3, "null_experts": 4}
# The ids of the runs of before, when the sizes stood in the files for E = 8 alone.
IDS = {"fine_grained": "e30a2b71", "shared_expert": "0de5749b", "null_experts": "5d3006ae"}


def line(preset: str) -> str:
    return f"baseline={preset} model.num_experts=16 model.expert_size=128 model.top_k={OTHER[preset]}"


@pytest.mark.parametrize("preset", MADE)
def test_sizes_follow_from_the_model(preset: str) -> None:
    plain, other = load(f"baseline={preset}"), load(line(preset))
    assert [tuple(getattr(x.model, key) for key in SIZES) for x in (plain, other)] == MADE[preset]
    assert identify(plain, "f" * 16, "cpu").run_id.endswith(IDS[preset])


@pytest.mark.parametrize("preset", MADE)
def test_runs_are_told_by_what_was_given(preset: str) -> None:
    """So a study's rows of one size of model stand in one section, whatever each method makes of the size."""
    compositions, found = Compositions(), resolved_experiment(load(line(preset)))
    given = {"model.num_experts": "16", "model.expert_size": "128", "model.top_k": str(OTHER[preset])}
    assert beside({"baseline": preset}, found, compositions) == given
    switch = resolved_experiment(
        load(line(preset).replace(preset, "switch_top2").replace(f"model.top_k={OTHER[preset]}", ""))
    )
    assert found.at("model.num_experts") == switch.at("model.num_experts") == 16
    # Under another preset nothing is turned back.
    assert resolved_experiment(load("router=switch model.num_experts=32")).at("model.num_experts") == 32


def test_what_is_no_size_of_the_preset_stays_as_it_is() -> None:
    sizes = baselines()["fine_grained"].sizes
    odd = {"model.num_experts": 30, "model.top_k": 8, "model.hidden_size": 7}
    assert before_sizes(sizes, odd) == {"model.num_experts": 30, "model.top_k": 2, "model.hidden_size": 7}
    assert before_sizes({}, odd) == odd


@pytest.mark.parametrize("rule, told", [("4 *", "cannot be computed"), ("E / 0", "computed"), ("2 * k", "take E and")])
def test_a_rule_that_gives_no_size_is_one_line(rule: str, told: str) -> None:
    experiment = load("baseline=fine_grained")
    experiment.baseline.sizes = {"num_experts": rule}
    with pytest.raises(ConfigError, match=told):
        apply_sizes(experiment)


def test_a_size_that_is_always_the_same_tells_nothing_of_what_was_given() -> None:
    assert before_sizes({"top_k": "4"}, {"model.top_k": 4, "seed": 1}) == {"seed": 1}

"""What typed values do to a study: pick some of its own, replace a shared one, or hold for every run."""

from __future__ import annotations

import pytest

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.definition import Block, Study
from spectra_exp.studies.expand import study_jobs

STUDY = Study(
    "mine",
    "sweeps",
    "why?",
    "so.",
    {"any": 6},
    "make mine",
    "0..1",
    (
        Block(settings={"osr": "paper"}, grid={"selection": ("topk",)}),
        Block(settings={"osr": "paper"}, grid={"selection": ("quota",), "selection.capacity_factor": ("1", "1.5")}),
        Block(settings={"osr": "paper"}, only={"osr": "causal"}, grid={"osr.sinkhorn_epsilon": ("0.5", "1")}),
        Block(points=({"baseline": "hash"}, {"baseline": "random", "model.top_k": "1"})),
    ),
)


def jobs(*typed: str) -> list[str]:
    return [" ".join(job) for job in study_jobs(STUDY, list(typed))]


def test_as_it_stands():
    assert jobs("seed=0") == [
        "study=mine osr=paper selection=topk seed=0",
        "study=mine osr=paper selection=quota selection.capacity_factor=1 seed=0",
        "study=mine osr=paper selection=quota selection.capacity_factor=1.5 seed=0",
        "study=mine baseline=hash seed=0",
        "study=mine baseline=random model.top_k=1 seed=0",
    ]
    assert len(jobs()) == 10


@pytest.mark.parametrize("typed, seeds", [("seed=0..2", "012"), ("seed=3,1", "31"), ("seed=range(2,4)", "23")])
def test_seeds_are_innermost(typed, seeds):
    assert [job[-1] for job in jobs(typed)[: len(seeds)]] == list(seeds)


def test_an_empty_range_of_seeds_is_refused():
    with pytest.raises(ConfigError, match="seed=2..4"):
        jobs("seed=4..2")


def test_a_shared_setting_is_replaced_where_it_is_set_and_opens_what_depends_on_it():
    causal = jobs("seed=0", "osr=causal")
    assert [job for job in causal if "osr" in job] == [
        "study=mine selection=topk osr=causal seed=0",
        "study=mine selection=quota selection.capacity_factor=1 osr=causal seed=0",
        "study=mine selection=quota selection.capacity_factor=1.5 osr=causal seed=0",
        "study=mine osr.sinkhorn_epsilon=0.5 osr=causal seed=0",
        "study=mine osr.sinkhorn_epsilon=1 osr=causal seed=0",
    ]
    assert causal[5:] == ["study=mine baseline=hash seed=0", "study=mine baseline=random model.top_k=1 seed=0"]


def test_both_values_of_a_shared_setting_are_run_side_by_side():
    both = jobs("seed=0", "osr=paper,causal")
    assert sum("osr=paper" in job for job in both) == 3
    assert sum("osr=causal" in job for job in both) == 5


def test_values_of_the_study_pick_its_runs():
    assert jobs("seed=0", "selection=topk") == ["study=mine osr=paper selection=topk seed=0"]
    assert jobs("seed=0", "selection.capacity_factor=1.50") == [
        "study=mine osr=paper selection=quota selection.capacity_factor=1.5 seed=0"
    ]
    assert jobs("seed=0", "baseline=hash") == ["study=mine baseline=hash seed=0"]


def test_values_that_the_study_does_not_have_take_the_place_of_its_own():
    assert [job for job in jobs("seed=0", "selection.capacity_factor=3,4") if "quota" in job] == [
        "study=mine osr=paper selection=quota selection.capacity_factor=3 seed=0",
        "study=mine osr=paper selection=quota selection.capacity_factor=4 seed=0",
    ]


def test_any_other_key_holds_for_every_run():
    assert all("trainer.max_steps=5" in job for job in jobs("trainer.max_steps=5"))
    assert len(jobs("seed=0", "trainer.max_steps=5,6")) == 10


def test_a_name_of_its_own_for_the_study():
    assert all(job.startswith("study=trial ") for job in jobs("study=trial"))


def test_nothing_left_is_refused_with_what_there_is():
    with pytest.raises(ConfigError, match=r"no run is left.*selection=topk,quota"):
        jobs("selection=topk", "selection.capacity_factor=1")


def test_a_bad_override_is_refused():
    with pytest.raises(ConfigError, match="did you mean"):
        jobs("selection=quotta")


def test_a_value_beside_others_that_pick_is_refused_when_it_picks_nothing():
    for typed in ("selection.capacity_factor=1,3", "selection=quota,qouta", "osr.sinkhorn_epsilon=0.5,0.7"):
        with pytest.raises(ConfigError, match="picks no run"):
            jobs(typed, "seed=0", "osr=causal")


def test_a_value_that_is_there_only_with_another_setting_says_which():
    with pytest.raises(ConfigError, match="only with osr=causal"):
        jobs("osr.sinkhorn_epsilon=0.5", "seed=0")


def test_points_of_one_block_with_other_keys_are_picked_and_replaced_alone():
    assert jobs("model.top_k=1", "seed=0") == ["study=mine baseline=random model.top_k=1 seed=0"]
    replaced = [line for line in jobs("model.top_k=3", "seed=0") if "baseline" in line]
    assert replaced == ["study=mine baseline=hash seed=0", "study=mine baseline=random model.top_k=3 seed=0"]

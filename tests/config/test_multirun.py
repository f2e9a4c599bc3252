"""What a command line with several values stands for, in Hydra's own order."""

from __future__ import annotations

import pytest
from config_cases import load
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.typed import expand_jobs, parse_overrides
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.launchers import make_engine


def test_one_job_without_multirun():
    assert expand_jobs(["router=switch", "seed=3"], multirun=False) == [["router=switch", "seed=3"]]
    assert expand_jobs([], multirun=True) == [[]]


def test_four_values_are_four_jobs():
    jobs = expand_jobs(["osr.sinkhorn_epsilon=0.03,0.05,0.1,0.2"], multirun=True)
    assert jobs == [[f"osr.sinkhorn_epsilon={value}"] for value in ("0.03", "0.05", "0.1", "0.2")]
    assert [load_experiment(job).osr.sinkhorn_epsilon for job in jobs] == [0.03, 0.05, 0.1, 0.2]


def test_products_go_through_the_last_key_first():
    jobs = expand_jobs(["seed=0,1", "router=spectra", "model.num_experts=4,8"], multirun=True)
    assert [(job[0], job[2]) for job in jobs] == [
        ("seed=0", "model.num_experts=4"),
        ("seed=0", "model.num_experts=8"),
        ("seed=1", "model.num_experts=4"),
        ("seed=1", "model.num_experts=8"),
    ]
    assert all(job[1] == "router=spectra" for job in jobs)


@pytest.mark.parametrize(
    "typed, values",
    [
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("seed=range(4)", ["0", "1", "2", "3"]),
        ("seed=range(0,10,5)", ["0", "5"]),
        ("seed=choice(7,3)", ["7", "3"]),
        ("seed=sort(3,1,2)", ["1", "2", "3"]),
        ("router=switch,hash", ["switch", "hash"]),
        ("study='a,b'", ["'a,b'"]),
    ],
)
def test_ranges_and_choices(typed, values):
    key = typed.split("=")[0]
    assert expand_jobs([typed], multirun=True) == [[f"{key}={value}"] for value in values]


def test_the_jobs_are_those_that_hydra_would_launch(tmp_path, monkeypatch, capfd):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    from spectra_exp.studies import run

    launched = []
    monkeypatch.setattr(BasicLauncher, "launch", lambda self, jobs, initial_job_idx: launched.extend(jobs) or [])
    monkeypatch.setattr("sys.argv", ["train.py"])
    typed = ["seed=range(0,2)", "osr.sinkhorn_epsilon=0.1,0.2", "study='a b'"]
    run._hydra_main(["-m", *typed])
    assert [list(job) for job in launched] == expand_jobs(typed, multirun=True)


# Told before a value of them is made.
ENDLESS = ("seed=range(0,9,0)", "seed=range(0.0,1.0,0)", "seed=range(1,inf)", "seed=range(0,nan)")


@pytest.mark.parametrize("typed", [["seed=0..9999999999"], ["seed=0..1999", "model.num_experts=range(1,2000)"]])
def test_more_jobs_than_can_be_made_are_refused(typed):
    with pytest.raises(ConfigError, match=r"makes (10000000000|3998000) jobs of this line"):
        expand_jobs(typed, multirun=True)


@pytest.mark.parametrize("typed", ["seed=glob(*)", "router=glob(s*)", "seed=interval(0,1)", *ENDLESS])
def test_values_that_cannot_be_listed_are_refused(typed):
    with pytest.raises(ConfigError, match="cannot be listed"):
        expand_jobs([typed], multirun=True)


@pytest.mark.parametrize("key", ["launch.jobs", "launch.per_gpu"])
def test_a_bad_value_of_the_launch_is_told_beside_several_values(key):
    with pytest.raises(ConfigError, match=f"{key}: 'abc' is not a whole number"):
        make_engine(["launch=parallel", f"{key}=abc", "seed=0,1"], print)


def test_a_bad_value_in_one_job_names_its_key():
    jobs = expand_jobs(["seed=0,1", "model.top_k=2,99"], multirun=True)
    load_experiment(jobs[0])
    with pytest.raises(ConfigError) as error:
        load_experiment(jobs[1])
    assert error.value.key == "model.top_k"


words = st.text(st.sampled_from("abz019_.=~+@/,:()[]{}$'\"\\ #-*?!%\n"), max_size=12)
keys = st.sampled_from(
    ["seed", "router", "ablation", "osr.sinkhorn_epsilon", "study", "trainer.max_steps", "model", "+x", "~osr"]
)


@settings(max_examples=40, deadline=None)
@given(keys, words)
def test_whatever_is_typed_gives_an_experiment_or_one_line(key, value):
    check_one_line([f"{key}={value}"])


@settings(max_examples=40, deadline=None)
@given(st.lists(words, max_size=2))
def test_whatever_is_typed_without_a_key_gives_one_line_too(typed):
    check_one_line(typed)


def check_one_line(typed: list[str]) -> None:
    for multirun in (False, True):
        try:
            for job in expand_jobs(typed, multirun)[:3]:
                load_experiment(job)
        except ConfigError as error:
            assert "\n" not in str(error) and error.key


def test_quotes_do_not_hide_an_option_from_the_rules():
    assert load("\"ablation='no_gru'\"").choices["ablation"] == "no_gru"
    with pytest.raises(ConfigError, match="does not have"):
        load("\"ablation='no_gru'\" router=switch")
    assert parse_overrides(["ablation='no_gru'"])[0].value() == "no_gru"

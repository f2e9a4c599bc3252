"""`--help` shows every group, option and key, and its examples work."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.help import EXAMPLES, default_options, print_help
from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import option_files
from spectra_exp.config.typed import expand_jobs
from spectra_exp.foundations.errors import ConfigError


@pytest.fixture
def whole(capsys):
    print_help([])
    return capsys.readouterr().out


def test_every_group_and_option_is_shown_and_the_default_marked(whole):
    for group in GROUPS:
        assert re.search(rf"^  {group}: \w", whole, re.M)
        for name in option_files(group):
            star = r"\*" if default_options()[group] == name else " "
            assert re.search(rf"^    {star} {name} +\S", whole, re.M), f"{group}={name}"


def test_usage_and_keys_outside_the_groups_are_shown(whole):
    # Square brackets are markup to rich, which would swallow them.
    assert "usage: python train.py [-m] [group=option ...] [group.key=value ...]" in whole
    for f in fields(RootKeys):
        assert re.search(rf"^    {f.name} +\w", whole, re.M)


def test_there_are_five_examples_and_all_are_shown(whole):
    assert len(EXAMPLES) == 5
    for command, meaning in EXAMPLES:
        assert command in whole and meaning in whole


@pytest.mark.parametrize("command", [command for command, _ in EXAMPLES])
def test_each_example_composes(command):
    program, script, *words = shlex.split(command)
    assert (program, script) == ("python", "train.py")
    multirun = "-m" in words
    jobs = expand_jobs([word for word in words if word != "-m"], multirun)
    assert len(jobs) == {"osr": 4, "see": 3}[words[1][:3]] if multirun else len(jobs) == 1
    for job in jobs:
        load_experiment(job)


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_a_group_shows_its_options_keys_and_meanings(group, capsys):
    print_help([group])
    text = capsys.readouterr().out
    for name in option_files(group):
        assert f"{group}={name}" in text
    for schema in group_schemas(group).values():
        for f in fields(schema):
            # Whole, whatever the terminal's width, so that it can be copied.
            assert re.search(rf"^ +{group}\.{f.name} ", text, re.M), f.name


def test_the_help_of_a_group_shows_what_an_option_sets(capsys):
    print_help(["osr", "temperature", "ablation"])
    text = capsys.readouterr().out
    assert "sets selection=topk, osr.training=potentials, osr.sinkhorn_inference=dual" in text
    assert "sets temperature.schedule=constant, temperature.value=2.0" in text
    assert "sets router.sequence=linear, router.carry=none" in text


def test_limits_in_square_brackets_survive(capsys):
    print_help(["optim"])
    text = capsys.readouterr().out
    assert "[adamw, muon]" in re.sub(r"\s+", " ", text) or "[adamw,muon]" in re.sub(r"\s+", "", text)


def test_types_in_square_brackets_survive(capsys):
    print_help(["logger"])
    assert re.search(r"logger\.tags +list\[str\] +\[\]", capsys.readouterr().out)


def test_a_group_that_does_not_exist_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'optim'"):
        print_help(["optm"])


def test_no_line_of_the_help_is_markup(whole):
    assert "[/" not in whole and "\x1b" not in whole

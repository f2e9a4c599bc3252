"""Verbs read key=value alike, whatever their options, and the last version's flags and names go on with a line."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib import import_module

import pytest

from spectra_exp.cli import VERBS, command
from spectra_exp.config.verb import OVERRIDES, Verb, VerbOptions, assignments, read_options
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import PIPE_CLOSED
from spectra_exp.studies.listing import COMMANDS


@dataclass(frozen=True)
class Made(VerbOptions):
    names: tuple[str, ...] = option((), "several")
    count: int | None = option(None, "how many", minimum=1, maximum=9)
    share: float = option(0.5, "a part", minimum=0, maximum=1)
    all: bool = option(False, "everything")
    text: str | None = option(None, "words", any_text=True)


@dataclass(frozen=True)
class Passing(Made):
    overrides: tuple[str, ...] = ()


def test_values_become_what_the_field_is() -> None:
    found = read_options(Made, ["names=a, b,", "count=3", "share=1e-1", "all=yes", "text=a=b\n[1]", "outputs=/x"])
    assert found == Made("/x", ("a", "b"), 3, 0.1, True, "a=b\n[1]")
    assert read_options(Made, ["count=null", "text=12"]) == Made(text="12")


@pytest.mark.parametrize(
    "words, said",
    [
        (["nmes=a"], "nmes: unknown name 'nmes'; did you mean 'names'?"),
        (["all"], "'all' is not key=value"),
        (["-x=1"], "'-x=1' is not key=value"),
        (["count=1", "count=2"], "count: was given twice"),
        (["count="], "count: has no value; it is: how many"),
        (["count=1e5"], "count: '1e5' is not a whole number"),
        (["count=0"], "count: 0 was given; must be at least 1"),
        (["share=x"], "share: 'x' is not a number"),
        (["share=nan"], "share: nan was given; must be a finite number"),
        (["all=maybe"], "all: 'maybe' is neither true nor false"),
        (["names=,"], "names: ',' names none"),
        (["outputs=a\0b"], "outputs: 'a\\x00b' holds a control character"),
    ],
)
def test_wrong_input_names_the_key(words, said) -> None:
    with pytest.raises(ConfigError) as error:
        read_options(Made, words)
    assert said in str(error.value)


def test_keys_of_a_run_go_on_to_it() -> None:
    assert read_options(Passing, ["count=2", "model=exp10", "-x"]) == Passing(count=2, overrides=("model=exp10", "-x"))


def test_bare_words_have_their_keys_and_flags_of_the_last_version_are_told(capsys) -> None:
    old = ["--outputs", "/x", "--names", "a", "b", "--all", "--count=3", "--share", "0.1", "seed=1"]
    assert assignments(Made, old) == ["outputs=/x", "names=a,b", "all=true", "count=3", "share=0.1", "seed=1"]
    assert assignments(Made, ["one", "two", "text=x"], ("count", "names")) == ["count=one", "names=two", "text=x"]
    assert assignments(Made, ["one", "two"], ("names",)) == ["names=one,two"]
    assert "note: '--names' is given as names=a,b from the next version on\n" in capsys.readouterr().err
    assert assignments(Made, ["--nmes", "a"]) == ["--nmes", "a"]


@pytest.mark.parametrize(
    "end, status, said",
    [
        (lambda: 0, 0, ""),
        (ConfigError("key", "wrong", "mend it"), 2, "error: key: wrong; mend it\n"),
        (SpectraError("it broke"), 1, "error: it broke\n"),
        (KeyboardInterrupt(), 130, "was stopped\n"),
    ],
)
def test_the_exit_status_says_how_it_ended(end, status, said, capsys) -> None:
    def work(options: Made) -> int:
        if isinstance(end, BaseException):
            raise end
        return end()

    assert Verb("made", Made, work, "Made.", stopped="was stopped")([]) == status
    assert capsys.readouterr().err == said


def test_every_verb_has_help_with_every_key(capsys) -> None:
    assert command(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, (place, meaning) in VERBS.items():
        assert meaning in listed
        module, _, function = place.partition(":")
        assert command([name, "--help"]) == 0
        shown, verb = capsys.readouterr().out, getattr(import_module(f"spectra_exp.{module}"), function)
        if isinstance(verb, Verb):
            assert verb.name == name
            assert all(f"\n  {f.name}" in shown for f in fields(verb.options) if f.name != OVERRIDES)
    for name in COMMANDS:
        assert command(["study", name, "--help"]) == 0 and f"spectra-exp study {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["tabels"], "did you mean 'tables'?"),
        (["seed=1"], "give spectra-exp run seed=1"),
        (["run", "router=swich"], "router: unknown name 'swich'; did you mean 'switch'"),
        (["search", "router=swich"], "swich"),
        (["tables", "stdy=x"], "did you mean 'study'?"),
        (["figures", "only=paretto"], "did you mean 'pareto'?"),
        (["study", "shw"], "did you mean 'show'?"),
        (["study", "show"], "study: is missing"),
        (["interpret", "parts=load"], "give either run=PATH or study=NAME"),
        (["downstream", "limit=1"], "run: no run was given"),
        (["share", "run=x"], "to: is missing"),
        (["remeasure"], "run: is missing"),
        (["bench", "only=stduy"], "did you mean 'study'?"),
        (["paper", "status=true", f"outputs={__file__}"], "test_verb.py is a file; give a folder"),
        (["tables", "outputs=~/made"], "outputs: '~' in ~/made is not expanded"),
        (["tables", "plugins=[a"], "plugins: 'plugins=[a' cannot be read"),
        (["overhead", "model.num_expert=3"], "did you mean 'model.num_experts'?"),
    ],
)
def test_wrong_input_of_every_verb_is_one_line_and_status_2(words, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert command(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err


# `python -m spectra_exp.X` of the last version.
OLD = ("analysis.tables", "analysis.figures", "analysis.report", "analyze", "evaluate", "studies", "share", "bench")


@pytest.mark.parametrize("name", [*OLD, "bench.overhead"])
def test_the_names_of_the_last_version_go_on_and_name_the_new_one(name, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["-m", "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_module(f"spectra_exp.{name}", run_name="__main__")
    out, err = capsys.readouterr()
    assert out.startswith("usage: spectra-exp ")
    assert err.startswith(f"note: `python -m spectra_exp.{name}` is `spectra-exp ")


def test_the_list_of_verbs_needs_no_library() -> None:
    code = (
        "import sys; from spectra_exp.cli import command; command([]);"
        "print({'torch', 'hydra', 'pandas', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == "set()\n" and "spectra-exp VERB" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["study", "list", "--help"]])
def test_a_reader_that_went_away_is_no_failure(words) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-m", "spectra_exp", *words], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (PIPE_CLOSED, b"")

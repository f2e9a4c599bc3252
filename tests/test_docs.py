"""README and docs/: every command is one that there is, with keys that there are; the reference is the schemas'."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import spectra_exp.cli
from spectra_exp.cli import VERBS
from spectra_exp.config.compose import load_experiment
from spectra_exp.config.tree import project_root
from spectra_exp.config.verb import Verb
from spectra_exp.data.sources import check_data
from spectra_exp.studies.launchers import make_engine
from spectra_exp.studies.work import run_in_worker

ROOT = project_root()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w*)(?: title="[^"]*")?\n(.*?)^```', re.M | re.S)
LONGEST_README = 80  # lines: a screen and a half


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if found == language:
                yield page, text


LINES = sorted({line.strip() for _, text in blocks("bash") for line in text.splitlines() if line.strip()})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    line = '{"text": "a text of some words", "meta": {"set": "one"}}\n'
    for name in ("TRAIN.jsonl", "VALIDATION.jsonl", "held_out.jsonl"):
        (folder / name).write_text(line * 4)
    pandas = pytest.importorskip("pandas")
    (folder / "shards").mkdir()
    pandas.DataFrame({"text": ["some words"] * 4}).to_parquet(folder / "shards" / "1.parquet")
    for kind, name in (("upcycle", "llama"), ("reroute", "mixtral"), ("spectra_small", "smolvlm")):
        (folder / kind).symlink_to(sources / name)
    return folder


@pytest.fixture
def dry(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is read, composed and checked, and nothing is done."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(place / "outputs"))
    monkeypatch.setattr("spectra_exp.runs.plan.plan", lambda experiment: None)
    monkeypatch.setattr("spectra_exp.studies.work.run_here", lambda planned: "completed")
    monkeypatch.setattr("spectra_exp.studies.command._launch", compose_ends)
    for module, function in {verb.partition(":")[::2] for verb, _ in VERBS.values()}:
        room = importlib.import_module(f"spectra_exp.{module}")
        for name in (function, "PACK"):
            if isinstance(found := getattr(room, name, None), Verb):
                monkeypatch.setattr(room, name, replace(found, work=lambda options: 0))
        for name, found in getattr(room, "COMMANDS", {}).items():
            monkeypatch.setitem(room.COMMANDS, name, replace(found, work=lambda options: 0))


def compose_ends(lines: list[list[str]], typed: list[str], *rest: object) -> int:
    """The first and the last job of many composed and checked."""
    make_engine(typed, run_in_worker)
    for line in (lines[0], lines[-1]):
        check_data(load_experiment(line).data)
    return 0


def check(line: str) -> None:
    """Raises AssertionError for a line that would not begin its work."""
    words = shlex.split(line, comments=True)
    match words:
        case ["make", *rest]:
            made = subprocess.run(["make", "-n", "-C", str(ROOT), *rest], capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
        case ["pip", "install", package]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert set(re.findall(r"[\w-]+", package.partition("[")[2])) <= set(extras)
        case ["python", "train.py", *rest] | ["torchrun", "--nproc-per-node", _, "train.py", *rest]:
            check_words(["run", *rest])
        case ["spectra-exp", *rest]:
            check_words(rest)
        case [".venv/bin/python", "-m", "pytest", *rest]:
            assert all((ROOT / word).exists() for word in rest if not word.startswith("-"))
        case ["eval", inner]:
            assert inner == "$(python train.py -sc install=bash)"
            check_words(["run", "-sc", "install=bash"])
        case _:
            raise AssertionError(f"no command that there is: {line}")


def check_words(words: list[str]) -> None:
    kind = next((w.removeprefix("model=") for w in words if w.startswith("model=")), "")
    words = [word.replace("model.source=FOLDER", f"model.source={kind}") for word in words]
    if any(word.startswith("plugins=") for word in words):
        # A plug-in would stay in this process.
        command = [sys.executable, "-m", "spectra_exp", *words, "--cfg", "job"]
        made = subprocess.run(command, cwd=ROOT / "examples" / "my_router", capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        return
    assert spectra_exp.cli.command(words) == 0


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_one_that_there_is(line: str, dry: None, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        check(line)
    except AssertionError:
        # Refused for want of a card, and right otherwise.
        if "needs a GPU" not in capsys.readouterr().err:
            raise


@pytest.mark.parametrize(
    "line",
    [
        "make sweep-z",
        "python train.py router=swich",
        "python train.py -m seed=0,1 model.top_k=2,99",
        "python train.py data=files data.train=OTHER.jsonl",
        "spectra-exp tables shown=a",
        "spectra-exp archive merges a b",
        "spectra-exp tabels",
        "pip install 'spectra-exp[everything]'",
        ".venv/bin/python -m pytest tests/nothing",
        "rm -r outputs",
    ],
)
def test_a_command_that_there_is_not_is_seen(line: str, dry: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        check(line)


def test_the_python_of_the_pages_compiles_and_imports_what_there_is() -> None:
    found = list(blocks("python"))
    assert len(found) > 3
    for page, text in found:
        for node in ast.walk(ast.parse(text, str(page))):
            if isinstance(node, ast.ImportFrom) and node.module == "spectra_exp":
                assert all(hasattr(spectra_exp, name.name) for name in node.names), page


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_README
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert links and all((ROOT / link).exists() for link in links)
    for page in (ROOT / "docs").rglob("*.md"):
        if page.is_relative_to(ROOT / "docs" / "results" / "paper") and page.name != "README.md":
            continue  # The page of results links its tables and captions.
        assert page.relative_to(ROOT / "docs").as_posix() in (ROOT / "mkdocs.yml").read_text(), page


def test_the_reference_is_that_of_the_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    pages = importlib.import_module("reference_pages").PAGES
    for name, made in pages.items():
        kept = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert kept == made(), "run python tools/reference_pages.py"


def test_the_pages_build_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml")]
    made = subprocess.run([*build, "-d", str(tmp_path / "site")], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert (tmp_path / "site" / "howto" / "model.html").is_file()

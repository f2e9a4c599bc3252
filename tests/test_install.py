"""The package as others install it: the wheel, also from the sdist, used in an empty folder without the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from spectra_exp.config.tree import project_root

pytest.importorskip("hatchling")
FOLDERS = ("conf", "sweeps", "ablations", "replications", "downstream")
SMALL = ["debug=smoke", "model.num_layers=2", "model.hidden_size=32", "trainer.max_steps=2", "logger.progress=false"]

# Command lines in one process: the exit status of each, and what it printed.
EACH = """
import contextlib, io, json, sys
from spectra_exp.cli import command

def ended(line):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        return command(line), out.getvalue()

print(json.dumps([ended(line) for line in json.loads(sys.argv[1])]))
"""


def build(folder: Path, *targets: str) -> list[Path]:
    """What hatchling builds of the sources in a folder."""
    out = folder / "dist"
    made = [word for target in targets for word in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out), *made], cwd=folder, check=True)
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of the checkout, without its outputs."""
    folder = tmp_path_factory.mktemp("sources")
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    known = subprocess.run(listed, cwd=project_root(), capture_output=True)
    if known.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, known.stdout.decode().split("\0")):
        if (source := project_root() / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path) -> Path:
    return build(sources, "wheel", "sdist")[0]


@pytest.fixture
def spectra(wheel: Path, tmp_path: Path):
    """Calls the unpacked wheel in an empty folder; `each` several command lines in one process."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPECTRA_")}

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", *words],
            env=kept | {"PYTHONPATH": str(tmp_path / "site")},
            cwd=tmp_path / "empty",
            capture_output=True,
            text=True,
            timeout=300,
        )

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "spectra_exp", *words)

    call.each = lambda *lines: python("-c", EACH, json.dumps(lines))
    call.folder = tmp_path / "empty"
    return call


def test_the_wheel_holds_what_the_checkout_has_and_the_sdist_gives_the_same(sources, wheel, tmp_path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in FOLDERS:
        for path in (project_root() / folder).rglob("*.yaml"):
            assert f"spectra_exp/_shipped/{path.relative_to(project_root()).as_posix()}" in names
    package = project_root() / "src"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path):
            assert path.relative_to(package).as_posix() in names
    with tarfile.open(next((sources / "dist").glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "train.py").is_file() and (unpacked / "tests" / "test_install.py").is_file()
    (again,) = build(unpacked, "wheel")
    assert set(zipfile.ZipFile(again).namelist()) == names


@pytest.mark.slow
def test_runs_tables_and_the_report_in_an_empty_folder(spectra):
    ended = spectra("run", *SMALL)
    assert ended.returncode == 0, ended.stderr
    run = Path(ended.stdout.strip().splitlines()[-1])
    assert run.parent == spectra.folder / "outputs" / "runs"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["command"].startswith("spectra-exp run ")
    show = ["study", "show", "core", "seed=0", "osr=causal", "json=true"]
    each = spectra.each(["tables"], ["report"], show, ["run", "router=spectre"])
    assert each.returncode == 0, each.stderr
    statuses, texts = zip(*json.loads(each.stdout), strict=True)
    assert statuses == (0, 0, 0, 2), each.stderr
    assert len(json.loads(texts[2])["runs"]) > 5 and "did you mean 'spectra'" in each.stderr
    page = (spectra.folder / "outputs" / "report" / "index.html").read_text()
    assert not re.search(r"train\.py|make (demo|aa|baselines|ablations|status|study|paper)\b", page)
    gaps = (spectra.folder / "outputs" / "tables" / "missing.csv").read_text()
    # What is told to type exists where it is told.
    assert "make " not in gaps and "train.py" not in gaps and "spectra-exp run ablations=core" in gaps


def test_a_folder_that_cannot_be_written_is_one_line(spectra, tmp_path):
    if os.geteuid() == 0:
        # Root may write anywhere; a file in the place of outputs/ is refused to all.
        (spectra.folder / "outputs").write_text("")
    else:
        spectra.folder.chmod(0o555)
    ended = spectra("run", *SMALL)
    assert ended.returncode == 2 and ended.stderr.startswith("error: outputs: ") and ended.stderr.count("\n") == 1

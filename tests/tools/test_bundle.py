"""The offline bundle: what goes into it, and its installer with one wheel that a test makes."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import util
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
HERE = "{}.{}".format(*sys.version_info)
spec = util.spec_from_file_location("bundle", ROOT / "tools" / "bundle.py")
bundle = util.module_from_spec(spec)
spec.loader.exec_module(bundle)


def test_everything_is_needed_but_torch_and_what_torch_alone_needs():
    needed = bundle.needs(["spectra-exp"], "3.12", "x86_64")
    assert {"transformers", "datasets", "antlr4-python3-runtime", "pyarrow", "hydra-joblib-launcher"} <= needed.keys()
    assert not {"torch", "sympy", "networkx", "triton"} & needed.keys()
    # Of every version that is asked for by anyone.
    assert not needed["numpy"].contains("1.10")


def test_what_is_needed_is_in_the_lock():
    lock = bundle.locked((ROOT / "constraints.txt").read_text().splitlines())
    assert bundle.needs(["spectra-exp", *bundle.ALSO], "3.12", "x86_64").keys() - {"spectra-exp"} <= lock.keys()


def test_a_package_that_is_not_here_is_named():
    with pytest.raises(bundle.BundleError, match="no-such-package: needed on Python 3.12 and not installed here"):
        bundle.needs(["no_such.package"], "3.12", "x86_64")


@pytest.mark.parametrize(
    "lines",
    [
        ["numpy==2.4.6", "PyYAML==6.0.3", "local @ file:///somewhere"],
        ["Package    Version", "---------- -------", "numpy      2.4.6", "PyYAML     6.0.3"],
    ],
)
def test_both_forms_of_pip_list_are_read(lines):
    assert bundle.locked(lines) == {"numpy": "2.4.6", "pyyaml": "6.0.3"}


def test_what_is_there_in_another_version_than_needed_is_brought():
    needed = {"a": SpecifierSet(">=2"), "b": SpecifierSet(""), "c": SpecifierSet("")}
    assert bundle.lacking(needed, {"a": "1.9", "b": "0.1"}) == ["a", "c"]
    assert bundle.lacking(needed, {"a": "2.0", "b": "0.1"}) == ["c"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--python=3"], "PYTHON: '3'"),
        (["--python=3."], "PYTHON: '3.'"),
        (["--python=3.10"], "PYTHON: spectra-exp needs Python >=3.11, and this is 3.10"),
        (["--python=3.12", "--machine=arm64"], "MACHINE: 'arm64' is not known; give x86_64 or aarch64"),
        (["--python=3.12", "--have=no"], "HAVE: no"),
        (["--python=3.12", f"--have={ROOT / 'docs'}"], "HAVE: "),
        (["--python=3.12", f"--have={sys.executable}"], "HAVE: "),
        (["--python=3.12", f"--have={ROOT / 'LICENSE'}"], "HAVE: "),
        (["--python=3.12", f"--folder={ROOT / 'LICENSE' / 'b'}"], f"{ROOT / 'LICENSE'}: File exists"),
    ],
)
def test_wrong_words_are_told_in_one_line(words, told, capsys):
    assert bundle.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def test_what_the_target_has_is_left_out_and_asked_for_by_the_installer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "fetch", lambda pinned, folder, *_: None)
    lock = bundle.locked((ROOT / "constraints.txt").read_text().splitlines())
    (tmp_path / "list").write_text(f"numpy {lock['numpy']}\npandas 1.0\ntqdm {lock['tqdm']}\n")
    assert bundle.main(["--python=3.12", f"--have={tmp_path / 'list'}", f"--folder={tmp_path / 'b'}"]) == 0
    told = capsys.readouterr().out
    assert "brought although the target has another version: pandas 1.0 (needed: " in told
    names = [Requirement(line).name for line in (tmp_path / "b" / bundle.LEFT_OUT).read_text().splitlines()]
    assert names == ["numpy", "tqdm"] and f"the target has {len(names)} already" in told


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert bundle.main(["--python=3.12", f"--folder={tmp_path}"]) == 2
    assert "is no bundle" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_bundle_that_cannot_be_made_leaves_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "fetch", lambda pinned, folder, *_: (folder / "one.whl").touch())
    words = ["--python=3.12", f"--folder={tmp_path / 'b'}"]
    assert bundle.main(words) == 0
    files = {"install.sh", "left_out.txt", "source.tar.gz", "wheels"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == files

    def failing(*_):
        raise bundle.BundleError("pip download failed")

    monkeypatch.setattr(bundle, "fetch", failing)
    assert bundle.main(words) == 2 and "pip download failed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert {path.name for path in (tmp_path / "b").iterdir()} == files and (tmp_path / "b/wheels/one.whl").exists()


def test_the_sources_have_what_is_read_and_no_pictures_of_results(tmp_path):
    bundle.pack_sources(tmp_path / "source.tar.gz")
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        names = archive.getnames()
    assert {"Makefile", "src/spectra_exp/__main__.py", "docs/results/gpu/README.md"} <= set(names)
    assert not any(name.startswith(bundle.NO_SOURCES) for name in names)


def small_bundle(folder: Path, python: str, left_out: str = "") -> Path:
    """The installer with one wheel and one source file: a package that says what it was given."""
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / "brought-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought.py", "NAME = 'brought'\n")
        wheel.writestr("brought-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
        wheel.writestr("brought-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("brought-1.0.dist-info/RECORD", "")
    source = folder / "src" / "spectra_exp"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (source / "__main__.py").write_text("import sys, brought\nprint(brought.NAME, sys.argv[1:])\n")
    with tarfile.open(folder / "source.tar.gz", "w:gz") as archive:
        archive.add(folder / "src", "src")
    script = (ROOT / "tools" / "install.sh").read_text().replace("@PYTHON@", python)
    (folder / "install.sh").write_text(script)
    (folder / bundle.LEFT_OUT).write_text(left_out)
    return folder


def install(folder: Path, *words: str, python: str = sys.executable, cwd=None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": python, "PIP_NO_INDEX": "1"}
    command = ["sh", folder / "install.sh", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def test_what_is_left_out_must_be_there(tmp_path):
    left_out = "no-such-package\npytest<1\nnumpy\n"
    done = install(small_bundle(tmp_path / "b", HERE, left_out), "--target", str(tmp_path / "to"))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and not (tmp_path / "to").exists()
    assert "this Python lacks no-such-package (not installed), pytest<1 (" in line and "numpy" not in line


def test_the_installer_makes_a_command_of_it(tmp_path):
    done = install(small_bundle(tmp_path / "b", HERE), "--target", str(tmp_path / "to"))
    assert (done.returncode, done.stderr) == (0, "")
    command = done.stdout.strip()
    assert command == str(tmp_path / "to" / "bin" / "spectra-exp")
    ran = subprocess.run([command, "run", "a=b c"], capture_output=True, text=True)
    assert ran.stdout == "brought ['run', 'a=b c']\n"
    python = Path(command).with_name("python")
    ran = subprocess.run([python, "-c", "import brought, spectra_exp; print('both')"], capture_output=True, text=True)
    assert ran.stdout == "both\n"


def test_an_install_over_another_has_nothing_of_its_sources_and_all_that_was_made_there(tmp_path):
    folder, to = small_bundle(tmp_path / "b", HERE), tmp_path / "to"
    install(folder, "--target", str(to))
    old, made = to / "spectra-exp/src/spectra_exp/old.py", to / "spectra-exp/outputs/runs"
    old.touch()
    made.mkdir(parents=True)
    done = install(folder, "--target", str(to))
    assert (done.returncode, done.stderr) == (0, "")
    assert not old.exists() and old.with_name("__main__.py").exists() and made.exists()


def test_a_python_that_is_named_from_here_is_found_from_anywhere(tmp_path):
    python = Path(sys.executable)
    to = tmp_path / "to"
    done = install(
        small_bundle(tmp_path / "b", HERE), "--target", str(to), python=f"./{python.name}", cwd=python.parent
    )
    assert (done.returncode, done.stderr) == (0, "")
    ran = subprocess.run([to / "bin" / "spectra-exp"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout == "brought []\n"


def test_a_target_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").touch()
    done = install(small_bundle(tmp_path / "b", HERE), "--target", str(tmp_path / "file" / "to"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: --target: cannot make {tmp_path / 'file' / 'to'}"


@pytest.mark.skipif(os.geteuid() == 0, reason="may write anywhere")
def test_a_target_that_takes_no_files_is_told(tmp_path):
    to = tmp_path / "to"
    to.mkdir(mode=0o500)
    done = install(small_bundle(tmp_path / "b", HERE), "--target", str(to))
    assert (done.returncode, done.stderr) == (2, f"error: --target: cannot write to {to}\n")


def test_the_installer_refuses_another_python(tmp_path):
    done = install(small_bundle(tmp_path / "b", "3.99"), "--target", str(tmp_path / "to"))
    assert done.returncode == 1 and not (tmp_path / "to").exists()
    assert done.stderr.startswith("error: PYTHON: the bundle is for Python 3.99")


def test_the_installer_says_how_it_is_used(tmp_path):
    done = install(small_bundle(tmp_path / "b", HERE))
    assert done.returncode == 2 and "--target DIR" in done.stderr

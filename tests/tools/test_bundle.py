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


@pytest.mark.parametrize("words, told", [(["--python=3"], "PYTHON: '3'"), (["--python=3.12", "--have=no"], "HAVE: no")])
def test_wrong_words_are_told_in_one_line(words, told, capsys):
    assert bundle.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def small_bundle(folder: Path, python: str) -> Path:
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
    return folder


def install(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    return subprocess.run(["sh", folder / "install.sh", *words], capture_output=True, text=True, env=environment)


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


def test_the_installer_refuses_another_python(tmp_path):
    done = install(small_bundle(tmp_path / "b", "3.99"), "--target", str(tmp_path / "to"))
    assert done.returncode == 1 and not (tmp_path / "to").exists()
    assert done.stderr.startswith("error: PYTHON: the bundle is for Python 3.99")


def test_the_installer_says_how_it_is_used(tmp_path):
    done = install(small_bundle(tmp_path / "b", HERE))
    assert done.returncode == 2 and "--target DIR" in done.stderr

"""A folder that installs spectra-exp without network, but for torch: `make bundle PYTHON=3.12 [HAVE=pip-list.txt]`.

The locked versions of everything that the package needs for one Python and platform, as wheels; the files that git
tracks; and `install.sh --target DIR`, which needs pip and the machine's own torch alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "spectra-exp"
INSTALLER = "install.sh"
# What the target has: the installer asks for it.
LEFT_OUT = "left_out.txt"
# Beside the package's own needs: what the tests that are marked `gpu` import.
ALSO = ("pytest", "hypothesis", "pytest-timeout")
# The machine has its own, with the CUDA packages that suit its driver.
FROM_MACHINE = "torch"
# Never published as a wheel; each is pure Python.
SOURCES_ALONE = ("antlr4-python3-runtime",)
# Oldest and newest C library that a wheel may be built for (Ubuntu 20.04, RHEL 8 and newer have 2.28 or later).
GLIBC = range(17, 29)
MACHINES = ("x86_64", "aarch64")
# Results to look at, which nothing reads.
NO_SOURCES = ("docs/results/paper/figures", "docs/results/paper/report.html")
MB = 10**6


class BundleError(Exception):
    """Told as one line."""


def check_python(python: str) -> None:
    """Raises BundleError for what is no version of Python, or one that the package does not run on."""
    if not re.fullmatch(r"\d+\.\d+", python):
        raise BundleError(f"PYTHON: '{python}' is no version of the target's Python; give one like 3.12")
    runs_on = metadata.metadata(PACKAGE)["Requires-Python"]
    if not SpecifierSet(runs_on).contains(python):
        raise BundleError(f"PYTHON: {PACKAGE} needs Python {runs_on}, and this is {python}")


def packages_there(listed: Path) -> dict[str, str]:
    """Versions by name, of a file that `pip list` wrote. Raises BundleError for one that names no package."""
    try:
        have = locked(listed.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        have = {}
    if not have:
        raise BundleError(f"HAVE: {listed} is no list of packages; give the output of the target's `pip list`")
    return have


def needs(roots: Sequence[str], python: str, machine: str) -> dict[str, SpecifierSet]:
    """Every distribution that `roots` need on that Python, and which versions they take together; torch is no part.

    Read from the metadata of what is installed here, which is the lock. Raises BundleError for one that is not.
    """
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, SpecifierSet] = {}
    walked: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == FROM_MACHINE:
            continue
        found[name] = found.get(name, SpecifierSet()) & requirement.specifier
        for extra in {"", *requirement.extras}:
            if (name, extra) in walked:
                continue
            walked.add((name, extra))
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                raise BundleError(
                    f"{name}: needed on Python {python} and not installed here; add it to the lock"
                ) from None
            waiting += [
                child
                for child in map(Requirement, lines)
                if child.marker is None or child.marker.evaluate(environment | {"extra": extra})
            ]
    return found


def locked(lines: Iterable[str]) -> dict[str, str]:
    """Versions by name, of lines `name==version` or of the table that `pip list` prints."""
    versions: dict[str, str] = {}
    for line in lines:
        words = line.split("#")[0].replace("==", " ").split()
        if len(words) < 2:
            continue
        try:
            versions[canonicalize_name(words[0])] = str(Version(words[1]))
        except InvalidVersion:
            # A heading, a rule, a package installed from a folder.
            continue
    return versions


def lacking(needed: dict[str, SpecifierSet], have: dict[str, str]) -> list[str]:
    """The names that are not there in a version that all who need them take."""
    return sorted(
        name for name, takes in needed.items() if name not in have or not takes.contains(have[name], prereleases=True)
    )


def fetch(pinned: Sequence[str], folder: Path, python: str, machine: str) -> None:
    """The wheels of `name==version` for that Python. Raises BundleError where pip finds none."""
    built = [line for line in pinned if line.split("==")[0] in SOURCES_ALONE]
    ready = [line for line in pinned if line not in built]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC)] + [f"manylinux2014_{machine}"]
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    pip("download", *target, *(f"--platform={name}" for name in platforms), f"--dest={folder}", *ready)
    if built:
        pip("wheel", f"--wheel-dir={folder}", *built)
    if foreign := [
        wheel.name for wheel in folder.glob("*.whl") if is_from(built, wheel) and "-none-any" not in wheel.name
    ]:
        raise BundleError(f"{foreign[0]}: built for this machine alone; only pure Python can be built here")


def is_from(pinned: Sequence[str], wheel: Path) -> bool:
    """Whether a wheel is of one of these packages."""
    return canonicalize_name(wheel.name.split("-")[0]) in {line.split("==")[0] for line in pinned}


def pip(command: str, *words: str) -> None:
    """pip with no look at what else a package needs."""
    done = subprocess.run([sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-cache-dir", *words])
    if done.returncode:
        raise BundleError(f"pip {command} failed, as it says above")


def make(folder: Path, python: str, machine: str, have: dict[str, str]) -> tuple[list[str], list[str]]:
    """Write the bundle; what the target has already and that is left out, and what it has in a version that none takes.

    What lies in `folder` stays until the new one is whole. Raises BundleError where that is no bundle.
    """
    if folder.exists() and not (folder / INSTALLER).is_file():
        raise BundleError(f"folder: {folder} is there and is no bundle; give another, or delete it")
    needed = needs([PACKAGE, *ALSO], python, machine)
    del needed[PACKAGE]
    lock = locked((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    chosen = lacking(needed, have)
    if unlocked := [name for name in chosen if name not in lock]:
        raise BundleError(f"{', '.join(unlocked)}: not in constraints.txt; add the version")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        made = Path(scratch) / folder.name
        wheels = made / "wheels"
        wheels.mkdir(parents=True)
        fetch([f"{name}=={lock[name]}" for name in chosen], wheels, python, machine)
        pack_sources(made / "source.tar.gz")
        script = (ROOT / "tools" / INSTALLER).read_text(encoding="utf-8")
        (made / INSTALLER).write_text(script.replace("@PYTHON@", python), encoding="utf-8")
        (made / INSTALLER).chmod(0o755)
        left_out = sorted(needed.keys() - set(chosen))
        # For the installer, which asks for them.
        (made / LEFT_OUT).write_text("".join(f"{name}{needed[name]}\n" for name in left_out), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return left_out, [f"{name} {have[name]} (needed: {needed[name]})" for name in chosen if name in have]


def pack_sources(archive: Path) -> None:
    """The files of the last commit, but for published pictures."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD", "--", "."]
    if subprocess.run(command + [f":(exclude){path}" for path in NO_SOURCES]).returncode:
        raise BundleError("git archive failed, as it says above; a bundle is made in a clone")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the bundle is written, 2 for one that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the target's Python: 3.12")
    parser.add_argument("--machine", default=MACHINES[0], help=f"the target's processor: {' or '.join(MACHINES)}")
    parser.add_argument("--have", type=Path, help="what the target has: the output of its `pip list`")
    parser.add_argument("--folder", type=Path, help="by default dist/bundle-PYTHON")
    options = parser.parse_args(argv)
    folder = options.folder or ROOT / "dist" / f"bundle-{options.python}"
    try:
        check_python(options.python)
        if options.machine not in MACHINES:
            raise BundleError(f"MACHINE: '{options.machine}' is not known; give {' or '.join(MACHINES)}")
        have = packages_there(options.have) if options.have else {}
        left_out, other = make(folder, options.python, options.machine, have)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    files = [file for file in folder.rglob("*") if file.is_file()]
    wheels = sorted((file for file in files if file.suffix == ".whl"), key=lambda file: -file.stat().st_size)
    largest = ", ".join(f"{file.name.split('-')[0]} {file.stat().st_size / MB:.0f}" for file in wheels[:5])
    print(f"{len(wheels)} wheels (MB: {largest}); the target has {len(left_out)} already")
    if other:
        print(f"brought although the target has another version: {', '.join(other)}")
    print(f"{sum(file.stat().st_size for file in files) / MB:.1f} MB: {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What a run ran on: versions, machine, determinism settings, commit, and a digest of this code."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from spectra_exp.config.plugins import sources_of
from spectra_exp.config.resolved import Compositions
from spectra_exp.foundations import variables

PACKAGES = (
    "spectra-exp",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
)

# What can change a run's numbers: how it is configured, trained and measured, and its ranks, devices and threads. The
# rest of `runs` keeps results, and what stands above only launches runs or reads them.
CODE_OF_RESULTS = ("config", "data", "foundations", "measure", "moe", "routing", "runs/ranks.py", "training")

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]
_GIT_TIMEOUT_S = 20


def environment(seed: int, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of a run's environment.json; `extra` adds keys of the caller's own.

    Call it after the threads and the determinism settings are in place: it records them as they stand.
    """
    return {
        "seed": int(seed),
        "versions": versions(),
        "machine": {
            "os": platform.platform(),
            "architecture": platform.machine(),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "cores_available": _cores_available(),
        },
        "devices": devices(),
        "threads": _threads(),
        "determinism": determinism(),
        "variables": variables.seen(),
        "git": _own_git_state(),
        "code_version": code_version(),
        **(extra or {}),
    }


@functools.cache
def code_version(plugins: tuple[str, ...] = ()) -> str:
    """16 hex digits over the sources that can change a run's numbers: what decides whether a run is stale.

    With `plugins`, modules that had a part in a run, `|name:` and the digits of each follow. Computed once per process;
    call it when the run starts, before anyone edits the files.
    """
    own = digest_sources(_PACKAGE_ROOT, CODE_OF_RESULTS)
    return "|".join([own, *(f"{name}:{plugin_version(name)}" for name in plugins)])


@functools.cache
def plugin_version(name: str) -> str | None:
    """16 hex digits over a plug-in's sources; None for one that is not imported here."""
    found = sources_of(name)
    return None if found is None else digest_sources(*found)


def made_with(version: str | None) -> list[str]:
    """The plug-ins that had a part in a run by this `code_version`."""
    return [part.partition(":")[0] for part in (version or "").split("|")[1:]]


def by_other_code(version: str | None) -> bool:
    """Whether a run of this `code_version` was made by other code than today's, or by more than one version of it.

    Nothing is said of a plug-in that is not imported here.
    """
    own, *plugins = (version or "").split("|")
    if own != code_version() or "+" in "".join(plugins):
        return True
    return any(plugin_version(name) not in (None, digits) for name, _, digits in (p.partition(":") for p in plugins))


def stored_compositions(outputs: Path) -> Compositions:
    """Those that the launches, runs and tables of an outputs folder share."""
    return Compositions(outputs / "cache" / "compositions.json", code_version())


def digest_sources(root: Path, parts: Sequence[str] = (".",)) -> str:
    """16 hex digits over the relative path and the content of every *.py file of the files and folders `parts`."""
    digest = hashlib.sha256()
    found = {path for part in parts for path in [root / part, *(root / part).rglob("*.py")] if path.is_file()}
    for path in sorted(found, key=lambda p: p.relative_to(root).as_posix()):
        # Each file enters as two digests, so that no text can move from one file to the next unseen.
        digest.update(hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def git_state(folder: Path) -> dict[str, Any]:
    """`commit` and `dirty` (changed or untracked files) of the repository that tracks `folder`, else None.

    A repository that merely contains `folder` without tracking it (a virtual environment inside another
    project) says nothing about this code, so it counts as none.
    """
    unknown = {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or not _git(folder, "ls-files", "."):
        return unknown
    changes = _git(folder, "status", "--porcelain")
    return unknown if changes is None else {"commit": commit, "dirty": bool(changes)}


def cpu_name() -> str:
    """The processor's name as the system gives it, such as "AMD EPYC 9B14"."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass  # no /proc outside Linux; the line below answers there
    return platform.processor() or platform.machine()


def devices() -> dict[str, Any]:
    """The accelerators that torch sees: `kind` (cuda, mps, cpu), `count`, and each one's `names`."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {"kind": "cuda", "count": len(names), "names": names}
    if torch.backends.mps.is_available():
        return {"kind": "mps", "count": 1, "names": [platform.processor() or "mps"]}
    return {"kind": "cpu", "count": 0, "names": []}


def determinism() -> dict[str, Any]:
    """The settings of torch and of the environment that decide whether a run repeats bit for bit."""
    import torch

    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "python_hash_seed": os.environ.get("PYTHONHASHSEED"),
    }


@functools.cache
def _own_git_state() -> dict[str, Any]:
    """As the process found it, like the code that it runs."""
    return git_state(_PACKAGE_ROOT)


@functools.cache
def versions() -> dict[str, str | None]:
    """Of Python and of the packages that results rest on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    return found | {name: installed_version(name) for name in PACKAGES}


def installed_version(package: str) -> str | None:
    """The version of an installed package; None for one that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> dict[str, int | str | None]:
    import torch

    return {
        "torch": torch.get_num_threads(),
        "torch_interop": torch.get_num_interop_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _cores_available() -> int | None:
    """Cores this process may use; fewer than the machine's under taskset or a container's CPU set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _git(folder: Path, *arguments: str) -> str | None:
    """git's answer in `folder`, or None without git, repository or commit."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
from small_run import DATA, MODEL

from spectra_exp.api import run
from spectra_exp.config.tree import option_files
from spectra_exp.runs.summary import read_summary

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *MODEL,
    *DATA,
    "trainer.batch_size=4",
    "trainer.log_every=3",
    "trainer.checkpoint_every=2",
    "trainer.max_steps=60",
]


def start(outputs: Path, *overrides: str) -> subprocess.Popen:
    """train.py in a process group of its own."""
    environment = os.environ | {"SPECTRA_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    given = {o.split("=")[0] for o in overrides}
    small = [o for o in SMALL if o.split("=")[0] not in given]
    command = [sys.executable, str(ROOT / "train.py"), *small, *overrides]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=outputs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(outputs: Path, *overrides: str) -> list[str]:
    """The lines on standard output of a run let to its end."""
    process = start(outputs, *overrides)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip().splitlines()


def in_process(outputs: Path, *overrides: str) -> Path:
    """The folder of a run made in this process, which gives the numbers of one of its own."""
    given = {o.split("=")[0] for o in overrides}
    return run(*(o for o in SMALL if o.split("=")[0] not in given), *overrides, f"outputs={outputs}").path


def kill_while_training(
    outputs: Path, rng: random.Random, *overrides: str, within: float = 0.6, made: str = "*"
) -> bool:
    """SIGKILL the whole group at a random instant within so many seconds of its first checkpoint (`made`, or of
    beginning one) in this session.
    """
    process = start(outputs, *overrides)
    before = set(outputs.glob(f"runs/*/checkpoints/{made}"))
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if set(outputs.glob(f"runs/*/checkpoints/{made}")) - before:
            time.sleep(rng.uniform(0, within))
            break
        time.sleep(0.005)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def outcome(folder: Path) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    summary = read_summary(folder / "summary.json")
    # The command says where it was typed, too.
    for unstable in ("timings", "started", "finished", "command"):
        summary.pop(unstable)
    return summary, *(pd.read_parquet(folder / f"{name}.parquet") for name in ("history", "documents"))


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    whole = in_process(tmp_path / "whole")
    rng = random.Random(0)
    kills = (kill_while_training(tmp_path / "killed", rng) for _ in range(4))
    assert sum(islice(filter(None, kills), 2)) == 2
    killed = Path(finish(tmp_path / "killed")[-1])
    assert killed.name == whole.name
    (a, *tables_a), (b, *tables_b) = outcome(whole), outcome(killed)
    assert a == b
    assert all(one.equals(other) for one, other in zip(tables_a, tables_b, strict=True))


RIVALS = sorted(set(option_files("baseline")) - {"none"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS)
def test_a_killed_rival_ends_with_the_same_numbers(tmp_path: Path, cache: Path, rival: str) -> None:
    words = (f"baseline={rival}", "trainer.max_steps=20")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cache").symlink_to(cache)
    whole = in_process(tmp_path / "whole", *words)
    assert kill_while_training(tmp_path / "killed", random.Random(rival), *words, within=0.1, made="step-*")
    (killed,) = (tmp_path / "killed" / "runs").iterdir()
    steps = [int(path.name.removeprefix("step-")) for path in killed.glob("checkpoints/step-*")]
    assert killed.name == whole.name and not (killed / "summary.json").exists() and 0 < max(steps) < 20
    finish(tmp_path / "killed", *words)
    (a, *tables_a), (b, *tables_b) = outcome(whole), outcome(killed)
    assert a == b
    assert all(one.equals(other) for one, other in zip(tables_a, tables_b, strict=True))


@pytest.mark.slow
def test_a_killed_multirun_goes_on_where_it_was(tmp_path: Path) -> None:
    sweep = ("-m", "osr.sinkhorn_epsilon=0.5,1.0", "trainer.max_steps=20")
    (tmp_path / "killed").mkdir()
    folders = [in_process(tmp_path / "whole", f"osr.sinkhorn_epsilon={e}", sweep[-1]) for e in (0.5, 1.0)]
    assert kill_while_training(tmp_path / "killed", random.Random(1), *sweep)
    again = [Path(line) for line in finish(tmp_path / "killed", *sweep)]
    for a, b in zip(folders, again, strict=True):
        assert a.name == b.name
        assert outcome(a)[0] == outcome(b)[0]


@pytest.mark.slow
def test_sigterm_stops_after_the_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "trainer.max_steps=2000")
    while not list(tmp_path.glob("runs/*/checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from the last checkpoint" in err and "Traceback" not in err
    folder = Path(out.strip().splitlines()[-1])
    summary = read_summary(folder / "summary.json")
    assert summary["status"] == "stopped" and 0 < summary["steps"] < 2000
    assert (folder / "checkpoints" / f"step-{summary['steps']:08d}").is_dir()

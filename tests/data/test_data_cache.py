from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cache_cases import damaged_files

from spectra_exp.data.cache import cached_folder, read_entry


def build(folder: Path) -> dict:
    (folder / "data.bin").write_bytes(b"0123456789")
    (folder / "more.txt").write_text("more")
    return {"n": 10}


def never(folder: Path) -> dict:
    raise AssertionError("built although a whole entry is there")


def test_a_whole_entry_is_built_once(tmp_path):
    first = cached_folder(tmp_path, "k", build)
    assert first.facts == {"n": 10} and (first.folder / "more.txt").read_text() == "more"
    assert cached_folder(tmp_path, "k", never) == first
    assert damaged_files(first.folder) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k", "k.lock"]


def remove(folder):
    (folder / "more.txt").unlink()


def truncate(folder):
    os.truncate(folder / "data.bin", 5)


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def cut_manifest(folder):
    os.truncate(folder / "manifest.json", 30)


def empty_manifest(folder):
    (folder / "manifest.json").write_text("[]")


@pytest.mark.parametrize("damage", [remove, truncate, lose_manifest, cut_manifest, empty_manifest])
def test_a_damaged_entry_is_built_again(tmp_path, damage):
    folder = cached_folder(tmp_path, "k", build).folder
    damage(folder)
    assert read_entry(folder) is None
    cached_folder(tmp_path, "k", build)
    assert (folder / "data.bin").read_bytes() == b"0123456789" and damaged_files(folder) == []


def test_a_change_of_the_same_size_is_found_by_the_full_check_only(tmp_path):
    folder = cached_folder(tmp_path, "k", build).folder
    (folder / "data.bin").write_bytes(b"012345678X")
    assert read_entry(folder) is not None and damaged_files(folder) == ["data.bin"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        build(folder)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        cached_folder(tmp_path, "k", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["k.lock"]
    assert cached_folder(tmp_path, "k", build).facts == {"n": 10}


def test_a_killed_builder_leaves_nothing_that_is_believed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from spectra_exp.data.cache import cached_folder\n"
        "def build(folder):\n"
        "    (folder / 'data.bin').write_bytes(b'01'); (folder / 'stale').touch(); print('there', flush=True)\n"
        "    time.sleep(60)\n"
        "cached_folder(Path(sys.argv[1]), 'k', build)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "k.partial" / "data.bin").exists() and read_entry(tmp_path / "k") is None
    entry = cached_folder(tmp_path, "k", build)
    assert sorted(p.name for p in entry.folder.iterdir()) == ["data.bin", "manifest.json", "more.txt"]


def _slow_build(folder: Path) -> dict:
    (folder / "data.bin").write_bytes(b"x" * 100)
    time.sleep(1.5)
    with (folder.parent / "builds.log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    return {"pid": os.getpid()}


def _ask(cache_dir: Path, answers) -> None:
    lines: list[str] = []
    entry = cached_folder(cache_dir, "k", _slow_build, lines.append)
    answers.put((entry.facts["pid"], lines))


def test_two_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_ask, args=(tmp_path, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert len((tmp_path / "builds.log").read_text().split()) == 1
    assert len({pid for pid, _ in got}) == 1
    assert sum("waiting for another process" in " ".join(lines) for _, lines in got) == 2


def test_the_manifest_has_sizes_and_hashes(tmp_path):
    folder = cached_folder(tmp_path, "k", build).folder
    record = json.loads((folder / "manifest.json").read_text())["files"]["data.bin"]
    assert record == {
        "bytes": 10,
        "sha256": "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
    }

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.routing_files import load_snapshot, save_snapshot, snapshot_paths


def _snapshot(step: int = 300) -> RoutingSnapshot:
    L, M, G, E, P, K = 2, 3, 6, 4, 5, 2
    random = np.random.default_rng(0)
    return RoutingSnapshot(
        step=step,
        fraction=0.25,
        top_k=K,
        num_tokens=1000,
        domain_counts_LME=random.integers(0, 10**10, (L, M, E)),
        document_counts_LGE=random.integers(0, 10**10, (L, G, E)),
        probe_experts_LPK=random.integers(-1, E, (L, P, K)),
        probe_weights_LPK=random.random((L, P, K)),
    )


def _assert_same(found: RoutingSnapshot, given: RoutingSnapshot) -> None:
    for field in dataclasses.fields(given):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(given, field.name))


def test_round_trip_and_the_same_bytes_again(tmp_path: Path) -> None:
    given = _snapshot()
    path = save_snapshot(tmp_path, given)
    assert path.name == "step-00000300.npz"
    first = path.read_bytes()
    rounded = given.probe_weights_LPK.astype(np.float32)
    _assert_same(load_snapshot(path), dataclasses.replace(given, probe_weights_LPK=rounded))
    assert save_snapshot(tmp_path, given).read_bytes() == first
    with np.load(path, allow_pickle=False) as arrays:
        dtypes = {name: arrays[name].dtype for name in arrays}
        np.testing.assert_array_equal(arrays["counts_LE"], given.counts_LE)
    assert dtypes["counts_LE"] == dtypes["domain_counts_LME"] == np.int64
    assert dtypes["probe_experts_LPK"] == np.int16 and dtypes["probe_weights_LPK"] == np.float32


def test_paths_are_by_step_and_skip_others(tmp_path: Path) -> None:
    assert snapshot_paths(tmp_path / "nowhere") == {}
    for step in (200, 9, 123456789):
        save_snapshot(tmp_path, _snapshot(step))
    (tmp_path / ".step-00000001.npz.1-ab.tmp").write_text("left by a killed writer")
    (tmp_path / "step-x.npz").write_text("foreign")
    assert list(snapshot_paths(tmp_path)) == [9, 200, 123456789]


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    given = _snapshot()
    too_many = np.full(given.probe_experts_LPK.shape, 40_000)
    with pytest.raises(ValueError, match="int16"):
        save_snapshot(tmp_path, dataclasses.replace(given, probe_experts_LPK=too_many))
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    whole = save_snapshot(tmp_path, _snapshot()).read_bytes()
    path = tmp_path / "step-00000002.npz"
    for content in (b"", whole[: len(whole) // 2], b"text"):
        path.write_bytes(content)
        with pytest.raises(SpectraError) as caught:
            load_snapshot(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SpectraError):
        load_snapshot(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("name", ["step", "fraction", "top_k", "num_tokens"])
@pytest.mark.parametrize("value", [np.array([2]), np.array("2"), np.array(-1), np.array(np.nan)])
def test_a_number_that_is_none_or_cannot_be_is_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    path = save_snapshot(tmp_path, _snapshot())
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {name: value})
    with pytest.raises(SpectraError, match="not a whole routing snapshot"):
        load_snapshot(path)


def test_a_pickled_object_is_refused_even_among_good_arrays(tmp_path: Path) -> None:
    path = tmp_path / "step-00000300.npz"
    np.savez(path, **_snapshot().to_arrays(), code=np.array([object()], dtype=object))
    with pytest.raises(SpectraError, match="allow_pickle"):
        load_snapshot(path)


def test_no_flipped_byte_changes_a_number_unseen(tmp_path: Path) -> None:
    whole = save_snapshot(tmp_path, _snapshot()).read_bytes()
    given = load_snapshot(tmp_path / "step-00000300.npz")
    path, refused = tmp_path / "flipped.npz", 0
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            found = load_snapshot(path)
        except SpectraError:
            refused += 1
            continue
        _assert_same(found, given)  # the byte carried nothing, such as a date
    assert refused > 50

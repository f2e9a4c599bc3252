from __future__ import annotations

import pandas as pd

from spectra_exp.runs.pairing import comparable_groups, pairing


def _runs(*rows: tuple[str, int, str | None, str]) -> pd.DataFrame:
    """Rows of (cell, seed, batches, initial weights), all of group 1."""
    frame = pd.DataFrame(rows, columns=["cell_id", "seed", "batches", "initial_weights"], dtype=object)
    frame["weights_by_name"] = [{} for _ in rows]
    return frame.assign(comparable_group=1, run_id=[f"r{i}" for i in range(len(rows))])


def test_equal_batches_pair_whatever_the_weights() -> None:
    runs = _runs(("a", 0, "x", "1"), ("a", 1, "y", "2"), ("b", 0, "x", "3"), ("b", 1, "y", "4"))
    assert pairing(runs) == {(1, "a"): "ok", (1, "b"): "ok"}


def test_the_odd_one_out_is_named_and_without_a_majority_both_are() -> None:
    runs = _runs(("a", 0, "x", "1"), ("b", 0, "x", "2"), ("c", 0, "z", "3"), ("a", 1, "y", "1"), ("c", 1, "y", "1"))
    assert pairing(runs) == {(1, "a"): "ok", (1, "b"): "ok", (1, "c"): "other batches at seed 0"}
    assert set(pairing(_runs(("a", 4, "x", "1"), ("b", 4, "z", "2"))).values()) == {"other batches at seed 4"}


def test_no_hash_and_two_starts_of_one_seed_are_said() -> None:
    found = pairing(_runs(("a", 0, None, "1"), ("b", 1, "x", "1"), ("b", 1, "x", "2")))
    assert found == {(1, "a"): "no hash of the batches at seed 0", (1, "b"): "two initial weights at seed 1"}


def test_groups_are_by_data_evaluation_and_length_the_largest_first() -> None:
    keys = [("d", "e", 300), ("d", "e", 600), ("d", "e", 600), ("d", "f", 300)]
    runs = pd.DataFrame(keys, columns=["data_fingerprint", "evaluation_fingerprint", "max_steps"], dtype=object)
    groups = comparable_groups(runs.assign(run_id=list("abcd")))
    assert groups == {"a": 2, "b": 1, "c": 1, "d": 3}


def test_a_parameter_shared_by_two_variants_must_start_equal() -> None:
    rows = [("full", 0, "b", "w1"), ("no_gru", 0, "b", "w2"), ("switch", 0, "b", "w3")]
    frame = _runs(*rows)
    frame["weights_by_name"] = [
        {"embed": "4x2:aa", "router": "2x2:11"},
        {"embed": "4x2:aa", "router": "3x2:22"},  # another shape may differ
        {"embed": "4x2:bb"},
    ]
    found = pairing(frame)
    assert [found[1, cell] for cell in ("full", "no_gru")] == ["ok", "ok"]
    assert found[1, "switch"] == "other initial weights at seed 0 (embed)"

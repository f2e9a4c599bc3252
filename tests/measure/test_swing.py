from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spectra_exp.measure.balance import max_violation
from spectra_exp.measure.compute import compute_swing, compute_swing_floors
from spectra_exp.measure.swing import LayerTraining, layer_trainings, max_vio_swing


def history_of(values: dict[int, float], layer: str = "0", split: str = "train", metric: str = "max_vio_batch"):
    rows = [dict(step=s, split=split, layer=layer, metric=metric, value=v) for s, v in values.items()]
    return pd.DataFrame(rows)


def test_the_swing_is_over_the_last_half_of_the_logged_steps():
    values = {10: 9.0, 20: 5.0, 50: 1.0, 60: 1.5, 100: 0.5, 70: 1.25}
    other = history_of(dict.fromkeys(values, 2.0), layer="10")
    frame = pd.concat(
        [
            other,
            history_of(values),
            history_of(values, layer="all"),
            history_of({55: 7.0}, split="validation"),
            history_of({55: 7.0}, metric="load_cv_batch"),
        ]
    )
    first, *_, last = layer_trainings(frame, 100, 4, 2, 64)
    assert first.max_vio_T.tolist() == [1.0, 1.5, 1.25, 0.5]
    assert max_vio_swing(first) == pytest.approx((0.5 + 0.25 + 0.75) / 3) and max_vio_swing(last) == 0
    # Planted fault: the whole of training.
    assert np.abs(np.diff(list(dict(sorted(values.items())).values()))).mean() > 1
    assert compute_swing([first, last]).all() == {"max_vio_swing": pytest.approx(0.25)}


def test_a_layer_that_logged_nothing_keeps_its_place():
    empty, full = layer_trainings(history_of({60: 1.0, 100: 2.0}, layer="1"), 100, 4, 2, 64)
    assert not len(empty.max_vio_T) and full.max_vio_T.tolist() == [1.0, 2.0]
    assert compute_swing([empty, full]).by_layer() == {"max_vio_swing": [None, 1.0]}


def test_fewer_than_two_steps_have_no_swing():
    (training,) = layer_trainings(history_of({100: 0.5, 10: 3.0}), 100, 4, 2, 64)
    assert max_vio_swing(training) is None
    assert not compute_swing([training]).all() and not compute_swing_floors([training]).all()
    assert layer_trainings(history_of({1: 0.0}, metric="train_loss"), 1, 4, 2, 64) == []


def test_the_floor_is_the_swing_of_random_routing():
    rng = np.random.default_rng(0)
    counts_TE = np.array(
        [np.bincount(rng.permuted(np.tile(np.arange(4), (64, 1)), axis=1)[:, :2].ravel()) for _ in range(2000)]
    )
    drawn = LayerTraining(4, 64, np.full(len(counts_TE), 2.0), max_violation(counts_TE))
    floor = compute_swing_floors([drawn]).all()["max_vio_swing_floor"]
    assert floor == pytest.approx(max_vio_swing(drawn), rel=0.1) and floor > 0


def test_the_floor_is_of_the_experts_that_were_executed():
    # Four of the experts are empty: of 3 of 12, two are real on average.
    rng = np.random.default_rng(0)
    counts_TE = np.array([rng.permuted(np.tile(np.arange(12) < 3, (256, 1)), axis=1).sum(axis=0) for _ in range(600)])
    real_TE = counts_TE[:, :8]
    drawn = LayerTraining(8, 256, real_TE.sum(axis=1) / 256, max_violation(real_TE))
    floor = compute_swing_floors([drawn]).all()["max_vio_swing_floor"]
    assert floor == pytest.approx(max_vio_swing(drawn), rel=0.1)
    planted = compute_swing_floors([LayerTraining(8, 256, np.full(600, 3.0), drawn.max_vio_T)]).all()
    assert planted["max_vio_swing_floor"] < 0.85 * floor


def test_the_floor_follows_experts_that_fall_with_training():
    # Fewer assignments at each step: chance swings more, by its own trend too.
    rng = np.random.default_rng(0)
    executed_T = np.array([2.0, 1.0, 0.5, 0.25])
    draws_RT = np.array(
        [
            [max_violation(rng.multinomial(int(64 * k), np.full(4, 0.25))[None])[0] for k in executed_T]
            for _ in range(800)
        ]
    )
    expected = np.abs(np.diff(draws_RT, axis=1)).mean()
    training = LayerTraining(4, 64, executed_T, draws_RT[0])
    assert compute_swing_floors([training]).all()["max_vio_swing_floor"] == pytest.approx(expected, rel=0.15)
    constant = compute_swing_floors([LayerTraining(4, 64, np.full(4, 2.0), draws_RT[0])]).all()
    assert constant["max_vio_swing_floor"] < 0.6 * expected


def test_the_experts_executed_are_those_of_the_logged_steps():
    frame = pd.concat(
        [
            history_of({10: 3.0, 60: 1.0, 100: 2.0}),
            history_of({10: 2.0, 60: 1.5, 100: 0.25}, metric="executed_k"),
            history_of({60: 9.0}, metric="executed_k", split="validation"),
        ]
    )
    (training,) = layer_trainings(frame, 100, 4, 2, 64)
    assert training.executed_T.tolist() == [1.5, 0.25] and training.max_vio_T.tolist() == [1.0, 2.0]
    (older,) = layer_trainings(history_of({60: 1.0, 100: 2.0}), 100, 4, 2, 64)
    assert older.executed_T.tolist() == [2.0, 2.0]

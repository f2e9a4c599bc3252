"""Methods over several settings, by worked examples and by plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from spectra_exp.statistics.over_settings import interquartile_mean, over_settings


def world(shift: float, settings: int = 4, seeds: int = 6) -> list[dict[str, list[float]]]:
    """Losses of scales of their own; `b` is better than `a` by so many standard deviations, `c` the same as `a`."""
    rng = np.random.default_rng(3)
    found = []
    for s in range(settings):
        noise = rng.normal(0, 10.0**s, (3, seeds)) + 100 * s
        found.append(dict(zip("abc", (noise - [[0], [shift * 10.0**s], [0]]).tolist(), strict=True)))
    return found


def test_the_middle_half_by_hand() -> None:
    # Of eight the two lowest and the two highest are left out.
    assert interquartile_mean(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_a_worked_example() -> None:
    # Ranks of x: 1, 1, 1 and 2, 1, 1: of six the lowest and the highest are left out. Of 9 pairs each x wins 9 and 6.
    settings = [{"x": [1, 2, 3], "y": [4, 5, 6]}, {"x": [30, 10, 20], "y": [25, 26, 27]}]
    found = over_settings(settings, "lower")
    assert found.rank["x"].value == 1.0 and found.rank["y"].value == 2.0
    assert found.improvement["x", "y"].value == pytest.approx((9 / 9 + 6 / 9) / 2)
    assert found.improvement["y", "x"].value == pytest.approx(1 - found.improvement["x", "y"].value)
    assert (found.settings, found.seeds) == (2, 3)
    other = over_settings(settings, "higher")
    assert other.improvement["x", "y"].value == pytest.approx((0 + 3 / 9) / 2) and other.rank["x"].value == 2.0


def test_it_counts_as_mann_and_whitney_do() -> None:
    settings = world(0.8)
    found = over_settings(settings, "lower")
    for a, b in ("ba", "ca", "bc"):
        shares = [mannwhitneyu(s[b], s[a]).statistic / (len(s[a]) * len(s[b])) for s in settings]
        assert found.improvement[a, b].value == pytest.approx(np.mean(shares))


def test_scales_of_settings_do_not_count() -> None:
    settings = world(1.0)
    scaled = [{name: [10.0**i * v + 5 for v in own] for name, own in s.items()} for i, s in enumerate(settings)]
    assert over_settings(scaled, "lower") == over_settings(settings, "lower")


def test_ties_are_half_a_win_and_share_a_rank() -> None:
    same = [{"x": [1, 1, 1], "y": [1, 1, 1]}] * 2
    found = over_settings(same, "lower")
    assert found.improvement["x", "y"].value == 0.5 and found.rank["x"].value == 1.5


def test_the_interval_holds_the_truth_and_narrows_with_settings() -> None:
    held, widths = [], {2: [], 8: []}
    for trial in range(40):
        rng = np.random.default_rng(trial)
        for settings in widths:
            values = [{"a": rng.normal(0, 1, 6).tolist(), "b": rng.normal(0, 1, 6).tolist()} for _ in range(settings)]
            found = over_settings(values, "lower").improvement["a", "b"]
            widths[settings].append(found.high - found.low)
        held.append(found.low <= 0.5 <= found.high)
    assert np.mean(held) > 0.8 and np.mean(widths[8]) < 0.7 * np.mean(widths[2])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [{"a": [1, 2, 3], "b": [1, 2, 3]}],
        [{"a": [1, 2, 3]}, {"a": [1, 2, 3]}],
        [{"a": [1, 2, 3], "b": [1, 2, 3]}, {"a": [1, 2, 3], "c": [1, 2, 3]}],
        [{"a": [1, 2], "b": [1, 2]}] * 2,
        [{"a": [1, 2, float("nan")], "b": [1, 2, 3]}] * 2,
    ],
)
def test_what_cannot_be_ranked_is_refused(values) -> None:
    with pytest.raises(ValueError):
        over_settings(values, "lower")

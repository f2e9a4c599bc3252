from __future__ import annotations

import math

import pytest

from spectra_exp.routing.temperature import TemperatureConfig, temperature_at

STEPS = 501
# First, middle and last step of 5 -> 1 over 501 steps (progress 0, 1/2, 1).
EXPECTED = {
    "constant": (1.0, 1.0, 1.0),
    "linear": (5.0, 3.0, 1.0),
    "cosine": (5.0, 3.0, 1.0),
    "exponential": (5.0, math.sqrt(5), 1.0),
    "step": (5.0, 2.0, 1.0),
}


@pytest.mark.parametrize("schedule", EXPECTED)
def test_first_middle_and_last_step(schedule):
    config = TemperatureConfig(schedule=schedule)
    found = [temperature_at(config, step, STEPS) for step in (0, 250, 500)]
    assert found == pytest.approx(EXPECTED[schedule])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("steps", [2, 10, 500])
def test_the_last_step_is_at_the_end_temperature(schedule, steps):
    config = TemperatureConfig(schedule=schedule, start=4.0, end=0.7)
    assert temperature_at(config, steps - 1, steps) == pytest.approx(0.7)
    # Planted fault: progress as step/steps would never arrive.
    assert temperature_at(config, steps - 1, steps + 1) != pytest.approx(0.7)
    values = [temperature_at(config, s, steps) for s in range(steps)]
    assert values == sorted(values, reverse=True)
    assert temperature_at(config, steps + 5, steps) == pytest.approx(0.7)


def test_cosine_is_not_linear():
    cosine, linear = (temperature_at(TemperatureConfig(schedule=s), 125, STEPS) for s in ("cosine", "linear"))
    assert cosine == pytest.approx(1 + 4 * 0.5 * (1 + math.cos(math.pi / 4))) and cosine > linear == pytest.approx(4)


def test_step_points():
    """5, then 2 from 20 % of the steps, then 1 from 60 %."""
    at = {s: temperature_at(TemperatureConfig(schedule="step"), s, 101) for s in (0, 19, 20, 59, 60, 100)}
    assert at == {0: 5.0, 19: 5.0, 20: 2.0, 59: 2.0, 60: 1.0, 100: 1.0}


def test_a_run_of_one_step():
    assert temperature_at(TemperatureConfig(schedule="linear"), 0, 1) == 5.0
    assert temperature_at(TemperatureConfig(value=1.3), 0, 1) == 1.3

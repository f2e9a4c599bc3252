"""What a model's configuration names: noise, and coefficients of auxiliary losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

# In names of options, and of what modules keep of them.
NOISE = ("drop", "jitter", "noise")
# The name of an auxiliary loss's coefficient has one of each.
LOSS, COEFFICIENT = ("aux", "balance_loss", "balancing_loss", "moe_loss"), ("coef", "weight", "alpha")


def declared_noise(model: PreTrainedModel) -> dict[str, float]:
    """The options of dropout, jitter and noise that are on, by their path in the configuration."""
    return {path: value for path, name, value in _numbers(model.config.to_dict()) if is_noise(name, value)}


def is_noise(name: str, value: Any) -> bool:
    """Whether an option, or what a module keeps of it, switches noise on."""
    return _is_number(value) and value > 0 and _has(name, NOISE)


def switched_off(model: PreTrainedModel) -> str:
    """The coefficients of auxiliary losses where configuration or model names some and all are 0; else empty."""
    for options in (model.config.to_dict(), vars(model)):
        named = {path: v for path, name, v in _numbers(options) if _has(name, LOSS) and _has(name, COEFFICIENT)}
        if named and not any(named.values()):
            return ", ".join(f"{path}=0" for path in named)
    return ""


def _numbers(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, float]]:
    """Of each number in nested options its path, its own name and itself."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{name}.")
        elif _is_number(value):
            yield path + name, name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has(name: str, words: tuple[str, ...]) -> bool:
    return any(word in name for word in words)

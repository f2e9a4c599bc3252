"""Presets whose sizes follow from the model's: four times its experts, each a quarter as wide."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError

# What a size is called in `baseline.sizes`.
LETTERS = {"num_experts": "E", "expert_size": "f", "top_k": "k"}
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def apply_sizes(experiment: Experiment) -> None:
    """Set the sizes of the model as its baseline has them. ConfigError where one would be no whole number above 0."""
    sizes, preset, model = experiment.baseline.sizes, f"baseline={experiment.choices['baseline']}", experiment.model
    if not sizes:
        return
    given: dict[str, Any] = {key: getattr(model, key, None) for key in LETTERS}
    found = {}
    for key, rule in sizes.items():
        if not hasattr(model, key):
            problem = f"sets model.{key}, which model={experiment.choices['model']} does not have"
            raise ConfigError(preset, problem, "take a model from scratch")
        if key not in LETTERS and getattr(model, key) != getattr(type(model)(), key):
            problem = f"{getattr(model, key)} was given, but {preset} sets {rule}"
            raise ConfigError(f"model.{key}", problem, "drop one of the two")
        used = {name: letter for name, letter in LETTERS.items() if letter in rule}
        if key in LETTERS and used.keys() - {key}:
            problem = f"model.{key} is {rule}, which follows from another size than its own"
            raise ConfigError("baseline.sizes", problem, f"take {LETTERS[key]} and whole numbers")
        if lacking := [key for key in used if given[key] is None]:
            raise ConfigError(preset, f"model.{key} is {rule}, and model.{lacking[0]} is not known here", "drop it")
        value = _value(rule, {letter: given[key] for key, letter in used.items()})
        if value.denominator != 1 or value < 1:
            told = ", ".join(f"model.{key}={given[key]}" for key in used)
            raise ConfigError(preset, f"model.{key} would be {rule} = {float(value):g} with {told}", "give other sizes")
        found[key] = int(value)
    for key, size in found.items():
        setattr(model, key, size)


def before_sizes(sizes: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration, by dotted key, with the model's own sizes in place of what `sizes` made of them.

    What follows from another size alone is left out.
    """
    found = dict(values)
    for key, rule in sizes.items():
        made = found.pop(f"model.{key}", None)
        if key in LETTERS and made is not None and LETTERS[key] in rule:
            # Each is a straight line in its own letter.
            start, slope = (_value(rule, {LETTERS[key]: at}) for at in (0, 1))
            base = (made - start) / (slope - start)
            found[f"model.{key}"] = int(base) if base.denominator == 1 else made
    return found


def _value(rule: str, sizes: Mapping[str, int]) -> Fraction:
    """The value of a rule such as `4 * E`. ConfigError for one that is no sum or product of numbers and letters."""

    def of(node: ast.AST) -> Fraction:
        match node:
            case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
                return _OPERATIONS[type(operation)](of(left), of(right))
            case ast.Name(letter) if letter in sizes:
                return Fraction(sizes[letter])
            case ast.Constant(int(number)):
                return Fraction(number)
        raise ConfigError("baseline.sizes", f"'{rule}' cannot be read", "take whole numbers, + - * / and E, f, k")

    try:
        return of(ast.parse(rule, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise ConfigError("baseline.sizes", f"'{rule}' cannot be computed", f"mend it: {error}") from None

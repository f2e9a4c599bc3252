"""Draws command lines of train.py from a seed: valid ones, odd ones, and every mixture."""

from __future__ import annotations

import math
import random
from dataclasses import Field, fields

from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.config.tree import option_files

# Values that no key takes, or only some, as they would be typed.
ODD = (
    "",
    "null",
    "None",
    "???",
    "true",
    "no",
    "abc",
    "0",
    "-1",
    "-0",
    "+1",
    "1.5",
    "1e3",
    "1e400",
    "1e-400",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1_0",
    "0x10",
    "99999999999999999999",
    "-99999999999999999999",
    "9223372036854775808",
    "2147483648",
    "4294967296",
    "1" + "0" * 400,
    "[]",
    "[1]",
    "[[1]]",
    "[a,b]",
    "[null]",
    "[???]",
    "[${seed}]",
    "[1",
    "{}",
    "{a:1}",
    "{a:{b:[1]}}",
    "'",
    '"',
    "''",
    '""',
    "'a b'",
    '"a\\"b"',
    "a b",
    " ",
    "  1",
    "\\",
    "\\,",
    "a\\,b",
    "a,b",
    "1,2",
    "0..3",
    "3..0",
    "range(1,3)",
    "glob(*)",
    "choice(1,2)",
    "interval(0,1)",
    "tag(a,1)",
    "sort([2,1])",
    "extend_list(1)",
    "int(1.7)",
    "int(x)",
    "float(1)",
    "str(1)",
    "bool(1)",
    "shuffle(1,2)",
    "${",
    "'${'",
    "${}",
    "'}'",
    "${a}",
    "${seed}",
    "${outputs}",
    "${trainer}",
    "${trainer.max_steps}",
    "${oc.env:HOME}",
    "${oc.env:NOPE_X}",
    "${oc.decode:'['}",
    "${hydra:job}",
    "${now:%Y}",
    "$x",
    "$",
    "=",
    "==1",
    "a=b",
    "@",
    "!",
    "?",
    "*",
    "%",
    "|",
    "&",
    "~",
    "'~/x'",
    "/",
    "'/'",
    ".",
    "..",
    "../x",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<b>",
    ":",
    "a:b",
    "#",
    "'#'",
    "`x`",
    "é",
    "'é'",
    "'💥'",
    "'\u202e'",
    "'\u0661'",
    "١",
    "'\udcff'",
    "'a\nb'",
    "'a\tb'",
    "'\x1b[31m'",
    "'\x00'",
    "a" * 300,
    "a" * 5000,
    "a/" * 2500,
    "[" * 60,
    "(" * 60,
    "'" + "[" * 2000 + "'",
    "/proc/nope",
    "/dev/null",
    "/nope/x",
)
# Words that are no assignment of a key.
STRAY = (
    "seed",
    "router",
    "foo",
    "=",
    "=1",
    ".",
    ".seed=1",
    "seed.=1",
    "seed.x=1",
    "trainer[0]=1",
    "trainer/max_steps=1",
    "trainer..max_steps=1",
    "logger.tags.0=a",
    "logger.tags[0]=a",
    "'seed'=1",
    "${seed}=1",
    "seed:1",
    "seed==1",
    "seed =1",
    " seed=1",
    "SEED=1",
    "foo=1",
    "foo.bar=1",
    "router.nope=1",
    "nope@trainer=default",
    "trainer@x=default",
    "hydra=1",
    "hydra.run.dir=x",
    "hydra.mode=MULTIRUN",
    "hydra/launcher=nope",
    "hydra/launcher=basic",
    "hydra.launcher.x=1",
    "hydra/job_logging=none",
    "hydra.sweeper.n_trials=3",
    "sweeps=a_quota",
    "ablation.routers=[a]",
    "++ablation.routers=",
    "ablation.requires={a:1}",
    "baseline.name=x",
    "search=spectra",
    "schema=1",
    "router=schema_switch",
    "defaults=[x]",
    "_target_=x",
    "trainer._target_=os.system",
    "é=1",
    "--x",
    "-x",
    "-1",
    "--",
    "--cfg",
    "--resolve",
    "--config-dir=/tmp",
    "",
    " ",
    "\n",
    "💥",
    "a" * 5000,
    "\udcff=1",
)
PREFIXES = ("+", "++", "~", "~~", "+++", "@", "-")
TEXTS = ("a", "text", "my_study", "'a b'", "x.y", "web", "code")
PATHS = ("nope.jsonl", "/nope/train.jsonl", ".", "source", "train.jsonl", "x" * 200)


def draw(dice: random.Random) -> list[str]:
    """One command line: options and values that mostly belong together, and now and then something odd."""
    oddness = dice.choice((0.0, 0.0, 0.1, 0.4))
    groups = dice.sample(list(GROUPS), dice.choice((0, 0, 1, 1, 2, 3)))
    chosen = {group: _option(dice, group, oddness) for group in groups}
    words = [f"{group}={option}" for group, option in chosen.items()]
    keys = _keys(dice, chosen)
    for key, field in dice.sample(keys, min(len(keys), dice.choice((0, 1, 1, 2, 3, 5)))):
        words.append(f"{key}={odd(dice) if dice.random() < oddness else valid(dice, field)}")
    if dice.random() < oddness:
        words.append(dice.choice(STRAY))
    if words and dice.random() < oddness / 4:
        words.append(dice.choice(words))
    if words and dice.random() < oddness / 2:
        place = dice.randrange(len(words))
        words[place] = dice.choice(PREFIXES) + words[place]
    dice.shuffle(words)
    return words


def _option(dice: random.Random, group: str, oddness: float) -> str:
    # The launchers belong to many runs, a loss or a data set that has to be fetched to a network.
    return odd(dice) if dice.random() < oddness / 4 else dice.choice(list(option_files(group)))


def _keys(dice: random.Random, chosen: dict[str, str]) -> list[tuple[str, Field]]:
    """Keys that the command line could have beside the options chosen: those of one schema of each group."""
    keys = [(f.name, f) for f in fields(RootKeys) if f.name != "outputs"]
    usual = {"router": "schema_spectra", "data": "schema_embedded"}
    for group in GROUPS:
        schemas = group_schemas(group)
        name = f"schema_{chosen[group]}" if group in chosen else usual.get(group, "schema")
        schema = schemas.get(name) or schemas.get("schema") or schemas[dice.choice(list(schemas))]
        keys += [(f"{group}.{f.name}", f) for f in fields(schema)]
    return keys


def odd(dice: random.Random) -> str:
    """A value that is likely to be refused."""
    if dice.random() < 0.15:
        return "".join(chr(dice.choice((dice.randrange(32, 127), dice.randrange(1, 0x2FFF)))) for _ in range(6))
    return dice.choice(ODD)


def valid(dice: random.Random, field: Field) -> str:
    """A value that the key's own limits allow, often near one of them."""
    limits, kind = field.metadata, str(field.type)
    if "None" in kind and dice.random() < 0.1:
        return "null"
    if limits["choices"]:
        return str(dice.choice(list(limits["choices"])))
    match kind.split(" ")[0]:
        case "bool":
            return dice.choice(("true", "false"))
        case "int":
            return str(round(_number(dice, limits)))
        case "float":
            return repr(float(_number(dice, limits)))
        case "str":
            return dice.choice(PATHS if limits["path"] else TEXTS)
    return dice.choice(("[]", "[a]", "[a,b]", "[val_loss]", "['a b']"))


def _number(dice: random.Random, limits: dict[str, float | None]) -> float:
    low = limits["minimum"] if limits["minimum"] is not None else limits["above"]
    high = limits["maximum"]
    near = dice.random()
    if near < 0.1:
        return low if limits["minimum"] is not None else 1e-12
    if near < 0.2:
        return high
    # Small numbers as often as large ones.
    return min(high, low + math.exp(dice.uniform(math.log(1e-3), math.log(1 + min(high - low, 1e3)))))

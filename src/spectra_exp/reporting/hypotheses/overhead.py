"""H4: SPECTRA's routing and step times against Switch's, from the benchmark of table 9."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from spectra_exp.config.names import method_name
from spectra_exp.config.tree import option_files
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting import grid
from spectra_exp.reporting.hypotheses.parts import Part, Ruling, judge
from spectra_exp.reporting.hypotheses.samples import Lack
from spectra_exp.statistics.comparison import MIN_SEEDS, compare

COMMAND = "spectra-exp overhead"
SWITCH = method_name(grid.SWITCH)
MOST = 1.10
TIMES = ("routing_ms", "step_ms")

Times = Mapping[str, Mapping[str, list[float]]]


def overhead_rulings(profile: str | None) -> dict[str, Ruling]:
    """H4's verdict for each rule (osr) of SPECTRA that was timed; one under the empty name when none was.

    profile: what `bench/overhead.json` holds: {"methods": {name: {"routing_ms": [...], "step_ms": [...]}}}, names as in
    the tables, times in milliseconds. The repeats are interleaved: the i-th of every method were timed side by side.
    """
    try:
        methods = read_times(profile)
    except SpectraError as error:
        return {"": Lack(str(error), COMMAND).ruling()}
    names = {rule: method_name({"router": "spectra", "osr": rule}) for rule in option_files("osr")}
    timed = {rule: name for rule, name in names.items() if name in methods}
    if not timed or SWITCH not in methods:
        return {"": Lack(f"overhead.json has no times of {SWITCH if timed else 'SPECTRA'}", COMMAND).ruling()}
    return {rule: judge([_ratio(name, methods, time) for time in TIMES]) for rule, name in timed.items()}


def read_times(profile: str | None) -> Times:
    """The repeats of each method, checked. Raises SpectraError, with the reason, for a profile that gives none."""
    if profile is None:
        raise SpectraError("no bench/overhead.json")
    try:
        methods = json.loads(profile)["methods"]
        times = {name: {time: list(map(float, method[time])) for time in TIMES} for name, method in methods.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpectraError(f"bench/overhead.json is not usable ({type(error).__name__}: {error})") from error
    for name, method in times.items():
        if not all(math.isfinite(t) and t > 0 for repeats in method.values() for t in repeats):
            raise SpectraError(f"bench/overhead.json: {name} has a time that is not above zero")
    return times


def _ratio(name: str, methods: Times, time: str) -> Part:
    """The geometric mean over repeats of SPECTRA's time over Switch's, claimed to be below `MOST`."""
    own, switch = methods[name][time], methods[SWITCH][time]
    what = f"{time}, {name} / {SWITCH}"
    if len(own) != len(switch) or len(own) < MIN_SEEDS:
        return Lack(f"{len(own)} and {len(switch)} repeats of {time}: not interleaved or too few", COMMAND).part(what)
    test = compare(dict(enumerate(map(math.log, own))), dict(enumerate(map(math.log, (MOST * t for t in switch)))))
    if test.difference is None:
        return Part(what, untested=test.note)
    if test.p is None or test.ci_low is None or test.ci_high is None:
        return Part(what, number_text(MOST * math.exp(test.difference)), untested=test.note)
    ratio, low, high = (number_text(MOST * math.exp(x)) for x in (test.difference, test.ci_low, test.ci_high))
    return Part(what, f"{ratio} [{low}, {high}] against {MOST:.2f}, n {test.n} repeats", test.difference < 0, test.p)

"""Table 9: what each part of a routed layer costs in a training step, from the profile of `spectra-exp overhead`."""

from __future__ import annotations

import json
from typing import Any

from spectra_exp.foundations.errors import first_line
from spectra_exp.presentation.text import interval_text, number_text
from spectra_exp.reporting.tables.spec import Gap, Grid, Part, Table
from spectra_exp.statistics.intervals import mean_interval

NAME, TITLE = "table09_overhead", "Cost of routing in a training step"
SCHEMA = 1
LABELS = {
    "sequence": "Recurrence (GRU)",
    "expression": "Expression projection",
    "gram": "Gram matrix",
    "similarity": "Cosine similarity",
    "cost": "OSR cost",
    "sinkhorn": "Sinkhorn",
    "router": "Rest of the router",
    "selection": "Selection",
    "dispatch": "Dispatch and combine",
    "experts": "Experts",
}
TOTAL = "Total of the routed layers"


def overhead_table(profile: str | None) -> Table:
    """The table of a profile's JSON; empty, with the command that fills it, where none has been made."""
    import pandas as pd

    content = read_overhead(profile)
    if isinstance(content, str):
        gap = Gap(NAME, "", "every part", "", content, "spectra-exp overhead")
        return Table(NAME, TITLE, pd.DataFrame(), [], [gap])
    records, parts = [], []
    headers = ["part", "ms", "FLOPs (10⁶), forward and backward", "% of total"]
    where, typed = f"{content['device']}, {content['tokens']} tokens a step", " ".join(content["overrides"])
    for method, measured in content["methods"].items():
        own = _records(method, measured)
        records += own
        body = [[r["part"], r["ms"], number_text(r["flops"] / 1e6), number_text(r["percent"], 1)] for r in own]
        step = interval_text(mean_interval(measured["step_ms"]))
        notes = [f"The whole step, forward and backward: {step} ms, n = {len(measured['step_ms'])} steps."]
        parts.append(Part(" ".join(filter(None, [method, typed])), [Grid(where, headers, body)], notes))
    return Table(NAME, TITLE, pd.DataFrame(records), parts)


def read_overhead(profile: str | None) -> dict[str, Any] | str:
    """The content of a profile's JSON, or why there is none."""
    if profile is None:
        return "no profile has been made"
    try:
        content = json.loads(profile)
    except ValueError as error:
        return f"overhead.json cannot be read ({first_line(error)})"
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return f"overhead.json is not a profile of schema {SCHEMA}"
    return content


def _records(method: str, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a part, forward and backward together; shares are of the mean total."""
    parts = measured["parts"]
    repeats = range(len(measured["step_ms"]))
    totals = [sum(part["ms"][i] for part in parts.values()) for i in repeats]
    whole = {"ms": totals, "flops": sum(part["flops"] for part in parts.values())}
    mean_total = sum(totals) / len(totals)
    rows = {LABELS[name]: parts[name] for name in LABELS if name in parts} | {TOTAL: whole}
    found = []
    for name, part in rows.items():
        interval = mean_interval(part["ms"])
        assert interval is not None  # a profile has at least one repeat
        found.append(
            {
                "method": method,
                "part": name,
                "ms": interval_text(interval),
                "ms_mean": interval.mean,
                "ms_ci_low": interval.low,
                "ms_ci_high": interval.high,
                "ms_n": interval.n,
                "flops": part["flops"],
                "percent": 100 * interval.mean / mean_total,
            }
        )
    return found

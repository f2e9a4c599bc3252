"""H1 to H3 and H7: SPECTRA against Switch top-2, in the study `baselines`."""

from __future__ import annotations

from collections.abc import Sequence

from spectra_exp.config.names import method_name
from spectra_exp.reporting.collect import INFERENCE, TRAINING_RULE
from spectra_exp.reporting.grid import SWITCH, Section
from spectra_exp.reporting.hypotheses.parts import Part, Ruling, Side, judge
from spectra_exp.reporting.hypotheses.samples import (
    Lack,
    Rows,
    design_of,
    difference,
    fill_command,
    one_row,
    same_seeds,
    sample,
    test_seeds,
    test_values,
    usable_rows,
)

# Where the paper expects the larger gains.
SPECIALISED = ("code", "math", "science")
DOMAIN = "val_loss_"


def task_performance(section: Section, rule: str) -> Ruling:
    """H1: lower validation loss and higher downstream score than Switch."""
    return _against_switch(section, rule, {"val_loss": "lower", "downstream_score": "higher"})


def specialization(section: Section, rule: str) -> Ruling:
    """H2: less expert overlap and more orthogonal expert outputs than Switch."""
    return _against_switch(section, rule, {"expert_overlap": "lower", "output_gram_orthogonality": "higher"})


def stability(section: Section, rule: str) -> Ruling:
    """H3: routing consistency above its own chance floor, and usage that varies less than Switch's."""
    rows = _rows(section, rule)
    return judge([_above_floor(section, rows, rule), difference(section, rows, "usage_variance", "lower", rule)])


def specialised_domains(section: Section, rule: str) -> Ruling:
    """H7: the mean gain in validation loss on code, math and science above that on the other domains, seed by seed."""
    rows = _rows(section, rule)
    usable_rows(section, rows, ("val_loss",), rule)
    domains = _domains(section, rows)
    if missing := [domain for domain in SPECIALISED if domain not in domains]:
        raise Lack(f"the data has no domain {', '.join(missing)}")
    rest = [domain for domain in domains if domain not in SPECIALISED]
    if not rest:
        raise Lack("the data has no other domain")
    found = sample(section, rows, [DOMAIN + domain for domain in (*SPECIALISED, *rest)], rule)
    spectra, switch = rows

    def mean_gain(domains: Sequence[str]) -> dict[int, float]:
        pairs = [(found.values[switch, DOMAIN + d], found.values[spectra, DOMAIN + d]) for d in domains]
        return {seed: sum(a[seed] - b[seed] for a, b in pairs) / len(pairs) for seed in pairs[0][0]}

    what = f"gain over Switch on {', '.join(SPECIALISED)} − on {', '.join(rest)}"
    return judge([found.compared(what, mean_gain(SPECIALISED), mean_gain(rest), "higher")])


def _against_switch(section: Section, rule: str, claims: dict[str, Side]) -> Ruling:
    rows = _rows(section, rule)
    return judge([difference(section, rows, metric, side, rule) for metric, side in claims.items()])


def _above_floor(section: Section, rows: Rows, rule: str) -> Part:
    """Consistency against what random routing with the router's own loads would have, in the same run."""
    name, row = next(iter(rows.items()))
    what, metric = f"routing_consistency of {name} − its chance floor", "routing_consistency"
    try:
        own = usable_rows(section, {name: row}, (metric,), rule)[name]
        floors = {seed: floor for seed, floor in section.floors(own, metric).items() if seed in test_seeds(own)}
        arms = {(name, metric): test_values(section, own, metric), (name, f"floor of {metric}"): floors}
        found = same_seeds(arms, fill_command(section, rule), design_of({name: row}))
    except Lack as lack:
        return lack.part(what)
    values, by_chance = found.values.values()
    return found.compared(what, values, by_chance, "higher")


def _domains(section: Section, rows: Rows) -> list[str]:
    """The domains that the rows' runs were scored on."""
    runs = {row.runs[seed] for row in rows.values() if row for seed in test_seeds(row)}
    scored = {metric for run, metric in section.collected.figures if run in runs and metric.startswith(DOMAIN)}
    # A loss over all domains under another rule begins like the loss of a domain.
    return sorted(m.removeprefix(DOMAIN) for m in scored if TRAINING_RULE not in m and INFERENCE not in m)


def _rows(section: Section, rule: str) -> Rows:
    wanted = {"router": "spectra", "osr": rule}
    return {method_name(wanted): one_row(section, wanted), method_name(SWITCH): one_row(section, SWITCH)}

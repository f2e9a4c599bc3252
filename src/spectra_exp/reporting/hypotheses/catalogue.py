"""Every hypothesis, declared once: its claim, its test, its study; and the verdicts on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.hypotheses import ablations, baselines, overhead, scaling, temperature
from spectra_exp.reporting.hypotheses.parts import Ruling
from spectra_exp.reporting.hypotheses.samples import Lack, fill_command, rules
from spectra_exp.reporting.material import Material


@dataclass(frozen=True)
class Verdict:
    """What the finished runs say of a hypothesis, in one section of its study and under one rule (osr) of SPECTRA.

    figures: the numbers in words; reason: why not supported; command: fills what is missing, empty where nothing would.
    """

    name: str
    rule: str
    section: str
    claim: str
    test: str
    figures: str
    verdict: str
    reason: str
    command: str = ""


# A ruling after the rule and the title of the section that it holds for.
Case = tuple[str, str, Ruling]


@dataclass(frozen=True)
class Hypothesis:
    """A claim with its test in words. `cases`: the rulings on it, one a rule and section; none where nothing ran."""

    name: str
    claim: str
    test: str
    study: str
    cases: Callable[[Material, str], list[Case]]


def all_verdicts(material: Material) -> list[Verdict]:
    """A verdict for each hypothesis, rule and section with a finished run; "not tested" once where there is none."""
    found = []
    for h in HYPOTHESES:
        cases = h.cases(material, h.study)
        if not cases:
            lack = Lack(f"no finished run of study {h.study}", fill_command(material.sections[h.study][0]))
            cases = [("", "", lack.ruling())]
        found += [
            Verdict(h.name, rule, section, h.claim, h.test, r.figures, r.verdict, r.reason, r.command)
            for rule, section, r in cases
        ]
    return found


def _by_rule(ruling: Callable[[Section, str], Ruling]) -> Callable[[Material, str], list[Case]]:
    """The cases of a hypothesis about SPECTRA."""
    return lambda material, study: [
        (rule, section.title, _ruled(ruling, section, rule))
        for section in _with_runs(material, study)
        for rule in rules(section)
    ]


def _by_section(ruling: Callable[[Section], Ruling]) -> Callable[[Material, str], list[Case]]:
    """The cases of a hypothesis about another router."""
    return lambda material, study: [("", s.title, _ruled(ruling, s)) for s in _with_runs(material, study)]


def _ruled(ruling: Callable[..., Ruling], *arguments: Section | str) -> Ruling:
    try:
        return ruling(*arguments)
    except Lack as lack:
        return lack.ruling()


def _with_runs(material: Material, study: str) -> list[Section]:
    sections = [section for section in material.sections[study] if not section.choosing]
    return [section for section in sections if any(row.runs for row in section.rows)]


def _timed(material: Material, study: str) -> list[Case]:
    """The cases of the benchmark, which is no study."""
    return [(rule, "", ruling) for rule, ruling in overhead.overhead_rulings(material.sources.profile).items()]


HYPOTHESES = (
    Hypothesis(
        "H1",
        "SPECTRA outperforms Switch top-2",
        "val_loss lower and downstream_score higher, each by a paired t test",
        "baselines",
        _by_rule(baselines.task_performance),
    ),
    Hypothesis(
        "H2",
        "SPECTRA's experts specialize more than Switch's",
        "expert_overlap lower and output_gram_orthogonality higher, each by a paired t test",
        "baselines",
        _by_rule(baselines.specialization),
    ),
    Hypothesis(
        "H3",
        "SPECTRA's routing is more stable than chance and than Switch's",
        "routing_consistency above its own floor and usage_variance lower, each by a paired t test",
        "baselines",
        _by_rule(baselines.stability),
    ),
    Hypothesis(
        "H4",
        "SPECTRA costs about as much time as Switch",
        "routing and step time below 1.10 times Switch's, each by a paired t test of log ratios over repeats",
        "",
        _timed,
    ),
    Hypothesis(
        "H5",
        "Each part of SPECTRA contributes, and they add up",
        "each ablation worse in its declared metric (paired t); val_loss falls over the ladder (Page), no rung worse",
        "core",
        _by_rule(ablations.ablation_importance),
    ),
    Hypothesis(
        "H6",
        "SPECTRA's gain grows with the model",
        "slope of the paired gain in val_loss over log active parameters above 0, over at least 3 sizes",
        "scaling_model",
        _by_rule(scaling.model_scaling),
    ),
    Hypothesis(
        "H7",
        "SPECTRA gains most on code, math and science",
        "mean gain in val_loss on those domains above that on the others, by a paired t test",
        "baselines",
        _by_rule(baselines.specialised_domains),
    ),
    Hypothesis(
        "T1",
        "The best constant temperature lies in 1.5 to 2",
        "one of 1.5 and 2 lower in val_loss than every other constant, by paired t tests",
        "temperature",
        _by_section(temperature.best_constant),
    ),
    Hypothesis(
        "T2",
        "Cosine is the best schedule, and better than any constant",
        "cosine lower in val_loss than each constant (paired t); cosine, exponential, step, linear in order (Page)",
        "temperature",
        _by_section(temperature.scheduling),
    ),
    Hypothesis(
        "T3",
        "Low temperature unbalances the load",
        "load_gini falls over the constants (Spearman); above 0.3 at 0.5, 0.15 to 0.25 at 1, below 0.15 at 2 (t)",
        "temperature",
        _by_section(temperature.load_imbalance),
    ),
    Hypothesis(
        "T4",
        "Routing entropy falls over training, most at low temperature",
        "routing_entropy at 10 % above that at 100 % (paired t); slope of the fall over log T below 0",
        "temperature",
        _by_section(temperature.entropy_fall),
    ),
)

"""How parts make a verdict, H4 from the benchmark's times, and the table of all verdicts."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis_worlds import outcomes, verdicts_on

from spectra_exp.config.presets import ladder
from spectra_exp.config.tree import option_files
from spectra_exp.reporting.hypotheses import HYPOTHESES, Verdict, all_verdicts, hypotheses_table, overhead
from spectra_exp.reporting.hypotheses.ablations import declared_metrics
from spectra_exp.reporting.hypotheses.parts import Part, compared, judge, ordered
from spectra_exp.reporting.make_tables import all_tables
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.reporting.tables.write import latex, markdown

NAMES = [*(f"H{i}" for i in range(1, 8)), *(f"T{i}" for i in range(1, 5))]


def part(p: float | None, toward: bool = True, family: str = "") -> Part:
    return Part("this", "1", toward, p, "" if p is not None else "n<3", "" if p is not None else "make it", family)


@pytest.mark.parametrize(
    "parts, guards, verdict",
    [
        ([part(0.04)], [], "supported"),
        ([part(0.06)], [], "inconclusive"),
        ([part(0.04, toward=False)], [], "contradicted"),
        ([part(0.06, toward=False)], [], "inconclusive"),
        ([part(None)], [], "not tested"),
        # Holm over two: 0.03 counts as 0.06 beside another that is no smaller, and as 0.03 beside a smaller one.
        ([part(0.03), part(0.03)], [], "inconclusive"),
        ([part(0.03), part(0.02)], [], "supported"),
        ([part(0.03, family="a"), part(0.03, family="b")], [], "supported"),
        ([part(0.001), part(0.2)], [], "inconclusive"),
        ([part(0.001), part(0.001, toward=False)], [], "contradicted"),
        ([part(0.001), part(None)], [], "not tested"),
        ([part(0.001, toward=False), part(None)], [], "contradicted"),
        # Guards need not be significant, count in the family, and contradict.
        ([part(0.001)], [part(0.9), part(0.9, toward=False)], "supported"),
        ([part(0.03)], [part(0.9)], "inconclusive"),
        ([part(0.001)], [part(0.001, toward=False)], "contradicted"),
        ([part(0.001)], [part(None)], "not tested"),
    ],
)
def test_a_claim_stands_with_all_of_its_parts(parts: list[Part], guards: list[Part], verdict: str) -> None:
    found = judge(parts, guards)
    assert found.verdict == verdict
    assert (found.reason == "") == (verdict == "supported")
    assert found.command == ("make it" if verdict == "not tested" else "")
    assert found.figures.count("; ") == len(parts) + len(guards) - 1


def test_page_is_two_sided() -> None:
    rising = [[0.0, 1.0, 2.0, 3.0]] * 3
    found = ordered("rises", rising)
    one_sided = scipy.stats.page_trend_test(rising).pvalue
    assert found.toward and found.p == pytest.approx(2 * one_sided)
    falling = ordered("rises", [row[::-1] for row in rising])
    assert not falling.toward and falling.p == pytest.approx(2 * one_sided)
    assert ordered("rises", rising[:2]).untested == "n<3"


def test_comparisons_take_pairs_alone() -> None:
    with pytest.raises(AssertionError):
        compared("a − b", {0: 1.0, 1: 1.1, 2: 1.2}, {0: 1.0, 1: 1.1, 3: 1.2}, "lower")


def decided(rng: np.random.Generator, claims: int) -> bool:
    """Whether a claim of so many parts about two identical arms, over five seeds, gets a verdict."""
    luck = rng.normal(0.0, 1.0, (claims, 5))
    a, b = (luck + rng.normal(0.0, 0.1, luck.shape) for _ in range(2))
    arms = [[dict(enumerate(row.tolist())) for row in arm] for arm in (a, b)]
    parts = [compared(f"part {i}", x, y, "lower") for i, (x, y) in enumerate(zip(*arms, strict=True))]
    return judge(parts).verdict in ("supported", "contradicted")


def test_identical_arms_rarely_get_a_verdict() -> None:
    rng = np.random.default_rng(3)
    false = sum(decided(rng, claims=1 + study % 3) for study in range(1000))
    # At a true rate of 5 % more than this many come up once in a hundred times.
    assert false <= scipy.stats.binom.ppf(0.99, 1000, 0.05)


# H4


SPECTRA, SWITCH = "SPECTRA (paper)", "Switch top-2"


def timed(
    outputs: Path, routing: float, step: float, noise: float = 0.01, repeats: int = 6, names: Sequence[str] = ()
) -> Material:
    """Times of a machine that slows down threefold meanwhile; SPECTRA takes `routing` and `step` times Switch's."""
    rng = np.random.default_rng(5)
    slower = np.linspace(1.0, 3.0, repeats)

    def times(ratio: float) -> list[float]:
        return (2.0 * ratio * slower * np.exp(rng.normal(0.0, noise, repeats))).tolist()

    methods = {
        name: {
            "routing_ms": times(routing if name == SPECTRA else 1.0),
            "step_ms": times(step if name == SPECTRA else 1.0),
        }
        for name in (names or (SPECTRA, SWITCH))
    }
    return written(outputs, json.dumps({"methods": methods}))


def written(outputs: Path, text: str) -> Material:
    (outputs / "bench").mkdir(exist_ok=True)
    (outputs / "bench" / "overhead.json").write_text(text)
    return gather(outputs)


@pytest.mark.parametrize(
    "routing, step, noise, verdict",
    [
        (1.04, 1.02, 0.01, "supported"),
        (0.5, 0.9, 0.01, "supported"),
        (1.3, 1.02, 0.01, "contradicted"),
        (1.04, 1.2, 0.01, "contradicted"),
        (1.10, 1.02, 0.01, "inconclusive"),
        (1.04, 1.02, 0.3, "inconclusive"),
    ],
)
def test_overhead(tmp_path: Path, routing: float, step: float, noise: float, verdict: str) -> None:
    assert outcomes("H4", timed(tmp_path, routing, step, noise)) == {"paper": verdict}


def test_overhead_is_the_geometric_mean_ratio_of_interleaved_repeats(tmp_path: Path) -> None:
    found = verdicts_on("H4", timed(tmp_path, 1.04, 1.02, noise=1e-4))["paper"]
    assert found.figures.startswith(
        "routing_ms, SPECTRA (paper) / Switch top-2: 1.040 [1.040, 1.040] against 1.10, n 6 repeats"
    )
    times = json.loads((tmp_path / "bench" / "overhead.json").read_text())["methods"]
    logs = [math.log(a / b) for a, b in zip(times[SPECTRA]["step_ms"], times[SWITCH]["step_ms"], strict=True)]
    assert f"step_ms, SPECTRA (paper) / Switch top-2: {math.exp(np.mean(logs)):.3f} [" in found.figures


def test_without_usable_times_overhead_is_not_tested(tmp_path: Path) -> None:
    def found(material: Material) -> tuple[str, str]:
        [verdict] = verdicts_on("H4", material).values()
        assert (verdict.verdict, verdict.command) == ("not tested", "spectra-exp overhead")
        return verdict.rule, verdict.reason

    assert found(gather(tmp_path)) == ("", "no bench/overhead.json")
    assert "JSONDecodeError" in found(written(tmp_path, '{"methods": {'))[1]
    assert "KeyError" in found(written(tmp_path, '{"methods": {"Hash": {"step_ms": [1.0]}}}'))[1]
    assert "AttributeError" in found(written(tmp_path, '{"methods": [1]}'))[1]
    assert (
        "Hash has a time that is not above zero"
        in found(written(tmp_path, '{"methods": {"Hash": {"step_ms": [1.0], "routing_ms": [NaN]}}}'))[1]
    )
    assert found(timed(tmp_path, 1.0, 1.0, names=(SPECTRA, "Hash"))) == (
        "",
        "overhead.json has no times of Switch top-2",
    )
    assert found(timed(tmp_path, 1.0, 1.0, names=(SWITCH, "Hash"))) == ("", "overhead.json has no times of SPECTRA")
    assert found(timed(tmp_path, 1.0, 1.0, repeats=2)) == (
        "paper",
        "2 and 2 repeats of routing_ms: not interleaved or too few; "
        "2 and 2 repeats of step_ms: not interleaved or too few",
    )


def test_both_rules_are_timed_apart(tmp_path: Path) -> None:
    material = timed(tmp_path, 1.3, 1.02, names=(SPECTRA, "SPECTRA (causal)", SWITCH))
    assert outcomes("H4", material) == {"paper": "contradicted", "causal": "supported"}


def test_planted_fault_the_means_of_times_that_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpaired(a: dict[int, float], b: dict[int, float], real=overhead.compare):
        return real(a, {key + 100: value for key, value in b.items()})

    material = timed(tmp_path, 1.04, 1.02)
    monkeypatch.setattr(overhead, "compare", unpaired)
    assert outcomes("H4", material) == {"paper": "inconclusive"}


def test_planted_fault_no_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "MOST", 1.0)
    assert outcomes("H4", timed(tmp_path, 1.04, 1.02)) == {"paper": "contradicted"}


# All of them


def test_no_verdict_without_runs(tmp_path: Path) -> None:
    found = all_verdicts(gather(tmp_path))
    assert [v.name for v in found] == NAMES == [h.name for h in HYPOTHESES]
    assert {(v.verdict, v.rule, v.section, v.figures) for v in found} == {("not tested", "", "", "")}
    assert all(v.reason and v.command.startswith(("make ", "spectra-exp overhead")) for v in found)
    assert {v.name: v.command for v in found}["H6"] == "make scaling"


MADE = [
    Verdict(
        "H1", "paper", "as in its file", "claim 1", "test 1", "a: −0.1, p 0.0010; b: +0.2, p 0.0020", "supported", ""
    ),
    Verdict(
        "H1", "causal", "as in its file", "claim 1", "test 1", "a: 1", "contradicted", "significant the other way: a"
    ),
    Verdict(
        "T1", "", "trainer.max_steps=50", "claim 2", "test 2", "", "not tested", "n<3: 2 seeds", "make temperature"
    ),
    Verdict("H2", "causal", "as in its file", "claim 3", "test 3", "", "not tested", "not to be filled"),
]


def test_the_table_has_every_verdict_and_the_gaps_of_the_untested() -> None:
    table = hypotheses_table(MADE)
    assert table.name == "hypotheses" and len(table.frame) == 4
    read = list(csv.DictReader(io.StringIO(table.frame.to_csv(index=False))))
    assert [tuple(row.values()) for row in read] == [tuple(vars(v).values()) for v in MADE]
    assert [(g.table, g.part, g.row, g.reason, g.command) for g in table.gaps] == [
        ("hypotheses", "trainer.max_steps=50", "T1", "n<3: 2 seeds", "make temperature"),
        ("hypotheses", "as in its file", "H2 causal", "not to be filled", ""),
    ]
    verdicts, figures, tests = table.parts[0].grids
    assert verdicts.headers == ["hypothesis", "rule", "section", "claim", "verdict", "reason"]
    assert verdicts.rows[1] == [
        "H1",
        "causal",
        "as in its file",
        "claim 1",
        "contradicted",
        "significant the other way: a",
    ]
    assert [row[-1] for row in figures.rows] == ["a: −0.1, p 0.0010", "b: +0.2, p 0.0020", "a: 1"]
    assert tests.rows == [["H1", "claim 1", "test 1"], ["T1", "claim 2", "test 2"], ["H2", "claim 3", "test 3"]]
    for text in (markdown(table), latex(table)):
        assert all(word in text for word in ("supported", "contradicted", "not tested", "claim 3"))


def test_sections_are_named_when_there_are_several() -> None:
    assert hypotheses_table(MADE[:2]).parts[0].grids[0].headers == ["hypothesis", "rule", "claim", "verdict", "reason"]
    assert len(hypotheses_table([]).frame) == 0


def test_the_table_is_among_all_tables(tmp_path: Path) -> None:
    [table] = [table for table in all_tables(gather(tmp_path)) if table.name == "hypotheses"]
    assert list(table.frame["name"]) == NAMES and len(table.gaps) == len(NAMES)


def test_every_single_ablation_declares_a_metric_with_a_direction() -> None:
    declared = declared_metrics()
    assert set(declared) == set(option_files("ablation")) - {"none", *ladder()}
    assert {direction(metric) for metric in declared.values()} <= {"lower", "higher"}

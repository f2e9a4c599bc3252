"""H1 to H3 and H7 in worlds where they are true, false, and cannot be told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis_worlds import LUCK, Run, Told, is_spectra, jitter, outcomes, retold, study_of, verdicts_on
from made_studies import given

from spectra_exp.reporting import sections
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.hypotheses import baselines, parts, samples
from spectra_exp.reporting.material import Material
from spectra_exp.statistics.comparison import Comparison, compare

BOTH = ("paper", "causal")
NEEDED = {"none", "switch_top2"}
CHOSEN_ON = 100  # a seed on which settings are chosen; its figures are absurd and must not count


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """SPECTRA under both rules and Switch top-2, five seeds and one more that settings are chosen on."""
    with study_of(
        tmp_path_factory.mktemp("baselines"),
        "baselines",
        "seed=0,1,2,3,4,100",
        "osr=paper,causal",
        figures=lambda job: {} if given(job).get("baseline", "none") in NEEDED else None,
    ) as material:
        yield material


def all_are(verdict: str) -> dict[str, str]:
    return dict.fromkeys(BOTH, verdict)


def shifted(noise: float = 0.003, **shifts: float) -> Told:
    """SPECTRA's metrics lie by `shifts` above Switch's, but for noise; both share the luck of their seed."""

    def figures(run: Run) -> dict[str, float]:
        if run["seed"] == CHOSEN_ON:
            return dict.fromkeys(shifts, -9.0 if is_spectra(run) else 9.0)
        own = {metric: shift if is_spectra(run) else 0.0 for metric, shift in shifts.items()}
        return {m: 4.0 + LUCK[run["seed"]] + shift + jitter(run, m, noise) for m, shift in own.items()}

    return figures


H1_TRUE = shifted(val_loss=-0.05, downstream_score=0.05)
H2_TRUE = shifted(expert_overlap=-0.05, output_gram_orthogonality=0.05)


@pytest.mark.parametrize(
    "name, figures, verdict",
    [
        ("H1", H1_TRUE, "supported"),
        ("H1", shifted(val_loss=0.05, downstream_score=0.05), "contradicted"),
        ("H1", shifted(val_loss=-0.05, downstream_score=-0.05), "contradicted"),
        ("H1", shifted(val_loss=0.05), "contradicted"),
        ("H1", shifted(val_loss=-0.05), "not tested"),
        ("H1", shifted(0.1, val_loss=-0.05, downstream_score=0.05), "inconclusive"),
        ("H1", shifted(val_loss=-0.05, downstream_score=0.0), "inconclusive"),
        ("H2", H2_TRUE, "supported"),
        ("H2", shifted(expert_overlap=0.05, output_gram_orthogonality=0.05), "contradicted"),
        ("H2", shifted(expert_overlap=-0.05, output_gram_orthogonality=-0.05), "contradicted"),
        ("H2", shifted(0.1, expert_overlap=-0.05, output_gram_orthogonality=0.05), "inconclusive"),
        ("H2", shifted(expert_overlap=-0.05, output_gram_orthogonality=0.0), "inconclusive"),
    ],
)
def test_against_switch(world: Material, name: str, figures: Told, verdict: str) -> None:
    assert outcomes(name, retold(world, figures)) == all_are(verdict)


def test_the_rules_are_told_apart(world: Material) -> None:
    better, worse = shifted(val_loss=-0.05, downstream_score=0.05), shifted(val_loss=0.05, downstream_score=0.05)
    mixed = retold(world, lambda run: (worse if run["osr"] == "causal" else better)(run))
    assert outcomes("H1", mixed) == {"paper": "supported", "causal": "contradicted"}


def test_figures_are_the_paired_test_and_a_missing_score_hides_none(world: Material) -> None:
    found = verdicts_on("H1", retold(world, shifted(val_loss=-0.05)))["causal"]
    section = retold(world, shifted(val_loss=-0.05)).sections["baselines"][0]
    ours, switch = (
        {s: v for s, v in section.values(section.find(wanted)[0], "val_loss").items() if s != CHOSEN_ON}
        for wanted in ({"osr": "causal"}, {"baseline": "switch_top2"})
    )
    test = compare(ours, switch)
    assert test.method == "paired t" and test.n == 5
    assert f"−{abs(test.difference):.5f}" in found.figures
    assert f"n 5, detectable {test.detectable:.6f}, p {test.p:.3e} (Holm {test.p:.3e})" in found.figures
    assert found.reason == "no downstream_score in the runs of SPECTRA (causal)" and found.command == ""


def test_fewer_than_three_seeds_give_no_verdict(world: Material) -> None:
    two = retold(world, H1_TRUE, lambda run: {} if run["seed"] in (0, 1, CHOSEN_ON) else None)
    found = verdicts_on("H1", two)
    assert {v.verdict for v in found.values()} == {"not tested"}
    assert found["causal"].command == "make baselines OSR=causal" and "n<3: 2 seeds" in found["causal"].reason


def test_a_missing_row_gives_no_verdict(world: Material) -> None:
    without = retold(world, H1_TRUE, lambda run: {} if is_spectra(run) else None)
    found = verdicts_on("H1", without)["paper"]
    assert (found.verdict, found.reason) == ("not tested", "no finished run of Switch top-2")
    assert found.command == "make baselines OSR=paper"


def test_a_seed_without_its_pair_is_left_out(world: Material) -> None:
    def figures(run: Run) -> dict[str, float]:
        absurd = {"val_loss": 99.0, "downstream_score": -99.0}
        return absurd if is_spectra(run) and run["seed"] == 4 else H1_TRUE(run)

    material = retold(world, figures, lambda run: None if run["seed"] == 4 and not is_spectra(run) else {})
    found = verdicts_on("H1", material)["paper"]
    assert found.verdict == "supported" and "n 4, without its pair: seed 4" in found.figures


@pytest.mark.parametrize("causal", [False, None])
@pytest.mark.parametrize("who", [is_spectra, lambda run: not is_spectra(run)])
def test_losses_of_runs_not_known_to_be_causal_are_no_evidence(world: Material, causal: bool | None, who) -> None:
    material = retold(world, H1_TRUE, lambda run: {"causal": causal} if who(run) and run["seed"] == 2 else {})
    for found in verdicts_on("H1", material).values():
        assert found.verdict == "not tested" and found.figures == "" and "causal at seed 2" in found.reason
        assert found.command == ""
    # Overlap does not profit from seeing the future.
    overlap = retold(world, H2_TRUE, lambda run: {"causal": causal} if who(run) else {})
    assert outcomes("H2", overlap) == all_are("supported")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"batches": "shuffled"}, "other batches at seed 1"),
        ({"data_fingerprint": "x"}, "other data at seed 1"),
        ({"evaluation_fingerprint": "x"}, "other evaluation at seed 1"),
        ({"max_steps": 7}, "other max steps at seed 1"),
        ({"weights_by_name": {"embed": "2048x128:x"}}, "other initial weights (embed) at seed 1"),
    ],
)
@pytest.mark.parametrize("name, figures", [("H1", H1_TRUE), ("H2", H2_TRUE)])
def test_runs_that_may_not_be_compared_give_no_verdict(world: Material, name, figures, change, reason) -> None:
    material = retold(world, figures, lambda run: change if is_spectra(run) and run["seed"] == 1 else {})
    for found in verdicts_on(name, material).values():
        assert found.verdict == "not tested" and found.reason.endswith(f"may not be compared: {reason}")


def test_identical_runs_are_not_a_finding(world: Material) -> None:
    same = retold(world, shifted(0.0, val_loss=0.0, downstream_score=0.0))
    found = verdicts_on("H1", same)["paper"]
    assert (found.verdict, found.reason) == ("not tested", "zero variance")


# H3: consistency goes with its own floor from seed to seed, by much more than it lies above it.


def steady(above: float, variance: float, noise: float = 0.003) -> Told:
    def figures(run: Run) -> dict[str, float | tuple[float, float]]:
        if run["seed"] == CHOSEN_ON:
            return {"routing_consistency": (0.0, 1.0), "usage_variance": 9.0}
        floor = 0.3 + LUCK[run["seed"]] / 10 if is_spectra(run) else 0.9
        own = variance if is_spectra(run) else 0.0
        return {
            "routing_consistency": (floor + above + jitter(run, "c", noise), floor),
            "usage_variance": 0.5 + LUCK[run["seed"]] / 10 + own + jitter(run, "u", noise),
        }

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (steady(0.02, -0.02), "supported"),
        (steady(-0.02, -0.02), "contradicted"),
        (steady(0.02, 0.02), "contradicted"),
        (steady(0.02, 0.0), "inconclusive"),
        (steady(0.0, -0.02), "inconclusive"),
        (steady(0.02, -0.02, noise=0.05), "inconclusive"),
    ],
)
def test_stability(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("H3", retold(world, figures)) == all_are(verdict)


def test_consistency_without_a_floor_is_not_tested(world: Material) -> None:
    bare = retold(world, lambda run: steady(0.02, -0.02)(run) | {"routing_consistency": 0.9})
    found = verdicts_on("H3", bare)["paper"]
    assert found.verdict == "not tested" and "no floor of routing_consistency" in found.reason
    assert found.figures.startswith("usage_variance")


# H7. Losses under other rules of routing look like domains by their names, and are not.


def gains(special: float, rest: float, noise: float = 0.003, *left_out: str) -> Told:
    by_domain = {"code": special, "math": special, "science": special, "literature": rest, "dialogue": rest}

    def figures(run: Run) -> dict[str, float | None]:
        sign = -1.0 if is_spectra(run) else 0.0
        losses = {d: 4.0 + LUCK.get(run["seed"], 0.0) + sign * gain for d, gain in by_domain.items()}
        found: dict[str, float | None] = {f"val_loss_{d}": v + jitter(run, d, noise) for d, v in losses.items()}
        absurd = sign * 100 * (special - rest)
        found |= {
            "val_loss_training_rule": absurd,
            "val_loss_math_training_rule": absurd,
            "val_loss_inference_true": absurd,
        }
        return found | {f"val_loss_{d}": None for d in left_out}

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (gains(0.08, 0.02), "supported"),
        (gains(-0.02, -0.08), "supported"),
        (gains(0.02, 0.08), "contradicted"),
        (gains(0.05, 0.05), "inconclusive"),
        (gains(0.08, 0.02, 0.2), "inconclusive"),
        (gains(0.08, 0.02, 0.003, "science"), "not tested"),
        (gains(0.08, 0.02, 0.003, "literature", "dialogue"), "not tested"),
    ],
)
def test_specialised_domains(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("H7", retold(world, figures)) == all_are(verdict)


def test_the_domains_compared_are_named(world: Material) -> None:
    found = verdicts_on("H7", retold(world, gains(0.08, 0.02)))["paper"]
    assert found.figures.startswith("gain over Switch on code, math, science − on dialogue, literature: +0.0")
    missing = verdicts_on("H7", retold(world, gains(0.08, 0.02, 0.003, "science")))["paper"]
    assert missing.reason == "the data has no domain science"


# Planted faults, each of which the worlds above must notice.


def test_planted_fault_the_wrong_sign(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_side(what, a, b, claimed, *rest, **more):
        return parts.compared(what, a, b, "higher" if claimed == "lower" else "lower", *rest, **more)

    monkeypatch.setattr(samples, "compared", other_side)
    assert outcomes("H1", retold(world, H1_TRUE)) == all_are("contradicted")
    assert outcomes("H2", retold(world, H2_TRUE)) == all_are("contradicted")


def test_planted_fault_the_difference_the_other_way_round(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        baselines, "_rows", lambda *arguments, real=baselines._rows: dict([*real(*arguments).items()][::-1])
    )
    assert outcomes("H1", retold(world, H1_TRUE)) == all_are("contradicted")


def test_planted_fault_an_unpaired_comparison(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpaired(a: dict[int, float], b: dict[int, float]) -> Comparison:
        found = compare(a, {seed + 50: value for seed, value in b.items()})
        assert found.method == "Welch's t"
        return found

    monkeypatch.setattr(parts, "compare", unpaired)
    for name, figures in (("H1", H1_TRUE), ("H2", H2_TRUE), ("H3", steady(0.02, -0.02))):
        assert outcomes(name, retold(world, figures)) == all_are("inconclusive")


def test_planted_fault_losses_that_saw_the_future(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "not_causal", lambda *arguments: None)
    leaky = retold(world, H1_TRUE, lambda run: {"causal": False})
    assert outcomes("H1", leaky) == all_are("supported")


def test_planted_fault_runs_that_may_not_be_compared(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = retold(world, H1_TRUE, lambda run: {"batches": "x"} if is_spectra(run) else {})
    section = odd.sections["baselines"][0]
    monkeypatch.setattr(type(section), "pair_problem", lambda *arguments: None)
    assert outcomes("H1", odd) == all_are("supported")


def test_planted_fault_seeds_that_settings_were_chosen_on(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both guards down: a section of their own, and the seeds that a test counts.
    monkeypatch.setattr(samples, "CHOOSING_SEEDS", ())
    monkeypatch.setattr(sections, "CHOOSING_SEEDS", ())
    assert outcomes("H1", retold(world, H1_TRUE)) == all_are("inconclusive")


def test_planted_fault_the_mean_floor(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def mean_floor(section, row, metric, real=Section.floors) -> dict[int, float]:
        found = real(section, row, metric)
        return dict.fromkeys(found, sum(found.values()) / max(1, len(found)))

    monkeypatch.setattr(Section, "floors", mean_floor)
    assert outcomes("H3", retold(world, steady(0.02, -0.02))) != all_are("supported")


def test_planted_fault_other_rules_taken_for_domains(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "TRAINING_RULE", "no such")
    assert outcomes("H7", retold(world, gains(0.08, 0.02))) != all_are("supported")

"""H5 in worlds where each part contributes, where one does not, and where it cannot be told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis_worlds import LUCK, Run, Told, jitter, outcomes, retold, study_of, verdicts_on

from spectra_exp.config.presets import ladder
from spectra_exp.reporting.hypotheses import ablations, parts
from spectra_exp.reporting.hypotheses.ablations import declared_metrics, wanted_ablations
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.studies.definition import load_study

RULES = ("paper", "causal")
SAME = {"no_all": "cumulative_1", "no_quota": "cumulative_5"}  # two names of one run; its choices have one of them


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with study_of(tmp_path_factory.mktemp("core"), "core", "seed=0..2", "osr=paper,causal") as material:
        yield material


def all_are(verdict: str) -> dict[str, str]:
    return dict.fromkeys(RULES, verdict)


def contributing(
    step: float = 0.05,
    noise: float = 0.001,
    effect: float = 0.1,
    odd: dict[str, float] | None = None,
    rungs: dict[str, float] | None = None,
) -> Told:
    """Each ablation worsens its own metric by `effect` (`odd`: others), and each rung lowers the loss by `step`.

    rungs: what is added to the loss of a rung; "none" is the full method. Other metrics of an ablation get better.
    """
    declared = declared_metrics()

    def figures(run: Run) -> dict[str, float]:
        own = {run["ablation"], *(two for one in SAME.items() if run["ablation"] in one for two in one)}
        luck = LUCK[run["seed"]]
        found = {}
        for metric in set(declared.values()):
            shift = sum((odd or {}).get(a, effect) if declared[a] == metric else -0.2 for a in own if a in declared)
            worse = shift if direction(metric) == "lower" else -shift
            found[metric] = 2.0 + luck + worse + jitter(run, metric, noise)
        top = 5 if run["osr"] == "causal" else 6
        [height] = {int(a[-1]) for a in own if a in ladder()} or {top}
        lift = sum((rungs or {}).get(a, 0.0) for a in own)
        return found | {"val_loss": 5.0 + luck - step * height + lift + jitter(run, "loss", noise)}

    return figures


@pytest.mark.parametrize(
    "figures, verdict",
    [
        (contributing(), "supported"),
        (contributing(effect=-0.1), "contradicted"),
        (contributing(odd={"no_gru": -0.1}), "contradicted"),
        (contributing(odd={"no_gru": 0.0}), "inconclusive"),
        (contributing(step=-0.05), "contradicted"),
        (contributing(step=0.0), "inconclusive"),
        (contributing(noise=0.3), "inconclusive"),
        # A rung worse than the one below, although the ladder falls all in all.
        (contributing(rungs={"cumulative_3": 0.1}), "contradicted"),
        (contributing(rungs={"none": 0.2}), "contradicted"),
        # Two rungs alike: none is worse, and the ladder falls.
        (contributing(rungs={"cumulative_3": 0.05}), "supported"),
    ],
)
def test_ablation_importance(world: Material, figures: Told, verdict: str) -> None:
    assert outcomes("H5", retold(world, figures)) == all_are(verdict)


def test_what_a_rule_refuses_is_not_asked_of_it(world: Material) -> None:
    found = verdicts_on("H5", retold(world, contributing()))
    assert "− Quota − Full" in found["paper"].figures and "− Quota" not in found["causal"].figures
    assert "Full − 5 + orthogonality" in found["paper"].figures and "6 + quota" not in found["paper"].figures
    assert "Full − 4 + OSR" in found["causal"].figures and "6 + quota − Full" in found["causal"].figures
    assert {rule: v.figures.count("val_loss, ") for rule, v in found.items()} == all_are(5)
    study = load_study("core")
    assert "no_quota" in wanted_ablations(study, "paper") and "no_quota" not in wanted_ablations(study, "causal")


def test_holm_is_over_the_ablations(world: Material) -> None:
    corrections = []

    def watched(given: list[parts.Part], real=parts.correct) -> list[float | None]:
        corrections.append({part.family: sum(p.family == part.family for p in given) for part in given})
        return real(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "correct", watched)
        outcomes("H5", retold(world, contributing()))
    assert corrections == [{"ablations": 8, "ladder": 6}, {"ablations": 7, "ladder": 6}]


@pytest.mark.parametrize("missing", ["no_gru", "cumulative_2", "none"])
def test_a_missing_row_gives_no_verdict(world: Material, missing: str) -> None:
    without = retold(world, contributing(), lambda run: None if run["ablation"] == missing else {})
    for rule, found in verdicts_on("H5", without).items():
        assert found.verdict == "not tested" and "no finished run of" in found.reason
        assert found.command == f"make ablations OSR={rule}"


def test_a_missing_row_hides_no_contradiction(world: Material) -> None:
    figures = contributing(odd={"no_ortho": -0.1})
    without = retold(world, figures, lambda run: None if run["ablation"] == "no_gru" else {})
    assert outcomes("H5", without) == all_are("contradicted")


def test_the_ladder_is_of_losses_and_so_of_causal_runs_only(world: Material) -> None:
    leaky = retold(world, contributing(step=-0.05), lambda run: {"causal": run["ablation"] != "cumulative_3"})
    for found in verdicts_on("H5", leaky).values():
        assert found.verdict == "not tested" and "3 + recurrence is not known to be causal at seed 0" in found.reason
        assert "val_loss" not in found.figures and "routing_consistency" in found.figures


def test_planted_fault_the_wrong_sign(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "WORSE", {"lower": "lower", "higher": "higher"})
    assert outcomes("H5", retold(world, contributing())) == all_are("contradicted")


def test_planted_fault_the_ladder_upside_down(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "ladder", lambda: ladder()[::-1])
    assert outcomes("H5", retold(world, contributing())) == all_are("contradicted")


def test_planted_fault_every_ablation_by_one_metric(world: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dict.fromkeys(declared_metrics(), "load_cv")
    monkeypatch.setattr(ablations, "declared_metrics", lambda: one)
    assert outcomes("H5", retold(world, contributing())) == all_are("contradicted")

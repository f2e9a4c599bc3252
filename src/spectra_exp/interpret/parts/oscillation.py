"""Early oscillation: how fast routing changes over the first tenth of training, as far as what was kept tells.

Letters: P probe tokens, E experts, K experts kept per token.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret.draw import panels
from spectra_exp.interpret.registry import HISTORY, ROUTED, RUN, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.measure.stability import agreement, expert_sets
from spectra_exp.presentation.style import GREY, PLAIN

EARLY = 0.1
MEASURES = ["per_step", "change", "by_chance", "returned", "returned_by_chance"]
COLUMNS = ["step", "to_step", "fraction", "layer", *MEASURES]


@part("Early oscillation: change of routing per step", RUN, HISTORY, ROUTED, order=64, both=True)
def oscillation(request: Request) -> Result:
    """Change of the probe tokens' experts between snapshots, and of the load's imbalance from log to log.

    `change`: share of k experts exchanged; `by_chance`: the same for independent choices with both loads;
    `per_step`: change over the steps between, which is less than the changes of all steps added up where they undo
    each other. `returned`: share of the experts given up since the snapshot before that are back in the next.
    """
    result, changes, swings = Result(), [], []
    for subject in request.subjects:
        if not subject.has_history:
            result.notes.append(f"{subject.name} left no history.parquet.")
            continue
        if not subject.num_layers:
            result.notes.append(f"{subject.name} has no routed layer.")
            continue
        changes.append(snapshot_changes(subject).assign(run=subject.name))
        swings.append(imbalance_swings(subject.own_run.history).assign(run=subject.name))
        result.notes.append(_cadence(subject, changes[-1]))
    if len(changes) > 1:
        result.notes.append("Change per step compares at one cadence only: over more steps more of it undoes itself.")
    changes, swings = (_joined(frames) for frames in (changes, swings))
    if changes.empty and swings.empty:
        raise Empty("the run kept fewer than two snapshots of its routing, and no rows of its training load")
    result.tables = {"changes": changes, "imbalance": swings, "summary": summary(changes, swings)}
    result.add_picture(
        "changes",
        "Experts exchanged per step between snapshots (mean over layers) and load CV of "
        "each logged training step; the first tenth of the run is shaded.",
        lambda figure: _draw(figure, changes, swings, request.labels),
    )
    return result


def snapshot_changes(subject: Subject) -> pd.DataFrame:
    """One row for each layer and pair of consecutive snapshots. Raises SpectraError where one is damaged."""
    stored = subject.own_run.stored
    kept = list(stored.snapshots.values())
    stored.require(stored.folder.routing.name)
    if kept and kept[0].counts_LE.shape != (subject.num_layers, subject.num_experts):
        raise SpectraError(f"{stored.folder.routing}: its snapshots are of other layers or experts than the model")
    rows = []
    for place, (before, after) in enumerate(pairwise(kept)):
        back = returned(kept[place - 1], before, after, subject.num_experts) if place else [{}] * subject.num_layers
        changed = changes_between(before, after, subject.num_experts)
        rows += [change | came for change, came in zip(changed, back, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def changes_between(before: RoutingSnapshot, after: RoutingSnapshot, num_experts: int) -> list[dict[str, Any]]:
    """The change of each layer's routing of the probe tokens from one snapshot to the next."""
    rows = []
    for layer, (ids_PK, other_PK) in enumerate(zip(before.probe_experts_LPK, after.probe_experts_LPK, strict=True)):
        used_PE, other_PE = (expert_sets(ids, num_experts) for ids in (ids_PK, other_PK))
        change = 1 - agreement(used_PE, other_PE, before.top_k)
        chance = 1 - float(used_PE.mean(axis=0) @ other_PE.mean(axis=0)) / before.top_k
        rows.append(
            {
                "step": before.step,
                "to_step": after.step,
                "fraction": after.fraction,
                "layer": layer,
                "change": change,
                "by_chance": chance,
                "per_step": change / (after.step - before.step),
            }
        )
    return rows


def returned(
    first: RoutingSnapshot, second: RoutingSnapshot, third: RoutingSnapshot, num_experts: int
) -> list[dict[str, float | None]]:
    """By layer, the share of the experts that tokens gave up from the first to the second that they have in the third.

    `returned_by_chance`: the share that the third's loads alone would give. None where nothing was given up.
    """
    rows = []
    for ids in zip(first.probe_experts_LPK, second.probe_experts_LPK, third.probe_experts_LPK, strict=True):
        one_PE, two_PE, three_PE = (expert_sets(ids_PK, num_experts) for ids_PK in ids)
        given_up_PE = one_PE & ~two_PE
        total = int(given_up_PE.sum())
        back = (given_up_PE & three_PE).sum() / total if total else None
        chance = (given_up_PE.sum(axis=0) @ three_PE.mean(axis=0)) / total if total else None
        rows.append({"returned": back, "returned_by_chance": chance})
    return rows


def imbalance_swings(history: pd.DataFrame) -> pd.DataFrame:
    """load_cv_batch of each logged training step by layer, and how far it is from the one before."""
    rows = history[(history["split"] == "train") & (history["metric"] == "load_cv_batch") & (history["layer"] != "all")]
    rows = rows.sort_values(["layer", "step"])
    swing = rows.groupby("layer")["value"].diff().abs()
    return rows[["step", "fraction", "layer", "value"]].rename(columns={"value": "load_cv"}).assign(swing=swing)


def summary(changes: pd.DataFrame, swings: pd.DataFrame) -> pd.DataFrame:
    """Means over the first tenth of the run and over what follows; empty cells where the cadence leaves nothing."""
    rows = []
    for run in dict.fromkeys([*changes["run"], *swings["run"]]):
        for name, early in (("first tenth", True), ("rest", False)):
            own, swung = (f[(f["run"] == run) & ((f["fraction"] <= EARLY + 1e-9) == early)] for f in (changes, swings))
            means = {measure: own[measure].astype(float).mean() for measure in MEASURES}
            rows.append(
                {"run": run, "part": name, "snapshot_pairs": len(own[["step", "to_step"]].drop_duplicates())}
                | means
                | {
                    "logged_steps": swung["step"].nunique(),
                    "load_cv": swung["load_cv"].mean(),
                    "swing": swung["swing"].mean(),
                }
            )
    return pd.DataFrame(rows)


def _cadence(subject: Subject, changes: pd.DataFrame) -> str:
    early = changes[changes["fraction"] <= EARLY + 1e-9]["to_step"].nunique()
    every = subject.own_run.config["trainer"]["eval_every"]
    more = "" if every else "; trainer.eval_every=N keeps more"
    return f"{subject.name}: {early} change(s) between snapshots lie in the first tenth of the run{more}."


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # A frame without rows (a dense run's) has no types, and joined it would take those of the others away.
    kept = [frame for frame in frames if len(frame)]
    if not kept:
        return pd.DataFrame(columns=["run", *COLUMNS, "load_cv", "swing"])
    return pd.concat(kept, ignore_index=True)


def _draw(figure: Figure, changes: pd.DataFrame, swings: pd.DataFrame, labels: dict[str, str]) -> None:
    left, right = panels(figure, 2, (3.3, 2.4))
    for number, run in enumerate(dict.fromkeys([*changes["run"], *swings["run"]])):
        own = changes[changes["run"] == run].groupby(["step", "to_step"], as_index=False)["per_step"].mean()
        if len(own):
            edges = [*own["step"], *own["to_step"].tail(1)]
            left.stairs(own["per_step"], edges, color=PLAIN[number], linewidth=1.1, label=labels[run], baseline=None)
        swung = swings[swings["run"] == run].groupby("step")["load_cv"].mean()
        right.plot(swung.index, swung, color=PLAIN[number], label=labels[run])
    for axes, frame, label in ((left, changes, "experts exchanged per step"), (right, swings, "load CV of the step")):
        last = frame["to_step" if axes is left else "step"].max() if len(frame) else 1
        axes.axvspan(0, EARLY * last, color=GREY, alpha=0.15, linewidth=0)
        axes.set(xlabel="step", ylabel=label)
    if (changes["per_step"] > 0).any():
        left.set_yscale("log")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", fontsize=5.5)

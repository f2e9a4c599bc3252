"""Gradients over training, by parameter family: norms, the moves they make, and experts that none reached."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import panels, say_empty
from spectra_exp.interpret.registry import HISTORY, RUN, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.presentation.style import DASHES, PLAIN
from spectra_exp.training.optimizers import FAMILIES

# Prefix in the history, column label, scale of the axis.
KINDS = (
    ("grad_norm", "gradient norm before clipping", "log"),
    ("update_ratio", "effective learning rate ‖Δw‖ / ‖w‖", "log"),
    ("learning_rate", "learning rate", "linear"),
)
WITHOUT = "experts_without_gradient"


@part("Gradients of router, experts and the rest over training", RUN, HISTORY, order=70, both=True)
def gradients(request: Request) -> Result:
    """What the run wrote of its gradients at its logging cadence, step by step and in short."""
    result, frames = Result(), []
    for subject in request.subjects:
        if not subject.has_history:
            result.notes.append(f"{subject.name} left no history.parquet.")
            continue
        frames.append(gradient_rows(subject.own_run.history).assign(run=subject.name))
        if subject.num_layers and WITHOUT not in set(frames[-1]["metric"]):
            result.notes.append(f"{subject.name} was made before the share of experts without gradient was written.")
    # A frame without rows has no types to keep.
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise Empty("its history has no gradient norms")
    rows = pd.concat(frames, ignore_index=True)
    result.tables = {"gradients": rows[["run", "step", "metric", "value"]], "summary": summary(rows)}
    result.add_picture(
        "gradients",
        "Norms of the gradient, relative moves and rates by family, and the share of "
        "experts that no gradient reached at a step.",
        lambda figure: _draw(figure, rows, request.labels),
    )
    return result


def gradient_rows(history: pd.DataFrame) -> pd.DataFrame:
    """The training rows of the history that are about gradients, moves and rates."""
    wanted = {f"{kind}_{family}" for kind, _, _ in KINDS for family in FAMILIES} | {WITHOUT}
    return history[(history["split"] == "train") & (history["layer"] == "all") & history["metric"].isin(wanted)]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """First, median, largest and last value of each metric, and the step of the largest."""
    found = []
    for (run, metric), own in rows.sort_values("step").groupby(["run", "metric"], sort=False):
        values = own["value"].to_numpy()
        top = int(np.argmax(values))
        found.append(
            {
                "run": run,
                "metric": metric,
                "first": values[0],
                "median": float(np.median(values)),
                "largest": values[top],
                "largest_at_step": int(own["step"].iloc[top]),
                "last": values[-1],
            }
        )
    return pd.DataFrame(found)


def _draw(figure: Figure, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    runs = list(dict.fromkeys(rows["run"]))
    *axes_of, last = panels(figure, len(KINDS) + 1, (3.2, 2.6), 2)
    for axes, (kind, label, scale) in zip(axes_of, KINDS, strict=True):
        for place, family in enumerate(FAMILIES):
            for number, run in enumerate(runs):
                own = rows[(rows["run"] == run) & (rows["metric"] == f"{kind}_{family}")]
                axes.plot(
                    own["step"],
                    own["value"],
                    color=PLAIN[place],
                    linestyle=DASHES[number],
                    label=family if len(runs) == 1 else f"{family}, {labels[run]}",
                )
        axes.set(xlabel="step", ylabel=label, yscale=scale)
    # Below the panels: with two runs it would cover the curves.
    figure.legend(*axes_of[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs), fontsize=5.5)
    if WITHOUT not in set(rows["metric"]):
        say_empty(last, "share of experts without gradient: not written")
        return
    for number, run in enumerate(runs):
        own = rows[(rows["run"] == run) & (rows["metric"] == WITHOUT)]
        last.plot(own["step"], own["value"], color=PLAIN[number], linestyle=DASHES[number], label=labels[run])
    last.set(xlabel="step", ylabel="share of experts without gradient")
    last.set_ylim(bottom=-0.01)

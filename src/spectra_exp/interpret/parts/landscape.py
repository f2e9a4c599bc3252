"""The loss around the routers' trained weights, all else held: two random directions, and the path of training.

Letters: W router weights in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.interpret.draw import panels
from spectra_exp.interpret.landscape import (
    Plane,
    axis_through_zero,
    coordinates,
    filter_normalised,
    moved,
    point,
    principal_directions,
    router_parameters,
)
from spectra_exp.interpret.registry import ROUTED, RUN, Empty, Request, part
from spectra_exp.interpret.rerouted import Rerouted, always
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.moe.model import new_model
from spectra_exp.moe.whole_weights import WEIGHTS
from spectra_exp.presentation.style import PLAIN
from spectra_exp.runs.checkpoints import MANIFEST
from spectra_exp.runs.fingerprints import weights_hash
from spectra_exp.training.session import FINAL, VALIDATION

# Points of each axis, reach of the random directions (1: as long as the weights), and tokens scored at each point.
POINTS, REACH, TOKENS = 7, 1.0, 3072
LEVELS = 15
# The centre must be the reported loss: sums in another order move float32 this little, bf16 that much.
TOLERANCE = {"float32": 1e-4, "bf16": 1e-2}


@part("Loss landscape around the routers, with the path of training", RUN, ROUTED, order=72)
def landscape(request: Request) -> Result:
    """The rise of the loss over its value at the trained weights, on two planes through them.

    random: two filter-normalised directions. path: the two principal directions of the routers' way from the first
    weights over the kept checkpoints. The centre is the validation loss on the whole evaluation set and is checked
    against the reported one; the rise is measured on a sample of the text, the same at every point.
    """
    subject, seed = request.subject, request.seed
    routers = router_parameters(subject.engine.model)
    if not routers:
        raise Empty("the router has no trained weights (hash, random)")
    request.say("landscape: loss at the centre")
    checked = checked_centre(subject)
    sample, result = Rerouted(subject, TOKENS), Result()
    centre_W = point(routers.values())
    stops, note = path_points(subject, routers)
    result.notes += [note] if note else []
    generator = torch.Generator().manual_seed(seed)
    reach = np.linspace(-REACH, REACH, POINTS)
    first_W, second_W = (filter_normalised(routers.values(), generator) for _ in range(2))
    planes = [Plane("random", first_W, second_W, reach, reach)]
    if stops:
        planes.append(path_plane([weights_W - centre_W for weights_W in stops.values()], seed))
    grids = [pd.DataFrame(_grid(request, sample, centre_W, plane, checked["centre"])) for plane in planes]
    result.tables["grid"] = pd.concat(grids, ignore_index=True)
    path = pd.DataFrame(_path(sample, centre_W, stops, planes[-1])) if stops else None
    if path is not None:
        result.tables["path"] = path
    result.data["landscape"] = checked | {
        "sampled_tokens": sample.text.num_tokens,
        "router_weights": len(centre_W),
        "path_variance": planes[-1].explained,
        "rise": {p.kind: _facts(g) for p, g in zip(planes, grids, strict=True)},
    }
    result.notes.append(
        f"The centre, {checked['centre']:.4f} nats on the whole evaluation set, equals the reported "
        f"{checked['reported']:.4f}; the rise is over {sample.text.num_tokens} of its tokens. Running averages and "
        "potentials of the routers stay as they were trained to be."
    )
    result.add_picture(
        "landscape",
        "Rise of the loss (nats) around the trained routers (cross); right: the plane of their path, with its stops.",
        lambda figure: _draw(figure, planes, grids, path),
    )
    return result


def checked_centre(subject: Subject) -> dict[str, Any]:
    """The loss of the unmoved model on the run's evaluation set, and the reported one, which it must equal.

    Raises Empty where nothing is reported for this checkpoint or the two differ: the landscape would be of another
    model or text than the run's.
    """
    reported = reported_loss(subject)
    if reported is None:
        raise Empty(f"the run reported no validation loss at step {subject.step}, that of its newest checkpoint")
    run = subject.own_run
    found = run.evaluator.losses(run.model)["val_loss"]
    tolerance = TOLERANCE[run.config["trainer"]["precision"]]
    if abs(found - reported) > tolerance:
        raise Empty(
            f"the loss at the centre, {found:.5f}, is not the reported {reported:.5f} (tolerance {tolerance:g}); "
            "the checkpoint or the data changed"
        )
    return {"centre": found, "reported": reported, "tolerance": tolerance, "step": subject.step}


def reported_loss(subject: Subject) -> float | None:
    """The validation loss that the run's history has for the checkpoint's step, on the larger set where it has one."""
    if not subject.has_history:
        return None
    run = subject.own_run
    rows, split = run.history, FINAL if run.corpus.final is not None else VALIDATION
    rows = rows[(rows["split"] == split) & (rows["metric"] == "val_loss") & (rows["step"] == subject.step)]
    return float(rows["value"].iloc[0]) if len(rows) else None


def path_points(subject: Subject, routers: dict[str, nn.Parameter]) -> tuple[dict[int, Tensor], str | None]:
    """The routers' weights [W] by step, before the newest checkpoint; a line where the first ones cannot be had."""
    stops: dict[int, Tensor] = {}
    note = None
    first = initial_weights(subject)
    if first is None:
        note = "The first weights cannot be drawn again from the seed, so the path begins at the first checkpoint."
    else:
        stops[0] = first
    for checkpoint in reversed(subject.own_run.folder.checkpoints()):
        step = int(checkpoint.name.removeprefix("step-"))
        if subject.step is not None and step >= subject.step:
            continue
        try:
            found: dict[str, Tensor] = {}
            for path in checkpoint.glob(WEIGHTS):
                with safe_open(path, framework="pt") as file:
                    found |= {name: file.get_tensor(name) for name in routers.keys() & set(file.keys())}
            if lacking := routers.keys() - found.keys():
                raise FileNotFoundError(f"no {min(lacking)}")
            stops[step] = point(found[name].to(weight) for name, weight in routers.items())
        except (OSError, SafetensorError) as error:
            # A run that still trains removes what it does not keep; damage is another matter.
            if (checkpoint / MANIFEST).is_file():
                raise SpectraError(f"{checkpoint}: its weights are not readable ({first_line(error)})") from error
    return stops, note


def initial_weights(subject: Subject) -> Tensor | None:
    """The routers' weights [W] before the first step, drawn again from the seed; None unless the run's hashes agree."""
    run, model = subject.own_run, subject.own_run.model
    fresh = new_model(model.config.backbone, model.settings, run.config["seed"])
    recorded, drawn = (run.summary or {}).get("initial_weights", {}), weights_hash(fresh)
    routers = router_parameters(fresh)
    if any(recorded.get(name) != drawn[name] for name in routers):
        return None
    return point(routers.values()).to(model.device)


def path_plane(steps: Sequence[Tensor], seed: int) -> Plane:
    """The plane of the two principal directions of a path, its stops less the centre, wide enough for them."""
    first_W, second_W, explained = principal_directions(steps, seed)
    places = np.array([coordinates(step_W, first_W, second_W) for step_W in steps])
    # A path along one line has no extent of its own across it: as far across as half of it is long.
    across = places[:, 1] if explained[1] > 0 else np.array([-0.25, 0.25]) * np.abs(places[:, 0]).max()
    axes = axis_through_zero(places[:, 0], POINTS), axis_through_zero(across, POINTS)
    return Plane("path", first_W, second_W, *axes, explained)


def _rise(sample: Rerouted, weights_W: Tensor) -> tuple[float, float]:
    """Mean of what the routers' weights add to the loss of the sample, and its standard error over blocks."""
    with moved(list(router_parameters(sample.subject.engine.model).values()), weights_W):
        added_N = sample.added(always({}))
    by_block = np.nanmean(added_N.reshape(sample.text.token_ids_MS.shape), axis=1)
    error = by_block.std(ddof=1) / np.sqrt(len(by_block)) if len(by_block) > 1 else np.nan
    return float(by_block.mean()), float(error)


def _grid(request: Request, sample: Rerouted, centre_W: Tensor, plane: Plane, loss: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for first in plane.first_axis:
        request.say(f"landscape: {plane.kind} plane, {len(rows)} of {len(plane.first_axis) * len(plane.second_axis)}")
        for second in plane.second_axis:
            place_W = centre_W + first * plane.first_W + second * plane.second_W
            rise, error = (0.0, 0.0) if first == second == 0 else _rise(sample, place_W)
            rows.append(
                {
                    "plane": plane.kind,
                    "first": first,
                    "second": second,
                    "loss": loss + rise,
                    "rise": rise,
                    "rise_error": error,
                }
            )
    return rows


def _path(sample: Rerouted, centre_W: Tensor, stops: dict[int, Tensor], plane: Plane) -> list[dict[str, Any]]:
    """Each stop: its place in the plane, its distance from the end, and the rise with its routers in the last model."""
    rows = []
    for step, weights_W in (stops | {sample.subject.step: centre_W}).items():
        offset_W = weights_W - centre_W
        first, second = coordinates(offset_W, plane.first_W, plane.second_W)
        rise, error = _rise(sample, weights_W)
        rows.append(
            {
                "step": step,
                "first": first,
                "second": second,
                "distance": float(offset_W.norm()),
                "rise": rise,
                "rise_error": error,
            }
        )
    return rows


def _facts(grid: pd.DataFrame) -> dict[str, float]:
    outer = [grid[name].isin([grid[name].min(), grid[name].max()]) for name in ("first", "second")]
    edge = grid[outer[0] | outer[1]]
    return {"largest": grid["rise"].max(), "lowest": grid["rise"].min(), "mean_at_the_edge": edge["rise"].mean()}


def _draw(figure: Figure, planes: list[Plane], grids: list[pd.DataFrame], path: pd.DataFrame | None) -> None:
    for axes, plane, grid in zip(panels(figure, len(planes), (3.5, 2.9)), planes, grids, strict=True):
        cells = grid.pivot(index="second", columns="first", values="rise")
        # Closer together near the bottom, where the routers are.
        low, high = grid["rise"].min(), max(grid["rise"].max(), grid["rise"].min() + 1e-9)
        levels = low + (high - low) * np.linspace(0, 1, LEVELS) ** 2
        norm = PowerNorm(0.5, vmin=low, vmax=high)
        shown = axes.contourf(cells.columns, cells.index, cells.to_numpy(), levels=levels, cmap="viridis", norm=norm)
        axes.contour(cells.columns, cells.index, cells.to_numpy(), levels=levels, colors="white", linewidths=0.3)
        axes.figure.colorbar(shown, ax=axes, shrink=0.85, label="rise of the loss (nats)", format="%.2g")
        axes.plot([0], [0], marker="+", color="white", markersize=8, markeredgewidth=1.6)
        axes.grid(False)
        if plane.explained is not None and path is not None:
            axes.plot(path["first"], path["second"], color=PLAIN[1], marker="o", markersize=3)
            for _, stop in path.iterrows():
                axes.annotate(
                    f"{stop['step']:.0f}",
                    (stop["first"], stop["second"]),
                    color="white",
                    fontsize=5.5,
                    xytext=(3, 3),
                    textcoords="offset points",
                )
            held = [f"{100 * share:.0f} %" for share in plane.explained]
            axes.set(
                xlabel=f"first principal direction ({held[0]} of the path)",
                ylabel=f"second ({held[1]})",
                title="path of training, by step",
            )
        else:
            axes.set(xlabel="first random direction", ylabel="second random direction", title="filter-normalised")
            axes.set(xticks=[-REACH, 0, REACH], yticks=[-REACH, 0, REACH])

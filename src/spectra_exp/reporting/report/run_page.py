"""The page of one run: what it was, how it went, where its tokens went, what its log says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from spectra_exp.presentation.colours import PALETTE
from spectra_exp.presentation.html import (
    Badge,
    Block,
    Cell,
    Chart,
    Command,
    Content,
    Facts,
    Group,
    Link,
    Pre,
    Row,
    Table,
    Text,
    anchor,
    file_link,
    html_page,
)
from spectra_exp.presentation.panels import Line, LinePanel, Mark, at
from spectra_exp.presentation.svg import Draw, draw_svg
from spectra_exp.presentation.text import count_text, number_text
from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.report.routing import routing_block
from spectra_exp.reporting.report.run_list import run_marks
from spectra_exp.reporting.report.words import causal_text
from spectra_exp.runs.stored import StoredRun

SHORT = 16  # up to so many points each has a mark of its own
LOG_BYTES = 64 * 1024  # of a longer log the end is shown
TEMPLATE = Path(__file__).parent / "templates" / "run.html"
# Values by step, by (split, metric, layer).
Curves = Mapping[tuple[str, str, str], dict[int, float]]
# (title, unit, (split, metric) or a metric's beginning), each one picture.
PICTURES = (
    ("Loss", "nats per token", (("train", "train_loss"), ("validation", "val_loss"))),
    ("Loss by domain", "nats per token", (("validation", "val_loss_*"),)),
    ("Balance", "coefficient of variation of the load", (("train", "load_cv_batch"), ("validation", "load_cv"))),
    ("Busiest expert", "MaxVio", (("train", "max_vio_batch"), ("validation", "max_vio"))),
    (
        "Entropy",
        "share of the largest",
        (("validation", "routing_entropy_norm"), ("validation", "expert_entropy_norm")),
    ),
    (
        "Stability",
        "share of k experts kept",
        (("validation", "routing_consistency"), ("validation", "router_saturation")),
    ),
    ("Gradient norms", "norm", (("train", "grad_norm_*"),)),
    ("Router temperature", "temperature", (("train", "temperature"),)),
)


def run_page(stored: StoredRun, collected: Collected, draw: Draw = draw_svg) -> str:
    """The whole page, from whatever the folder holds, none of which makes it fail; `draw` makes the pictures."""
    run_id, folder, run = stored.run_id, stored.folder, collected.by_run.get(stored.run_id)
    config, environment = stored.text(folder.config), stored.text(folder.environment)
    log = stored.text(folder.log, LOG_BYTES)
    odd = [reason for source in (collected.odd, collected.skipped) if (reason := source.get(run_id))]
    problems = [f"{path.relative_to(stored.path)}: {problem}" for path, problem in stored.examine().items()]
    blocks = [
        _facts_block(stored.summary or {}, run, _analyses(collected.runs_folder, run_id)),
        _curve_block({key: curve for key in stored.curves if (curve := stored.curve(*key))}),
        routing_block(stored),
        _figures_block(stored.summary or {}),
        _text_block("configuration", "Configuration", config),
        _text_block("environment", "Environment", environment),
        _text_block("log", "Log", log, "The log is empty."),
    ]
    return html_page(
        TEMPLATE,
        run_id,
        blocks,
        draw,
        back=f"{file_link('..', 'index.html')}#{f'run-{anchor(run_id)}' if run else 'odd'}",
        label=stored.summary.get("label") if stored.summary else None,
        marks=run_marks(collected, run) if run else [Badge("in no table", "bad")],
        siblings=_siblings(collected, run),
        notes=[*odd, *problems],
    )


def _siblings(collected: Collected, run: Mapping[str, Any] | None) -> list[Link]:
    """Links to the runs of the same cell, by seed."""
    if run is None:
        return []
    cell = sorted((r["seed"], r["run_id"]) for r in collected.by_run.values() if r["cell_id"] == run["cell_id"])
    return [
        Link(f"seed {seed}", None if run_id == run["run_id"] else file_link(f"{run_id}.html")) for seed, run_id in cell
    ]


def _analyses(runs_folder: Path, run_id: str) -> Content:
    """Links to the pages of `spectra-exp interpret`: of the run alone, then of it against others."""
    folder = runs_folder / run_id / "analysis"
    against = sorted(path.parent.name for path in folder.glob("against-*/index.html"))
    pages = [("what its experts do", ()), *((name.replace("-", " ", 1), (name,)) for name in against)]
    made = [(words, parts) for words, parts in pages if folder.joinpath(*parts, "index.html").is_file()]
    start = ("..", "..", "runs", run_id, "analysis")
    return [[Link(words, file_link(*start, *parts, "index.html")), " "] for words, parts in made]


def _facts_block(summary: Mapping[str, Any], run: Mapping[str, Any] | None, analyses: Content) -> Block:
    parameters, timings = summary.get("parameters") or {}, summary.get("timings") or {}
    prints = summary.get("fingerprints") or {}
    pairs: list[tuple[str, Content]] = [
        ("status", summary.get("status", "no summary yet")),
        ("error", summary.get("error")),
        ("command", Command(summary["command"]) if isinstance(summary.get("command"), str) else None),
        ("studies", ", ".join(map(str, summary.get("studies") or ()))),
        ("analysis", analyses),
        ("seed", _plain(summary.get("seed"))),
        ("steps", " of ".join(filter(None, [_plain(summary.get("steps")), _plain(summary.get("max_steps"))]))),
        ("causal", causal_text(summary.get("causal"))),
        ("causal in training", causal_text(summary.get("causal_training"))),
        ("parameters", _count(parameters.get("total"))),
        ("active per token", _count(parameters.get("active"))),
        ("FLOPs per token", _count(summary.get("flops_per_token"))),
        ("step time", _number(timings.get("step_time_ms"), " ms")),
        ("tokens per second", _number(timings.get("tokens_per_second"))),
        ("peak memory", _number(timings.get("peak_memory_mb"), " MB")),
        ("cell", summary.get("cell_id")),
        ("data", prints.get("data")),
        ("evaluation set", prints.get("evaluation")),
        ("code", f"{prints['code']}{' (not today’s)' if run and run['stale'] else ''}" if prints.get("code") else None),
        ("finished", summary.get("finished")),
    ]
    return Block("facts", "The run", None, Facts(pairs))


def _curve_block(curves: Curves) -> Block | None:
    charts = []
    for title, unit, wanted in PICTURES:
        lines = [line for split, metric in wanted for line in _matching(curves, split, metric)]
        charts.append(_curve_chart(title, unit, lines))
    layers = sorted({layer for split, _, layer in curves if layer != "all" and split == "validation"}, key=_layer_order)
    by_layer = [(f"layer {layer}", curves.get(("validation", "load_cv", layer), {})) for layer in layers]
    charts.append(_curve_chart("Balance by layer", "coefficient of variation of the load", by_layer))
    drawn = [chart for chart in charts if chart is not None]
    return Block("curves", "Curves", None, Group("charts", drawn)) if drawn else None


def _matching(curves: Curves, split: str, metric: str) -> list[tuple[str, dict[int, float]]]:
    if not metric.endswith("*"):
        return [(metric, curves.get((split, metric, "all"), {}))]
    start = metric[:-1]
    names = sorted(m for s, m, layer in curves if s == split and layer == "all" and m.startswith(start))
    return [(name.removeprefix(start), curves[split, name, "all"]) for name in names]


def _curve_chart(title: str, unit: str, curves: list[tuple[str, dict[int, float]]]) -> Chart | None:
    lines = tuple(_line(name, i, points) for i, (name, points) in enumerate(curves) if points)
    if not lines:
        return None
    label = f"{title} over training: {', '.join(line.label for line in lines)}"
    return Chart(LinePanel("", "step", unit, lines), label, title, " over training")


def _line(name: str, place: int, curve: dict[int, float]) -> Line:
    """The curve; few points are marked and say their figures."""
    tips = [f"{name}\nstep {x}: {number_text(y)}" for x, y in curve.items()] if len(curve) <= SHORT else []
    mark = Mark(PALETTE[place % len(PALETTE)], marker="")
    return Line(name, mark, tuple(curve), tuple(map(at, curve.values())), tips=tuple(tips))


def _figures_block(summary: Mapping[str, Any]) -> Block | None:
    """Every figure of the summary with its chance floor, under the training rule, and by layer."""
    metrics = summary.get("metrics") or {}
    if not isinstance(metrics, dict) or not metrics:
        return None
    rows = []
    for name, value in sorted(metrics.items()):
        others = ((summary.get(key) or {}).get(name) for key in ("floors", "metrics_training_rule"))
        layers = (summary.get("metrics_by_layer") or {}).get(name) or []
        cells = [_number(value), *(_number(other) for other in others), ", ".join(_number(v) or "–" for v in layers)]
        rows.append(Row([name, *(Cell(cell, "n") for cell in cells)]))
    headers = ["metric", "value", "by chance", "training rule", "layer by layer"]
    table = Table("Figures", headers, rows, headers[1:])
    return Block("figures", "Figures", "At the end of the run, mean over layers.", table)


def _text_block(ident: str, title: str, text: str, otherwise: str | None = None) -> Block | None:
    shown = Pre(text, title) if text else Text(otherwise) if otherwise else None
    return None if shown is None else Block(ident, title, None, shown)


def _plain(value: object) -> str | None:
    return None if value is None else str(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: object, unit: str = "") -> str:
    return number_text(value) + unit if _is_number(value) else ""


def _count(value: object) -> str:
    return count_text(value) if _is_number(value) else ""


def _layer_order(layer: str) -> tuple[int, str]:
    return (int(layer) if layer.isdecimal() else -1, layer)

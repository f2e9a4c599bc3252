"""What a study's file declares of its tables and pictures, made into the tables, figures and charts that there are."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from spectra_exp.config.presets import FULL, baselines, ladder, single_ablations
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.reporting.figures.kinds import KINDS, REPORTS
from spectra_exp.reporting.figures.spec import FigureSpec, ReportSpec
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.published import CHANCE, Effect
from spectra_exp.reporting.tables.catalogue import PANELS
from spectra_exp.reporting.tables.pairs import PairSpec
from spectra_exp.reporting.tables.significance import Contrast
from spectra_exp.reporting.tables.spec import Choice, Panel, TableSpec
from spectra_exp.statistics.corrections import benjamini_hochberg, holm
from spectra_exp.statistics.replication import CLAIMS
from spectra_exp.studies.definition import CHARTS, Study

# What a factor's value may be in a file, beside those that rows have: several that the files of conf/ name.
FROM_CONF: dict[str, dict[str, Callable[[], list[str]]]] = {
    "ablation": {
        "single ones from conf": lambda: [FULL, *single_ablations()],
        "ladder from conf": lambda: [FULL, *ladder()],
    },
    "baseline": {"from conf": lambda: list(baselines())},
}
# What table 13 compares unless the file says otherwise.
HEADLINE = ("val_loss", "load_cv", "max_vio", "expert_overlap", "output_gram_orthogonality", "routing_consistency")
CORRECTIONS = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}
# Tested against the reference row, and marked where nothing betters them, unless the file says otherwise.
TESTED = ("val_loss", "load_cv")
FRONT = ("load_cv", "expert_overlap", "val_loss")


@dataclass(frozen=True)
class Picture:
    """How the report draws a study: `kind` of `KINDS` or `CHARTS`.

    `across`: factors of a curve's steps or of a heat map's columns; `down`: factor of its rows; `apart`: factor of
    panels or series.
    """

    study: str
    title: str
    kind: str
    across: tuple[str, ...] = ()
    down: str = ""
    apart: str = ""


def study_tables(study: Study) -> list[TableSpec | PairSpec]:
    """The tables of a study: those that its file declares, else one over its rows. Raises ConfigError."""
    return [
        _made(study, f"tables[{i}]", _pair_table if "method" in node else _row_table, node)
        for i, node in enumerate(study.tables or ({},))
    ]


def _pair_table(
    study: Study,
    name: str,
    method: dict[str, Any],
    against: dict[str, Any],
    metrics: list[str],
    tested: list[str],
    title: str = "",
) -> PairSpec:
    rows = choice(method), choice(against)
    return PairSpec(name, title or study.title, study.name, *rows, tuple(metrics), tuple(tested))


def _row_table(
    study: Study,
    name: str = "",
    title: str = "",
    only: dict[str, Any] | None = None,
    panels: list[Any] | None = None,
    reference: dict[str, Any] | None = None,
    tested: list[str] | None = None,
    correction: str = "",
    pareto: list[str] | None = None,
) -> TableSpec:
    """Over a grid of settings many tests are made and none is awaited, so false discoveries are held down; comparisons
    that a paper rests on are held to no false one."""
    sweep = study.kind == "sweeps"
    correction = correction or ("benjamini_hochberg" if sweep else "holm")
    if correction not in CORRECTIONS:
        raise ConfigError.unknown("correction", correction, CORRECTIONS)
    shown = [_panel(panel) for panel in panels or ("balance", "decisions")]
    baseline = choice(study.reference if reference is None else reference)
    front = pareto if pareto is not None else FRONT if sweep else ()
    return TableSpec(
        name=name or study.name,
        title=title or study.title,
        study=study.name,
        panels=(Panel(shown[0].title, shown[0].metrics, beside=True), *shown[1:]),
        only=choice(only or {}),
        baseline=baseline,
        tested=tuple(tested or TESTED) if baseline else (),
        correction=CORRECTIONS[correction],
        pareto=tuple(front),
    )


def all_contrasts(studies: Iterable[Study]) -> list[Contrast]:
    """The comparisons of table 13 that the studies' files declare. Raises ConfigError."""
    return [
        _made(study, f"contrasts[{i}]", _contrast, node) for study in studies for i, node in enumerate(study.contrasts)
    ]


def _contrast(
    study: Study, method: dict[str, Any], against: dict[str, Any], family: str, metrics: list[str] | None = None
) -> Contrast:
    return Contrast(study.name, choice(method), choice(against), tuple(metrics or HEADLINE), family)


def study_effects(study: Study) -> list[Effect]:
    """The published effects that the study's file declares. Raises ConfigError."""
    return [_made(study, f"published[{i}]", _effect, node) for i, node in enumerate(study.published)]


def _effect(
    study: Study,
    method: dict[str, Any],
    against: dict[str, Any] | str,
    metric: str,
    claim: str,
    tolerance: float,
    source: str,
    figure: str,
    against_metric: str = "",
) -> Effect:
    if claim not in CLAIMS:
        raise ConfigError.unknown("claim", claim, CLAIMS)
    if isinstance(against, str) and against != CHANCE:
        raise ConfigError.unknown("against", against, (CHANCE,))
    if not isinstance(tolerance, (int, float)) or not 0 < tolerance < math.inf:
        raise ConfigError("tolerance", f"'{tolerance}' is not a number above 0")
    rows = choice(method), None if isinstance(against, str) else choice(against)
    return Effect(study.name, *rows, metric, claim, float(tolerance), source, figure, against_metric or metric)


def _panel(declared: Any) -> Panel:
    if isinstance(declared, Mapping):
        return Panel(declared["title"], tuple(declared["metrics"]))
    if declared not in PANELS:
        raise ConfigError.unknown("panels", str(declared), PANELS)
    return PANELS[declared]


def study_figures(study: Study) -> list[FigureSpec | ReportSpec]:
    """The figures of a study and its reports in JSON. Raises ConfigError."""
    found: list[FigureSpec | ReportSpec] = []
    for index, node in enumerate(study.pictures):
        kind, name = _kind(study, index, node), node.get("figure", study.name)
        if kind in CHARTS or name is None:
            continue
        title, only = node.get("title", study.title), choice(node.get("only", {}))
        if kind in REPORTS:
            found.append(ReportSpec(name, title, study.name, REPORTS[kind], only))
            continue
        options = {key: value for key, value in node.items() if key not in ("kind", "figure", "title", "only")}
        needs, make = KINDS[kind]
        compose = _made(study, f"pictures[{index}]", lambda _study, make=make, **given: make(**given), options, make)
        found.append(FigureSpec(name, title, study.name, needs, compose, only))
    return found


def study_picture(study: Study) -> Picture | None:
    """How the report draws the study: as the first of its pictures that is one of settings or rows; None without."""
    for index, node in enumerate(study.pictures):
        match _kind(study, index, node):
            case "curve":
                return Picture(study.name, study.title, "curve", tuple(node["over"]), apart=node.get("apart", ""))
            case "heat":
                # The page has its maps upright.
                return Picture(study.name, study.title, "heat", (node["y"],), node["x"], node["panels"])
            case "rows" | "forest" | "bars" as kind:
                return Picture(study.name, study.title, kind)
    return None


def all_figures(studies: Iterable[Study]) -> list[FigureSpec | ReportSpec]:
    """The figures and reports of these studies."""
    return [spec for study in studies for spec in study_figures(study)]


def all_pictures(studies: Iterable[Study], *kinds: str) -> list[Picture]:
    """How the report draws those of the studies that are of these kinds."""
    return [picture for study in studies if (picture := study_picture(study)) and picture.kind in kinds]


def picture_sections(material: Material, kind: str) -> list[Section]:
    """The sections of the studies that the report draws so."""
    pictures = all_pictures(material.studies.values(), kind)
    return [section for picture in pictures for section in material.sections[picture.study]]


def choice(node: Mapping[str, Any]) -> Choice:
    """Values of a file as rows print them, and those that a word of `FROM_CONF` stands for."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        words = FROM_CONF.get(key, {})
        value = words[value]() if isinstance(value, str) and value in words else value
        found[key] = tuple(map(value_text, value)) if isinstance(value, list) else value_text(value)
    return found


def _kind(study: Study, index: int, node: Mapping[str, Any]) -> str:
    known = (*KINDS, *REPORTS, *CHARTS)
    if node.get("kind") not in known:
        raise ConfigError.unknown(f"{study.choice} pictures[{index}].kind", str(node.get("kind")), known)
    return node["kind"]


def _made(
    study: Study,
    where: str,
    make: Callable[..., Any],
    node: Mapping[str, Any],
    described: Callable[..., Any] | None = None,
) -> Any:
    """What `make` gives of the study and the declared options. Raises ConfigError, which names the key."""
    parameters = inspect.signature(described or make, eval_str=True).parameters
    options = {name: p for name, p in parameters.items() if name != "study"}
    where = f"{study.choice} {where}"
    for key, value in node.items():
        if key not in options:
            raise ConfigError.unknown(where, str(key), options)
        known = get_args(options[key].annotation) if get_origin(options[key].annotation) is Literal else (value,)
        if value not in known:
            raise ConfigError.unknown(f"{where}.{key}", str(value), known)
    needed = [name for name, p in options.items() if p.default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in node]:
        raise ConfigError(where, f"without {', '.join(missing)}")
    try:
        return make(study, **node)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error.key}", error.problem, error.fix) from error

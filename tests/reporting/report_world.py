"""A small world of runs for the tests of the report: baselines, ablations, a sweep, and what goes wrong."""

from __future__ import annotations

import json
import random
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_studies import DOMAINS, given, make_study

from spectra_exp.foundations.files import write_text
from spectra_exp.measure import METRICS
from spectra_exp.reporting.make_report import write_report
from spectra_exp.reporting.make_tables import all_tables, write_tables
from spectra_exp.reporting.material import gather

EVIL = "<script>alert(1)</script>"


def figures(job) -> dict:
    """Made-up figures that differ by cell and by seed; Expert Choice is best, not causal, and lacks a seed."""
    seed = job.experiment.seed
    cell, own = random.Random(job.planned.identity.cell_id), random.Random(job.run_id)
    offset = 0.3 * cell.random()
    metrics = {name: 0.1 + offset + 0.03 * own.random() for name in METRICS}
    metrics["effective_experts"] += 1
    # The largest of four domains has a quarter or more, and these curves begin at twice the figure.
    metrics["domain_purity"] = 0.3 + 0.5 * offset
    metrics["order_purity"] = 0.5 + 0.5 * offset
    loss = 4.9 + offset + 0.03 * own.random() + 0.05 * seed
    metrics |= {"val_loss": loss, "train_loss": loss - 0.1, **{f"val_loss_{d}": loss for d in DOMAINS}}
    if job.planned.experiment.router.name == "expert_choice":
        metrics |= {"val_loss": 3.0 + 0.01 * seed, "load_cv": 0.01}
        return {"metrics": metrics, "causal": False, "causal_training": False} if seed != 1 else None
    return {"metrics": metrics}


def shared_world(factory: pytest.TempPathFactory) -> Path:
    """The outputs with the world, its report and its tables, made once for all tests of a process."""
    outputs = factory.getbasetemp() / "report_world"
    if not outputs.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECTRA_OUTPUTS", str(outputs))
            make_world(outputs)
        material = gather(outputs)
        write_report(material)
        write_tables(all_tables(material), material.outputs / "tables")
    return outputs


def make_world(outputs: Path) -> None:
    """Studies with the real writers; then a damaged summary, a foreign file, a stale run, and hostile texts.

    SPECTRA_OUTPUTS must be `outputs`.
    """
    # Pages with curves take the most time, and a few methods show all that there is.
    with_curves = ("switch_top1", "switch_top2", "hash", "dense", "expert_choice", None)
    make_study(outputs, "baselines", figures, ("seed=0..2",), lambda job: given(job).get("baseline") in with_curves)
    make_study(outputs, "core", figures, ("seed=0..2", "ablation=none,no_gru,no_osr"))
    make_study(outputs, "b_sinkhorn", figures, ("seed=0", "osr.sinkhorn_iterations=2,3"))
    runs = outputs / "runs"
    damage(sorted(runs.glob("hash-*"))[1])
    write_text(runs / "notes.txt", "no run")
    change(sorted(runs.glob("random-*"))[0], fingerprints={"code": "0" * 16})
    hostile = sorted(runs.glob("dense-*"))[0]
    change(hostile, label=f"dense {EVIL}")
    write_text(hostile / "train.log", f"before\n{EVIL} & \x1b[31mred\x1b[0m\nafter\n")
    odd_name = runs / "left <b>out & 100%"
    shutil.copytree(sorted(runs.glob("dense-*"))[1], odd_name)


def damage(folder: Path) -> None:
    """Cut the summary, the history and a snapshot of a run in half."""
    for path in (folder / "summary.json", folder / "history.parquet", sorted((folder / "routing").iterdir())[-1]):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def change(folder: Path, fingerprints: dict | None = None, **changes) -> None:
    """Change keys of the run's summary."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    summary["fingerprints"] |= fingerprints or {}
    (folder / "summary.json").write_text(json.dumps(summary | changes), encoding="utf-8")


class Page(HTMLParser):
    """What a page holds: `grids` by caption, each a list of rows of cell texts; `links`; `ids`; `text`; `tags` met."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.grids: dict[str, list[list[str]]] = {}
        self._row: list[str] | None = None
        self._caption: str | None = None
        self._text: list[str] = []
        self.source = source
        self.feed(source)
        bare = re.sub(r"<(script|style)>.*?</\1>", "", source, flags=re.S)
        self.text = " ".join(unescape(re.sub(r"<[^>]*>", " ", bare)).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        if tag == "a":
            self.links.append(given["href"] or "")
        outside = [v for k, v in attrs if v and (k == "src" or (k == "href" and tag != "a"))]
        self.fetched += [address for address in outside if not address.startswith("#")]
        if tag in ("th", "td", "caption", "tr"):
            self._text = []
        if tag == "tr":
            self._row = []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self._caption = "".join(self._text)
            self.grids.setdefault(self._caption, [])
        if tag in ("th", "td") and self._row is not None:
            self._row.append("".join(self._text))
        if tag == "tr" and self._caption is not None:
            self.grids[self._caption].append(self._row or [])

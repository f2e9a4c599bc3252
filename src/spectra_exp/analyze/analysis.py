"""One analysis from the options to its folder: subjects opened, parts run one after another, the page at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spectra_exp.analysis.collect import collect
from spectra_exp.analyze.opening import chosen_device, open_subject
from spectra_exp.analyze.options import Options
from spectra_exp.analyze.page import write_page
from spectra_exp.analyze.registry import Request, chosen_parts
from spectra_exp.analyze.results import AnalysisFolder
from spectra_exp.analyze.texts import read_texts
from spectra_exp.errors import SpectraError
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.summary import read_summary

Track = Callable[[Sequence[int]], Iterable[int]]


def analyse(name: str, options: Options, outputs: Path, console: Console) -> Path:
    """The path of the analysis' page; `name`: the run or model. Raises SpectraError for what cannot be opened."""
    wanted = chosen_parts(options.parts)
    texts = read_texts(options.text, options.texts)
    shared = dict(tokens=options.tokens, seed=options.seed, texts=options.texts, device=chosen_device(options.device))
    with _progress(console) as (step, track):
        step("opening", 0, len(wanted))
        subject = open_subject("run", name, outputs, **shared).watched(track)
        against = None
        if options.against is not None:
            against = open_subject("against", options.against, outputs, **shared).watched(track)
            if against.label == subject.label:
                subject, against = (replace(one, label=f"{one.label}, {one.name}") for one in (subject, against))
        request = Request(subject, against, texts, options.seed, lambda line: step(line, None, len(wanted)))
        folder = AnalysisFolder(_place(options, request), _head(request))
        for done, part in enumerate(wanted):
            step(part.name, done, len(wanted))
            folder.write(part.name, part.title, part.run(request))
    for part in wanted:
        if reason := folder.parts[part.name]["empty"]:
            console.print(f"{part.name}: empty: {reason}", highlight=False, soft_wrap=True)
    return write_page(folder.path)


def newest_of_study(outputs: Path, study: str) -> list[str]:
    """The ids of the newest finished run of each method (cell) of a study. SpectraError when it has none."""
    collected = collect(outputs / "runs").of_study(study)
    newest: dict[str, tuple[str, str]] = {}
    for run_id, row in sorted(collected.by_run.items()):
        finished = str(read_summary(collected.runs_folder / run_id / "summary.json").get("finished"))
        newest[row["cell_id"]] = max(newest.get(row["cell_id"], ("", "")), (finished, run_id))
    if not newest:
        raise SpectraError(f"study: '{study}' has no finished run; make them first: make status")
    return [run_id for _, run_id in newest.values()]


def _place(options: Options, request: Request) -> Path:
    """The folder of the results."""
    if options.out is not None:
        return Path(options.out).expanduser().resolve()
    path = request.subject.path
    own = RunFolder(path.parent, path.name).analysis
    return own if request.against is None else own / f"against-{request.against.name}"


def _head(request: Request) -> dict[str, Any]:
    other = None if request.against is None else request.against.head()
    return {"subject": request.subject.head(), "against": other, "seed": request.seed}


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Callable[[str, int | None, int], None], Track]]:
    """Two functions: one names the step and counts the parts done, the other follows a pass over the text.

    A bar on a terminal, one line for each part elsewhere.
    """
    if not console.is_terminal:
        yield lambda line, done, total: _plain_line(console, line, done, total), iter
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        parts = bar.add_task("parts")

        def step(line: str, done: int | None, total: int) -> None:
            bar.update(parts, description=line, completed=done, total=total)

        def track(passes: Sequence[int]) -> Iterator[int]:
            task = bar.add_task("reading the text", total=len(passes))
            for place in passes:
                yield place
                bar.advance(task)
            bar.remove_task(task)

        yield step, track


def _plain_line(console: Console, line: str, done: int | None, total: int) -> None:
    if done is not None:
        console.print(f"{done + 1}/{total} {line}" if line != "opening" else line, highlight=False)

"""One analysis from the options to its folder: subjects opened, parts run one after another, the page at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spectra_exp.data.documents import UNLABELLED, Document, digest
from spectra_exp.data.sources.files import documents_of
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.interpret.opening import locate, open_subject
from spectra_exp.interpret.options import Options
from spectra_exp.interpret.page import write_page
from spectra_exp.interpret.registry import Part, Request, chosen_parts
from spectra_exp.interpret.results import AnalysisFolder, Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.limits import chosen_device
from spectra_exp.runs.lock import RunLock
from spectra_exp.runs.stored import stored_runs

Track = Callable[[Sequence[int]], Iterable[int]]
# Names what is done; with the number of parts done before it where a part begins.
Step = Callable[..., None]


@dataclass(frozen=True)
class Analysis:
    """A finished analysis. `page`: its path; `failed`: parts that could not read what they need, with the reason."""

    page: Path
    failed: dict[str, str]


def analyse(name: str, options: Options, outputs: Path, console: Console) -> Analysis:
    """The page and the parts that failed; `name`: the run or model. Raises SpectraError for what cannot be opened.

    The page of the parts that are done is written also where an error or an interrupt ends the work.
    """
    wanted = chosen_parts(options.parts)
    texts = read_texts(options.text, options.texts)
    with _progress(console, len(wanted)) as (step, track):
        subject, against = _subjects(name, options, outputs, track)
        request = Request(subject, against, texts, options.seed, step)
        place = _place(options, request)
        if place.exists() and not place.is_dir():
            raise SpectraError(f"{place}: a file lies where the analysis belongs; move it away, or give out=FOLDER")
        with RunLock(place):
            heads = [None if one is None else one.head() for one in (subject, against)]
            folder = AnalysisFolder(place, {"subject": heads[0], "against": heads[1], "seed": options.seed})
            if folder.replaced:
                console.print(folder.replaced, highlight=False, soft_wrap=True)
            try:
                failed = _run(wanted, request, folder, step)
            finally:
                if folder.parts:
                    page = write_page(folder.path)
    for part in wanted:
        if (reason := folder.parts[part.name]["empty"]) and part.name not in failed:
            console.print(f"{part.name}: empty: {reason}", highlight=False, soft_wrap=True)
    return Analysis(page, failed)


def read_texts(text: str | None, file: str | None) -> list[Document]:
    """The typed text, then those of the file. Raises ConfigError for one without any character."""
    found = []
    if text is not None:
        if not text.strip():
            raise ConfigError("text", "is empty", "give at least one word")
        found.append(Document(text, UNLABELLED, "text"))
    return found + (documents_of(file, "texts") if file is not None else [])


def _subjects(name: str, options: Options, outputs: Path, track: Track) -> tuple[Subject, Subject | None]:
    """The opened model and the other one, told apart by name and label. ConfigError where they are one."""
    shared: dict[str, Any] = dict(
        tokens=options.tokens, seed=options.seed, texts=options.texts, device=chosen_device(options.device)
    )
    given = {"run": name} if options.against is None else {"run": name, "against": options.against}
    paths = [locate(key, folder, outputs) for key, folder in given.items()]
    if len(set(paths)) < len(paths):
        raise ConfigError("against", f"is the run itself ({paths[0]})", "name another one, or leave it out")
    both = [open_subject(key, folder, outputs, **shared) for key, folder in given.items()]
    both = [replace(one, track=track, name=own) for one, own in zip(both, distinct_names(both), strict=True)]
    if options.against is None:
        return both[0], None
    if both[0].label == both[1].label:
        marks = differing_ends([one.name for one in both])
        both = [replace(one, label=f"{one.label}, {mark}") for one, mark in zip(both, marks, strict=True)]
    return both[0], both[1]


def distinct_names(subjects: Sequence[Subject]) -> list[str]:
    """The subjects' names, with as many parent folders before equal ones as tell them apart."""
    depth, names = 1, [subject.name for subject in subjects]
    while len(set(names)) < len(names):
        depth += 1
        names = ["-".join(subject.path.parts[1:][-depth:]) for subject in subjects]
    return names


def differing_ends(names: Sequence[str]) -> list[str]:
    """The names without the parts (between hyphens) that they begin with in common; whole where nothing would stay."""
    parts = [name.split("-") for name in names]
    common = len(os.path.commonprefix(parts))
    return ["-".join(own[common:]) or name for own, name in zip(parts, names, strict=True)]


def _run(wanted: Sequence[Part], request: Request, folder: AnalysisFolder, step: Step) -> dict[str, str]:
    """The reasons of the parts that failed, after every part was written; a failed one stands empty."""
    failed: dict[str, str] = {}
    for done, part in enumerate(wanted):
        step(part.name, done)
        try:
            folder.write(part.name, part.title, part.run(request))
        except SpectraError as error:
            failed[part.name] = str(error)
            folder.write(part.name, part.title, Result(empty=str(error)))
    return failed


def newest_of_study(outputs: Path, study: str) -> list[str]:
    """The ids of the newest finished run of each method (cell) of a study. SpectraError when it has none."""
    finished = [run.summary for run in stored_runs(outputs / "runs") if run.summary and run.refusal is None]
    chosen = [summary for summary in finished if study in (summary.get("studies") or ())]
    if not chosen:
        known = sorted({name for summary in finished for name in summary.get("studies") or ()})
        raise SpectraError(
            f"study={study}: no completed run of study '{study}'; studies with one: {', '.join(known) or 'none'}"
        )
    newest: dict[str, tuple[str, str]] = {}
    for summary in chosen:
        latest = newest.get(summary["cell_id"], ("", ""))
        newest[summary["cell_id"]] = max(latest, (str(summary.get("finished")), summary["run_id"]))
    return [run_id for _, run_id in newest.values()]


def _place(options: Options, request: Request) -> Path:
    """The folder of the results."""
    if options.out is not None:
        return Path(options.out).expanduser().resolve()
    path, other = request.subject.path, request.against
    own = RunFolder(path.parent, path.name).analysis
    if other is None:
        return own
    # Runs have names of their own; many a model lies in a folder called `final`.
    mark = "" if other.run is not None else f"-{digest(other.path)[:6]}"
    return own / f"against-{other.name}{mark}"


@contextmanager
def _progress(console: Console, total: int) -> Iterator[tuple[Step, Track]]:
    """Two functions: one names the step and counts the parts done of all, the other follows a pass over the text.

    A bar on a terminal, one line for each part elsewhere; before the first step the models are opened.
    """
    if not console.is_terminal:
        console.print("opening", highlight=False)

        def tell(line: str, done: int | None = None) -> None:
            if done is not None:
                console.print(f"{done + 1}/{total} {line}", highlight=False)

        yield tell, iter
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        parts = bar.add_task("opening", total=total)

        def step(line: str, done: int | None = None) -> None:
            bar.update(parts, description=line, completed=done)

        def track(passes: Sequence[int]) -> Iterator[int]:
            task = bar.add_task("reading the text", total=len(passes))
            for place in passes:
                yield place
                bar.advance(task)
            bar.remove_task(task)

        yield step, track

"""How far the runs of the paper's results are, and how long the rest should take here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spectra_exp.archive.file import LAUNCH, Archive
from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.paper.blocks import Block, Chosen, Launch, Line, own_line
from spectra_exp.runs.folder import RunFolder
from spectra_exp.studies import ledger
from spectra_exp.studies.state import GOOD, Speed, expected_seconds, measured_speeds, run_state, speeds_of
from spectra_exp.studies.view import duration

NO_STUDY, NO_TEXT = "no file of this study", "needs the real text"


@dataclass(frozen=True)
class LaunchProgress:
    """`states`: the state of each run, by its line; `unmade`: why its missing runs cannot be made now, None where they
    can; `speeds`: of the finished runs."""

    launch: Launch
    states: dict[Line, str]
    unmade: str | None
    speeds: Sequence[Speed]

    @property
    def done(self) -> int:
        """How many runs have an end that stands."""
        return sum(state in GOOD for state in self.states.values())

    @cached_property
    def left(self) -> tuple[float, int]:
        """Seconds of what is left, one run after another, and how many runs more are unlike all that have finished."""
        lines = [line for line, state in self.states.items() if state not in GOOD]
        # Each cell is composed once.
        cells: dict[Line, int] = Counter(tuple(word for word in line if not word.startswith("seed=")) for line in lines)
        total, unknown = 0.0, 0
        for cell, count in cells.items():
            try:
                each = expected_seconds(self.speeds, None, load_experiment(list(cell))) if self.speeds else None
            except SpectraError:
                each = None
            if each is None:
                unknown += count
            else:
                total += count * each
        return total, unknown

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.launch.is_known and self.done == len(self.states)


@dataclass(frozen=True)
class Known:
    """What is known of runs: their ids by study and line, the states of `archived` ones, speeds of finished ones."""

    outputs: Path | None
    ids: dict[tuple[str, Line], str]
    archived: dict[str, str]
    speeds: list[Speed]

    def finished(self, chosen: Chosen, blocks: Sequence[Block]) -> list[RunFolder]:
        """The folders of those of the chosen runs that have completed here."""
        if self.outputs is None:
            return []
        ids = [self.ids.get((chosen.study, line)) for line in chosen.lines(blocks)]
        folders = [RunFolder(self.outputs / "runs", run_id) for run_id in ids if run_id is not None]
        return [folder for folder in folders if folder.status() == "completed"]

    def state(self, study: str, line: Line) -> str:
        """The state of a run, here or in the archive."""
        run_id = self.ids.get((study, line))
        if run_id is None:
            return "missing"
        if run_id in self.archived:
            return self.archived[run_id]
        return run_state(self.outputs / "runs", run_id).state if self.outputs else "missing"


def known_runs(outputs: Path | None, archive: Archive) -> Known:
    """What an archive and the launches below `outputs` say; of the archive alone where no folder is given."""
    launches = ledger.read_launches(outputs)[0] if outputs else []
    launches += [ledger.launch_of(content) for _, content in archive.shared(LAUNCH)]
    ids = {
        (launch.study, own_line(words)): run.run_id
        for launch in launches
        for run in launch.runs
        for words in (run.overrides, *run.also)
        if run.run_id is not None
    }
    runs = archive.runs()
    statuses = {name: run.required_summary["status"] for name, run in runs.items()}
    archived = {name: "done" if status == "completed" else status for name, status in statuses.items()}
    here = measured_speeds(outputs / "runs") if outputs else ()
    return Known(outputs, ids, archived, [*here, *speeds_of(runs.values())])


def progress(blocks: Iterable[Block], known: Known, text: Path | None) -> dict[str, list[LaunchProgress]]:
    """How each launch stands, by the name of its block."""
    return {block.name: [_progress(launch, known, text) for launch in block.launches] for block in blocks}


def _progress(launch: Launch, known: Known, text: Path | None) -> LaunchProgress:
    states = {line: known.state(launch.study, line) for line in launch.runs}
    lacks_text = launch.needs_text and text is None
    unmade = NO_STUDY if not launch.is_known else NO_TEXT if lacks_text else None
    return LaunchProgress(launch, states, unmade, known.speeds)


def in_words(blocks: Sequence[Block], found: dict[str, list[LaunchProgress]], processes: int) -> str:
    """A line a launch, and what is left of each block with so many processes."""
    lines = []
    for block in blocks:
        own = found[block.name]
        done, whole = sum(one.done for one in own), sum(len(one.states) for one in own)
        lines.append(f"{block.name}  {done} of {whole} runs; {_left(own, processes)}  {block.title}")
        for one in own:
            others = Counter(state for state in one.states.values() if state not in GOOD)
            states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in others.items())
            reason = f" ({one.unmade})" if one.unmade and not one.is_done else ""
            words = " ".join(word for word in one.launch.typed if not word.startswith(("data.", "trainer.cpu_threads")))
            lines.append(f"     {one.launch.study}: {one.done} of {len(one.states)} {states}{reason}  {words}")
    return "\n".join([*lines, f"all: {_left([one for own in found.values() for one in own], processes)}"])


def _left(found: Sequence[LaunchProgress], processes: int) -> str:
    if all(one.is_done for one in found):
        return "done"
    parts = [one.left for one in found if one.launch.is_known and not one.is_done]
    seconds, unknown = sum(part[0] for part in parts), sum(part[1] for part in parts)
    if unknown and not seconds:
        return "time left not known: no run like these has finished"
    more = f", and {unknown} runs like none that has finished" if unknown else ""
    return f"{duration(seconds / processes)} left with {processes} processes{more}"

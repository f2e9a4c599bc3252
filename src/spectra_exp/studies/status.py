"""What each study still lacks: expected, done, running, failed, missing, from what was launched and the run folders."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from spectra_exp.studies.definition import Study, load_study, study_files
from spectra_exp.studies.expand import file_seeds
from spectra_exp.studies.ledger import Launch, read_launches
from spectra_exp.studies.state import STATES, RunState, run_state
from spectra_exp.studies.view import progress_words

# States in which nobody works on a run that is still wanted.
UNDONE = ("missing", "interrupted", "waiting", "failed")


@dataclass(frozen=True)
class StudyStatus:
    """One study as it was launched (`launched` is None for one that never was), and the states of its runs."""

    study: str
    typed: list[str]
    command: str
    launched: str | None
    expected: int
    states: list[RunState]

    def counts(self) -> dict[str, int]:
        """Number of runs by state; runs of a study that was never launched are missing."""
        counted = Counter(state.state for state in self.states)
        counted["missing"] += self.expected - len(self.states)
        return {state: counted[state] for state in STATES}

    def as_json(self) -> dict[str, Any]:
        """Plain values for other programs."""
        return {
            "study": self.study,
            "typed": self.typed,
            "command": self.command,
            "launched": self.launched,
            "expected": self.expected,
            **self.counts(),
            "runs": [asdict(state) for state in self.states],
        }


def all_statuses(outputs: Path) -> tuple[list[StudyStatus], dict[str, str]]:
    """Every launch, and every study never launched; beside it why some launches could not be read."""
    launches, skipped = read_launches(outputs)
    found = []
    for name in study_files():
        own = [launch for launch in launches if launch.study == name]
        found += [_of_launch(launch, outputs) for launch in own] or [_never_launched(load_study(name))]
    gone = [launch for launch in launches if launch.study not in study_files()]
    return found + [_of_launch(launch, outputs) for launch in gone], skipped


def _of_launch(launch: Launch, outputs: Path) -> StudyStatus:
    states = [run_state(outputs / "runs", run.run_id) for run in launch.runs]
    return StudyStatus(launch.study, launch.typed, launch.command, launch.launched, len(states), states)


def _never_launched(study: Study) -> StudyStatus:
    expected = next(iter(study.runs.values())) * len(file_seeds(study))
    return StudyStatus(study.name, [], study.asked(), None, expected, [])


def picture(statuses: list[StudyStatus]) -> Group:
    """The table, and below it what runs, what failed, and what goes on with launches that have something left to do."""
    table = Table(box=box.SIMPLE, title="studies", title_justify="left")
    table.add_column("study", no_wrap=True)
    for column in ("expected", *STATES):
        table.add_column(column.replace("_", " "), justify="right")
    table.add_column("with", overflow="fold")
    for status in statuses:
        counts = [str(count) if count else "" for count in status.counts().values()]
        table.add_row(status.study, str(status.expected), *counts, " ".join(status.typed))
    states = {s.run_id: s for status in statuses for s in status.states}.values()
    running = [Text("  ".join(["running", str(s.run_id), *progress_words(s)])) for s in states if s.state == "running"]
    failed = [Text(f"{s.state.replace('_', ' ')}  {s.run_id}  {s.error}") for s in states if s.error]
    unfinished = [s for s in statuses if s.launched and any(s.counts()[state] for state in UNDONE)]
    return Group(table, *running, *failed, *(Text(f"to go on: {status.command}") for status in unfinished))


def print_status(console: Console, outputs: Path) -> None:
    """The table on `console`."""
    statuses, skipped = all_statuses(outputs)
    console.print(picture(statuses))
    for name, reason in skipped.items():
        console.print(f"left out {name}: {reason}", style="yellow")

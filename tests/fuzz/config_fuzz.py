"""Fuzzes the command line of train.py: whatever is typed is accepted, or refused in one line of plain words.

python tests/fuzz/config_fuzz.py --count 2000 --seed 1 --train 100

Everything runs in this process as `python train.py ...` would, up to the planned run. Of those accepted some are then
trained for three steps at tiny sizes; none may end in an error that is not meant for the user.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from config_draw import draw

from spectra_exp import cli
from spectra_exp.runs import plan
from spectra_exp.training import execute, launcher

# Seconds after which a command line counts as hanging.
PATIENCE_S = 20
TRAINING_PATIENCE_S = 300
# What only a reader of Hydra's or Python's sources would understand.
NOISE = re.compile(
    r"Traceback|LexerNoViableAlt|mismatched input|no viable alternative|token recognition|extraneous input"
    r"|\w+Exception\b|(?<!')\b[A-Z]\w+Error\b|OmegaConf|DictConfig|ListConfig|NoneType|full_key|object_type|hydra\.cc|_target_=|\bstruct\b"
    r"|Errno|object at 0x|<class|Interpolation|dereferenc",
)
TINY = {
    "trainer.max_steps": "3",
    "trainer.batch_size": "4",
    "trainer.accumulation": "1",
    "trainer.cpu_threads": "1",
    "trainer.evaluation_batch_size": "8",
    "trainer.eval_every": "0",
    "trainer.log_every": "1",
    "trainer.memory_limit_mb": "3000",
    "trainer.processes": "1",
    "data.sequence_length": "16",
    "data.evaluation_tokens": "256",
    "data.probe_tokens": "64",
    "data.vocabulary_size": "300",
}
TINY_MODEL = {
    "model.hidden_size": "16",
    "model.num_layers": "2",
    "model.num_heads": "2",
    "model.expert_size": "16",
    "model.max_positions": "64",
    "model.vocabulary_size": "null",
}
TINY_DATA = {"data.train_words": "4000", "data.validation_words": "2000"}


@dataclass(frozen=True)
class Outcome:
    """`accepted`: a run was planned; `finding`: what is wrong with the answer, None for a good one."""

    words: list[str]
    accepted: bool
    said: str
    finding: str | None
    seconds: float


class Hang(BaseException):
    """The time that a command line may take is over."""


def answer(words: list[str], patience_s: float) -> tuple[int | None, str, str | None]:
    """Status, standard error and finding of `python train.py WORDS`, run in this process."""

    def give_up(*_: object) -> None:
        raise Hang

    said, status, finding = io.StringIO(), None, None
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, patience_s)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(list(words))
    except Hang:
        finding = f"hangs for {patience_s} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        finding = f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return status, said.getvalue(), finding


def try_line(words: list[str], planned: list[object]) -> Outcome:
    """What is said to a command line; `planned` gets the run where there is one."""
    started, known = time.perf_counter(), len(planned)
    status, said, finding = answer(words, PATIENCE_S)
    accepted = len(planned) > known
    # What a flag lists comes without a run.
    if finding is None and not accepted and status != 0:
        lines = said.splitlines()
        if status != 2 or len(lines) != 1 or not re.match(r"error: \S.*?: ", said):
            finding = f"status {status}, and not one line of error"
        elif typed_noise(words, said):
            finding = "in the words of the parser"
        elif len(said) > 1000:
            finding = "a line of more than 1,000 characters"
    return Outcome(words, accepted, said, finding, time.perf_counter() - started)


def typed_noise(words: list[str], said: str) -> str | None:
    """A word of the machinery's in what was said that the user did not type."""
    found = [word for word in NOISE.findall(said) if not any(word in typed for typed in words)]
    return found[0] if found else None


@contextlib.contextmanager
def planned_only(planned: list[object]) -> Iterator[None]:
    """A block in which runs are planned and neither tokenised nor made."""
    corpus = SimpleNamespace(vocabulary_size=257)

    def note(made: object, *_: object) -> str:
        planned.append(made)
        return "completed"

    with (
        mock.patch.object(plan, "_corpus", lambda *_: corpus),
        mock.patch.object(execute, "execute", note),
        mock.patch.object(launcher, "execute_in_processes", note),
    ):
        yield


@contextlib.contextmanager
def apart(folder: Path) -> Iterator[None]:
    """A block whose outputs, working folder and arguments are its own."""
    here, argv = os.getcwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["train.py"]
    try:
        with mock.patch.dict(os.environ, {"SPECTRA_OUTPUTS": str(folder / "outputs"), "HF_HUB_OFFLINE": "1"}):
            yield
    finally:
        os.chdir(here)
        sys.argv = argv


def fuzz(count: int, seed: int) -> list[Outcome]:
    """The outcomes of `count` command lines drawn from `seed`."""
    dice, planned = random.Random(seed), []
    with planned_only(planned):
        return [try_line(draw(dice), planned) for _ in range(count)]


def tiny(words: list[str]) -> list[str]:
    """The command line with sizes that train in seconds and everything else as it was."""
    given = dict(word.split("=", 1) for word in words)
    small = TINY | (TINY_MODEL if given.get("model") not in ("upcycle", "reroute") else {})
    small |= TINY_DATA if given.get("data", "embedded") == "embedded" else {}
    kept = {key: value for key, value in given.items() if key not in small and key != "debug"}
    return [f"{key}={value}" for key, value in (kept | small).items()]


def train(outcomes: list[Outcome], count: int, seed: int) -> Iterator[Outcome]:
    """Train `count` of the accepted at random, three steps each."""
    accepted = [tiny(o.words) for o in outcomes if o.accepted and not any(w.startswith("-") for w in o.words)]
    random.Random(seed).shuffle(accepted)
    made = 0
    for words in accepted:
        if made == count:
            return
        planned: list[object] = []
        with planned_only(planned):
            if not try_line(words, planned).accepted:
                continue
        started = time.perf_counter()
        _, said, finding = answer(words, TRAINING_PATIENCE_S)
        if finding is None and (internal := re.search(r"failed: [A-Z]\w+: .*", said)):
            finding = internal[0]
        yield Outcome(words, True, said, finding, time.perf_counter() - started)
        made += 1


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="command lines to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=100, help="accepted ones to train (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    found = 0
    with tempfile.TemporaryDirectory(prefix="config-fuzz-") as folder, apart(Path(folder)):
        outcomes = fuzz(options.count, options.seed)
        found += _tell("command lines", outcomes)
        trained = list(train(outcomes, options.train, options.seed))
        found += _tell("trained", trained)
    return min(found, 1)


def _tell(what: str, outcomes: list[Outcome]) -> int:
    """Print what was found; returns how often."""
    findings = [o for o in outcomes if o.finding]
    for outcome in findings:
        print(f"{outcome.finding}\n  typed: {outcome.words!r:.600}\n  said: {outcome.said!r:.600}")
    accepted = sum(o.accepted for o in outcomes)
    longest = max((o.seconds for o in outcomes), default=0.0)
    print(
        f"{what}: {len(outcomes)}, accepted {accepted}, findings {len(findings)}, longest {longest:.1f} s", flush=True
    )
    return len(findings)


if __name__ == "__main__":
    sys.exit(main())

"""`spectra-exp rescore`: what each held-out document scored, where that is not there or lost, without training."""

from __future__ import annotations

import math

from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret.remeasure import CHECKPOINT, CLOSE, RunsOptions, each_run, evaluated_again, require_sound
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.scores import write_documents
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import Summary, change_with_file


def rescore(stored: StoredRun, device: str = "cpu") -> int | None:
    """Leave the scores of the held-out documents in a finished run's folder; how many, None where they are there.

    Raises SpectraError for a run whose figures do not count (for other reasons than that its scores are lost), without
    a checkpoint of its end, or of which that checkpoint no longer gives the loss in its summary.
    """
    summary = _require_sound_but_for_scores(stored)
    if stored.folder.documents.exists():
        return None
    run, evaluation = evaluated_again(stored, summary["steps"], device)
    then, now = summary["metrics"]["val_loss"], evaluation.losses["val_loss"]
    if not math.isclose(then, now, rel_tol=CLOSE[CHECKPOINT]):
        raise SpectraError(f"{stored.run_id}: its val_loss is {then:.6g}, and its checkpoint gives {now:.6g} today")
    folder, documents = stored.folder, evaluation.documents
    domains = run.evaluator.corpus.domains
    with folder.hold(timeout=60):
        # The same once more, now that nobody else writes.
        _require_sound_but_for_scores(StoredRun(folder.path))
        change_with_file(
            folder.summary,
            folder.documents,
            lambda path: write_documents(path, documents, domains),
            {"rescored": {"code": code_version()}},
        )
    return int((documents.tokens_G > 0).sum())


def _require_sound_but_for_scores(stored: StoredRun) -> Summary:
    if not stored.lost_documents or stored.summary is None:
        return require_sound(stored)
    if stored.contradiction is not None:
        raise SpectraError(f"{stored.run_id}: {stored.contradiction}")
    return stored.summary


def _lines(stored: StoredRun, device: str) -> list[str]:
    found = rescore(stored, device)
    what = "has the scores of its documents" if found is None else f"{found} documents scored"
    return [f"{stored.run_id}: {what}"]


main = Verb(
    "rescore",
    RunsOptions,
    lambda options: each_run(options, lambda run: _lines(run, options.device)),
    "The score of each held-out document (documents.parquet), for finished runs without it, from their checkpoint.",
    ("run=all", "run=ID1,ID2"),
    bare=("run",),
)

"""One run before it begins, several of them in one process."""

from __future__ import annotations

import shutil
from pathlib import Path

from spectra_exp.config.compose import load_experiment
from spectra_exp.runs.plan import plan


def test_a_corpus_is_that_of_the_outputs_folder_that_was_given(tmp_path: Path) -> None:
    first, second = (
        load_experiment(
            ["router=hash", "data.train_words=9000", "data.validation_words=5000", f"outputs={tmp_path}/{n}"]
        )
        for n in "ab"
    )
    plan(first)
    # An outputs folder that a notebook has done with.
    shutil.rmtree(tmp_path / "a")
    assert plan(second).corpus.document_names()

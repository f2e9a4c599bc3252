"""Products of float32 on a GPU are computed in float32 while a run trains and scores."""

from __future__ import annotations

import pytest
import torch

from spectra_exp.foundations.devices import full_float32
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.training import execute
from spectra_exp.training.evaluation import Evaluator


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def tf32():
    before = allowed()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_it_holds_in_the_block_and_what_was_set_comes_back(tf32):
    with pytest.raises(KeyError), full_float32():
        assert allowed() == (False, False)
        raise KeyError
    assert allowed() == (True, True)


def test_a_run_trains_in_it(tf32, monkeypatch, tmp_path):
    from spectra_exp.api import run

    seen = []
    monkeypatch.setattr(execute, "_train", lambda *_: seen.append(allowed()))
    # Nothing was trained, so the run has no end.
    with pytest.raises(SpectraError):
        run("debug=smoke", "router=switch", f"outputs={tmp_path}")
    assert seen == [(False, False)]


def test_an_evaluation_scores_in_it(tf32):
    seen = []

    class Model:
        training = False

        def eval(self):
            seen.append(allowed())
            raise KeyError

    with pytest.raises(KeyError):
        Evaluator.run(None, Model())
    assert seen == [(False, False)]

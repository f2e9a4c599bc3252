from __future__ import annotations

from pathlib import Path

import pytest

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.runs.plan import plan
from spectra_exp.training.execute import execute

REAL_MIX = Path(__file__).resolve().parents[3] / "shared" / "data" / "real_mix"


@pytest.mark.slow
@pytest.mark.skipif(not REAL_MIX.exists(), reason="real_mix is not beside the checkout")
@pytest.mark.parametrize("baseline", [pytest.param("dense", marks=pytest.mark.full), "switch_top2"])
def test_tiny_models_beat_a_unigram_model_clearly_on_real_text(tmp_path: Path, baseline: str) -> None:
    prepare_environment()
    p = plan(
        load_experiment(
            [
                f"baseline={baseline}",
                "data=files",
                f"data.train={REAL_MIX}",
                f"outputs={tmp_path}",
                "model.num_layers=2",
                "trainer.max_steps=150",
                "trainer.batch_size=8",
                "data.evaluation_tokens=8192",
                "logger.progress=false",
            ]
        )
    )
    assert execute(p, "") == "completed"
    summary = p.folder.read_summary()
    assert summary["metrics"]["val_loss"] < summary["unigram_loss"] - 0.3

from __future__ import annotations

import pandas as pd
import pytest
import torch

from spectra_exp.runs.execute import execute
from spectra_exp.training.callbacks.update_ratios import copied_families, update_ratios
from spectra_exp.training.optimizers import named_families


def test_the_ratio_is_the_moves_norm_over_the_weights_norm(planned) -> None:
    from spectra_exp.training.build import build_model

    p = planned()
    model = build_model(p.experiment, p.corpus)
    before = copied_families(model)
    with torch.no_grad():
        for _, parameter in named_families(model)["experts"]:
            parameter.mul_(1.25)
    ratios = update_ratios(before, model)
    assert ratios["update_ratio_experts"] == pytest.approx(0.25, rel=1e-5)
    assert ratios["update_ratio_router"] == ratios["update_ratio_other"] == 0.0


def test_a_run_writes_them_beside_the_gradient_norms_and_they_fall_with_the_rate(planned) -> None:
    p = planned("baseline=switch_top2", "trainer.log_every=1")
    assert execute(p, "") == "completed"
    history = pd.read_parquet(p.folder.history)
    rows = history[(history["split"] == "train") & (history["layer"] == "all")]
    train = rows.pivot(index="step", columns="metric", values="value")
    for family in ("router", "experts", "other"):
        ratios = train[f"update_ratio_{family}"]
        assert ratios.notna().all() and (ratios > 0).all() and (ratios < 1).all()
        # The rate of the last step is a tenth of the peak.
        assert ratios.iloc[-1] < 0.5 * ratios.max()

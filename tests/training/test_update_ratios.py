from __future__ import annotations

import pandas as pd
import pytest
import torch

from spectra_exp.training.callbacks.update_ratios import copied_families, update_ratios
from spectra_exp.training.execute import execute
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


def test_the_share_of_experts_that_no_gradient_reached_is_counted_over_all_layers(planned) -> None:
    from spectra_exp.training.build import build_model
    from spectra_exp.training.optimizers import experts_without_gradient

    p = planned("baseline=switch_top2")
    model = build_model(p.experiment, p.corpus)
    assert experts_without_gradient(model) == {}
    for layer in model.routed_layers:
        for weight in layer.experts.parameters():
            weight.grad = torch.zeros_like(weight)
    first, second = (layer.experts for layer in model.routed_layers)
    first.up.grad[0, 0, 0] = first.down.grad[0, 1, 1] = second.gate.grad[3, 0, 1] = 1e-9
    # Two of the eight experts of two layers have one.
    assert experts_without_gradient(model) == {"experts_without_gradient": 0.75}


def test_a_run_writes_the_share_of_experts_without_gradient(planned) -> None:
    p = planned(
        "baseline=switch_top1",
        "trainer.log_every=1",
        "trainer.max_steps=3",
        "trainer.batch_size=1",
        "model.num_experts=16",
    )
    assert execute(p, "") == "completed"
    history = pd.read_parquet(p.folder.history)
    shares = history[(history["split"] == "train") & (history["metric"] == "experts_without_gradient")]["value"]
    # 32 tokens to 16 experts: some are left out, never all.
    assert len(shares) == 3 and shares.between(0, 1, inclusive="left").all() and shares.max() > 0

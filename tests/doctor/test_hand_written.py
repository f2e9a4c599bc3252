"""A hand-written model whose auxiliary loss cannot be asked for: no fault where it is sound, each planted one alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from doctor_cases import batches
from hand_written import HandConfig, HandWritten

from spectra_exp.doctor import doctor
from spectra_exp.doctor.examine import Report


def report_of(model: HandWritten) -> Report:
    return doctor(model, batches())


def made(**options: Any) -> HandWritten:
    torch.manual_seed(0)
    return HandWritten(HandConfig(**options)).eval()


def detached_weights(model: HandWritten) -> None:
    for block in model.blocks:
        block.experts.register_forward_pre_hook(lambda experts, given: (*given[:2], given[2].detach()))


def lost_loss(model: HandWritten) -> None:
    model.total = lambda language, auxiliary: language


def detached_loss(model: HandWritten) -> None:
    own = model.balance
    model.balance = lambda logits_ME: own(logits_ME).detach()


@pytest.mark.parametrize("options", [{}, dict(num_experts_per_tok=1, normalised=False), dict(coefficient_aux=0.0)])
def test_a_sound_one_has_no_fault(options: dict[str, Any]) -> None:
    found = report_of(made(**options))
    assert not [one for one in found.findings if one.outcome.status in ("fault", "doubtful")]
    loss_is_on = options.get("coefficient_aux", 1) > 0
    assert found.status("auxiliary_on") == ("ok" if loss_is_on else "does not apply")


def test_what_the_loss_adds_is_its_coefficient_times_its_value() -> None:
    model, outcome = made(), doctor(made(), batches(), checks=("auxiliary_on",)).findings[0].outcome
    with torch.no_grad():
        output = model(batches()[0][:4])
    assert outcome.figure == pytest.approx(0.01 * float(output.aux_loss), rel=1e-4)


@pytest.mark.parametrize(
    ("plant", "options", "check"),
    [
        (detached_weights, {}, "router_gradient"),
        (lambda model: None, dict(num_experts_per_tok=1), "router_gradient"),
        (lost_loss, {}, "auxiliary_on"),
        (detached_loss, {}, "auxiliary_gradient"),
    ],
    ids=["detached_weights", "one_expert", "lost_loss", "detached_loss"],
)
def test_a_planted_fault_is_the_one_that_is_found(
    plant: Callable[[HandWritten], None], options: dict[str, Any], check: str
) -> None:
    model = made(**options)
    plant(model)
    assert [one.check.name for one in report_of(model).faults] == [check]

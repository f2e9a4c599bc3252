"""`doctor(model, batches, trainer=None)`: what it takes, what it gives, and that it leaves model and trainer alone."""

from __future__ import annotations

import json

import pytest
import torch
from doctor_cases import batches, stock
from planted import Balancing, trained

from spectra_exp.doctor import doctor
from spectra_exp.doctor.registry import checks
from spectra_exp.foundations.errors import ConfigError


def test_it_gives_a_finding_for_every_check() -> None:
    ids = batches()[0]
    report = doctor(stock("mixtral"), iter([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]))
    assert [one.check.name for one in report.findings] == list(checks()) and report.name == "MixtralForCausalLM"
    assert {one.check.name for one in report.faults} == {"auxiliary_on", "auxiliary_form", "auxiliary_accumulation"}
    assert report.status("causality") == "ok"
    told = json.loads(json.dumps(report.as_dict()))
    assert {"check", "status", "figure", "limit", "place", "meaning", "advice"} <= told["findings"][0].keys()
    with pytest.raises(ConfigError, match="did you mean 'causality'"):
        report.status("causalty")


def test_a_trainer_takes_steps_and_is_left_as_it_was() -> None:
    model = stock("deepseek_v3")
    trainer = trained(Balancing, model)
    trainer.create_optimizer()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = doctor(model, batches(), trainer)
    assert report.status("bias_steps") == "ok" and report.findings[-1].outcome.status == "ok"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert trainer.state.global_step == 0 and not trainer.optimizer.state_dict()["state"]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_wrong_input_is_said() -> None:
    model, ids = stock("mixtral"), batches()[0]
    wrong = {
        "trainer: it trains another model": ([ids], trained(None, stock("mixtral"))),
        "there is no batch": ([], None),
        "1 of 32 tokens are too few": ([ids[:1]], None),
        "a batch has padding": ([{"input_ids": ids, "attention_mask": torch.zeros_like(ids)}], None),
        "batches: ids of a batch are": ([ids.float()], None),
        "beyond the model's vocabulary": ([ids + 10**6], None),
    }
    for line, (given, trainer) in wrong.items():
        with pytest.raises(ConfigError, match=line):
            doctor(model, given, trainer)

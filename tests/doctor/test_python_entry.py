"""`doctor(model, batches, trainer=None)`: what it takes, what it gives, and that it leaves model and trainer alone."""

from __future__ import annotations

import json

import pytest
import torch
from doctor_cases import batches, stock
from planted import Balancing, trained

from spectra_exp.doctor import doctor
from spectra_exp.doctor.registry import checks
from spectra_exp.foundations.errors import ConfigError, SpectraError


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


@pytest.mark.parametrize("good_passes", [0, 1])
def test_a_model_that_cannot_be_run_is_one_line_and_is_watched_no_more(good_passes: int) -> None:
    model, passes = stock("mixtral"), []

    def fails(module: torch.nn.Module, given: tuple, output: object) -> None:
        passes.append(output)
        if len(passes) > good_passes:
            raise RuntimeError("sizes differ\nand more")

    handle = model.lm_head.register_forward_hook(fails)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    with pytest.raises(ConfigError, match=r"cannot be run on the text \(sizes differ\)"):
        doctor(model, batches())
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    handle.remove()
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight[0] = torch.nan
    with pytest.raises(
        SpectraError, match="not finite; nor are weights, model.layers.1.mlp.gate.weight the first of 1"
    ):
        doctor(model, batches())


def test_a_module_that_layers_share_is_said() -> None:
    model = stock("mixtral")
    model.model.layers[1].mlp.gate = model.model.layers[0].mlp.gate
    with pytest.raises(SpectraError, match="ran twice in one pass of the model, as a module does that several layers"):
        doctor(model, batches())


def test_a_module_around_a_model_is_said() -> None:
    class Around(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config = inner, inner.config

    with pytest.raises(ConfigError, match="Around is no model of transformers"):
        doctor(Around(stock("mixtral")), batches())

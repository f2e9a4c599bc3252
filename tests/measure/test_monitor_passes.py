"""Which passes RoutingMonitor counts, and which of their tokens: whoever calls the model, and however.

Letters: B sequences, S tokens each, E experts.
"""

from __future__ import annotations

import copy

import pytest
import torch
from family_cases import family_model, ids_of
from sparse_families import sparse_model
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from spectra_exp import RoutingMonitor
from spectra_exp.foundations.errors import SpectraError


def counts(monitor: RoutingMonitor) -> list[list[int]]:
    return [stats.counts_E.tolist() for stats in monitor.statistics()]


@torch.no_grad()
def watched(model: nn.Module, *inputs, call: nn.Module | None = None, **named) -> list[list[int]]:
    """The counts of one pass of `call`, the model where None."""
    with RoutingMonitor(model) as monitor:
        (call or model)(*inputs, **named)
    return counts(monitor)


class Rows(Dataset):
    def __init__(self, first: int):
        self.first = first

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = ids_of(1, 12, self.first + index)[0]
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


VALIDATION, TEST = Rows(0), Rows(100)


def trainer_of(model: nn.Module, folder, *callbacks: TrainerCallback, **changes) -> Trainer:
    arguments = TrainingArguments(
        folder,
        report_to=[],
        use_cpu=True,
        per_device_eval_batch_size=2,
        disable_tqdm=True,
        save_strategy="no",
        **changes,
    )
    return Trainer(model, arguments, train_dataset=TEST, eval_dataset=VALIDATION, callbacks=list(callbacks))


def routing(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if "_routing_" in name}


class Samples(TrainerCallback):
    """Runs the model in evaluation mode after each step, as callbacks that print samples do."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.eval()
        with torch.no_grad():
            model(input_ids=ids_of(3, 9, 7))
        model.train()


def test_an_evaluation_holds_its_own_tokens_alone(tmp_path):
    model = copy.deepcopy(family_model("mixtral"))
    trainer = trainer_of(model, tmp_path, RoutingMonitor(model))
    expected = routing(trainer.evaluate())
    assert expected["eval_routing_load_cv"] > 0
    trainer.predict(TEST)
    assert routing(trainer.evaluate()) == expected
    with torch.no_grad():
        model.eval()(input_ids=ids_of(5, 9, 3))
    assert routing(trainer.evaluate()) == expected
    prediction_step, trainer.prediction_step = trainer.prediction_step, lambda *given, **named: 1 / 0
    with torch.no_grad():
        model(input_ids=ids_of(5, 9, 3))
    with pytest.raises(ZeroDivisionError):
        trainer.evaluate(TEST)
    trainer.prediction_step = prediction_step
    assert routing(trainer.evaluate()) == expected


def test_an_evaluation_that_broke_off_leaves_nothing_to_the_next(tmp_path):
    model = copy.deepcopy(family_model("mixtral"))
    trainer = trainer_of(model, tmp_path, RoutingMonitor(model))
    expected, step, calls = routing(trainer.evaluate()), trainer.prediction_step, []

    def breaks(*given, **named):
        calls.append(step(*given, **named))
        raise KeyboardInterrupt

    trainer.prediction_step = breaks
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer.evaluate(TEST)
    trainer.prediction_step = step
    assert len(calls) == 2 and routing(trainer.evaluate()) == expected


def test_a_monitor_that_is_no_callback_counts_every_pass_of_its_block(tmp_path):
    model = copy.deepcopy(family_model("mixtral"))
    trainer = trainer_of(model, tmp_path)
    with RoutingMonitor(model) as monitor:
        trainer.evaluate()
        trainer.predict(TEST)
        with torch.no_grad():
            model(input_ids=ids_of(5, 9, 3))
    assert {stats.num_tokens for stats in monitor.statistics()} == {(len(VALIDATION) + len(TEST)) * 12 + 5 * 9}


def test_samples_drawn_during_training_are_no_part_of_an_evaluation(tmp_path):
    found = []
    for samples in ([], [Samples()]):
        model = copy.deepcopy(family_model("mixtral"))
        changes = dict(max_steps=2, eval_strategy="steps", eval_steps=2)
        trainer = trainer_of(model, tmp_path, RoutingMonitor(model), *samples, **changes)
        trainer.train()
        found.append([routing(row) for row in trainer.state.log_history if "eval_routing_load_cv" in row])
    assert found[0] == found[1] and len(found[0]) == 1


@pytest.mark.parametrize("place", ["by name", "by place"])
def test_padding_does_not_count_however_the_mask_is_passed(place):
    model = family_model("mixtral")
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids_of(2, 8)], dim=1)
    mask = (padded > 0).long()
    given = ((padded, mask), {}) if place == "by place" else ((padded,), {"attention_mask": mask})
    assert [sum(layer) for layer in watched(model, *given[0], **given[1])] == [16 * 2] * 2


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.inner = model

    def forward(self, batch: dict[str, torch.Tensor]):
        return self.inner(**batch).logits


def test_whoever_calls_the_model():
    model, ids = family_model("mixtral"), ids_of()
    expected = watched(model, input_ids=ids)
    assert watched(nn.DataParallel(model, device_ids=None), ids) == expected
    assert watched(Wrapped(model), {"input_ids": ids}) == expected
    assert watched(model.model, ids, call=model) == expected
    assert watched(model, ids, call=model.model) == expected
    assert watched(Wrapped(model), ids, call=model) == expected


def test_copies_of_a_model_on_several_devices_are_refused():
    model = copy.deepcopy(family_model("mixtral"))
    # As DataParallel marks them.
    model._is_replica = True
    with RoutingMonitor(nn.DataParallel(model)), pytest.raises(SpectraError, match="use DistributedDataParallel"):
        model(ids_of())


def test_data_parallel_over_processes(tmp_path):
    model, ids = family_model("mixtral"), ids_of()
    expected = watched(model, ids)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert watched(nn.parallel.DistributedDataParallel(model), input_ids=ids) == expected
    finally:
        torch.distributed.destroy_process_group()


def test_our_own_models_in_a_wrapper():
    from moe_cases import settings_of

    from spectra_exp.moe.upcycle import upcycle

    model = upcycle(family_model("llama"), settings_of("switch"), 0, 0.1).eval()
    assert watched(Wrapped(model), {"input_ids": ids_of()}) == watched(model, input_ids=ids_of())


@pytest.mark.parametrize("model_type", ["phimoe", "gemma4_text", "gpt_oss"])
@torch.no_grad()
def test_generation_is_watched_to_its_end(model_type):
    model = sparse_model(model_type)
    with RoutingMonitor(model) as monitor:
        made = model.generate(ids_of(2, 4), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    with RoutingMonitor(model) as whole:
        model(input_ids=made[:, :-1])
    assert counts(monitor) == counts(whole)
    assert monitor.metrics()["routing_entropy"] == pytest.approx(whole.metrics()["routing_entropy"], rel=1e-4)


@torch.no_grad()
def test_a_distribution_that_does_not_explain_every_pass_is_not_claimed():
    model = sparse_model("mixtral")
    with RoutingMonitor(model) as monitor:
        model(input_ids=ids_of())
        gate = model.model.layers[0].mlp.gate
        swap = gate.register_forward_hook(lambda module, given, made: (made[0], made[1].flip(1), made[2]), prepend=True)
        model(input_ids=ids_of())
        swap.remove()
        model(input_ids=ids_of())
    first, second = monitor.table().by_layer()["routing_entropy"]
    assert first is None and second > 0
    assert monitor.statistics()[0].num_tokens == 3 * ids_of().numel()


@torch.no_grad()
def test_encoder_and_decoder_each_count_their_own_tokens():
    model, ids = sparse_model("switch_transformers"), ids_of(2, 10)
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    answers, seen = ids_of(2, 4, 1), []
    for module in model.modules():
        if type(module).__name__.endswith("Top1Router"):
            module.register_forward_hook(lambda m, given, made: seen.append(made[0].flatten(0, 1).bool()))
    with RoutingMonitor(model) as monitor:
        model(input_ids=ids, attention_mask=mask, decoder_input_ids=answers)
    encoder, decoder = monitor.statistics()
    assert (encoder.num_tokens, decoder.num_tokens) == (16, 8)
    assert encoder.counts_E.tolist() == seen[0][mask.flatten().bool()].sum(0).tolist()
    assert decoder.counts_E.tolist() == seen[1].sum(0).tolist()
    assert monitor.metrics()["routing_entropy"] > 0
    with RoutingMonitor(model) as monitor:
        settings = dict(max_new_tokens=3, do_sample=False, eos_token_id=None, decoder_start_token_id=0)
        model.generate(ids, use_cache=False, **settings)
    assert [stats.num_tokens for stats in monitor.statistics()] == [20, 2 * (1 + 2 + 3)]


@torch.no_grad()
def test_experts_that_run_against_their_router_are_said():
    """Of NLLB-MoE this transformers runs the first two experts, whatever the router chose."""
    model = sparse_model("nllb-moe")
    with RoutingMonitor(model), pytest.raises(SpectraError, match="its experts ran on .* but its router chose"):
        model(input_ids=ids_of(), decoder_input_ids=ids_of(2, 4))


@torch.no_grad()
def test_a_compiled_model():
    model = copy.deepcopy(family_model("mixtral"))
    expected = watched(model, input_ids=ids_of())
    attached = torch.compile(model, backend="eager")
    assert watched(attached, input_ids=ids_of()) == expected
    torch.compiler.reset()
    model = copy.deepcopy(family_model("mixtral"))
    compiled = torch.compile(model, backend="eager")
    compiled(input_ids=ids_of())
    with RoutingMonitor(compiled) as monitor, pytest.raises(SpectraError, match=r"compiled by torch\.compile"):
        compiled(input_ids=ids_of())
        monitor.metrics()
    with pytest.raises(SpectraError, match=r"no pass of this evaluation; it was compiled by torch\.compile"):
        monitor.on_evaluate(None, None, None, {})
    torch.compiler.reset()

"""Checks of selection biases: their precision, what moves them and when, and that they weigh nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.doctor.examined import EVALUATION, SEED, DoesNotApply, Examined
from spectra_exp.doctor.keeping import kept, moved, state_of
from spectra_exp.doctor.registry import DOUBTFUL, FAULT, OK, Outcome, check

# In names of parameters that are such biases; buffers that are called biases are.
SELECTION = ("correction", "expert_bias")
# Far beyond any score.
FAR = 100.0
# Steps that a bias is followed over, and how far from 1 the ratio of two paths may be: a movement more doubles one.
STEPS, NEAR = 2, 0.5
# Of combine weights that should be the same.
EQUAL = 1e-4


def selection_biases(x: Examined) -> dict[str, tuple[int, Tensor]]:
    """Values for each expert that move the selection and have no gradient: by name, the layer's place and the tensor.

    In a stock model they are known by their name, in ours by what they do. Raises DoesNotApply where there are none.
    """
    if x.bias_places is None:
        x.bias_places = _places_of_ours(x) if x.own else _places_of_stock(x)
    if not x.bias_places:
        raise DoesNotApply("no layer has a selection bias")
    return {name: (place, getattr(holder, own)) for name, (place, holder, own) in x.bias_places.items()}


def has_biases(x: Examined) -> bool:
    """Whether any layer has such values."""
    try:
        return bool(selection_biases(x))
    except DoesNotApply:
        return False


def _places_of_stock(x: Examined) -> dict[str, tuple[int, nn.Module, str]]:
    found = {}
    for place, watch in enumerate(x.watches):
        sizes = ((watch.num_experts,), (watch.num_experts + 1,))
        for prefix, holder in watch.block.holder.named_modules():
            named = [(n, p) for n, p in holder.named_parameters(recurse=False) if any(part in n for part in SELECTION)]
            for name, tensor in [*holder.named_buffers(recurse=False), *named]:
                if "bias" in name and tensor.is_floating_point() and tensor.shape[-1:] in sizes:
                    found[".".join(part for part in (watch.name, prefix, name) if part)] = (place, holder, name)
    return found


def _places_of_ours(x: Examined) -> dict[str, tuple[int, nn.Module, str]]:
    found = {}
    for place, layer in enumerate(x.layers):
        for prefix, holder in layer.router.named_modules():
            for name, tensor in holder.named_buffers(recurse=False):
                if tensor.is_floating_point() and tensor.shape == (layer.settings.num_experts,):
                    with kept(x.model):
                        x.model.eval()
                        tensor[0] += FAR
                        selects = not torch.equal(x.run(x.ids_BS).chosen_LBSE[place], x.plain.chosen_LBSE[place])
                    if selects:
                        path = ".".join(part for part in (prefix, name) if part)
                        found[f"routed layer {layer.layer}.{path}"] = (place, holder, name)
    return found


@check(
    "Selection bias: precision",
    figure="selection biases that are not float32 after model.to(bfloat16)",
    ok_if="0",
    meaning="Updates of a thousandth vanish in bfloat16 once the bias is near 1: balancing stops, or is lost.",
    advice="Keep the bias float32 in to() and in the checkpoint (_keep_in_fp32_modules_strict; override _apply).",
    order=50,
)
def bias_precision(x: Examined) -> Outcome:
    """The dtype of each bias once the whole model is cast."""
    names = selection_biases(x)
    with kept(x.model):
        x.model.to(torch.bfloat16)
        cast = [name for name, (_, tensor) in selection_biases(x).items() if tensor.dtype != torch.float32]
    return Outcome.within(len(cast), 0, ", ".join(cast[:2]), f"biases: {len(names)}")


@check(
    "Selection bias: moved in training alone",
    figure="relative movement of a selection bias, or of a load that the model keeps, by a pass in evaluation mode",
    ok_if="0",
    meaning="Evaluation changes the model: its bias answers, at once or at the next step, the evaluation's load.",
    advice="Count, and move the bias, in training mode alone.",
    order=51,
)
def bias_still(x: Examined) -> Outcome:
    """Each bias, and whatever else has a value for each expert, before and after a pass in evaluation mode."""
    biases = _values if has_biases(x) else lambda x: {}
    before = {**state_of(x.model), **biases(x)}
    x.run(x.ids_BS)
    after = {**state_of(x.model), **biases(x)}
    changes = {name: by for name, by in moved(before, after).items() if x.is_of_experts(after[name])}
    if not changes and not has_biases(x):
        raise DoesNotApply("no layer has a selection bias, and evaluation moves no load")
    worst = max(changes, key=changes.__getitem__, default="")
    return Outcome.within(changes.get(worst, 0.0), 0.0, worst)


@check(
    "Selection bias: not in the weights",
    figure="largest change of a combine weight of tokens that keep their experts when the bias is moved",
    ok_if=f"at most {EQUAL:g}",
    meaning="The bias weighs experts' outputs: what should only balance the load changes the function.",
    advice="Add the bias for the top-k alone, and gather the weights from the scores without it.",
    order=52,
    rests_on=EVALUATION,
)
def bias_outside_weights(x: Examined) -> Outcome:
    """Each layer's bias is moved a little at one expert; tokens that keep their experts must keep their weights."""
    if x.own:
        raise DoesNotApply("this project's routers keep it apart by construction")
    worst, where = 0.0, ""
    before = [(one.chosen_ME, one.weights_ME) for one in x.run(x.ids_BS).seen]
    for name, (place, bias) in selection_biases(x).items():
        values = bias.data.clone()
        bias.data.reshape(-1)[0] += 0.05
        after = x.run(x.ids_BS).seen[place]
        bias.data.copy_(values)
        chosen_ME, weights_ME = before[place]
        same_M = (after.chosen_ME == chosen_ME).all(1) & chosen_ME[:, 0]
        if same_M.any():
            by = float((after.weights_ME - weights_ME)[same_M].abs().max())
            worst, where = max((worst, where), (by, name))
    return Outcome.within(worst, EQUAL, where)


@check(
    "Selection bias: once a step",
    figure="way of a selection bias in optimizer steps of 2 micro-batches, or with recomputation, over that in steps "
    "of one pass over the same tokens",
    ok_if=f"1 within {NEAR:g}, with every layer's bias moved in place",
    meaning="The bias moves by the pass, not by the step: its rate grows with accumulation and recomputation. Or it "
    "does not move, and nothing balances the load; or each move is a new tensor, which a checkpointer may not have.",
    advice="Count loads in training passes; move the bias by them, in place, once after each optimizer step.",
    order=53,
)
def bias_steps(x: Examined) -> Outcome:
    """Each bias is followed over optimizer steps of one pass, of two micro-batches, and with recomputation."""
    tensors = selection_biases(x)
    once, replaced = _ways(x, 1)
    if not any(once.values()):
        if x.trainer is None and not x.own:
            raise DoesNotApply("the model does not move its biases itself; trainer= follows what its training does")
        return Outcome(DOUBTFUL, 0.0, 1.0, "expected", note=f"no bias moved in {STEPS} optimizer steps")
    ways = {"2 micro-batches a step": _ways(x, 2)[0]}
    if getattr(x.model, "supports_gradient_checkpointing", False):
        ways["recomputation"] = _ways(x, 1, recomputed=True)[0]
    factors = {(name, how): way[name] / once[name] for how, way in ways.items() for name in tensors if once[name]}
    worst = max(factors, key=lambda one: abs(factors[one] - 1))
    measured = (factors[worst], 1.0, "expected")
    if abs(factors[worst] - 1) > NEAR:
        return Outcome(FAULT, *measured, ", ".join(worst))
    still = [name for name in tensors if not once[name]]
    if still:
        return Outcome(FAULT, *measured, ", ".join(still[:2]), "these do not move, biases of other layers do")
    if replaced:
        note = "a new tensor in each step: what holds the old one, as a checkpointer may, keeps its values"
        return Outcome(DOUBTFUL, *measured, ", ".join(replaced[:2]), note)
    return Outcome(OK, *measured)


def _ways(x: Examined, parts: int, recomputed: bool = False) -> tuple[dict[str, float], list[str]]:
    """How far each bias went in STEPS optimizer steps, the sum of its moves; those that became new tensors."""
    with kept(x.model), _optimizer_steps(x) as steps:
        torch.manual_seed(SEED)
        if recomputed:
            x.model.activation_checkpointing_enable({"use_reentrant": False})
        first, last = selection_biases(x), _values(x)
        ways = dict.fromkeys(last, 0.0)

        def look() -> None:
            for name, values in _values(x).items():
                ways[name] += float((values - last[name]).abs().sum())
                last[name] = values

        for _ in range(STEPS):
            steps.run(parts, look)
        replaced = [name for name, (_, tensor) in selection_biases(x).items() if tensor is not first[name][1]]
    return ways, replaced


def _values(x: Examined) -> dict[str, Tensor]:
    return {name: tensor.detach().float().clone() for name, (_, tensor) in selection_biases(x).items()}


class _Steps:
    """Optimizer steps on the small batch as a training makes them: micro-batches, the optimizer, and what comes after.

    A Trainer's loss, optimizer and callbacks, or, without one, what the model does itself.
    transformers' own callbacks, which write and report, are not called.
    """

    def __init__(self, x: Examined, trainer: Any, optimizer: torch.optim.Optimizer):
        self.x, self.trainer, self.optimizer = x, trainer, optimizer
        handler = getattr(trainer, "callback_handler", None)
        self.callbacks = [one for one in getattr(handler, "callbacks", []) if not _is_of_transformers(one)]

    def run(self, parts: int, look: Callable[[], None]) -> None:
        """One step of `parts` micro-batches; `look` is called after each pass and after the step."""
        x = self.x
        self._call("on_step_begin")
        for place, ids_BS in enumerate(x.ids_BS.chunk(parts)):
            x.begin()
            loss = self._loss(ids_BS) / parts
            look()
            # The backward pass may run blocks again.
            x.begin()
            loss.backward()
            look()
            if place + 1 < parts:
                self._call("on_substep_end")
        self._call("on_pre_optimizer_step")
        self.optimizer.step()
        self._call("on_optimizer_step")
        if x.own and self.trainer is None:
            x.model.after_optimizer_step(1.0)
        x.model.zero_grad()
        if self.trainer is not None:
            self.trainer.state.global_step += 1
        self._call("on_step_end")
        look()

    def _loss(self, ids_BS: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids_BS, "labels": ids_BS}
        if self.trainer is not None:
            return self.trainer.compute_loss(self.x.model, inputs)
        return self.x.model(**inputs, use_cache=False).loss

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            trainer = self.trainer
            named = {"model": self.x.model, "optimizer": self.optimizer}
            getattr(callback, event)(trainer.args, trainer.state, trainer.control, **named)


@contextmanager
def _optimizer_steps(x: Examined) -> Iterator[_Steps]:
    """Steps in training mode, by a copy of the trainer; its optimizer is afterwards what it was. Weights come back with
    `kept`. Raises DoesNotApply for a model of which nothing is trained."""
    trained = [p for p in x.model.parameters() if p.requires_grad]
    if not trained:
        raise DoesNotApply("no parameter is trained")
    trainer = copy.copy(x.trainer) if hasattr(x.trainer, "compute_loss") else None
    before = None
    if trainer is None:
        # Weights stay where they are, whatever the gradient is.
        optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)])
    else:
        # `kept` brings back which tensor a weight is, not what was done to it in place.
        for parameter in trained:
            parameter.data = parameter.data.clone()
        trainer.state, trainer.control = copy.copy(trainer.state), copy.copy(trainer.control)
        before = None if trainer.optimizer is None else copy.deepcopy(trainer.optimizer.state_dict())
        optimizer = trainer.optimizer or trainer.create_optimizer()
    with x.training():
        try:
            yield _Steps(x, trainer, optimizer)
        finally:
            if before is not None:
                optimizer.load_state_dict(before)


def _is_of_transformers(callback: Any) -> bool:
    return type(callback).__module__.split(".")[0] == "transformers"

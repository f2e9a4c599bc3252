"""Faults planted in sound tiny models, by the check that must find them; each by hooks on the model or its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import Trainer, TrainerCallback, TrainingArguments

from spectra_exp.moe.stock.blocks import find_blocks

AUXILIARY = ("mixtral", "qwen3_moe", "olmoe")
BIASED = ("deepseek_v3", "glm4_moe", "dots1")
ANY = ("mixtral", "qwen3_moe", "deepseek_v3")
ONE_EXPERT = dict(num_experts_per_tok=1, norm_topk_prob=True)
# Declared, and so no fault.
DROPOUT = dict(attention_dropout=0.5)
# One group, so that only the scores decide.
UNGROUPED = dict(num_experts_per_tok=1, n_group=1, topk_group=1)


@dataclass(frozen=True)
class Plant:
    """`plant` puts the fault into a model of each of `families`, made with `changes`; `status`: what must be found.

    `sound`: makes the healthy model to compare with sound, where a stock one is not. Both may return a trainer.
    """

    check: str
    plant: Callable[[nn.Module], Any]
    families: tuple[str, ...] = ANY
    status: str = "fault"
    changes: dict[str, Any] = field(default_factory=dict)
    sound: Callable[[nn.Module], Any] = lambda model: None
    name: str = ""


def _before_blocks(change: Callable[[nn.Module, Tensor], Tensor], model: nn.Module) -> None:
    """The hidden states [B, S, d] that enter the first sparse block are changed."""

    def hook(module: nn.Module, inputs: tuple) -> tuple:
        return (change(module, inputs[0]), *inputs[1:])

    find_blocks(model)[0].holder.register_forward_pre_hook(hook)


def before_blocks(change: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module], None]:
    return partial(_before_blocks, change)


def _noise(hidden: Tensor) -> Tensor:
    return hidden + 0.1 * torch.randn_like(hidden)


def without_mask(model: nn.Module) -> None:
    """Padding is attended to."""

    def hook(module: nn.Module, inputs: tuple, named: dict) -> tuple:
        return inputs, named | {"attention_mask": None, "position_ids": None}

    model.model.register_forward_pre_hook(hook, with_kwargs=True)


def counting(model: nn.Module, always: bool = False) -> None:
    """Each block counts the tokens of its experts in every pass in training mode, padding included; or in any pass."""
    for block in find_blocks(model):
        block.holder.register_buffer("load", torch.zeros(block.num_experts))

        def hook(holder: nn.Module, experts: nn.Module, inputs: tuple) -> None:
            if holder.training or always:
                with torch.no_grad():
                    holder.load.add_(torch.bincount(inputs[1].flatten(), minlength=len(holder.load)))

        block.experts.register_forward_pre_hook(partial(hook, block.holder))


def expert_choice(model: nn.Module) -> None:
    """Of the tokens that chose an expert only the half with the largest weights keep it, later ones among them."""

    def hook(experts: nn.Module, inputs: tuple) -> tuple:
        hidden, indices, weights = inputs
        limit = weights.flatten().median() if len(weights) > 1 else weights.min()
        return hidden, indices, weights * (weights >= limit)

    for block in find_blocks(model):
        block.experts.register_forward_pre_hook(hook)


def capacity(model: nn.Module) -> None:
    """Each expert takes its fair share of a pass's assignments; those that come after it are dropped."""

    def hook(num_experts: int, experts: nn.Module, inputs: tuple) -> tuple:
        hidden, indices, weights = inputs
        place = one_hot(indices.flatten(), num_experts).cumsum(0).gather(1, indices.flatten()[:, None])
        return hidden, indices, weights * (place.view_as(indices) <= indices.numel() / num_experts)

    for block in find_blocks(model):
        block.experts.register_forward_pre_hook(partial(hook, block.num_experts))


def dropped_loss(model: nn.Module) -> None:
    """The auxiliary loss is asked for and returned, and is not in the loss."""

    def hook(model: nn.Module, inputs: tuple, output: Any) -> None:
        if output.loss is not None and output.aux_loss is not None:
            output.loss = output.loss - model.router_aux_loss_coef * output.aux_loss

    switched_on(model)
    model.register_forward_hook(hook)


def scaled_loss(power: int) -> Callable[[nn.Module], None]:
    """The auxiliary loss is multiplied by a power of the batch's part of the tokens of the step; 1 is right."""

    def hook(model: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
        step = named.get("num_items_in_batch")
        if step is not None and output.aux_loss is not None:
            part = named["labels"][:, 1:].numel() / step
            output.loss = output.loss + model.router_aux_loss_coef * output.aux_loss * (part**power - 1)

    return lambda model: model.register_forward_hook(hook, with_kwargs=True) and None


def bias_not_saved(model: nn.Module) -> None:
    """The bias is no part of what is saved, and loading sets it to zero."""
    for block in find_blocks(model):
        block.router.e_score_correction_bias.copy_(torch.arange(block.num_experts) * 0.1)
        block.router._non_persistent_buffers_set.add("e_score_correction_bias")


def with_loss(change: Callable[[Callable, tuple, dict], Tensor]) -> Callable[[nn.Module], None]:
    """The family's load-balancing loss is another; `change` gets the family's own, and what it is called with."""

    def plant(model: nn.Module) -> None:
        space = type(model).forward.__wrapped__.__globals__
        own = space["load_balancing_loss_func"]
        model.restore = lambda: space.update(load_balancing_loss_func=own)
        space["load_balancing_loss_func"] = lambda *given, **named: change(own, given, named)

    return plant


def switched_on(model: nn.Module) -> None:
    model.config.output_router_logits = True


def whole_loss_divided(model: nn.Module) -> None:
    model.accepts_loss_kwargs = False


def own_float32_bias(model: nn.Module) -> None:
    """to() leaves the bias float32."""
    for block in find_blocks(model):
        router = block.router
        apply = type(router)._apply

        def kept(self: nn.Module, function: Callable, recurse: bool = True, apply: Callable = apply) -> nn.Module:
            bias = self.e_score_correction_bias
            apply(self, function, recurse)
            self.e_score_correction_bias = bias
            return self

        router._apply = kept.__get__(router)


def moving_bias(model: nn.Module) -> None:
    """The bias answers the load of every pass."""
    for block in find_blocks(model):
        block.router.register_forward_hook(_moves)


def _moves(router: nn.Module, inputs: tuple, output: Any) -> None:
    router.e_score_correction_bias.add_(1e-3)


class Balancing(TrainerCallback):
    """After each optimizer step the biases answer the load of the training passes, by its sign alone."""

    def __init__(self, model: nn.Module, blocks: slice = slice(None)):
        self.blocks = find_blocks(model)[blocks]
        for block in self.blocks:
            block.router.counts = torch.zeros(block.num_experts)
            block.experts.register_forward_pre_hook(partial(self.count, block.router))

    @staticmethod
    @torch.no_grad()
    def count(router: nn.Module, experts: nn.Module, inputs: tuple) -> None:
        if router.training:
            router.counts += torch.bincount(inputs[1].flatten(), minlength=len(router.counts))

    @torch.no_grad()
    def answer(self) -> None:
        for block in self.blocks:
            counts = block.router.counts
            self.move(block.router, counts - counts.mean())
            counts.zero_()

    def move(self, router: nn.Module, excess: Tensor) -> None:
        router.e_score_correction_bias.add_(excess.sign(), alpha=-1e-3)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.answer()


class EachMicroBatch(Balancing):
    """And after each micro-batch before the last."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.answer()


class ByCounts(Balancing):
    """By the number of tokens, which recomputation doubles."""

    def move(self, router: nn.Module, excess: Tensor) -> None:
        router.e_score_correction_bias.add_(excess, alpha=-1e-5)


class Replacing(Balancing):
    """Each time by a new tensor."""

    def move(self, router: nn.Module, excess: Tensor) -> None:
        router.e_score_correction_bias = router.e_score_correction_bias - 1e-3 * excess.sign()


def trained(balancing: Callable[[nn.Module], Any] | None, model: nn.Module) -> Trainer:
    arguments = TrainingArguments(report_to=[], use_cpu=True, save_strategy="no", learning_rate=1e-2)
    return Trainer(model, arguments, callbacks=[] if balancing is None else [balancing(model)])


def training(balancing: Callable[[nn.Module], Any] | None) -> Callable[[nn.Module], Trainer]:
    return partial(trained, balancing)


@torch.no_grad()
def moving_in_passes(model: nn.Module) -> None:
    """The bias answers the load of every pass in training mode."""
    for block in find_blocks(model):
        block.router.register_forward_hook(lambda router, *_: _moves(router, (), None) if router.training else None)


def weighing_bias(model: nn.Module) -> None:
    """The experts' weights hold the bias."""
    for block in find_blocks(model):

        def hook(router: nn.Module, experts: nn.Module, inputs: tuple) -> tuple:
            hidden, indices, weights = inputs
            return hidden, indices, weights + router.e_score_correction_bias[indices]

        block.experts.register_forward_pre_hook(partial(hook, block.router))


def coarse_router(model: nn.Module) -> None:
    """In bfloat16 the router rounds what it is given to whole numbers."""

    def hook(router: nn.Module, inputs: tuple) -> tuple:
        hidden = inputs[0]
        coarse = hidden.round() if hidden.dtype == torch.bfloat16 else hidden
        return (coarse, *inputs[1:])

    for block in find_blocks(model):
        block.router.register_forward_pre_hook(hook)


@torch.no_grad()
def idle_expert(model: nn.Module) -> None:
    """Expert 0's score is never the largest: its row is between two others."""
    for block in find_blocks(model):
        weight = block.router.weight
        weight[0] = (weight[1] + weight[2]) / 2
        if hasattr(block.router, "e_score_correction_bias"):
            block.router.e_score_correction_bias.zero_()


@torch.no_grad()
def dominant_expert(model: nn.Module) -> None:
    """Expert 0 has the largest score of every token."""
    for block in find_blocks(model):
        block.router.register_forward_pre_hook(lambda router, inputs: (inputs[0].abs(), *inputs[1:]))
        block.router.weight[0] = 10.0


@torch.no_grad()
def copied(model: nn.Module) -> None:
    for parameter in find_blocks(model)[1].experts.parameters():
        parameter[1] = parameter[0]


def tied(model: nn.Module) -> None:
    first, second = find_blocks(model)[:2]
    for name, parameter in list(first.experts.named_parameters()):
        setattr(second.experts, name, parameter)


def frozen(model: nn.Module) -> None:
    find_blocks(model)[0].router.requires_grad_(False)


def detached_weights(model: nn.Module) -> None:
    """The combine weights are detached."""
    for block in find_blocks(model):
        block.experts.register_forward_pre_hook(lambda experts, given: (*given[:2], given[2].detach()))


def one_expert(model: nn.Module) -> None:
    """Of one expert a token whose weight is made to be 1; the configuration has it."""


def two_experts(model: nn.Module) -> None:
    """As many as keep a weight that is not 1."""
    for block in find_blocks(model):
        block.router.top_k = 2


def nothing(model: nn.Module) -> None:
    """The fault is the stock model's own, or one of its configuration."""


PLANTS = [
    Plant("causality", before_blocks(lambda m, h: h + h.mean(1, keepdim=True)), name="later_tokens"),
    Plant("causality", before_blocks(lambda m, h: h + h.mean(0, keepdim=True)), name="other_sequences"),
    Plant("causality", expert_choice, name="expert_choice"),
    Plant("causality", before_blocks(lambda m, h: _leaks(m, h)), changes=DROPOUT, name="in_training"),
    Plant(
        "causality", before_blocks(lambda m, h: _leaks(m, _unseeded(m, h))), status="doubtful", name="noise_in_training"
    ),
    Plant("batch_invariance", without_mask),
    Plant("batch_invariance", capacity, name="capacity"),
    Plant("padding", with_loss(lambda own, given, named: own(*given[:3])), AUXILIARY, name="loss"),
    Plant("padding", counting, name="loads"),
    Plant("auxiliary_on", nothing, AUXILIARY, sound=switched_on),
    Plant("auxiliary_on", dropped_loss, AUXILIARY, sound=switched_on, name="dropped"),
    Plant(
        "auxiliary_gradient",
        with_loss(lambda own, given, named: own(tuple(g.detach() for g in given[0]), *given[1:])),
        AUXILIARY,
    ),
    Plant("auxiliary_gradient", frozen, AUXILIARY, status="doubtful", name="frozen"),
    Plant("auxiliary_form", nothing, AUXILIARY, sound=with_loss(lambda own, given, named: _of_layers(own, given))),
    Plant(
        "auxiliary_form",
        with_loss(lambda own, given, named: _of_layers(own, (tuple(g.softmax(-1) for g in given[0]), *given[1:]))),
        AUXILIARY,
        sound=with_loss(lambda own, given, named: _of_layers(own, given)),
        name="softmax_twice",
    ),
    Plant("auxiliary_accumulation", nothing, AUXILIARY, sound=whole_loss_divided),
    Plant("auxiliary_accumulation", scaled_loss(2), AUXILIARY, sound=scaled_loss(1), name="shrinking"),
    Plant("bias_precision", nothing, BIASED, sound=own_float32_bias),
    Plant("bias_still", moving_bias, BIASED),
    Plant("bias_still", partial(counting, always=True), BIASED, sound=counting, name="counted_loads"),
    Plant("bias_still", partial(counting, always=True), AUXILIARY, sound=counting, name="loads_without_bias"),
    Plant("bias_outside_weights", weighing_bias, BIASED),
    Plant("bias_steps", moving_in_passes, BIASED, name="each_pass"),
    Plant("bias_steps", training(EachMicroBatch), BIASED, sound=training(Balancing), name="each_micro_batch"),
    Plant("bias_steps", training(ByCounts), BIASED, sound=training(Balancing), name="recomputed_counts"),
    Plant("bias_steps", training(partial(Balancing, blocks=slice(1))), BIASED, name="one_layer"),
    Plant("bias_steps", training(None), BIASED, status="doubtful", name="never"),
    Plant("bias_steps", training(Replacing), BIASED, status="doubtful", name="new_tensors"),
    Plant("recomputation", counting, name="counts"),
    Plant("recomputation", before_blocks(lambda m, h: _unseeded(m, h)), name="noise"),
    Plant("precision", coarse_router),
    Plant("cached_decoding", before_blocks(lambda m, h: h * 1.5 if h.shape[1] == 1 else h)),
    Plant("cached_decoding", expert_choice, name="expert_choice"),
    Plant("router_gradient", one_expert, changes=ONE_EXPERT, sound=two_experts),
    Plant("router_gradient", detached_weights, name="detached"),
    Plant("idle_experts", idle_expert, changes=UNGROUPED),
    Plant("dominant_experts", dominant_expert, changes=UNGROUPED),
    Plant("twice", before_blocks(lambda m, h: _noise(h))),
    Plant("modes", before_blocks(lambda m, h: h * 1.3 if m.training else h), name="other_rule"),
    Plant("modes", before_blocks(lambda m, h: _noise(h) if m.training else h), changes=DROPOUT, name="noise"),
    Plant("copied_experts", copied),
    Plant("tied", tied),
    Plant("frozen", frozen, status="doubtful"),
    Plant("saved_and_loaded", before_blocks(lambda m, h: h * 1.3)),
    Plant("saved_and_loaded", bias_not_saved, BIASED, name="bias_not_saved"),
]


def _of_layers(own: Callable, given: tuple) -> Tensor:
    """The mean over layers of the family's own loss of each layer."""
    return torch.stack([own((logits,), *given[1:]) for logits in given[0]]).mean()


def _leaks(module: nn.Module, hidden: Tensor) -> Tensor:
    """In training mode the mean over the sequence is added."""
    return hidden + hidden.mean(1, keepdim=True) if module.training else hidden


_GENERATOR = torch.Generator().manual_seed(0)


def _unseeded(module: nn.Module, hidden: Tensor) -> Tensor:
    """Noise in training from a generator that recomputation does not set back."""
    if not module.training:
        return hidden
    return hidden + 0.5 * torch.randn(hidden.shape, generator=_GENERATOR)

"""The check that training and evaluation score the same thing (docs/method.md 4).

An earlier implementation trained on unshifted labels and evaluated on shifted ones: train loss 1e-4, validation loss
24, and every conclusion void.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectra_exp.data.batches import NOT_COUNTED, Example, TrainingBlocks
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.training.evaluation import Evaluator
from spectra_exp.training.trainer import RoutingTrainer

# Two evaluations of one batch differ by rounding alone; bfloat16 rounds more.
TOLERANCE = {False: 1e-4, True: 2e-2}
# A model from scratch knows nothing: its first loss is ln(vocabulary) to within this share.
FIRST_LOSS_SHARE = 0.05
# Sequences of the first batch that are scored in both ways: a wrong loss shows in any of them.
CHECKED_SEQUENCES = 2
# Where the loss leaves tokens out: as many sequences as have so many that it counts, out of so many of the first ones.
CHECKED_TOKENS = 32
LOOKED_AT = 64


class LossDisagreement(SpectraError):
    """Training and evaluation do not score the same thing, so no figure of the run can be trusted."""


def sequences_to_check(blocks: TrainingBlocks, most: int) -> list[Example]:
    """At most `most` of the first training sequences; where the loss leaves tokens out, those with most that count."""
    if not blocks.counts_some:
        return [blocks[i] for i in range(min(CHECKED_SEQUENCES, most))]
    first = [blocks[i] for i in range(min(LOOKED_AT, len(blocks)))]
    chosen: list[Example] = []
    for example in sorted(first, key=scored_tokens, reverse=True)[:most]:
        if sum(map(scored_tokens, chosen)) < CHECKED_TOKENS or len(chosen) < CHECKED_SEQUENCES:
            chosen.append(example)
    return chosen


def scored_tokens(example: Example) -> int:
    """How many tokens of an example or a batch the loss counts; the first of a sequence is never predicted."""
    return int((example["labels"][..., 1:] != NOT_COUNTED).sum())


@torch.no_grad()
def check_losses(trainer: RoutingTrainer, evaluator: Evaluator, batch: dict[str, Tensor], step: int) -> float:
    """Loss of some sequences of training with dropout off, as training computes it; raises LossDisagreement.

    The loss is of the tokens that training counts, of which the batch must have some. It must agree with the
    evaluation function on the same tokens and, at step 0 of a model from scratch, be near ln(vocabulary).
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    inputs = trainer._prepare_inputs(batch)
    trained = float(trainer.compute_loss(model, inputs, return_outputs=True)[1].lm_loss)
    evaluated = evaluator.loss_of(model, inputs)
    model.train(was_training)
    # A diverged model is reported as such elsewhere: NaN disagrees with itself.
    if math.isfinite(trained) and abs(trained - evaluated) > TOLERANCE[evaluator.bf16] * max(1.0, abs(evaluated)):
        raise LossDisagreement(
            f"step {step}: the training loss of a batch is {trained:.4f} but its evaluation loss is {evaluated:.4f}; "
            "labels are shifted in one and not in the other, or the two losses differ otherwise"
        )
    expected = math.log(model.config.backbone.vocab_size)
    # The mean of few losses lies further off.
    allowed = FIRST_LOSS_SHARE * expected * math.sqrt(CHECKED_TOKENS / min(scored_tokens(batch), CHECKED_TOKENS))
    if step == 0 and model.settings.origin == "scratch" and abs(trained - expected) > allowed:
        raise LossDisagreement(
            f"step 0: the loss is {trained:.4f}, not near ln(vocabulary) = {expected:.4f}; "
            "labels or initial weights are wrong"
        )
    return trained

"""Checks that the model is one function: of earlier tokens alone, whatever stands beside them and however it is called.

Figures are the largest change of a logit, in units of the spread of all logits; all of it in float32.
"""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch
from torch import Tensor

from spectra_exp.doctor.declared import declared_rules, without_declared, without_declared_noise
from spectra_exp.doctor.examined import EVALUATION, SEED, DoesNotApply, Examined, Pass, next_token_loss
from spectra_exp.doctor.options import declared_noise
from spectra_exp.doctor.registry import DOUBTFUL, FAULT, OK, Outcome, check
from spectra_exp.measure.causality import TOLERANCE, Causality, measure_causality
from spectra_exp.moe.whole_weights import ONLY_HERE

FIGURE, SMALL = "largest change of a logit / spread of the logits", f"at most {TOLERANCE:g}"
# Positions scored from their own prefix alone, to say what a leak is worth; and tokens generated.
SCORED, NEW = 8, 8


def _at(place: tuple[int, int] | None) -> str:
    return "" if place is None else f"sequence {place[0]}, position {place[1]}"


@check(
    "Causality",
    figure=FIGURE,
    ok_if=SMALL,
    meaning="A prediction depends on later tokens or on other sequences, so no decoding will be as good as the loss.",
    advice="Select per token (top-k of its own scores); capacity, expert choice and batch statistics leak.",
    order=10,
    rests_on=EVALUATION,
)
def causality(x: Examined) -> Outcome:
    """Later tokens and other sequences are changed at 20 places, in training mode too where that computes otherwise."""
    found = measure_causality(lambda ids: x.run(ids).logits_BSV / x.spread, x.ids_BS, x.vocabulary_size, SEED)
    if not found.causal:
        note = f"{_by(found)}; the leak is worth {_worth(x):+.3f} nats"
        return Outcome(FAULT, found.largest_change, TOLERANCE, place=_at(found.place), note=note)
    trained, untold = _in_training(x)
    if trained.causal:
        return Outcome(OK, max(found.largest_change, trained.largest_change), TOLERANCE)
    rules = "; ".join(declared_rules(x))
    if rules:
        return Outcome(OK, found.largest_change, TOLERANCE, note=f"in training mode {_by(trained)}; declared: {rules}")
    if untold:
        note = f"ok in evaluation; in training mode it cannot be told: {untold}"
        return Outcome(DOUBTFUL, found.largest_change, TOLERANCE, note=note)
    note = f"{_by(trained)}; in evaluation {found.largest_change:.2g}"
    return Outcome(FAULT, trained.largest_change, TOLERANCE, place=f"in training mode, {_at(trained.place)}", note=note)


def _in_training(x: Examined) -> tuple[Causality, str]:
    """The same in training mode, from one seed and without declared noise; and what noise is left, if any is.

    Where training computes what evaluation does, on the batch and on its tokens in reverse, there is nothing to change.
    """
    with without_declared_noise(x.model):
        pairs = [(x.trained(ids_BS), x.run(ids_BS)) for ids_BS in (x.ids_BS, x.ids_BS.flip(1))]
        apart = max(x.change(one.logits_BSV, other.logits_BSV)[0] for one, other in pairs)
        if apart <= TOLERANCE:
            return Causality(apart), ""
        found = measure_causality(lambda ids: x.trained(ids).logits_BSV / x.spread, x.ids_BS, x.vocabulary_size, SEED)
        if found.causal:
            return found, ""
        first = pairs[0][0]
        for passes, seed in (("one seed", SEED), ("two seeds", SEED + 1)):
            apart, _ = x.change(x.trained(x.ids_BS, seed).logits_BSV, first.logits_BSV)
            if apart > TOLERANCE:
                return found, f"two passes over the same batch from {passes} differ by {apart:.2g}"
    return found, ""


def _by(found: Causality) -> str:
    by_later, by_others = found.largest_change_later_tokens, found.largest_change_other_sequences
    return f"by later tokens {by_later:.2g}, by other sequences {by_others:.2g}"


def _worth(x: Examined) -> float:
    """How much lower the loss of some tokens is in the batch than from their own prefix alone, nats."""
    length = x.ids_BS.shape[1]
    gains = []
    for end in range(max(1, length - SCORED), length):
        alone = x.run(x.ids_BS[:1, :end]).logits_BSV[0, -1]
        pair = torch.stack([alone, x.plain.logits_BSV[0, end - 1]]).float().log_softmax(-1)[:, x.ids_BS[0, end]]
        gains.append(float(pair[1] - pair[0]))
    return sum(gains) / len(gains)


@check(
    "Batch invariance",
    figure=FIGURE,
    ok_if=SMALL,
    meaning="A sequence is computed otherwise alone, in a batch, or beside padding.",
    advice="Keep padding out of selection, capacity and attention; give attention_mask and position_ids.",
    order=20,
    rests_on=EVALUATION,
)
def batch_invariance(x: Examined) -> Outcome:
    """Each sequence alone, and all of them padded on either side."""
    alone = [x.run(row[None]) for row in x.ids_BS]
    passes = {"alone": _joined(alone, 0)}
    for side in ("left", "right"):
        ids_BS, mask_BS, real = x.padded(side == "left")
        found = x.run(ids_BS, mask_BS)
        chosen = [chosen_BSE[:, real] for chosen_BSE in found.chosen_LBSE]
        passes[f"padded on the {side}"] = Pass(found.logits_BSV[:, real], chosen, found.output, [])
    changes = {name: x.change(one.logits_BSV, x.plain.logits_BSV) for name, one in passes.items()}
    worst = max(changes, key=lambda name: changes[name][0])
    flips = x.flips_text(passes[worst].chosen_LBSE, x.plain.chosen_LBSE)
    note = "; ".join(f"{name} {change:.2g}" for name, (change, _) in changes.items())
    return Outcome.within(changes[worst][0], TOLERANCE, f"{worst}, {_at(changes[worst][1])}", f"{note}; {flips}")


def _joined(passes: list[Pass], dim: int) -> Pass:
    chosen = [torch.cat(layers, dim) for layers in zip(*(one.chosen_LBSE for one in passes), strict=True)]
    return Pass(torch.cat([one.logits_BSV for one in passes], dim), chosen, None, [])


def _compared(x: Examined, found: Pass, limit: float = TOLERANCE) -> Outcome:
    change, place = x.change(found.logits_BSV, x.plain.logits_BSV)
    note = x.flips_text(found.chosen_LBSE, x.plain.chosen_LBSE)
    return Outcome.within(change, limit, _at(place), note)


@check(
    "The same batch twice",
    figure=FIGURE,
    ok_if=SMALL,
    meaning="Evaluation is random, or a pass moves what the next one depends on.",
    advice="Draw noise and move statistics in training mode alone.",
    order=110,
)
def twice(x: Examined) -> Outcome:
    """Two passes in evaluation mode."""
    return _compared(x, x.again)


@check(
    "Decoding with a cache",
    figure=FIGURE,
    ok_if=SMALL,
    meaning="Tokens decoded one by one are computed otherwise than in a full pass, so generation is another model.",
    advice="Keep the router's own state in the cache; select per token; number positions as in the full pass.",
    order=80,
    rests_on=EVALUATION,
)
def cached_decoding(x: Examined) -> Outcome:
    """The first half at once, then token by token."""
    start, length = x.ids_BS.shape[1] // 2, x.ids_BS.shape[1]
    passes = [x.run(x.ids_BS[:, :start], use_cache=True)]
    for position in range(start, length):
        cache = getattr(passes[-1].output, "past_key_values", None)
        if cache is None:
            raise DoesNotApply("the model has no cache")
        passes.append(x.run(x.ids_BS[:, position : position + 1], use_cache=True, past_key_values=cache))
    return _compared(x, _joined(passes, 1))


@check(
    "Training mode against evaluation mode",
    figure="largest change of a logit / spread of the logits, of what the configuration does not declare",
    ok_if=SMALL,
    meaning="The model is trained by another rule, capacity or noise than it is evaluated by, and no option says so.",
    advice="Use one selection rule and one capacity in both; make noise an option, so that it can be switched off.",
    order=120,
    rests_on=EVALUATION,
)
def modes(x: Examined) -> Outcome:
    """A pass in each mode, as configured, and without the noise and the second rules that the configuration has."""
    as_configured, place, note = _apart(x, {})
    said = [*declared_rules(x), *(f"{name}={value:g}" for name, value in declared_noise(x.model).items())]
    if not said:
        return Outcome.within(as_configured, TOLERANCE, place, note)
    with without_declared(x) as named:
        rest, place, note_of_rest = _apart(x, named)
    declared = f"declared: {'; '.join(said)}: {as_configured:.2g}, {note}"
    return Outcome.within(rest, TOLERANCE, place, declared if rest <= TOLERANCE else f"{note_of_rest}; {declared}")


def _apart(x: Examined, named: dict[str, Any]) -> tuple[float, str, str]:
    """How far a pass in training mode is from one in evaluation mode: the largest change, where, and what it does."""
    torch.manual_seed(SEED)
    x.model.eval()
    evaluated = x.run(x.ids_BS)
    x.model.train()
    # A context holds what one pass leaves.
    trained, again = (x.run(x.ids_BS, **copy.deepcopy(named)) for _ in range(2))
    change, place = x.change(trained.logits_BSV, evaluated.logits_BSV)
    noise, _ = x.change(trained.logits_BSV, again.logits_BSV)
    losses = [float(next_token_loss(one.logits_BSV, x.ids_BS)) for one in (trained, evaluated)]
    note = f"loss {losses[0]:.3f} in training, {losses[1]:.3f} in evaluation; "
    note += x.flips_text(trained.chosen_LBSE, evaluated.chosen_LBSE)
    if noise > TOLERANCE:
        note += f"; two passes in training mode differ by {noise:.2g}"
    return change, _at(place), note


@check(
    "Save, load, generate",
    figure=FIGURE,
    ok_if=SMALL,
    meaning="The model that others load, or that generates, is not the one that was trained.",
    advice="Register every tensor that routing needs as a parameter or a saved buffer; keep float32 ones float32.",
    order=140,
    rests_on=EVALUATION,
)
def saved_and_loaded(x: Examined) -> Outcome:
    """Saved and loaded by its class; then logits of greedy generation against a full pass over what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        x.model.save_pretrained(folder)
        loaded = type(x.model).from_pretrained(folder, dtype=torch.float32, **ONLY_HERE).to(x.model.device).eval()
    with torch.no_grad():
        logits_BSV = loaded(input_ids=x.ids_BS, use_cache=False).logits
    del loaded
    change, place = x.change(logits_BSV, x.plain.logits_BSV)
    if not change <= TOLERANCE:
        return Outcome(FAULT, change, TOLERANCE, place=_at(place), note="after saving and loading")
    generated, full = _generated(x)
    by_generation, place = x.change(generated, full)
    return Outcome.within(max(change, by_generation), TOLERANCE, _at(place), f"generation {by_generation:.2g}")


def _generated(x: Examined) -> tuple[Tensor, Tensor]:
    """Logits [B, NEW, V] of greedy generation, and of one full pass over the same tokens."""
    start = x.ids_BS.shape[1] // 2
    with torch.no_grad():
        found = x.model.generate(
            x.ids_BS[:, :start],
            attention_mask=torch.ones_like(x.ids_BS[:, :start]),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
            pad_token_id=getattr(x.model.config, "pad_token_id", None) or 0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    full = x.run(found.sequences).logits_BSV[:, start - 1 : start + NEW - 1]
    return torch.stack(found.logits, 1), full

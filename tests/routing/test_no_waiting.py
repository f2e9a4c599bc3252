"""No router makes the host wait for a GPU once a layer: told on the CPU by the operations that it uses."""

from __future__ import annotations

import pytest
import torch
from router_cases import PAIRS, inputs_of, router_of, settings_of
from torch.utils._python_dispatch import TorchDispatchMode

from spectra_exp.routing.selection import assignment_weights, rule_in_force
from spectra_exp.routing.sequence import ENCODERS

# Those whose result's size or status the host must know: CUDA copies it back and waits.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_consecutive",
    "aten::_unique2",
    "aten::_linalg_svd",
    "aten::linalg_svd",
    "aten::_linalg_eigh",
    "aten::linalg_qr",
    "aten::linalg_inv_ex",
    "aten::repeat_interleave",
    "aten::equal",
    "aten::is_nonzero",
}


class Waits(TorchDispatchMode):
    """Collects the names of waiting operations; indexing by a mask is one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        by_mask = name.startswith("aten::index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else [])
        )
        if name in WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def passes(name: str, rule: str, training: bool, **options) -> list[str]:
    settings = settings_of(name, rule=rule, **options)
    router = router_of(settings)
    inputs = inputs_of(training=training)
    if training:
        inputs.hidden_BSd.requires_grad_()
    with Waits() as waits:
        output = router(inputs)
        chosen_NE = rule_in_force(settings.selection, training).choose(
            output.scores_NE.detach(), settings.top_k, settings.selection.capacity_factor
        )
        loss = assignment_weights(output.weights_NE, chosen_NE, settings.normalizes).square().sum()
        loss = loss + sum(output.losses.values())
        if training and loss.requires_grad:
            loss.backward()
        if training:
            router.commit(output.updates)
            router.after_step(chosen_NE.sum(0).float(), 1.0)
    return waits.found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name, rule", PAIRS)
def test_every_router_and_selection(name, rule, training):
    found = passes(name, rule, training)
    # A round of deferred acceptance must know whether any token was turned away; nothing else may ask.
    assert set(found) <= ({"aten::_local_scalar_dense"} if rule == "quota" else set())


@pytest.mark.parametrize("sequence", sorted(ENCODERS))
def test_every_encoder(sequence):
    assert passes("spectra", "topk", True, sequence=sequence) == []


def test_a_planted_wait_is_seen():
    with Waits() as waits:
        values = torch.rand(4)
        float(values.sum())
        values[values > 0.5].sum()
        torch.linalg.matrix_norm(torch.rand(3, 3), ord=2)
    assert waits.found == ["aten::_local_scalar_dense", "aten::index", "aten::_linalg_svd"]

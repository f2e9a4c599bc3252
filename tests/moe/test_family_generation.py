"""Upcycled and rerouted models decode with a cache as they do with full passes, padded on the left or not."""

from __future__ import annotations

import pytest
import torch
from family_cases import DENSE, SPARSE, UNNAMED, family_model, ids_of, settle
from moe_cases import settings_of

from spectra_exp.moe.reroute import reroute
from spectra_exp.moe.upcycle import upcycle

DUAL = dict(sinkhorn_inference="dual", potentials="hard", training="potentials")
NEW = 8


def _model(model_type: str):
    if model_type in SPARSE:
        return settle(reroute(family_model(model_type), settings_of("spectra", osr=DUAL), 0, None, True))
    return settle(upcycle(family_model(model_type), settings_of("spectra", osr=DUAL, num_shared=1), 0, 0.3))


@pytest.mark.parametrize("model_type", [*DENSE, *UNNAMED, *SPARSE])
@torch.no_grad()
def test_generation_with_left_padding_equals_full_passes(model_type):
    model, ids = _model(model_type), ids_of(2, 6)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    found = model.generate(
        ids * mask,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits_BNV = torch.stack(found.logits, dim=1)
    for row, start in ((0, 2), (1, 0)):
        alone = found.sequences[row : row + 1, start:]
        expected_NV = model(input_ids=alone, use_cache=False).logits[0, -NEW - 1 : -1]
        assert (logits_BNV[row] - expected_NV).abs().max() < 1e-4

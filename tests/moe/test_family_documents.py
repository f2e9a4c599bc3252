"""Packed documents are kept apart in every family that claims it, and refused in those whose attention cannot."""

from __future__ import annotations

import pytest
import torch
from family_cases import DENSE, SPARSE, UNNAMED, family_model, ids_of
from moe_cases import settings_of

from spectra_exp.moe.attention import keeps_documents_apart
from spectra_exp.moe.reroute import reroute
from spectra_exp.moe.upcycle import upcycle

APART = [name for name in [*DENSE, *UNNAMED, *SPARSE] if keeps_documents_apart(family_model(name).config)]


def _model(model_type: str):
    source = family_model(model_type)
    if model_type in SPARSE:
        return reroute(source, settings_of("switch"), 0, None, True).eval()
    return upcycle(source, settings_of("switch"), 0, 0.3).eval()


def _logits(model):
    """Logits of packed blocks, and of their two documents on their own."""
    ids = ids_of()
    documents = torch.zeros_like(ids)
    documents[:, 5:] = 1
    packed = model(input_ids=ids, document_ids=documents, use_cache=False).logits
    alone = [model(input_ids=part, use_cache=False).logits for part in (ids[:, :5], ids[:, 5:])]
    return packed, torch.cat(alone, dim=1)


@pytest.mark.parametrize("model_type", APART)
@torch.no_grad()
def test_packed_documents_do_not_see_each_other(model_type):
    packed, alone = _logits(_model(model_type))
    assert (packed - alone).abs().max() < 1e-5


@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "gemma3_text", "gptj", "gpt_oss"])
@torch.no_grad()
def test_where_they_would_they_are_refused(model_type, monkeypatch):
    assert model_type not in APART
    model = _model(model_type)
    with pytest.raises(ValueError, match="documents cannot be kept apart"):
        _logits(model)
    monkeypatch.setattr("spectra_exp.moe.model.keeps_documents_apart", lambda config: True)
    packed, alone = _logits(model)
    assert (packed - alone).abs().max() > 1e-2

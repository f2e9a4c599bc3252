from __future__ import annotations

import pytest
import torch
from moe_cases import VOCABULARY, model_of

from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.documents import Stretches
from spectra_exp.routing.sequence import ENCODERS

LENGTHS = ((5, 2, 6), (1, 9, 3))
CASES = [
    *[("spectra", {"router": {"sequence": name}, "osr": {"sinkhorn_inference": "dual"}}) for name in ENCODERS],
    ("spectra", {"router": {"sequence": "gru", "carry": "final_state"}, "osr": {"sinkhorn_inference": "dual"}}),
    ("spectra", {"osr": {"sinkhorn_inference": "dual", "online_rate": 0.2}}),
    ("beta_memory", {}),
    ("causal_bias", {"router": {"strength": 0.5}}),
    ("rmoe", {}),
    ("hash", {"router": {"kind": "bigram"}}),
    ("switch", {}),
]


def test_stretches_by_hand() -> None:
    s = Stretches.of(torch.tensor([[7, 7, 3, 3, 3], [3, 1, 1, 7, 3]]))
    assert s.position_BS.tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 0, 0]]
    assert s.row_BS.tolist() == [[0, 0, 1, 1, 1], [2, 3, 3, 4, 5]]
    assert s.mask_GT.sum(1).tolist() == [2, 3, 1, 2, 1, 1]
    values = torch.randn(2, 5, 4)
    assert torch.equal(s.join(s.split(values)), values)
    allowed = s.attention_mask()[0, 0]
    assert allowed[1].tolist() == [True, True, False, False, False]
    assert allowed[3].tolist() == [False, False, True, True, False]


def packed() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and document ids of two blocks of three documents each."""
    ids = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(3))
    documents = [torch.arange(3).repeat_interleave(torch.tensor(lengths)) for lengths in LENGTHS]
    return ids, torch.stack(documents) + torch.tensor([[0], [10]])


def primed(name: str, settings: dict) -> SpectraMoeForCausalLM:
    """A model whose running averages have begun, in evaluation mode."""
    model = model_of(name, **settings)
    ids, _ = packed()
    model(input_ids=ids, labels=ids).loss.backward()
    model.after_optimizer_step(1.0)
    return model.eval()


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda v: v if isinstance(v, str) else str(v.get("router")))
def test_documents_kept_apart_score_as_if_each_were_alone(name: str, settings: dict) -> None:
    model = primed(name, settings)
    ids, documents = packed()
    model.requires_grad_(False)
    together = model(input_ids=ids, document_ids=documents).logits
    for block, lengths in enumerate(LENGTHS):
        for part, logits in zip(ids[block].split(lengths), together[block].split(lengths), strict=True):
            alone = model(input_ids=part[None]).logits[0]
            torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)
    # Planted fault: without the document ids the blocks mix their documents.
    assert not torch.allclose(model(input_ids=ids).logits, together, atol=1e-4)


def test_training_routes_them_apart_too() -> None:
    """Routing vectors (before anything looks at the batch) of a document do not depend on the one before it."""
    ids, documents = packed()
    other = ids.clone()
    other[0, :5] = (other[0, :5] + 7) % (VOCABULARY - 3) + 3
    vectors = []
    for tokens in (ids, other):
        model = model_of("spectra", osr={"sinkhorn_inference": "dual"})
        context = model(input_ids=tokens, labels=tokens, document_ids=documents).routing
        vectors.append(context.carries_BSED[0])
    torch.testing.assert_close(vectors[0][0, 5:], vectors[1][0, 5:], atol=1e-6, rtol=0)
    assert not torch.allclose(vectors[0][0, :5], vectors[1][0, :5])


def test_padding_and_caches_are_refused() -> None:
    model = model_of("switch").eval()
    ids, documents = packed()
    with pytest.raises(ValueError, match="whole, unpadded blocks"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), document_ids=documents)

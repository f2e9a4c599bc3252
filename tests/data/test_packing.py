from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.data.documents import Document
from spectra_exp.data.packing import Stream, tokenise, unigram_cross_entropy, unigram_entropy
from spectra_exp.data.tokenizer import train_bpe

TOKENIZER = train_bpe(["some words and some more words"] * 3, 270)
documents = st.lists(
    st.builds(Document, st.text(min_size=1, max_size=20), st.sampled_from("xyz"), st.just("")), min_size=1
)


@given(documents, st.integers(0, 1000))
def test_every_token_keeps_its_document_and_domain(given_documents, first):
    stream = tokenise(TOKENIZER, given_documents, end_token_id=0, domains=["x", "y", "z"], first_document_id=first)
    for index, document in enumerate(given_documents):
        mine = stream.document_ids == first + index
        tokens = stream.tokens[mine]
        assert tokens[-1] == 0 and np.count_nonzero(tokens == 0) == 1
        assert TOKENIZER.decode(tokens[:-1].tolist()) == document.text
        assert set(stream.domain_ids[mine]) == {"xyz".index(document.domain)}
    assert (np.diff(stream.document_ids) >= 0).all()
    assert stream.tokens.dtype == stream.document_ids.dtype == stream.domain_ids.dtype == np.int32


def stream(length: int) -> Stream:
    return Stream(np.arange(length), np.arange(length) + 100, np.arange(length) + 200)


@given(st.integers(0, 50), st.integers(2, 9))
def test_blocks_are_the_stream_cut_with_the_rest_dropped(length, size):
    tokens, documents_, domains = stream(length).blocks(size)
    assert tokens.shape == documents_.shape == domains.shape == (length // size, size)
    np.testing.assert_array_equal(tokens.ravel(), np.arange(length)[: length // size * size])
    np.testing.assert_array_equal(documents_, tokens + 100)
    np.testing.assert_array_equal(domains, tokens + 200)


@pytest.mark.parametrize(("most", "blocks"), [(8, 2), (11, 2), (3, 1), (1000, 5)])
def test_a_token_limit_gives_whole_blocks_and_at_least_one(most, blocks):
    assert stream(20).blocks(4, most)[0].shape == (blocks, 4)


def test_entropies_by_hand():
    counts = np.array([2, 1, 1, 0])
    assert unigram_entropy(counts) == pytest.approx(1.5 * math.log(2))
    # Plus one each: 3/8, 2/8, 2/8, 1/8.
    assert unigram_cross_entropy(np.array([[0, 3]]), counts) == pytest.approx(-(math.log(3 / 8) + math.log(1 / 8)) / 2)
    assert unigram_entropy(np.full(16, 5)) == pytest.approx(math.log(16))

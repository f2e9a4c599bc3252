from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.data.documents import (
    Document,
    Splits,
    digest,
    hash_fraction,
    mixed_order,
    require_documents,
    split_by_document,
    without_leaks,
)
from spectra_exp.foundations.errors import ConfigError


def documents(count: int, domain: str = "a") -> list[Document]:
    return [Document(f"{domain} text {i}", domain, f"{domain}{i}") for i in range(count)]


texts = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "y"])), min_size=1, max_size=30)


@given(texts, st.floats(0.01, 0.5), st.integers(0, 5))
def test_split_is_disjoint_by_text_and_loses_nothing(rows, fraction, seed):
    given_documents = [Document(text, domain, str(i)) for i, (text, domain) in enumerate(rows)]
    splits = split_by_document(given_documents, fraction, seed)
    assert sorted(d.id for d in splits.train + splits.validation) == sorted(d.id for d in given_documents)
    assert not {d.text for d in splits.train} & {d.text for d in splits.validation}


def test_split_holds_out_the_fraction_of_every_domain():
    splits = split_by_document(documents(100, "a") + documents(20, "b"), 0.1, 0)
    assert [sum(d.domain == name for d in splits.validation) for name in "ab"] == [10, 2]


def test_split_follows_texts_and_seed_and_not_their_order():
    given_documents = documents(50)
    held_out = {d.text for d in split_by_document(given_documents, 0.2, 0).validation}
    assert held_out == {d.text for d in split_by_document(given_documents[::-1], 0.2, 0).validation}
    assert held_out != {d.text for d in split_by_document(given_documents, 0.2, 1).validation}


def test_validation_document_that_is_also_in_training_is_dropped():
    train, copy = documents(3), Document("a text 1", "b", "other name")
    splits = without_leaks(Splits(train, [copy, Document("new", "b", "n")]))
    assert [d.text for d in splits.validation] == ["new"] and splits.train == train


def test_a_single_document_cannot_be_split():
    with pytest.raises(ConfigError, match="no document is left for validation"):
        require_documents(split_by_document(documents(1), 0.5, 0), "data.train")


@given(st.integers(1, 40), st.integers(1, 40))
def test_mixed_order_is_a_permutation_with_domains_in_proportion(n_a, n_b):
    ordered = mixed_order(documents(n_a, "a") + documents(n_b, "b"))
    assert sorted(d.id for d in ordered) == sorted(d.id for d in documents(n_a, "a") + documents(n_b, "b"))
    # One of the n in each nth of the sequence: a prefix is never off by more than one document per domain.
    for cut in range(len(ordered)):
        seen = sum(d.domain == "a" for d in ordered[:cut])
        assert abs(seen - cut * n_a / (n_a + n_b)) <= 2


def test_mixed_order_shuffles():
    given_documents = documents(30)
    assert mixed_order(given_documents) != given_documents
    assert mixed_order(given_documents) == mixed_order(given_documents)


def test_digest_keeps_parts_apart():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert 0 <= hash_fraction("x") < 1

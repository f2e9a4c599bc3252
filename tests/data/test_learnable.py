"""What a model can learn from the embedded corpus, by the proxy of a trigram model."""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np
import pytest

from spectra_exp.data.corpus import load_corpus
from spectra_exp.data.sources.embedded import EmbeddedData


def trigram_cross_entropy(train: np.ndarray, test: np.ndarray, vocabulary: int) -> float:
    """Nats per token of a trigram model interpolated by Witten-Bell with bigram, unigram and uniform."""
    counts = [Counter() for _ in range(3)]
    for order in range(3):
        shifted = [train[i : len(train) - 2 + i].tolist() for i in range(2 - order, 3)]
        counts[order].update(zip(*shifted, strict=True))
    contexts = [Counter() for _ in range(3)]
    kinds = [Counter() for _ in range(3)]
    for order in range(3):
        for gram, count in counts[order].items():
            contexts[order][gram[:-1]] += count
            kinds[order][gram[:-1]] += 1
    total, tokens = 0.0, test.tolist()
    for place in range(2, len(tokens)):
        p = 1 / vocabulary
        for order in range(3):
            gram = tuple(tokens[place - order : place + 1])
            seen, new = contexts[order][gram[:-1]], kinds[order][gram[:-1]]
            if seen:
                p = (counts[order][gram] + new * p) / (seen + new)
        total -= log(p)
    return total / (len(tokens) - 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = EmbeddedData(train_words=210_000)
    return load_corpus(config, tmp_path_factory.mktemp("cache"))


def test_a_trigram_model_is_far_below_the_unigram_entropy(corpus):
    loss = trigram_cross_entropy(corpus.train_blocks_MS.ravel(), corpus.eval_blocks.ravel(), corpus.vocabulary_size)
    assert loss < 0.5 * corpus.unigram_entropy
    assert loss > 0.5  # and there is something left to learn


def test_the_proxy_finds_nothing_in_shuffled_tokens(corpus):
    # Planted fault: a corpus without structure.
    shuffled = np.random.default_rng(0).permutation(corpus.train_blocks_MS.ravel())
    loss = trigram_cross_entropy(shuffled, corpus.eval_blocks.ravel(), corpus.vocabulary_size)
    assert loss > 0.9 * corpus.unigram_entropy


def test_each_domain_has_a_vocabulary_of_its_own(corpus):
    """The token alone tells the domain far better than chance, except between the two of the rounds."""
    counts = np.zeros((len(corpus.domains), corpus.vocabulary_size))
    np.add.at(counts, (corpus.train_domain_ids.ravel(), corpus.train_blocks_MS.ravel()), 1)
    guess = counts.argmax(0)[corpus.eval_blocks]
    merged = np.array([name.split("_")[0] for name in corpus.domains])
    assert (merged[guess] == merged[corpus.eval_domain_ids]).mean() > 0.7

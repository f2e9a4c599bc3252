from __future__ import annotations

import numpy as np
import pytest
import torch

from spectra_exp.data.batches import TrainingBlocks, collate, evaluation_batches
from spectra_exp.data.corpus import load_corpus
from spectra_exp.data.sources.embedded import EmbeddedData


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = EmbeddedData(
        train_words=7000,
        validation_words=3500,
        vocabulary_size=300,
        sequence_length=64,
        evaluation_tokens=1000,
        probe_tokens=64,
    )
    return load_corpus(config, tmp_path_factory.mktemp("cache"))


def test_every_epoch_is_one_permutation_of_all_blocks(corpus):
    blocks = len(corpus.train_blocks_MS)
    order = TrainingBlocks(corpus, seed=0, examples_needed=2 * blocks + 5).order
    assert len(order) == 2 * blocks + 5
    epochs = [order[:blocks], order[blocks : 2 * blocks]]
    assert all(sorted(epoch) == list(range(blocks)) for epoch in epochs)
    assert not np.array_equal(*epochs)


def test_a_longer_run_begins_with_a_shorter_one_and_only_the_seed_changes_the_order(corpus):
    short, long = (TrainingBlocks(corpus, seed=3, examples_needed=n) for n in (20, 300))
    np.testing.assert_array_equal(short.order, long.order[:20])
    np.random.seed(1)
    torch.manual_seed(5)
    again, other = (TrainingBlocks(corpus, seed=seed, examples_needed=20).order for seed in (3, 4))
    assert np.array_equal(again, short.order) and not np.array_equal(other, short.order)


def test_items_and_batches_have_the_blocks_tokens(corpus):
    data = TrainingBlocks(corpus, seed=0, examples_needed=10)
    loader = torch.utils.data.DataLoader(data, batch_size=5, collate_fn=collate)
    batches = list(loader)
    assert len(data) == 10 and len(batches) == 2
    for start, batch in zip((0, 5), batches, strict=True):
        rows = data.order[start : start + 5]
        assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == {
            name: (torch.int64, (5, 64))
            for name in ("input_ids", "document_ids", "domain_ids", "labels", "attention_mask")
        }
        np.testing.assert_array_equal(batch["input_ids"], corpus.train_blocks_MS[rows])
        np.testing.assert_array_equal(batch["document_ids"], corpus.train_document_ids[rows])
        np.testing.assert_array_equal(batch["domain_ids"], corpus.train_domain_ids[rows])
        np.testing.assert_array_equal(batch["labels"], batch["input_ids"])
        assert batch["attention_mask"].all()
        assert batch["labels"].data_ptr() != batch["input_ids"].data_ptr()


def test_an_item_can_be_written_to_without_touching_the_corpus(corpus):
    data = TrainingBlocks(corpus, seed=0, examples_needed=1)
    data[0]["input_ids"][:] = -1
    assert (data[0]["input_ids"] >= 0).all()


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_evaluation_batches_give_every_block_once_in_order(corpus, size):
    batches = list(evaluation_batches(corpus, size))
    assert all(len(b["input_ids"]) <= size for b in batches)
    for name, array in (
        ("input_ids", corpus.eval_blocks),
        ("document_ids", corpus.eval_document_ids),
        ("domain_ids", corpus.eval_domain_ids),
    ):
        np.testing.assert_array_equal(torch.cat([b[name] for b in batches]), array)


def test_nothing_to_give_is_refused(corpus):
    with pytest.raises(ValueError, match="examples_needed"):
        TrainingBlocks(corpus, seed=0, examples_needed=0)
    with pytest.raises(ValueError, match="batch_size"):
        next(evaluation_batches(corpus, 0))

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from cache_cases import damaged_files

from spectra_exp.data import corpus as corpus_module
from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.sources.embedded import EMBEDDED_DOMAINS, EmbeddedData
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError

SMALL = EmbeddedData(
    train_words=14_000,
    validation_words=7000,
    vocabulary_size=512,
    sequence_length=32,
    evaluation_tokens=4096,
    probe_tokens=128,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache):
    return load_corpus(SMALL, cache)


def test_shapes_types_and_ranges(corpus):
    blocks = (
        ("train_blocks_MS", "train_document_ids", "train_domain_ids"),
        ("eval_blocks", "eval_document_ids", "eval_domain_ids"),
    )
    for names in blocks:
        arrays = [getattr(corpus, name) for name in names]
        assert len({a.shape for a in arrays}) == 1 and arrays[0].shape[1] == 32 == corpus.sequence_length
        assert all(a.dtype == np.int32 and not a.flags.writeable for a in arrays)
        assert arrays[0].min() >= 0 and arrays[0].max() < corpus.vocabulary_size == 512
        assert set(np.unique(arrays[2])) == set(range(len(corpus.domains)))
    assert corpus.eval_blocks.size == 4096
    assert corpus.domains == sorted(EMBEDDED_DOMAINS)
    np.testing.assert_array_equal(
        corpus.train_token_counts_V, np.bincount(corpus.train_blocks_MS.ravel(), minlength=512)
    )


def test_every_token_leads_back_to_its_document(corpus):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_file))
    splits = SMALL.read_splits()
    names = corpus.document_names()
    for documents, tokens, document_ids, domain_ids in (
        (splits.train, corpus.train_blocks_MS, corpus.train_document_ids, corpus.train_domain_ids),
        (splits.validation, corpus.eval_blocks, corpus.eval_document_ids, corpus.eval_domain_ids),
    ):
        by_name = {d.id: d for d in documents}
        ids = document_ids.ravel()
        # The last one may be cut by the end of the blocks.
        for document_id in np.unique(ids)[:-1]:
            mine = ids == document_id
            document = by_name[names[document_id]]
            text = tokenizer.decode(tokens.ravel()[mine].tolist(), skip_special_tokens=False)
            assert text == document.text + corpus.eos_token
            assert {corpus.domains[d] for d in domain_ids.ravel()[mine]} == {document.domain}
    assert not set(corpus.train_document_ids.ravel()) & set(corpus.eval_document_ids.ravel())


def test_entropies_are_those_of_the_arrays(corpus):
    p = np.bincount(corpus.train_blocks_MS.ravel()) / corpus.train_blocks_MS.size
    assert corpus.unigram_entropy == pytest.approx(-(p[p > 0] * np.log(p[p > 0])).sum())
    assert corpus.unigram_entropy < corpus.eval_unigram_cross_entropy < corpus.unigram_entropy + 0.5


def test_another_cache_gives_the_same_corpus(corpus, tmp_path):
    again = load_corpus(SMALL, tmp_path)
    assert again.fingerprint == corpus.fingerprint == data_fingerprint(SMALL)
    assert again.evaluation_fingerprint == corpus.evaluation_fingerprint
    np.testing.assert_array_equal(again.train_blocks_MS, corpus.train_blocks_MS)


OTHER_CONTENT = dict(
    sequence_length=64,
    vocabulary_size=600,
    evaluation_tokens=2048,
    train_words=20_000,
    validation_words=9000,
    document_words=300,
    generator_seed=1,
    final_evaluation_tokens=8192,
    hold_out_domain="prose",
)


def test_each_option_that_changes_the_content_changes_the_fingerprint_and_no_other_does(monkeypatch):
    prints = [data_fingerprint(replace(SMALL, **{key: value})) for key, value in OTHER_CONTENT.items()]
    assert len({data_fingerprint(SMALL), *prints}) == len(OTHER_CONTENT) + 1
    for key, value in {"probe_tokens": 64, "cross_document": False}.items():
        assert data_fingerprint(replace(SMALL, **{key: value})) == data_fingerprint(SMALL)
    assert set(OTHER_CONTENT) | {"name", "tokenizer", "probe_tokens", "cross_document"} == set(vars(SMALL))
    before = data_fingerprint(SMALL)
    monkeypatch.setattr("spectra_exp.data.sources.embedded.GENERATOR_VERSION", 99)
    assert data_fingerprint(SMALL) != before


def test_a_named_tokenizer_enters_by_content_and_makes_the_vocabulary_size_moot(corpus, tmp_path):
    copies = []
    for name in "ab":
        (tmp_path / name).mkdir()
        copy = tmp_path / name / "tokenizer.json"
        copy.write_bytes(corpus.tokenizer_file.read_bytes())
        copies.append(str(copy))
    first, second = (data_fingerprint(replace(SMALL, tokenizer=path)) for path in copies)
    assert first == second != data_fingerprint(SMALL)
    assert first == data_fingerprint(replace(SMALL, tokenizer=copies[0], vocabulary_size=999))
    loaded = load_corpus(replace(SMALL, tokenizer=copies[0]), tmp_path / "cache")
    np.testing.assert_array_equal(loaded.train_blocks_MS, corpus.train_blocks_MS)


def test_two_lengths_share_one_tokenizer(corpus, cache):
    lines: list[str] = []
    load_corpus(replace(SMALL, sequence_length=64), cache, lines.append)
    assert not any("training" in line.split()[0] for line in lines) and any("tokenising" in x for x in lines)


def test_a_cached_corpus_is_opened_without_reading_documents(corpus, cache, monkeypatch):
    monkeypatch.setattr(corpus_module, "read_documents", lambda config: pytest.fail("read again"))
    start = time.perf_counter()
    assert load_corpus(SMALL, cache).evaluation_fingerprint == corpus.evaluation_fingerprint
    assert time.perf_counter() - start < 0.05


def test_a_truncated_array_is_built_again(corpus, tmp_path):
    folder = load_corpus(SMALL, tmp_path).tokenizer_file.parent
    os.truncate(folder / "train_blocks_MS.npy", 500)
    again = load_corpus(SMALL, tmp_path)
    np.testing.assert_array_equal(again.train_blocks_MS, corpus.train_blocks_MS)
    assert damaged_files(folder) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(sequence_length=1_000_000), "the training split has only"),
        (dict(sequence_length=6000, validation_words=700), "the validation split has only"),
    ],
)
def test_too_little_text_for_a_block_is_refused_and_leaves_no_entry(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_corpus(replace(SMALL, **changes), tmp_path)
    assert caught.value.key == "data.sequence_length"
    assert not any(p.is_dir() for p in tmp_path.iterdir() if not p.name.startswith("tokenizer-"))


def test_the_first_evaluation_tokens_cover_all_domains_evenly(tmp_path):
    corpus = load_corpus(EmbeddedData(train_words=14_000), tmp_path)
    shares = np.bincount(corpus.eval_domain_ids.ravel()) / corpus.eval_domain_ids.size
    assert corpus.eval_blocks.size == 32_768 and len(shares) == 7
    assert shares.min() > 0.11 and shares.max() < 0.175


def test_unscored_domains_are_told(tmp_path):
    rows = [{"text": "word " * 400 + str(i), "domain": "ab"[i % 2]} for i in range(4)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    lines: list[str] = []
    config = FilesData(train=str(path), evaluation_tokens=64, probe_tokens=64, sequence_length=32)
    load_corpus(config, tmp_path / "cache", lines.append)
    assert any("raise data.evaluation_tokens" in line for line in lines)

"""data.hold_out_domain: training and its tokenizer never see the domain, and it is still scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.documents import Document, Splits, without_domain
from spectra_exp.data.sources import check_data, read_documents
from spectra_exp.data.sources.embedded import EmbeddedData
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError

SMALL = EmbeddedData(
    train_words=14_000,
    validation_words=7000,
    vocabulary_size=512,
    sequence_length=32,
    evaluation_tokens=4096,
    probe_tokens=128,
    hold_out_domain="code",
)


def documents(domains: str) -> list[Document]:
    return [Document(f"text {n} of {d}", d, str(n)) for n, d in enumerate(domains)]


def test_only_training_loses_the_domain() -> None:
    splits = Splits(documents("aabbc"), documents("abc"))
    kept = without_domain(splits, "b")
    assert [d.domain for d in kept.train] == ["a", "a", "c"] and kept.validation == splits.validation
    assert without_domain(splits, None) is splits


@pytest.mark.parametrize(
    ("train", "validation", "domain", "said"),
    [
        ("aabb", "ab", "c", "unknown name 'c'"),
        ("aabb", "a", "b", "no validation document is of 'b'"),
        ("aa", "a", "a", "is the only domain"),
    ],
)
def test_a_domain_that_cannot_be_held_out_is_refused(train: str, validation: str, domain: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        without_domain(Splits(documents(train), documents(validation)), domain)
    assert caught.value.key == "data.hold_out_domain" and "\n" not in str(caught.value)


def test_the_embedded_corpus_trains_without_it_and_scores_it(tmp_path: Path) -> None:
    corpus = load_corpus(SMALL, tmp_path)
    held_out = corpus.domains.index("code")
    assert held_out not in np.unique(corpus.train_domain_ids)
    assert (corpus.eval_domain_ids == held_out).mean() == pytest.approx(1 / 7, abs=0.05)
    # The tokenizer saw none of its words either: it spells them in more pieces.
    whole = load_corpus(replace(SMALL, hold_out_domain=None), tmp_path)
    assert _vocabulary(corpus.tokenizer_file) != _vocabulary(whole.tokenizer_file)
    assert corpus.fingerprint != whole.fingerprint


def _vocabulary(path: Path) -> set[str]:
    return set(json.loads(path.read_text())["model"]["vocab"])


def test_a_typo_is_found_before_any_document_is_written() -> None:
    with pytest.raises(ConfigError, match="did you mean 'prose'"):
        check_data(replace(SMALL, hold_out_domain="prosa"))
    with pytest.raises(ConfigError, match="did you mean 'prose'"):
        data_fingerprint(replace(SMALL, hold_out_domain="prosa"))


def test_files_are_held_out_by_their_own_domains(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"text": f"{d} number {n}", "domain": d} for d in ("law", "news") for n in range(10)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    config = FilesData(train=str(file), hold_out_domain="law")
    splits = read_documents(config)
    assert {d.domain for d in splits.train} == {"news"} and {d.domain for d in splits.validation} == {"law", "news"}
    with pytest.raises(ConfigError, match="did you mean 'news'"):
        read_documents(replace(config, hold_out_domain="new"))


def test_it_is_part_of_a_runs_identity_and_null_changes_none() -> None:
    from spectra_exp.config.compose import load_experiment, prepare_environment
    from spectra_exp.runs.identity import identify

    prepare_environment()
    plain, held = (
        load_experiment(["data.train_words=14000", f"data.hold_out_domain={domain}"]) for domain in ("null", "code")
    )
    assert "hold_out_domain" not in identify(plain, "f", "cpu").signature["data"]
    assert identify(held, "f", "cpu").signature["data"]["hold_out_domain"] == "code"
    assert identify(held, "f", "cpu").run_id != identify(plain, "f", "cpu").run_id

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict

import numpy as np
import pytest

from spectra_exp.data.documents import digest
from spectra_exp.data.embedded_grammar import count_words
from spectra_exp.data.sources import embedded
from spectra_exp.data.sources.embedded import EmbeddedData

SMALL = EmbeddedData(train_words=7000, validation_words=1400)
TEXT_DOMAINS = ("code", "arithmetic", "dialogue", "prose", "records")

# When this changes, raise GENERATOR_VERSION and pin the new value.
PINNED = (1, "c55d92991d8305a9", "c072f831ff2813ab")


def texts_digest(config: EmbeddedData) -> str:
    splits = config.read_splits()
    return digest(*((d.id, d.domain, d.text) for d in splits.train + splits.validation))


def test_generated_texts_are_pinned_to_the_generator_version():
    long = EmbeddedData(train_words=21_000, validation_words=7, document_words=3000)
    assert (embedded.GENERATOR_VERSION, texts_digest(SMALL)[:16], texts_digest(long)[:16]) == PINNED


def test_another_process_with_another_hash_seed_writes_the_same():
    code = (
        "from spectra_exp.data.sources import embedded; from spectra_exp.data.documents import digest;"
        "from spectra_exp.data.sources.embedded import EmbeddedData;"
        "s = EmbeddedData(train_words=7000, validation_words=1400).read_splits();"
        "print(digest(*((d.id, d.domain, d.text) for d in s.train + s.validation)))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == texts_digest(SMALL)


def test_generator_seed_changes_every_document():
    first, second = (
        {d.text for d in c.read_splits().train}
        for c in (SMALL, EmbeddedData(train_words=7000, validation_words=1400, generator_seed=1))
    )
    assert not first & second


def test_domains_have_equal_shares_in_both_splits_and_the_default_is_fast():
    start = time.perf_counter()
    splits = EmbeddedData().read_splits()
    assert time.perf_counter() - start < 5
    for documents, words in ((splits.train, 650_000), (splits.validation, 42_000)):
        shares: Counter[str] = Counter()
        for document in documents:
            shares[document.domain] += count_words(document.text)
        assert set(shares) == set(embedded.EMBEDDED_DOMAINS)
        assert max(shares.values()) / min(shares.values()) < 1.2
        assert 0.95 < sum(shares.values()) / words < 1.15


def test_splits_share_no_text_and_ids_are_unique():
    splits = EmbeddedData().read_splits()
    assert not {d.text for d in splits.train} & {d.text for d in splits.validation}
    ids = [d.id for d in splits.train + splits.validation]
    assert len(set(ids)) == len(ids)


def test_a_larger_corpus_begins_with_the_documents_of_a_smaller_one():
    small = {d.id: d.text for d in SMALL.read_splits().train}
    large = {d.id: d.text for d in EmbeddedData(train_words=14000).read_splits().train}
    same = sum(large[key] == text for key, text in small.items())
    assert same >= len(small) - len(embedded.EMBEDDED_DOMAINS)


@pytest.mark.parametrize("words", [20, 120, 3000, 20_000])
def test_documents_have_the_length_asked_for(words):
    config = EmbeddedData(document_words=words, train_words=20 * 7 * words if words < 3000 else 7 * words)
    lengths = defaultdict(list)
    for document in config.read_splits().train:
        lengths[document.domain].append(count_words(document.text))
    for domain in embedded.EMBEDDED_DOMAINS:
        # Up to a line more than 1.5 times the mean; the first is never cut short.
        assert max(lengths[domain]) <= 1.5 * words + 40
        assert lengths[domain][0] >= 0.5 * words


def long_document(domain: str) -> list[str]:
    config = EmbeddedData(document_words=20_000, train_words=7, validation_words=7)
    (text,) = (d.text for d in config.read_splits().train if d.domain == domain)
    return re.findall(r"\w+-\d+|\w+|[^\w\s]|\n", text)


def far_returns(words: list[str], gap: int) -> list[str]:
    """The words told in bursts, with a silence of at least `gap` words before at least two of them."""
    places = defaultdict(list)
    for place, word in enumerate(words):
        places[word].append(place)
    return [
        word
        for word, at in places.items()
        if len(at) >= 6 and sum(np.diff(at) >= gap) >= 2 and np.median(np.diff(at)) < 200
    ]


@pytest.mark.parametrize("domain", TEXT_DOMAINS)
def test_topics_of_a_long_document_return_after_thousands_of_words(domain):
    words = long_document(domain)
    assert len(words) > 6000
    assert len(far_returns(words, 2000)) >= 5


def test_the_check_for_returns_fails_without_a_return(monkeypatch):
    # Planted fault: one topic only, so that nothing is ever away for long.
    monkeypatch.setattr(embedded, "MOST_TOPICS", 1)
    assert len(far_returns(long_document("prose"), 2000)) == 0


def test_facts_are_the_same_when_a_topic_returns():
    config = EmbeddedData(document_words=20_000, train_words=7, validation_words=7)
    text = next(d.text for d in config.read_splits().train if d.domain == "prose")
    crafts = defaultdict(list)
    for match in re.finditer(r"The \w+ of (\w+) make (\w+) and sell it in (\w+)\.", text):
        crafts[match[1]].append((match.start(), match[2], match[3]))
    spans = [told for told in crafts.values() if told[-1][0] - told[0][0] > 15_000]
    assert len(spans) >= 5
    assert all(len({fact[1:] for fact in told}) == 1 for told in spans)


def test_balances_of_the_records_add_up():
    text = next(d.text for d in SMALL.read_splits().train if d.domain == "records")
    rows = [line.split(" | ") for line in text.splitlines() if not line.startswith("[")]
    balance = None
    for _, _, deed, amount, _, after in rows:
        change = int(amount) if deed in ("deposit", "refund") else -int(amount)
        assert balance is None or int(after) == balance + change
        balance = int(after)


def test_sums_are_right():
    text = "\n".join(d.text for d in SMALL.read_splits().train if d.domain == "arithmetic")
    sums = re.findall(r"Answer: (\d+) ([-+*/]) (\d+) = (\d+)\. #### (\d+)", text)
    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    assert {sign for _, sign, *_ in sums} == set(operations)
    assert all(operations[s](int(a), int(b)) == int(c) == int(d) for a, s, b, c, d in sums)


def test_code_is_python():
    code = [document for document in SMALL.read_splits().train if document.domain == "code"]
    assert code and all(ast.parse(document.text).body for document in code)

"""The hub sources on small data sets saved in the hub's layout: README with configurations, Parquet files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from spectra_exp.data.batches import NOT_COUNTED, TrainingBlocks, evaluation_batches
from spectra_exp.data.chat import END, MARKERS, START, chatml, renderer
from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.sources import check_data, hub
from spectra_exp.data.sources.hub import CosmopediaData, SmoltalkData
from spectra_exp.data.tokenizer import train_bpe
from spectra_exp.foundations.errors import ConfigError

SMALL = dict(sequence_length=32, vocabulary_size=400, evaluation_tokens=256, probe_tokens=64)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And one?"},
    {"role": "assistant", "content": "Five."},
]


def write_layout(folder: Path, subsets: dict[str, dict[str, list[dict]]]) -> str:
    """A data set as the hub lays it out: rows by subset and split."""
    lines = ["---", "configs:"]
    for subset, splits in subsets.items():
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split, rows in splits.items():
            lines += [f"  - split: {split}", f"    path: data/{subset}/{split}-*"]
            file = folder / "data" / subset / f"{split}-00000-of-00001.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A data set"]))
    return str(folder)


def talk(number: int, source: str) -> dict:
    messages = [
        {"role": "user", "content": f"What is {number} and {number}?"},
        {"role": "assistant", "content": f"It is {2 * number}, as {number} twice."},
    ]
    return {"messages": messages, "source": source}


@pytest.fixture(scope="module")
def smoltalk(tmp_path_factory) -> str:
    rows = [talk(i, ("maths", "words")[i % 2]) for i in range(60)]
    return write_layout(tmp_path_factory.mktemp("smoltalk"), {"all": {"train": rows[:48], "test": rows[48:]}})


@pytest.fixture(scope="module")
def cosmopedia(tmp_path_factory) -> str:
    subsets = {
        name: {"train": [{"text": f"{name} text {i} about {i * i} things", "prompt": "p"} for i in range(40)]}
        for name in ("stories", "openstax")
    }
    return write_layout(tmp_path_factory.mktemp("cosmopedia"), subsets)


def of_smoltalk(path: str, **options) -> SmoltalkData:
    return SmoltalkData(path=path, validation_fraction=0.5, **SMALL, **options)


def of_cosmopedia(path: str, **options) -> CosmopediaData:
    return CosmopediaData(path=path, subsets=["stories", "openstax"], **SMALL, **options)


def test_conversations_are_rendered_and_their_split_and_domains_kept(smoltalk):
    splits = of_smoltalk(smoltalk).read_splits()
    assert (len(splits.train), len(splits.validation)) == (48, 12)
    assert {d.domain for d in splits.train} == {"maths", "words"}
    (seven,) = (d for d in splits.train if "What is 7 " in d.text)
    assert seven.text == (
        "<|im_start|>user\nWhat is 7 and 7?<|im_end|>\n<|im_start|>assistant\nIt is 14, as 7 twice.<|im_end|>\n"
    )
    ((begin, end),) = seven.spans
    assert seven.text[begin:end] == "It is 14, as 7 twice.<|im_end|>"


def test_a_stream_gives_as_many_rows_as_asked_for(smoltalk, cosmopedia):
    some = of_smoltalk(smoltalk, max_samples=10).read_splits()
    assert (len(some.train), len(some.validation)) == (10, 5)
    texts = of_cosmopedia(cosmopedia, max_samples=20).read_splits()
    documents = [*texts.train, *texts.validation]
    assert len(documents) == 20 and {d.domain for d in documents} == {"stories", "openstax"}
    assert sum(d.domain == "stories" for d in documents) == 10 and documents[0].spans is None
    whole = of_cosmopedia(cosmopedia, max_samples=None).read_splits()
    assert len(whole.train) + len(whole.validation) == 80


def test_files_are_read_in_turn_and_to_their_ends(tmp_path, monkeypatch):
    folder = write_layout(tmp_path, {"all": {"train": [{"text": f"file 0 row {row}"} for row in range(2)]}})
    first = tmp_path / "data" / "all" / "train-00000-of-00001.parquet"
    for file in (1, 2):
        rows = pyarrow.Table.from_pylist([{"text": f"file {file} row {row}"} for row in range(5)])
        pyarrow.parquet.write_table(rows, first.with_name(f"train-0000{file}-of-00003.parquet"))
    config = replace(of_cosmopedia(folder, max_samples=None), subsets=["all"])
    for at_once in (10, 2):
        monkeypatch.setattr(hub, "FILES_AT_ONCE", at_once)
        texts = [row["text"] for row in hub._rows(config, "all", "train")]
        assert len(set(texts)) == len(texts) == 12
        assert len({text.partition(" row")[0] for text in texts[:at_once]}) == min(at_once, 3)


def test_the_loss_counts_what_the_assistant_says_and_no_other_token(smoltalk, tmp_path):
    corpus = load_corpus(of_smoltalk(smoltalk, loss_on="assistant"), tmp_path)
    tokenizer = corpus.load_tokenizer()
    blocks = TrainingBlocks(corpus, seed=0, examples_needed=len(corpus.train_blocks_MS))
    assert blocks.counts_some
    said, unsaid = [], []
    for example in (blocks[i] for i in np.argsort(blocks.order)):
        counted = example["labels"] != NOT_COUNTED
        assert torch.equal(example["labels"][counted], example["input_ids"][counted])
        said += example["input_ids"][counted].tolist()
        unsaid += example["input_ids"][~counted].tolist()
    spoken = tokenizer.decode(said, skip_special_tokens=False)
    asked = tokenizer.decode(unsaid, skip_special_tokens=False)
    assert "What is" not in spoken and "user" not in spoken and START not in spoken
    assert "It is" not in asked and "twice" not in asked and "What is" in asked
    assert spoken.count(END) in (spoken.count("twice"), spoken.count("twice") + 1, spoken.count("twice") - 1)
    scored = list(evaluation_batches(corpus, 4))
    assert any((batch["labels"] == NOT_COUNTED).any() for batch in scored)
    # Its planted opposite: every token counts.
    everything = load_corpus(of_smoltalk(smoltalk), tmp_path)
    assert everything.train_said_MS is None and everything.fingerprint != corpus.fingerprint
    np.testing.assert_array_equal(everything.train_blocks_MS, corpus.train_blocks_MS)


def test_markers_are_one_token_each(smoltalk, tmp_path):
    corpus = load_corpus(of_smoltalk(smoltalk), tmp_path)
    tokenizer = corpus.load_tokenizer()
    ids = [tokenizer.token_to_id(marker) for marker in MARKERS]
    assert None not in ids and all((corpus.train_blocks_MS == i).any() for i in ids)


def test_the_same_documents_are_the_same_data_wherever_they_lie(smoltalk, tmp_path):
    elsewhere = write_layout(
        tmp_path / "copy",
        {"all": {"train": [talk(i, ("maths", "words")[i % 2]) for i in range(48)], "test": [talk(50, "x")]}},
    )
    first = data_fingerprint(of_smoltalk(smoltalk, validation_split=None))
    assert first == data_fingerprint(of_smoltalk(elsewhere, validation_split=None))
    assert first != data_fingerprint(of_smoltalk(smoltalk, validation_split=None, max_samples=20))
    assert first != data_fingerprint(of_smoltalk(smoltalk))


@pytest.mark.parametrize(
    "change, key, told",
    [
        (dict(path=None), "data.path", "hf download HuggingFaceTB/smoltalk --repo-type dataset --local-dir FOLDER"),
        (dict(path="/nowhere"), "data.path", "there is no folder /nowhere"),
        (dict(subsets=["al"]), "data.subsets", "al"),
        (dict(subsets=[]), "data.subsets", "none is named"),
        (dict(path=None, online=True, dataset="a b"), "data.dataset", "'a b'"),
        (dict(messages_field="talk"), "data.messages_field", "it has: messages, source"),
        (dict(messages_field=None, domain_field=None), "data.text_field", "it has: messages, source"),
        (dict(messages_field=None, loss_on="assistant"), "data.loss_on", "needs conversations"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(change, key, told, smoltalk):
    config = replace(of_smoltalk(smoltalk), **change)
    with pytest.raises(ConfigError) as caught:
        check_data(config)
        config.read_splits()
    assert caught.value.key == key and told in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_the_hub_is_told_in_one_line(monkeypatch):
    # The client itself, at a port where nobody answers.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    config = CosmopediaData(online=True, **SMALL)
    with pytest.raises(ConfigError, match="the hub is not reached .*hf download HuggingFaceTB/cosmo") as told:
        data_fingerprint(config)
    assert "\n" not in str(told.value)


def test_online_the_commit_is_part_of_the_data(monkeypatch):
    first, second = (data_fingerprint(CosmopediaData(online=True, revision=r, **SMALL)) for r in ("a" * 40, "b" * 40))
    assert first != second


def test_a_push_between_two_looks_does_not_part_the_id_from_the_data(monkeypatch):
    from huggingface_hub import HfApi

    pushed = iter("ab")
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, name: SimpleNamespace(sha=next(pushed)))
    config = CosmopediaData(online=True, dataset="made/here", **SMALL)
    assert data_fingerprint(config) == data_fingerprint(config)


def test_a_named_tokenizer_brings_its_own_template(tmp_path):
    train_bpe(["some text"], 300, MARKERS).save(str(tmp_path / "tokenizer.json"))
    turn = "{{ '<' + m['role'] + '>' + m['content'] + '</>' }}"
    ask = "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    template = "{% for m in messages %}" + turn + "{% endfor %}" + ask
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": template, "eos_token": "<|endoftext|>"}))
    text, spans = renderer(str(tmp_path))(TALK)
    assert text.startswith("<system>Be brief.</><user>Two and two?</><assistant>Four.</>")
    assert [text[a:b] for a, b in spans] == ["Four.</>", "Five.</>"]
    # A template that writes an earlier turn otherwise once a later one follows has no place for it.
    counting = template.replace("m['content']", "(messages | length) ~ m['content']")
    config.write_text(json.dumps({"chat_template": counting}))
    with pytest.raises(ConfigError, match="writes earlier turns anew"):
        renderer(str(tmp_path))(TALK)
    config.unlink()
    assert renderer(str(tmp_path)) is chatml and renderer(None) is chatml

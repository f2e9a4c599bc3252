"""Chat templates that refuse conversations, roles of other names, and losses that count one role's turns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from spectra_exp.data.batches import NOT_COUNTED, TrainingBlocks
from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.sources import check_data, read_documents
from spectra_exp.data.sources.hub import SmoltalkData
from spectra_exp.data.tokenizer import train_bpe
from spectra_exp.foundations.errors import ConfigError

STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</>' }}{% endfor %}"
)


def turn(role: str, words: int, number: int) -> dict[str, str]:
    return {"role": role, "content": f"{role} number {number} " + "says this " * words}


def conversations(kind: str, first: int, count: int) -> list[list[dict[str, str]] | None]:
    made: dict[str, list[list[dict[str, str]] | None]] = {
        "plain": [[turn("user", 3, i), turn("assistant", 3, i)] for i in range(first, first + count)],
        "system": [[turn("system", 1, i)] * (i % 3 == 1) + [turn("user", 3, i)] for i in range(first, first + count)],
        "user": [[turn("user", 9, i)] for i in range(first, first + count)],
        "model": [[turn("user", 3, i), turn("model", 3, i)] for i in range(first, first + count)],
        "long": [[turn("user", 150, i), turn("assistant", 1, i)] for i in range(first, first + count)],
        "null": [None if i == first + 2 else [turn("user", 3, i)] for i in range(first, first + count)],
        "empty": [[] if i == first + 2 else [turn("user", 3, i)] for i in range(first, first + count)],
    }
    return made[kind]


def of(folder: Path, kind: str, **options) -> SmoltalkData:
    """The conversations of a kind as a data set in the hub's layout."""
    lines = ["---", "configs:", "- config_name: all", "  data_files:"]
    (folder / kind).mkdir()
    for split, first, count in (("train", 0, 30), ("test", 30, 12)):
        rows = [{"messages": messages, "source": "s"} for messages in conversations(kind, first, count)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / kind / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    (folder / kind / "README.md").write_text("\n".join([*lines, "---"]))
    small = dict(sequence_length=32, vocabulary_size=300, evaluation_tokens=256, probe_tokens=64)
    return SmoltalkData(path=str(folder / kind), **small, **options)


def tokenizer(folder: Path, template: object) -> str:
    train_bpe(["some text"], 300).save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|endoftext|>"} | ({} if template is None else {"chat_template": template})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def refused(config: SmoltalkData) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_data(config)
        data_fingerprint(config)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (STRICT, "row 1 of all/train: its chat template says: no system role here"),
        ("{{ messages[1].content + 1 }}", "row 0 of all/train: its chat template says: "),
        ("{{ nothing.at.all }}", "row 0 of all/train: its chat template says: 'nothing' is undefined"),
        ("{% for m in messages %}{{ m.content }}", "row 0 of all/train: its chat template is broken in line 1: "),
    ],
)
def test_a_template_that_refuses_a_row_is_told_in_one_line(tmp_path, template, words):
    error = refused(of(tmp_path, "system", tokenizer=tokenizer(tmp_path, template)))
    assert error.key == "data.tokenizer" and words in str(error) and "or none for ChatML" in error.fix
    assert ("data.template_refusals=leave_out" in error.fix) == ("broken" not in words)


def test_refused_rows_are_left_out_and_counted_where_that_is_asked_for(tmp_path):
    config = of(tmp_path, "system", tokenizer=tokenizer(tmp_path, STRICT), template_refusals="leave_out")
    splits = read_documents(config)
    assert (len(splits.train), len(splits.validation)) == (20, 8)
    assert (
        splits.notes[0] == "10 of 30 rows of train are left out: row 1 of all/train: its chat template says: "
        "no system role here"
    )
    assert splits.notes[1].startswith("4 of 12 rows of test are left out")
    # None at all is told as without the option.
    tokenizer(tmp_path, "{{ raise_exception('never') }}")
    assert "row 0 of all/train: its chat template says: never" in str(refused(replace(config, max_samples=29)))


def test_the_option_changes_no_fingerprint_at_its_default(tmp_path):
    local = of(tmp_path, "plain")
    assert data_fingerprint(local) == data_fingerprint(replace(local, template_refusals="leave_out"))
    # As it was before there was the option.
    online = SmoltalkData(online=True, revision="a" * 40)
    assert data_fingerprint(online) == "d960d974248ca4d40954d461d496ed2c"
    assert data_fingerprint(replace(online, template_refusals="leave_out")) != data_fingerprint(online)


def test_a_tokenizer_with_templates_by_name_uses_the_usual_one_and_without_any_says_so(tmp_path):
    named = [{"name": "tools", "template": "{{ 'tools' }}"}, {"name": "default", "template": STRICT}]
    config = of(tmp_path, "plain", tokenizer=tokenizer(tmp_path, named))
    splits = read_documents(config)
    assert splits.train[0].text.startswith("<user>user number") and splits.notes == []
    tokenizer(tmp_path, None)
    # With another option it is read anew.
    splits = read_documents(replace(config, max_samples=29))
    assert splits.train[0].text.startswith("<|im_start|>user")
    assert "has no chat template: train is written as ChatML" in splits.notes[0]


def test_null_conversations_are_counted_and_empty_ones_have_no_text(tmp_path):
    splits = read_documents(of(tmp_path, "null"))
    assert len(splits.train) == 29
    assert splits.notes[0] == "1 of 30 rows of train are passed over: their 'messages' is null"
    splits = read_documents(of(tmp_path, "empty", tokenizer=tokenizer(tmp_path, STRICT)))
    assert len(splits.train) == 29 and splits.notes == []


@pytest.mark.parametrize(("kind", "roles"), [("user", "user (30)"), ("model", "user (30), model (30)")])
def test_a_loss_on_a_role_that_nobody_has_is_refused_with_the_roles_there_are(tmp_path, kind, roles):
    error = refused(of(tmp_path, kind, loss_on="assistant"))
    assert error.key == "data.loss_on" and str(error).endswith(f"name one of its roles: {roles}")


def test_the_loss_counts_the_role_that_is_named(tmp_path):
    config = of(tmp_path, "model", loss_on="model")
    for document in read_documents(config).train:
        ((begin, end),) = document.spans
        assert document.text[begin:end].startswith("model number")


def test_sequences_without_a_scored_token_are_not_trained_on(tmp_path):
    config = replace(of(tmp_path, "long", loss_on="assistant"), evaluation_tokens=4096)
    corpus = load_corpus(config, tmp_path / "cache")
    blocks = TrainingBlocks(corpus, seed=0, examples_needed=200)
    assert 0.5 < blocks.share_left_out < 1
    assert all((blocks[i]["labels"][1:] != NOT_COUNTED).any() for i in range(200))
    kept = set(blocks.order.tolist())
    assert len(kept) == round(len(corpus.train_blocks_MS) * (1 - blocks.share_left_out))
    # A token that is never predicted, the first of its sequence, is none that is scored.
    said = corpus.train_said_MS.copy()
    said[:, 1:], said[:, 0] = False, True
    assert len(replace(corpus, train_said_MS=said).scored_rows()) == 0


def test_no_scored_token_in_a_split_is_refused(tmp_path):
    config = of(tmp_path, "long", loss_on="assistant")
    # The first block is of a prompt alone.
    with pytest.raises(ConfigError, match="none of the 32 validation tokens"):
        load_corpus(replace(config, evaluation_tokens=32, probe_tokens=32), tmp_path / "cache")

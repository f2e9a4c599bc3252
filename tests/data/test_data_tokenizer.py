from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.data import tokenizer as tokenizer_module
from spectra_exp.data.cache import silent
from spectra_exp.data.tokenizer import END_OF_TEXT, LONGEST_RUN, named_tokenizer, train_bpe, trained_tokenizer
from spectra_exp.foundations.errors import ConfigError

TEXTS = [f"the cat number {i} sat on the mat of house {i % 7}\n" for i in range(200)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_tokenizer(TEXTS, 400, tmp_path_factory.mktemp("cache"), silent)


@given(text=st.text(max_size=60))
def test_any_text_survives_encoding_and_decoding(trained, text):
    tokenizer = trained.load()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_an_end_mark_inside_a_text_is_not_the_end_token(trained):
    tokenizer = trained.load()
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end not in tokenizer.encode(f"a {END_OF_TEXT} b").ids
    # Planted fault: the library's default reads it as the token.
    tokenizer.encode_special_tokens = False
    assert end in tokenizer.encode(f"a {END_OF_TEXT} b").ids


def test_vocabulary_size_is_a_ceiling_and_257_has_the_bytes_only():
    assert train_bpe(TEXTS, 300).get_vocab_size() == 300
    assert train_bpe(TEXTS, 257).get_vocab_size() == 257
    assert 257 <= train_bpe(["ab"], 300).get_vocab_size() < 300


def test_training_is_the_same_in_other_processes():
    code = (
        "from spectra_exp.data.tokenizer import train_bpe;"
        "texts = [f'the cat number {i} sat on the mat of house {i % 7}\\n' for i in range(200)];"
        "print(train_bpe(texts, 400).to_str())"
    )
    outputs = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            env=os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            text=True,
        ).strip()
        for threads in ("1", "2", "7")
    }
    assert outputs == {train_bpe(TEXTS, 400).to_str()}


def test_training_happens_once_per_text_and_size(tmp_path):
    lines: list[str] = []
    first = trained_tokenizer(TEXTS, 300, tmp_path, lines.append)
    assert trained_tokenizer(TEXTS, 300, tmp_path, lines.append) == first and len(lines) == 1
    trained_tokenizer(TEXTS, 301, tmp_path, lines.append)
    trained_tokenizer(TEXTS[1:], 300, tmp_path, lines.append)
    assert len(lines) == 3


def test_it_loads_in_transformers(trained):
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_file=str(trained.path), eos_token=trained.end_token)
    assert fast("the cat")["input_ids"] == trained.load().encode("the cat").ids
    assert fast.eos_token_id == trained.load().token_to_id(END_OF_TEXT)


def test_a_named_tokenizer_is_found_as_file_or_folder_with_its_end_token(trained, tmp_path):
    content = trained.path.read_text()
    (tmp_path / "tokenizer.json").write_text(content)
    by_folder, by_file = named_tokenizer(str(tmp_path)), named_tokenizer(str(tmp_path / "tokenizer.json"))
    assert by_folder == by_file and by_file.end_token == END_OF_TEXT
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "a"}}))
    configured = named_tokenizer(str(tmp_path))
    assert configured.end_token == "a" and configured.digest() != by_file.digest() == trained.digest()


def test_a_tokenizer_that_cuts_or_pads_does_neither_here(trained, tmp_path):
    tokenizer = trained.load()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = named_tokenizer(str(tmp_path)).load()
    assert loaded.encode("the cat sat on the mat").ids == trained.load().encode("the cat sat on the mat").ids


def test_unusable_named_tokenizers_are_refused(trained, tmp_path):
    def refused(name):
        with pytest.raises(ConfigError) as caught:
            named_tokenizer(str(name))
        assert caught.value.key == "data.tokenizer" and "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no file" in refused(tmp_path / "nowhere" / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "did you mean 'tokenizer.json'?" in refused(tmp_path / "tokeniser.json")
    assert "is not a tokenizer" in refused(tmp_path)
    (tmp_path / "tokenizer.json").write_text(trained.path.read_text().replace(END_OF_TEXT, "<|stop|>"))
    assert "has no end-of-text token" in refused(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|stop|>"}')
    assert named_tokenizer(str(tmp_path)).end_token == "<|stop|>"
    for token in ('["</s>"]', "5", '{"content": ["</s>"]}'):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"eos_token": {token}}}')
        assert "is no text" in refused(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    assert "is not a JSON object" in refused(tmp_path)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["a" * 700, "é" * 1500, "7" * 3000, " " * 2500, "-_" * 900, "a b. "]), max_size=9))
def test_long_runs_of_one_kind_are_cut_and_nothing_is_lost(parts):
    text = "".join(parts)
    pieces = list(tokenizer_module._without_long_runs(text))
    assert "".join(pieces) == text
    assert all(len(run) <= LONGEST_RUN for piece in pieces for run in re.findall(r"[a-zé]+|\d+|[-_.]+|\s+", piece))
    if not re.search(rf"[a-zé]{{{LONGEST_RUN}}}|\d{{{LONGEST_RUN}}}|[-_.]{{{LONGEST_RUN}}}|\s{{{LONGEST_RUN}}}", text):
        assert pieces == [text]


def test_a_long_run_without_a_space_is_learnt_from_in_seconds():
    bases = "".join(random.Random(0).choices("ACGT", k=150_000))
    started = time.process_time()
    train_bpe([*TEXTS, bases], 1000)
    # It took the square of the length.
    assert time.process_time() - started < 4


def test_an_interrupt_ends_the_training_of_a_tokenizer():
    code = (
        "import random; r = random.Random(0)\n"
        "texts = [' '.join(r.randbytes(4).hex() for _ in range(400)) for _ in range(2000)]\n"
        "from spectra_exp.data.tokenizer import train_bpe\n"
        "print('begun', flush=True)\n"
        "train_bpe(texts, 50_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    # Long past the reading of the texts, far from the end.
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    errors = process.communicate(timeout=120)[1]
    assert "KeyboardInterrupt" in errors and time.monotonic() - sent < 5

"""The harness itself on a small trained run: its own model class, from the same weights, says the same."""

from __future__ import annotations

import math
import os
import random
from types import SimpleNamespace

import pytest
import torch
from small_run import MODEL
from test_scores import ITEMS, write_items

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.downstream.command import _missing_data_told, main
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.runs.plan import plan
from spectra_exp.runs.stored import StoredRun
from spectra_exp.training.execute import execute

pytest.importorskip("lm_eval", reason="lm_eval is not installed (pip install 'spectra-exp[downstream]')")

SMALL = [
    "router=spectra",
    "router.dim=4",
    *MODEL,
    "data.sequence_length=32",
    "data.train_words=8000",
    "data.validation_words=4000",
    "data.vocabulary_size=400",
    "data.evaluation_tokens=256",
    "data.probe_tokens=64",
    "trainer.max_steps=4",
    "trainer.batch_size=4",
    "logger.progress=false",
]
LONG = "A much longer beginning of a text, with commas,"
TEXTS = [("The", " cat sat"), (LONG, " and an end"), ("", "no context"), ("x", " y")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        prepare_environment()
        planned = plan(load_experiment([*SMALL, f"outputs={os.environ['SPECTRA_OUTPUTS']}"]))
        assert execute(planned, "") == "completed"
        yield planned


@pytest.fixture
def run(made):
    """The run without the scores of any other test."""
    unscored = made.folder.summary.read_bytes()
    yield made
    made.folder.summary.write_bytes(unscored)
    made.folder.items.unlink(missing_ok=True)


def language_model(run, batch_size: int, max_length: int = 32):
    from spectra_exp.downstream.language_model import SpectraLM

    model = SpectraMoeForCausalLM.from_pretrained(run.folder.latest_checkpoint())
    return SpectraLM(
        model,
        run.corpus.load_tokenizer(),
        run.corpus.eos_token,
        batch_size,
        max_length,
        torch.device("cpu"),
        lambda done, all_: None,
    )


def requests(*arguments):
    return [SimpleNamespace(args=args) for args in arguments]


def test_log_likelihoods_are_those_of_the_harness_own_model(run):
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    ours = language_model(run, batch_size=3)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=ours.tokens, eos_token=ours.end_token)
    # One by one: it has no mask for its padding, which would then be routed.
    theirs = HFLM(pretrained=ours.model, tokenizer=tokenizer, batch_size=1, max_length=32)
    found, expected = (lm.loglikelihood(requests(*TEXTS)) for lm in (ours, theirs))
    for (value, greedy), (other, other_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(other, abs=1e-4) and greedy == other_greedy
    whole = "Several words that go on for longer than one window of tokens. " * 4
    rolled = [lm.loglikelihood_rolling(requests((whole,)))[0] for lm in (ours, theirs)]
    assert rolled[0] == pytest.approx(rolled[1], abs=1e-3)
    # The wrong version: a continuation scored one place early.
    shifted = ours._batch([([1, 2, 3], [4]), ([1, 2], [3])])
    assert shifted[0][0] != pytest.approx(shifted[1][0], abs=1e-3)


def test_generated_text_is_greedy_whatever_a_source_samples_with(run, monkeypatch):
    asked = requests(("The", {"max_gen_toks": 12, "until": []}))
    greedy = language_model(run, batch_size=2).generate_until(asked)
    load = SpectraMoeForCausalLM.from_pretrained

    def as_its_source_says(*args, **kwargs):
        model = load(*args, **kwargs)
        model.generation_config.repetition_penalty, model.generation_config.min_new_tokens = 50.0, 12
        return model

    monkeypatch.setattr(SpectraMoeForCausalLM, "from_pretrained", as_its_source_says)
    assert language_model(run, batch_size=2).generate_until(asked) == greedy


def test_batches_and_generated_text(run):
    one, many = (language_model(run, batch_size=size).loglikelihood(requests(*TEXTS)) for size in (1, 4))
    assert [value for value, _ in one] == pytest.approx([value for value, _ in many], abs=1e-4)
    model = language_model(run, batch_size=2)
    (free,) = model.generate_until(requests(("The", {"max_gen_toks": 8, "until": []})))
    stop = free[len(free) // 2]
    (stopped,) = model.generate_until(requests(("The", {"max_gen_toks": 8, "until": [stop]})))
    assert free and stopped == free.partition(stop)[0]
    (of_nothing,) = model.generate_until(requests(("", {"max_gen_toks": 8, "until": []})))
    assert isinstance(of_nothing, str)


def test_scores_land_in_the_run_and_are_not_made_twice(run, tmp_path, capsys):
    data = write_items(tmp_path / "data", ITEMS)
    words = [f"run={run.folder.run_id}", f"data={data}", "tasks=local_qasc,local_pubmedqa"]
    assert main(words) == 0
    summary = run.folder.read_summary()
    score = summary["downstream"]["local_qasc"]
    assert score["items"] == 2 and score["chance"] == pytest.approx(0.375) and score["score"] in (0.0, 0.5, 1.0)
    assert summary["metrics"]["downstream_score"] == pytest.approx(
        (score["score"] + summary["downstream"]["local_pubmedqa"]["score"]) / 2
    )
    assert "local_qasc" in capsys.readouterr().out
    # The answer by hand: the choice of the largest log-likelihood for each byte of it.
    model, right = language_model(run, 4), 0
    for item in ITEMS:
        pairs = requests(*((f"Question: {item['question']}\nAnswer:", f" {choice}") for choice in item["choices"]))
        norms = [v / len(c) for (v, _), c in zip(model.loglikelihood(pairs), item["choices"], strict=True)]
        right += norms.index(max(norms)) == item["answer"]
    assert score["score"] == right / len(ITEMS)
    assert summary["floors"]["downstream_score"] == pytest.approx(0.375)
    stored = StoredRun(run.folder.path)
    items = stored.scores("items")
    assert stored.refusal is None and list(items) == ["task", "item", "group", "score"] and len(items) == 2 * len(ITEMS)
    for task, rows in items.groupby("task"):
        assert rows["score"].mean() == pytest.approx(summary["downstream"][task]["score"])
    before = run.folder.summary.stat().st_mtime_ns
    assert main(words) == 0 and run.folder.summary.stat().st_mtime_ns == before


def test_shuffled_answers_score_as_guessing_does(run, tmp_path):
    chosen, tokens = random.Random(0), run.corpus.load_tokenizer()
    items = []
    for place in range(80):
        # Held-out text among noise of its letters: what any training at all tells apart.
        text = tokens.decode(run.corpus.eval_blocks[place % 8, :12].tolist())
        noise = ["".join(chosen.choices("qxzjvkw&%$#", k=len(text))) for _ in range(3)]
        answer = chosen.randrange(4)
        noise.insert(answer, text)
        items.append({"question": f"Item {place}:", "choices": noise, "answer": answer})
    answers = [item["answer"] for item in items]
    chosen.shuffle(answers)
    shuffled = [item | {"answer": answer} for item, answer in zip(items, answers, strict=True)]
    scores = []
    for name, made in (("true", items), ("shuffled", shuffled)):
        data = write_items(tmp_path / name, made, ["local_openbookqa"])
        assert main([f"run={run.folder.run_id}", f"data={data}", "tasks=local_openbookqa", "max_length=64"]) == 0
        scores.append(run.folder.read_summary()["downstream"]["local_openbookqa"]["score"])
    assert scores[0] > 0.9
    # Of 80 items with 4 choices chance is 0.25, and three standard errors of it are 0.145.
    assert abs(scores[1] - 0.25) < 0.145


def test_a_data_set_that_is_not_here_is_told_in_one_line():
    from datasets.exceptions import DatasetNotFoundError

    def missing():
        raise DatasetNotFoundError("no 'baber/piqa'\nanywhere")

    with pytest.raises(ConfigError, match=r"^tasks: .*no 'baber/piqa' anywhere.*online=true downloads it") as told:
        _missing_data_told(False, missing)
    assert "\n" not in str(told.value)
    with pytest.raises(ZeroDivisionError):
        _missing_data_told(False, lambda: 1 / 0)
    # Who asked for the network is not told to ask for it.
    with pytest.raises(ConfigError, match="the hub was not reached; `hf download"):
        _missing_data_told(True, missing)


def test_perplexity_of_each_domain_is_in_the_summary(run):
    metrics = run.folder.read_summary()["metrics"]
    for domain in run.corpus.domains:
        if f"val_loss_{domain}" in metrics:
            assert metrics[f"val_perplexity_{domain}"] == pytest.approx(math.exp(metrics[f"val_loss_{domain}"]))
    assert metrics["val_perplexity"] == pytest.approx(math.exp(metrics["val_loss"]))


def test_a_gpu_that_is_not_there_is_said(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = write_items(tmp_path, ITEMS)
    assert main([f"run={run.folder.run_id}", "tasks=local_qasc", f"data={data}", "device=cuda"]) == 2
    assert "device: cuda was asked for and there is none; give device=cpu" in capsys.readouterr().err

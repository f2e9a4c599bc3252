"""The environment: every variable that the libraries read is known, and none changes a run under the same id."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from variable_search import sources_of, variables_read

from spectra_exp import cli
from spectra_exp.foundations import variables

PACKAGES = ("accelerate", "torch", "transformers")
# Read by the C++ of torch and by the libraries below it, as far as they bear on numbers.
COMPILED = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "OMP_NUM_THREADS",
    "OMP_DYNAMIC",
    "KMP_AFFINITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_LINALG_PREFER_CUSOLVER",
    "TORCH_CUDNN_V8_API_DISABLED",
    "PYTORCH_TUNABLEOP_ENABLED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NCCL_ALGO",
    "GLOO_SOCKET_IFNAME",
)
# A reading with the name in it: a call, or a subscript that is not set.
LITERAL = re.compile(
    r"""\bos\.(?:environ\.(?:get|pop)\(|getenv\(|environ\[(?=[^]]*\](?!\s*=[^=])))\s*["']([A-Z][A-Z0-9_]+)["']"""
)
RUN = [
    "router=switch",
    "trainer.max_steps=3",
    "trainer.log_every=1",
    "trainer.batch_size=4",
    "trainer.accumulation=2",
    "model.hidden_size=16",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.expert_size=16",
    "model.num_experts=4",
    "data.train_words=4000",
    "data.validation_words=2000",
    "data.vocabulary_size=300",
    "data.sequence_length=16",
    "data.evaluation_tokens=256",
    "data.probe_tokens=64",
]


@pytest.fixture(scope="module", params=PACKAGES)
def reads(request):
    return variables_read(request.param)


def test_every_variable_that_the_libraries_read_is_classified(reads):
    unknown = {f"{r.name} ({r.file}:{r.line})" for r in reads if variables.rule_of(r.name) is None}
    assert not unknown


def test_what_is_neutralised_is_not_read_before_that_can_be_done(reads):
    early = {r.name for r in reads if r.at_import and variables.rule_of(r.name).kind == variables.NEUTRALISED}
    assert not early


@pytest.mark.parametrize("name", COMPILED)
def test_what_compiled_code_reads_is_classified(name):
    assert variables.rule_of(name) is not None


def test_the_search_finds_what_stands_there_as_it_is(reads):
    found = {r.name for r in reads}
    for path, source in sources_of(reads[0].file.partition("/")[0]):
        code = re.sub(r"(?m)^\s*#.*$", "", source)
        assert set(LITERAL.findall(code)) - found <= documented(code), path


def documented(code: str) -> set[str]:
    """Names in the texts of docstrings and messages."""
    return {name for text in re.findall(r'"""(.*?)"""', code, re.S) for name in LITERAL.findall(text)}


def test_a_rule_has_a_reason_and_no_two_rules_the_same_pattern():
    patterns = [pattern for rule in variables.RULES for pattern in rule.patterns]
    assert len(patterns) == len(set(patterns))
    assert all(rule.reason and rule.patterns for rule in variables.RULES)


@pytest.fixture
def first_losses(tmp_path, monkeypatch, capfd):
    """The training losses of a run under variables, and what was said; fails where the run was refused."""

    def train(number: int, **environment: str) -> tuple[list[float], str, Path]:
        with monkeypatch.context() as patch:
            patch.setenv("SPECTRA_OUTPUTS", str(tmp_path / str(number)))
            patch.setattr("sys.argv", ["train.py"])
            patch.delenv(variables.TAKEN, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            status = cli.main(RUN)
        out, err = capfd.readouterr()
        assert status == 0, err
        folder = Path(out.splitlines()[-1])
        history = pd.read_parquet(folder / "history.parquet")
        losses = history[history.metric == "train_loss"]
        return list(losses.sort_values("step").value), err, folder

    return train


def test_the_environment_does_not_change_a_run(first_losses):
    plain, said, folder = first_losses(0)
    assert len(plain) >= 3 and said == ""
    assert json.loads((folder / "environment.json").read_text())["variables"]["neutralised"] == {}
    asked = {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7",
        "ACCELERATE_USE_CPU": "true",
        "OMPI_COMM_WORLD_SIZE": "4",
        "PMI_SIZE": "2",
    }
    same, said, again = first_losses(1, **asked, HF_TOKEN="secret", OMP_NUM_THREADS="1")
    assert same == plain and again.name == folder.name
    assert said.count("\n") == 1 and all(f"{name}={value}" in said for name, value in asked.items())
    record = (again / "environment.json").read_text()
    recorded = json.loads(record)["variables"]
    assert recorded["neutralised"] == asked
    assert recorded["allowed"]["OMP_NUM_THREADS"] == "1"
    assert "HF_TOKEN" in recorded["harmless"] and "secret" not in record


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "ATEN_CPU_CAPABILITY", "DNNL_DEFAULT_FPMATH_MODE"])
def test_what_cannot_be_undone_is_refused_in_one_line(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    monkeypatch.setenv(name, "1")
    assert cli.main(RUN) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: {name}: '1' is set in the environment") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_workers_do_not_see_what_was_taken_and_know_of_it(monkeypatch):
    monkeypatch.delenv(variables.TAKEN, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    variables.neutralise()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    # As a run sets it for itself, in a process that makes several.
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    variables.neutralise()
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ
    assert variables.seen()[variables.NEUTRALISED] == {"ACCELERATE_USE_FSDP": "true"}

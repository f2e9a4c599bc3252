"""What the checks say of every sparse decoder family is what was written down of it beforehand."""

from __future__ import annotations

import pytest
import torch
from doctor_cases import batches, made
from expected import FAMILIES, LOADED, checks_table, expected, table
from sparse_families import DECODERS

from spectra_exp.config.tree import project_root
from spectra_exp.doctor import doctor

# One of each kind.
USUAL = ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "ernie4_5_moe", "phimoe", "llama4_text", "zaya"]
# Its reference code without kernels takes minutes for as many tokens as the others'.
SLOW = {"kimi_linear": (4, 16)}


def _statuses(model_type: str, dtype: torch.dtype) -> dict[str, str]:
    report = doctor(made(model_type, dtype), batches(*SLOW.get(model_type, (8, 32))))
    return {finding.check.name: finding.outcome.status for finding in report.findings}


@pytest.mark.parametrize("model_type", USUAL)
def test_the_findings_are_the_expected_ones(model_type: str) -> None:
    assert _statuses(model_type, torch.float32) == expected(model_type)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_findings_on_every_family_are_the_expected_ones(model_type: str, dtype: torch.dtype) -> None:
    known = expected(model_type) | (LOADED.get(model_type, {}) if dtype != torch.float32 else {})
    assert _statuses(model_type, dtype) == known


def test_every_decoder_family_is_expected_and_in_the_docs() -> None:
    assert sorted(DECODERS) == FAMILIES
    page = (project_root() / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert table() in page and checks_table() in page

"""Triton's own choice among configurations, on kernels and times that are made up here."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")
# The interpreter has one configuration.
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing to choose")

LARGE, SMALL = dict(hidden=1024, width=512), dict(hidden=64, width=32)


class Kernel:
    """Takes a kernel's place; `runs` are the constants of its runs that were no preparation."""

    arg_names = ("rows", "hidden", "width", "experts", "COLUMNS", "INNER", "WHOLE")
    __name__ = "made_up"

    def __init__(self):
        self.runs, self.prepared = [], 0

    @staticmethod
    def fn():
        """What triton looks for behind its decorators."""

    def run(self, *arguments, grid, warmup, num_warps, num_stages, num_ctas=1, **named):
        values = dict(zip(self.arg_names, arguments, strict=False)) | named
        assert set(self.arg_names) == set(values)
        if warmup:
            self.prepared += 1
        else:
            self.runs.append((values["COLUMNS"], values["INNER"], num_warps, num_stages, values["WHOLE"]))


@pytest.mark.parametrize(
    "dtype, sizes, expected",
    [
        (torch.bfloat16, LARGE, (128, 64, 4, 3, True)),
        (torch.bfloat16, SMALL, (64, 32, 4, 3, False)),
        (torch.float32, LARGE, (32, 16, 8, 2, True)),
    ],
)
def test_large_sizes_take_the_fastest_and_others_what_suits_them(dtype, sizes, expected, monkeypatch):
    from spectra_exp.moe.fused import tuning

    kernel = Kernel()

    def times(call, *durations, quantiles):
        """The second one is the fastest."""
        call()
        return [{256: 2.0, 128: 1.0}.get(kernel.runs[-1][0], 3.0)] * len(quantiles)

    monkeypatch.setattr(tuning, "do_bench", times)
    configurations = tuning.blocks(256, 64, 8, 3), tuning.blocks(128, 64, 4, 3)
    tuner = tuning.tuned(*configurations, whole={"WHOLE": tuning.multiple("width", "COLUMNS")})(kernel)
    for _ in range(2):
        tuner[(1,)](torch.empty(2, dtype=dtype), experts=2, **sizes)
    tried = 2 if sizes is LARGE and dtype == torch.bfloat16 else 1
    assert kernel.prepared == tried and kernel.runs[-2:] == [expected] * 2
    # Of a single one some versions of triton take no time.
    assert tried == 1 or [line for line in tuning.trials() if line.startswith("made_up: ")]
    del tuning.TUNED["made_up"]

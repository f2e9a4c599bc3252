"""Kernels are bound, specialised and compiled for a Hopper GPU, which takes none; launches do nothing."""

from __future__ import annotations

import os

import pytest
import torch

from spectra_exp.moe.experts import TRITON, Experts
from spectra_exp.routing.sequence.recurrence import recurrence
from spectra_exp.routing.sinkhorn import sinkhorn

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="for machines without a GPU"
    ),
]

# Of the module, for what has been compiled is not compiled again.
LAUNCHED: list[str] = []


@pytest.fixture
def hopper():
    """Gives triton a device to compile for; the names of the kernels that are launched on it."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    LAUNCHED.clear()

    class Launcher:
        """Notes a launch."""

        def __init__(self, source, metadata):
            self.name = metadata.name

        def __call__(self, *arguments):
            LAUNCHED.append(self.name)

    class Utils:
        """What a driver knows of its device, and how it loads a program."""

        @staticmethod
        def get_device_properties(device):
            return {"max_shared_mem": 232448}

        @staticmethod
        def load_binary(*arguments):
            return 1, 1, 128, 0, 1024

    class Driver:
        """Takes the place of CUDA's."""

        launcher_cls, utils = Launcher, Utils

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    before = driver._active
    driver.set_active(Driver())
    yield LAUNCHED
    driver._active = before


@pytest.mark.parametrize("gated, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_all_kernels_compile_for_a_gpu(gated, dtype, hopper, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from spectra_exp.moe.fused import tuning

    monkeypatch.setattr(tuning, "do_bench", lambda call, *_, quantiles: [1.0] * len(quantiles))
    experts = Experts(4, 144, 272, gated, "silu", 0.1).to(dtype)
    experts.kernel = TRITON
    tokens_Nd, weights_NE = torch.zeros(50, 144, dtype=dtype, requires_grad=True), torch.rand(50, 4, requires_grad=True)
    chosen_NE = torch.zeros(50, 4, dtype=torch.bool).index_fill_(1, torch.tensor([1, 2]), True)
    output_Nd, _ = experts(tokens_Nd, chosen_NE, weights_NE, 100)
    output_Nd.sum().backward()
    assert {"inner_product", "outer_product", "inner_gradient", "outer_gradient"} <= set(hopper)
    assert hopper.count("weight_gradient") == (3 if gated else 2) and hopper.count("token_sums") == 2
    assert {"_count", "_tiles", "_place", "assignment_gradient"} <= set(hopper)


def test_the_loops_of_routing_compile_for_a_gpu(hopper, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    keep_BSW = torch.rand(2, 100, 48, requires_grad=True)
    recurrence(keep_BSW, torch.zeros(2, 100, 48), None, None, TRITON).sum().backward()
    assert hopper == ["recurrence_forward", "recurrence_backward"]
    hopper.clear()
    cost_NE = torch.rand(70, 33, requires_grad=True)
    sinkhorn(cost_NE, 0.5, 2, kernel=TRITON).log_plan_NE.sum().backward()
    assert hopper == 2 * ["row_step", "column_step"] + 2 * ["row_gradient"]

"""Block sizes of the products, tried on the device once for each pair of sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
from triton import knobs
from triton.testing import do_bench

# Below so many entries of one expert's matrix the first configuration is taken as it is.
SMALL = 1 << 18
# Milliseconds for which a configuration is tried, and for which it warms up before.
TRIED_MS, WARM_UP_MS = 20, 5
# Columns of the narrowest block.
LEAST_COLUMNS = 32


def blocks(columns: int, inner: int, warps: int, stages: int) -> triton.Config:
    """A product whose blocks have so many columns, and whose loop takes so many of the inner dimension at a time."""
    return triton.Config({"COLUMNS": columns, "INNER": inner}, num_warps=warps, num_stages=stages)


# Float32 without tensor cores: the operands are held in registers.
FLOAT32 = blocks(LEAST_COLUMNS, 16, 8, 2)


def tuned(*configs: triton.Config, whole: dict[str, tuple[str, str]]) -> Callable[[Any], Any]:
    """Decorator of a kernel: the fastest of the configurations for 16 bits, or the one for float32.

    whole: constants that are true where the first of two arguments is a multiple of the second.
    """
    some = [FLOAT32] if knobs.runtime.interpret else [*configs, FLOAT32]
    heuristics = {
        name: lambda args, size=size, block=block: args[size] % args[block] == 0
        for name, (size, block) in whole.items()
    }

    def decorate(kernel: Any) -> Any:
        return triton.autotune(
            some,
            key=["hidden", "width", "experts"],
            prune_configs_by={"early_config_prune": _suitable},
            do_bench=lambda call, quantiles: do_bench(call, WARM_UP_MS, TRIED_MS, quantiles=quantiles),
        )(triton.heuristics(heuristics)(kernel))

    return decorate


def _suitable(configs: list[triton.Config], named: dict[str, Any], **_: Any) -> list[triton.Config]:
    if named["rows"].element_size() == FLOAT32_BYTES:
        return [FLOAT32]
    fitting = [config for config in configs if config is not FLOAT32]
    return fitting[:1] if named["hidden"] * named["width"] < SMALL else fitting


FLOAT32_BYTES = 4

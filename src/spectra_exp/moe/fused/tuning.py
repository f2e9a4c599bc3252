"""Block sizes of the products, tried on the device once for each pair of sizes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton
from triton import knobs
from triton.testing import do_bench

# So many entries of one expert's matrix are small.
SMALL = 1 << 18
# Milliseconds for which a configuration is tried, and for which it warms up before.
TRIED_MS, WARM_UP_MS = 20, 5
# Registers of a thread with which two programs of 8 warps fit on a multiprocessor.
TWO_AT_ONCE = 128
# Columns of the narrowest block.
LEAST_COLUMNS = 32

# Arguments for whose values the choice is made.
DECISIVE = ("hidden", "width", "experts", "BY_TOKEN")
# Kernels by name.
TUNED: dict[str, Any] = {}


def blocks(columns: int, inner: int, warps: int, stages: int, registers: int | None = None) -> triton.Config:
    """A product whose blocks have so many columns, and whose loop takes so many of the inner dimension at a time.

    registers: the most that a thread may have; None: what it wants.
    """
    sizes = {"COLUMNS": columns, "INNER": inner}
    return triton.Config(sizes, num_warps=warps, num_stages=stages, maxnreg=registers)


# Of a product of all tiles of rows.
PRODUCT = (
    blocks(256, 64, 8, 3),
    blocks(256, 64, 8, 4),
    blocks(128, 64, 4, 3),
    blocks(128, 64, 8, 3, registers=TWO_AT_ONCE),
)
# Float32 without tensor cores: the operands are held in registers.
FLOAT32 = blocks(LEAST_COLUMNS, 16, 8, 2)
FLOAT32_BYTES = 4
# Small sizes are not worth the time to choose.
MODEST = blocks(64, 32, 4, 3)


def multiple(size: str, block: str) -> Callable[[dict[str, Any]], bool]:
    """Whether one argument is a multiple of another."""
    return lambda arguments: arguments[size] % arguments[block] == 0


def whole_blocks(inner: str, columns: str) -> dict[str, Callable[[dict[str, Any]], bool]]:
    """Whether a product's blocks are all whole, along the sizes of these names."""
    return {"WHOLE_INNER": multiple(inner, "INNER"), "WHOLE_COLUMNS": multiple(columns, "COLUMNS")}


def tuned(*configs: triton.Config, whole: dict[str, Callable[[dict[str, Any]], bool]]) -> Callable[[Any], Any]:
    """Decorator of a kernel: the fastest of the configurations for large sizes in 16 bits, or the one for what is not.

    whole: constants of the kernel by its arguments.
    """
    some = [FLOAT32] if knobs.runtime.interpret else [*configs, MODEST, FLOAT32]

    def decorate(kernel: Any) -> Any:
        made = triton.heuristics(whole)(kernel)

        def suitable(configs: list[triton.Config], named: dict[str, Any], **others: Any) -> list[triton.Config]:
            fitting = _suitable(configs, named, **others)
            with ThreadPoolExecutor() as executor, triton.AsyncCompileMode(executor):
                for config in fitting:
                    made.run(*named.values(), **(others | {"warmup": True}), **config.all_kwargs())
            return fitting

        TUNED[kernel.__name__] = tuner = triton.autotune(
            some,
            key=[name for name in DECISIVE if name in kernel.arg_names],
            prune_configs_by={"early_config_prune": suitable},
            do_bench=lambda call, quantiles: do_bench(call, WARM_UP_MS, TRIED_MS, quantiles=quantiles),
        )(made)
        return tuner

    return decorate


def _suitable(configs: list[triton.Config], named: dict[str, Any], **others: Any) -> list[triton.Config]:
    values = named | others
    if values["rows"].element_size() == FLOAT32_BYTES:
        return [FLOAT32]
    small = values["hidden"] * values["width"] < SMALL
    return [MODEST] if small else [config for config in configs if config not in (FLOAT32, MODEST)]

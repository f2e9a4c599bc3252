"""What the checks must say of every sparse decoder family of transformers, written by hand from their code.

A family that is not sound by its own code has its findings here; all other checks are ok, or do not apply where the
family has no auxiliary loss or no selection bias.
"""

from __future__ import annotations

from spectra_exp.doctor.registry import DOUBTFUL, FAULT, NOT_APPLICABLE, OK, checks

OF_LOSS = ("padding", "auxiliary_on", "auxiliary_gradient", "auxiliary_form", "auxiliary_accumulation")
OF_BIAS = ("bias_precision", "bias_still", "bias_outside_weights")
WITH_LOSS = [
    "dbrx",
    "flex_olmo",
    "flint",
    "gpt_oss",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "jamba",
    "jetmoe",
    "mellum",
    "minimax",
    "mixtral",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe_text",
    "qwen3_moe",
    "qwen3_next",
    "qwen4_exp_text",
]
WITH_BIAS = [
    "afmoe",
    "axk1",
    "axk2",
    "bailing_hybrid",
    "beam",
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "dots3_note_text",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "hy_v3",
    "hy_v4",
    "inkling2_text",
    "inkling_text",
    "kimi_linear",
    "kolibri1",
    "lfm2_moe",
    "longcat_flash",
    "mimo_v2_flash",
    "nemotron_h",
    "solar_open",
    "zaya",
]
WITH_BOTH = ["deepseek_v4", "ernie4_5_moe", "laguna", "minimax_m2", "minimax_m3_vl_text"]
WITH_NEITHER = ["aria_text", "cohere2_moe", "deepseek_v2", "gemma4_text", "hunyuan_v1_moe", "llama4_text"]

# The loss is in the training loss only where output_router_logits is set, it is summed over concatenated layers, and
# the Trainer does not divide it by the steps of accumulation.
LOSS = {"auxiliary_on": FAULT, "auxiliary_form": FAULT, "auxiliary_accumulation": FAULT}
# to(bfloat16) casts it.
BIAS = {"bias_precision": FAULT}
# No family moves its bias itself, and none comes with a trainer.
ALWAYS = {"bias_steps": NOT_APPLICABLE}
OWN: dict[str, dict[str, str]] = {
    # One sparse layer: nothing is concatenated.
    "jamba": {"auxiliary_form": OK},
    # Of both kinds of its layers, in an order of its own. Its blocks are not recomputed.
    "jetmoe": {"auxiliary_form": DOUBTFUL, "recomputation": NOT_APPLICABLE},
    # Its loss is of the square root of softplus.
    "deepseek_v4": {"auxiliary_form": DOUBTFUL},
    # A class of the router is no expert, and initialising while loading sets its bias back to -1.
    "zaya": {"idle_experts": FAULT, "saved_and_loaded": FAULT},
    # Its router stays float32 under to(bfloat16), and then does not take bfloat16.
    "inkling2_text": {"precision": DOUBTFUL},
}
FAMILIES = sorted([*WITH_LOSS, *WITH_BIAS, *WITH_BOTH, *WITH_NEITHER])


# Of models that were loaded once already: loading them again changes nothing any more.
LOADED: dict[str, dict[str, str]] = {"zaya": {"saved_and_loaded": OK}}


def expected(model_type: str) -> dict[str, str]:
    """What each check must say of a family."""
    has_loss, has_bias = model_type in (*WITH_LOSS, *WITH_BOTH), model_type in (*WITH_BIAS, *WITH_BOTH)
    found = dict.fromkeys(checks(), OK) | ALWAYS
    found |= LOSS if has_loss else dict.fromkeys(OF_LOSS, NOT_APPLICABLE)
    found |= BIAS if has_bias else dict.fromkeys(OF_BIAS, NOT_APPLICABLE)
    return found | OWN.get(model_type, {})


def table() -> str:
    """The families with how many checks apply to each, and what is not ok, as in docs/doctor.md."""
    lines = ["| model_type | checks that apply | findings |", "|---|---|---|"]
    for model_type in FAMILIES:
        found = expected(model_type)
        told = [f"{name}: {status}" for name, status in found.items() if status in (FAULT, DOUBTFUL)]
        applies = sum(status != NOT_APPLICABLE for status in found.values())
        lines.append(f"| `{model_type}` | {applies} of {len(found)} | {', '.join(told) or 'none'} |")
    return "\n".join(lines) + "\n"


def checks_table() -> str:
    """The checks, as in docs/doctor.md."""
    lines = ["| name | what is looked at | ok if that is | a fault means | what to do |", "|---|---|---|---|---|"]
    lines += [
        f"| `{c.name}` | {c.title}: {c.figure} | {c.ok_if} | {c.meaning} | {c.advice} |" for c in checks().values()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(checks_table(), table(), sep="\n", end="")

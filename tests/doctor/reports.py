"""Public reports that the checks would have caught, as they were read, and the planted fault that repeats each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """`where`: owner/repository#number; `said`: what it says, in a sentence; `plant`: of the fault in planted.py."""

    where: str
    said: str
    check: str
    plant: str = ""
    is_pull: bool = False

    @property
    def link(self) -> str:
        repository, number = self.where.split("#")
        return f"[{self.where}](https://github.com/{repository}/{'pull' if self.is_pull else 'issues'}/{number})"


REPORTS = [
    Report(
        "allenai/OLMoE#46",
        "Expert choice was trained in a decoder; with a cache there is one token to choose from.",
        "causality",
        "expert_choice",
    ),
    Report(
        "allenai/OLMoE#46",
        "The same: decoding with a cache is not the model that was evaluated.",
        "cached_decoding",
        "expert_choice",
    ),
    Report(
        "piotrpiekos/MoSA#3",
        "Expert choice picks by scores of later tokens, so evaluation leaks.",
        "causality",
        "expert_choice",
    ),
    Report(
        "Shwai-He/MEO#2",
        "Routing by the mean of the whole sequence mixes later tokens in.",
        "causality",
        "later_tokens",
    ),
    Report(
        "marin-community/marin#8134",
        "A fixed capacity in evaluation costs 0.11 nats on batches of one domain, and half of it on shuffled ones.",
        "batch_invariance",
        "capacity",
    ),
    Report("huggingface/transformers#28505", "Padding counts in Mixtral's auxiliary loss.", "padding", "loss"),
    Report("NVIDIA/Megatron-LM#1984", "Padding counts in the routing loss of post-training.", "padding", "loss"),
    Report(
        "NVIDIA-NeMo/Megatron-Bridge#5470",
        "Padding of packed sequences counts in the router's losses and in the loads that move its bias.",
        "padding",
        "loads",
        is_pull=True,
    ),
    Report(
        "huggingface/transformers#44242",
        "`router_aux_loss_coef` does nothing unless `output_router_logits` is set (as its pull requests say it).",
        "auxiliary_on",
    ),
    Report(
        "NVIDIA-NeMo/Automodel#1408",
        "What attaches the auxiliary loss to the graph is thrown away: no router gets its gradient.",
        "auxiliary_gradient",
    ),
    Report(
        "huggingface/transformers#28255",
        "The auxiliary loss is that of all layers concatenated, where imbalances cancel.",
        "auxiliary_form",
    ),
    Report(
        "huggingface/transformers#45120",
        "Routers return probabilities as logits: the loss is of a softmax of a softmax.",
        "auxiliary_form",
        "softmax_twice",
    ),
    Report("huggingface/transformers#39055", "The same in DBRX.", "auxiliary_form", "softmax_twice"),
    Report(
        "huggingface/transformers#48690",
        "Qwen3-MoE's auxiliary loss is multiplied by the number of processes in the Trainer.",
        "auxiliary_accumulation",
    ),
    Report(
        "NVIDIA-NeMo/Automodel#3359",
        "The auxiliary loss enters every micro-batch whole: its weight grows with accumulation.",
        "auxiliary_accumulation",
        is_pull=True,
    ),
    Report(
        "NVIDIA/Megatron-LM#3672",
        "The global auxiliary loss is divided by the tokens of all ranks: its weight falls with their number.",
        "auxiliary_accumulation",
        "shrinking",
    ),
    Report(
        "NVIDIA/Megatron-LM#1482", "`expert_bias`, registered as float32, is bfloat16 in training.", "bias_precision"
    ),
    Report(
        "sgl-project/sglang#31213",
        "GLM-5.2's 238 different biases are 8 in bfloat16.",
        "bias_precision",
        is_pull=True,
    ),
    Report(
        "pytorch/torchtitan#4148",
        "Loads are counted in evaluation too, and move the bias at the next step.",
        "bias_still",
        "counted_loads",
        is_pull=True,
    ),
    Report(
        "huggingface/transformers#41647",
        "DeepSeek-V3's expert weights were gathered from scores with the bias.",
        "bias_outside_weights",
        is_pull=True,
    ),
    Report("vllm-project/vllm#12002", "The same in an inference engine.", "bias_outside_weights", is_pull=True),
    Report(
        "pytorch/torchtitan#1304",
        "The bias is moved in each micro-batch of an accumulated step.",
        "bias_steps",
        "each_micro_batch",
        is_pull=True,
    ),
    Report(
        "pytorch/torchtitan#1593",
        "Full recomputation counts each token twice.",
        "bias_steps",
        "recomputed_counts",
        is_pull=True,
    ),
    Report("pytorch/torchtitan#1593", "The same, seen in the loads.", "recomputation", "counts", is_pull=True),
    Report(
        "pytorch/torchtitan#1222",
        "Each move makes a new tensor, and checkpoints hold the first, all zeros (as its fix, #1226, says it).",
        "bias_steps",
        "new_tensors",
    ),
    Report(
        "pytorch/torchtitan#3686",
        "One layer without balancing ends the update before the layers behind it.",
        "bias_steps",
        "one_layer",
        is_pull=True,
    ),
    Report("AI-Hypercomputer/maxtext#2494", "DeepSeek-V3's bias is loaded and never moved.", "bias_steps", "never"),
    Report(
        "huggingface/transformers#47467",
        "Experts chosen otherwise in recomputation: an error, or gradients that are not a number.",
        "recomputation",
        "noise",
    ),
    Report(
        "sgl-project/sglang#33764",
        "Router logits in bfloat16 give 5.27 % of Kimi-K3's tokens other experts.",
        "precision",
        is_pull=True,
    ),
    Report("vllm-project/vllm#14027", "The same in DeepSeek-V2 and V3.", "precision", is_pull=True),
    Report(
        "NVIDIA/Megatron-LM#894",
        "Softmax after the top 1 is constant: the router has no gradient, and the model the loss of a dense one.",
        "router_gradient",
    ),
    Report("jingyaogong/minimind#858", "`norm_topk_prob` with one expert a token: the same.", "router_gradient"),
    Report("pytorch/torchtitan#1246", "All tokens of a batch go to one expert in each layer.", "dominant_experts"),
    Report("PKU-YuanGroup/MoE-LLaVA#60", "Evaluation routes otherwise each time, so its figures vary.", "twice"),
    Report("eduardzamfir/MoCE-IR#19", "Routing noise is added in inference too.", "twice"),
    Report("ByungKwanLee/TroL#2", "All layers' gates hold the same weights, by accident.", "tied"),
    Report(
        "deepspeedai/DeepSpeed#8358",
        "Replacing a block drops `e_score_correction_bias`, because it is a buffer.",
        "saved_and_loaded",
        "bias_not_saved",
    ),
    Report(
        "NVIDIA-NeMo/Megatron-Bridge#4199",
        "Conversion leaves the biases of all but one kind of layer at zero.",
        "saved_and_loaded",
        "bias_not_saved",
    ),
]


def reports_table() -> str:
    """The reports, as in docs/doctor.md."""
    lines = ["| check | report | what it says | planted fault |", "|---|---|---|---|"]
    for one in REPORTS:
        lines.append(f"| `{one.check}` | {one.link} | {one.said} | `{one.check}{one.plant and '-' + one.plant}` |")
    return "\n".join(lines) + "\n"

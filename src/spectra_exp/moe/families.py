"""The table of model families: where a dense model has its MLPs, and where a sparse one its routers and experts.

To add a family, add a row under its `model_type` (config.json has it). Whatever the row says, upcycling compares every
MLP with its expert before it believes it, so a wrong row fails and never trains another function.

Shapes: E experts, d hidden size, f inner width of an MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.stock.blocks import find_blocks


@dataclass(frozen=True)
class Layout:
    """Names of the parts of an MLP, act(up x) or act(gate x) * up x, then down.

    mlp: the decoder layer's attribute that holds the parts; empty where they are the layer's own (`activation` then
    names the layer's). gate_up: one map that gives the gate's rows, then those of up. dropout: the configuration's key
    of a dropout after `down`. activations: keys of the configuration, the first that it has names the function.
    """

    up: str
    down: str
    gate: str = ""
    mlp: str = "mlp"
    fused: bool = False
    dropout: str = ""
    activation: str = ""
    activations: tuple[str, ...] = ("hidden_act", "hidden_activation", "activation_function", "activation")

    def parts(self) -> tuple[str, ...]:
        """The attributes that a decoder layer of this layout has there."""
        return tuple(name for name in (self.gate, self.up, self.down, self.activation) if name)

    def __str__(self) -> str:
        return (self.mlp and self.mlp + ".") + "+".join(self.parts())


GATED = Layout(gate="gate_proj", up="up_proj", down="down_proj")
GEMMA = Layout(gate="gate_proj", up="up_proj", down="down_proj", activations=("hidden_activation",))
FUSED = Layout(up="gate_up_proj", down="down_proj", fused=True)
GPT2 = Layout(up="c_fc", down="c_proj", dropout="resid_pdrop")
GPT_NEO = Layout(up="c_fc", down="c_proj", dropout="resid_dropout")
STARCODER2 = Layout(up="c_fc", down="c_proj", dropout="residual_dropout")
FOUR_H = Layout(up="dense_h_to_4h", down="dense_4h_to_h")
OPT = Layout(up="fc1", down="fc2", mlp="", activation="activation_fn")
PHI = Layout(up="fc1", down="fc2")
GPTJ = Layout(up="fc_in", down="fc_out", dropout="resid_pdrop")

DENSE_FAMILIES: dict[str, Layout] = {
    "llama": GATED,  # SmolLM, SmolLM2 and the text part of SmolVLM and Idefics3 are Llamas
    "mistral": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "gemma": GATED,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": FUSED,
    "gpt2": GPT2,
    "gpt_neox": FOUR_H,
    "opt": OPT,
    "falcon": FOUR_H,
    "stablelm": GATED,
    "smollm3": GATED,
    "phi": PHI,
    "gpt_neo": GPT_NEO,
    "gptj": GPTJ,
    "starcoder2": STARCODER2,
}


@dataclass(frozen=True)
class SparseFamily:
    """How a sparse family's blocks are made.

    gate: the block's attribute that is called on the hidden states and returns (logits, weights, experts' indices);
    `experts` holds the experts, called on hidden states, indices and weights. renormalize: whether the chosen weights
    sum to 1, or the configuration's key that says so. scale: the key of a factor on the weights. softmax: the router is
    one linear map without bias, softmax and top-k: a rule that our linear routers know. sigmoid: what makes scores of
    the logits.
    """

    gate: str
    renormalize: bool | str
    scale: str = ""
    softmax: bool = True
    sigmoid: bool = False


SPARSE_FAMILIES: dict[str, SparseFamily] = {
    "mixtral": SparseFamily("gate", renormalize=True),
    "olmoe": SparseFamily("gate", renormalize="norm_topk_prob"),
    "qwen2_moe": SparseFamily("gate", renormalize="norm_topk_prob"),
    "qwen3_moe": SparseFamily("gate", renormalize="norm_topk_prob"),
    "deepseek_v3": SparseFamily(
        "gate", renormalize="norm_topk_prob", scale="routed_scaling_factor", softmax=False, sigmoid=True
    ),
    "gpt_oss": SparseFamily("router", renormalize=True, softmax=False),  # its linear map has a bias
    "granitemoe": SparseFamily("router", renormalize=True),
}
# How configurations name the number of experts; the first that one has counts.
NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
TOP_K = "num_experts_per_tok"


@dataclass(frozen=True)
class Site:
    """One MLP of a dense model: the decoder layer that holds it, and its layout."""

    block: nn.Module
    layout: Layout

    def part(self, name: str) -> Any:
        """A part of the MLP by its attribute."""
        return getattr(self.block.get_submodule(self.layout.mlp), name)

    def run(self, rows_nd: Tensor) -> Tensor:
        """What the MLP makes of some rows, [n, d]."""
        if self.layout.mlp:
            return self.block.get_submodule(self.layout.mlp)(rows_nd)
        inner = self.part(self.layout.activation)(self.part(self.layout.up)(rows_nd))
        return self.part(self.layout.down)(inner)

    def replace(self, module: nn.Module) -> None:
        """Put another module in the MLP's place."""
        if self.layout.mlp:
            setattr(self.block, self.layout.mlp, module)
            return
        setattr(self.block, self.layout.up, module)
        for name in (self.layout.activation, self.layout.down):
            setattr(self.block, name, nn.Identity())

    def weights(self) -> dict[str, Tensor]:
        """The MLP's matrices as nn.Linear stores them, and biases, by the names that Experts has for them."""
        layout = self.layout
        found: dict[str, Tensor] = {}
        for ours, name in (("up", layout.up), ("gate", layout.gate), ("down", layout.down)):
            if not name:
                continue
            part = self.part(name)
            found[ours] = part.weight.T if isinstance(part, Conv1D) else part.weight
            if part.bias is not None:
                found[f"{ours}_bias"] = part.bias
        if layout.fused:
            for suffix in ("", "_bias"):
                if f"up{suffix}" in found:
                    found[f"gate{suffix}"], found[f"up{suffix}"] = found[f"up{suffix}"].chunk(2)
        return {name: weight.detach() for name, weight in found.items()}


def dense_sites(backbone: PreTrainedModel) -> list[Site]:
    """The MLPs of a dense causal language model in the order of its layers.

    Its family's row says where; a family without a row is searched for every layout that the table knows. Raises
    ConfigError for a sparse model and for one in which nothing was found.
    """
    model_type = backbone.config.model_type
    # Before any MLP is looked for: a block may have one beside its experts.
    if any(hasattr(module, "experts") for module in backbone.modules()):
        fix = "give model=reroute" if model_type in SPARSE_FAMILIES else "give another: model=reroute has no row for it"
        raise ConfigError("model.source", f"'{model_type}' is a sparse model already", fix)
    known = DENSE_FAMILIES.get(model_type)
    for layout in [known] if known else dict.fromkeys(DENSE_FAMILIES.values()):
        sites = [Site(block, layout) for block in backbone.modules() if _has(block, layout)]
        if sites and len(sites) == backbone.config.num_hidden_layers:
            return sites
    looked = str(known) if known else ", ".join(dict.fromkeys(map(str, DENSE_FAMILIES.values())))
    raise ConfigError(
        "model.source",
        f"no MLPs were found in the layers of model_type '{model_type}' (looked for {looked})",
        f"add a row '{model_type}' to DENSE_FAMILIES in moe/families.py that names their parts",
    )


def _has(block: nn.Module, layout: Layout) -> bool:
    if not layout.mlp:
        # The MLP modules of other families have the same parts, but no attention.
        return hasattr(block, "self_attn") and all(hasattr(block, name) for name in layout.parts())
    mlp = getattr(block, layout.mlp, None)
    # A gate beside `fused` or ungated parts would be left out unseen.
    extra = not layout.gate and hasattr(mlp, "gate_proj")
    return isinstance(mlp, nn.Module) and not extra and all(hasattr(mlp, name) for name in layout.parts())


def activation_name(config: Any, layout: Layout) -> str:
    """The name, in transformers' table, of the activation inside an MLP."""
    for key in layout.activations:
        if getattr(config, key, None):
            return getattr(config, key)
    raise ConfigError(
        "model.source",
        f"the configuration of model_type '{config.model_type}' names no activation ({', '.join(layout.activations)})",
        "add a row to DENSE_FAMILIES in moe/families.py that says which key does",
    )


def dropout_of(config: Any, layout: Layout) -> float:
    """The probability of the dropout after an MLP; ConfigError when the configuration lacks the layout's key."""
    if not layout.dropout:
        return 0.0
    if not hasattr(config, layout.dropout):
        raise ConfigError(
            "model.source",
            f"the configuration of model_type '{config.model_type}' has no {layout.dropout}, as {layout} would need",
            "add a row to DENSE_FAMILIES in moe/families.py that says which key its dropout has",
        )
    return getattr(config, layout.dropout)


def sparse_family(config: Any) -> SparseFamily:
    """The row of a sparse model's family; ConfigError when there is none."""
    if config.model_type in SPARSE_FAMILIES:
        return SPARSE_FAMILIES[config.model_type]
    if config.model_type in DENSE_FAMILIES:
        raise ConfigError("model.source", f"'{config.model_type}' is a dense model", "give model=upcycle")
    raise ConfigError(
        "model.source",
        f"no row for model_type '{config.model_type}' among the sparse ones ({', '.join(sorted(SPARSE_FAMILIES))})",
        "give one of those, or add a row to SPARSE_FAMILIES in moe/families.py that names its gate and says how its "
        "weights are made",
    )


def sparse_blocks(backbone: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a sparse model that hold experts and a gate, in order; its dense layers are passed over."""
    gate = sparse_family(backbone.config).gate
    return [block.holder for block in find_blocks(backbone) if gate in dict(block.holder.named_children())]


def num_experts_of(config: Any) -> int:
    """Experts in each sparse layer, as a model's configuration says."""
    for key in NUM_EXPERTS:
        if getattr(config, key, None):
            return getattr(config, key)
    raise ConfigError(
        "model.source",
        f"the configuration of '{config.model_type}' has none of {', '.join(NUM_EXPERTS)}",
        "add its key to NUM_EXPERTS in moe/families.py",
    )


def renormalizes(config: Any) -> bool:
    """Whether a sparse model's chosen weights sum to 1 (before any scale)."""
    rule = sparse_family(config).renormalize
    return getattr(config, rule) if isinstance(rule, str) else rule


def weight_scale(config: Any) -> float:
    """The factor that a sparse model puts on its chosen weights."""
    key = sparse_family(config).scale
    return getattr(config, key) if key else 1.0


def down_projections(experts: Any) -> Tensor:
    """The experts' last matrices [E, ...], in whichever order of their two sides the model stores them."""
    stacked = [getattr(experts, name, None) for name in ("down", "down_proj", "weight")]
    for weights in stacked:
        if isinstance(weights, Tensor):
            # LongCat's last experts do nothing, and have no weights.
            idle = getattr(experts, "total_experts", len(weights)) - len(weights)
            return nn.functional.pad(weights, (0, 0, 0, 0, 0, idle)) if idle else weights
    if isinstance(getattr(experts, "mlp", None), nn.Module):
        # DBRX stores its experts' rows one after the other.
        return experts.mlp.w2.view(experts.num_experts, -1, experts.hidden_size)
    return torch.stack([next(reversed(list(expert.parameters()))) for expert in experts.children()])

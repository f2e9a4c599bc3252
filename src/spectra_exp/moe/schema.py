"""Schemas of models that start from somebody else's weights (`model=upcycle`, `model=reroute`), and of every model."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.bounds import (
    LARGEST_LENGTH,
    LARGEST_WEIGHT,
    LARGEST_WIDTH,
    MOST_EXPERTS,
    MOST_HEADS,
    MOST_LAYERS,
)
from spectra_exp.foundations.options import option

# What `model.equal_to` can make equal, and to whose.
MEASURES_OF_SIZE = ("active", "flops")
REFERENCE = "spectra"


@dataclass
class ImplementationConfig:
    """Which implementation computes a model's parts, whoever trained it first."""

    attention: str = option(
        "auto",
        "implementation of attention; auto takes flash_attention_2 where it is installed and can work, else sdpa",
        choices=["auto", "flash_attention_2", "sdpa", "eager"],
        later=True,
    )
    experts_kernel: str = option(
        "auto",
        "how experts are computed; auto takes Triton kernels where triton is installed and they can work, else plain",
        choices=["auto", "triton", "plain"],
        later=True,
    )
    routing_kernel: str = option(
        "auto",
        "how the scan of min_gru, beta_memory and causal_bias and Sinkhorn's iterations in the log domain are "
        "computed; auto as for the experts; in several processes Sinkhorn stays plain",
        choices=["auto", "triton", "plain"],
        later=True,
    )


@dataclass(frozen=True)
class AttentionRequest:
    """asked: model.attention. device: cpu or cuda. precision and cross_document: the run's options of those names."""

    asked: str
    device: str
    precision: str
    cross_document: bool


@dataclass(frozen=True)
class ExpertsKernelRequest:
    """asked: model.experts_kernel. device: cpu or cuda."""

    asked: str
    device: str


@dataclass
class ModelConfig(ImplementationConfig):
    """A decoder from scratch: Llama-style attention and norms, experts in place of the MLPs."""

    hidden_size: int = option(128, "d: width of the residual stream", minimum=1, maximum=LARGEST_WIDTH)
    num_layers: int = option(4, "decoder layers, each with one routed MLP", minimum=1, maximum=MOST_LAYERS)
    num_heads: int = option(4, "attention heads", minimum=1, maximum=MOST_HEADS)
    max_positions: int = option(
        2048, "longest sequence the rotary positions are made for", unit="tokens", minimum=1, maximum=LARGEST_LENGTH
    )
    vocabulary_size: int | None = option(
        None, "rows of the embedding; none takes the tokenizer's", minimum=1, maximum=LARGEST_LENGTH
    )
    num_experts: int = option(8, "E: experts in each routed layer", minimum=1, maximum=MOST_EXPERTS)
    top_k: int = option(2, "k: experts per token", minimum=1, maximum=MOST_EXPERTS)
    expert_size: int = option(
        256, "hidden width of one expert (a dense MLP is k times as wide)", minimum=1, maximum=LARGEST_WIDTH
    )
    equal_to: str = option(
        "none",
        "experts are widened until active parameters, or FLOPs per token, are those of router=spectra with experts of "
        "expert_size",
        choices=["none", *MEASURES_OF_SIZE],
        later=True,
    )
    num_shared: int = option(
        0,
        "further experts that every token passes, trained like the others: routed + their sum",
        minimum=0,
        maximum=MOST_EXPERTS,
        later=True,
    )
    null_experts: int = option(
        0,
        "so many of the E are empty: chosen among the k like any other, they execute nothing",
        minimum=0,
        maximum=MOST_EXPERTS,
        later=True,
    )
    null_kind: str = option(
        "zero",
        "what an empty expert gives: zero, or a copy of what it got",
        choices=["zero", "copy"],
        later=True,
    )
    gated_experts: bool = option(True, "SwiGLU-style experts with a gate matrix")
    activation: str = option("silu", "activation inside an expert", choices=["silu", "gelu", "relu"])
    dropout: float = option(
        0.0, "dropout of attention weights and of the routed layers' outputs", minimum=0, maximum=0.9
    )
    tie_embeddings: bool = option(True, "output head shares the embedding's weights")
    initializer_range: float = option(0.02, "standard deviation of initial weights", above=0, maximum=1)


@dataclass
class SourceModelConfig(ImplementationConfig):
    """A Hugging Face model to start from."""

    source: str | None = option(None, "folder of a saved model, or its name on the Hugging Face hub", path=True)
    revision: str | None = option(None, "branch, tag or commit of a model on the hub", affects_result=False)
    download: bool = option(
        False, "ask the hub for what the local cache lacks; false: no network", affects_result=False
    )
    freeze: str = option(
        "none",
        "what stays as it is: none, or all_but_router",
        choices=["none", "all_but_router"],
    )


@dataclass
class UpcycleConfig(SourceModelConfig):
    """A dense causal language model whose MLPs become experts."""

    num_experts: int = option(8, "E: copies of the MLP in each routed layer", minimum=1, maximum=MOST_EXPERTS)
    top_k: int = option(
        2,
        "k: experts per token; from 2 on the model first computes what the source does",
        minimum=1,
        maximum=MOST_EXPERTS,
    )
    num_shared: int = option(
        0,
        "further copies that every token passes, frozen: (routed + their sum) / (1 + num_shared)",
        minimum=0,
        maximum=MOST_EXPERTS,
    )
    first_k_dense_replace: int = option(
        0, "layers, from the first on, that keep their MLP", unit="layers", minimum=0, maximum=MOST_LAYERS
    )
    upcycle_noise: float = option(
        0.01,
        "normal noise on each expert's matrices, as a share of a matrix's standard deviation: equal experts would give "
        "the router no gradient",
        minimum=0,
        maximum=LARGEST_WEIGHT,
    )


@dataclass
class RerouteConfig(SourceModelConfig):
    """A sparse causal language model that keeps its experts and gets another router."""

    num_experts: int | None = option(None, "E: read from the source; not to be set", minimum=1, maximum=MOST_EXPERTS)
    top_k: int | None = option(None, "k: experts per token; none takes the source's", minimum=1, maximum=MOST_EXPERTS)
    renormalize: bool | None = option(
        None,
        "a token's chosen weights are divided by their sum, which at k = 1 leaves the router no gradient but its own "
        "losses'; none does as the source does",
    )
    keep_router_weights: bool = option(
        True, "a router of one linear map starts from the source's own weights where that is the source's rule too"
    )


def kind_of(model: SourceModelConfig) -> str:
    """`upcycle` or `reroute`."""
    return "upcycle" if isinstance(model, UpcycleConfig) else "reroute"

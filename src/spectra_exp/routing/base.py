"""What a router is: scores and state for each token; never selection, experts or bookkeeping.

Shapes: B sequences, S tokens each, N real tokens in the batch, d hidden size, E experts, D router dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.modules import import_all
from spectra_exp.foundations.options import option
from spectra_exp.foundations.registry import check_free
from spectra_exp.routing.documents import Stretches
from spectra_exp.routing.selection import PLAIN, SELECTIONS
from spectra_exp.routing.state import Float32State

# What a router hands from token to token; each tensor is [any, B, ...].
State = Tensor | tuple[Tensor | None, ...] | None


def reordered_state(state: State, rows_B: Tensor) -> State:
    """The state with its sequences as `rows_B` has them."""
    if isinstance(state, tuple):
        return tuple(None if one is None else one.index_select(1, rows_B) for one in state)
    return None if state is None else state.index_select(1, rows_B)


@dataclass
class RouterConfig:
    """Options that every router has; each router's schema adds its own."""

    name: str = option("", "which router this is")
    load_balance_coef: float = option(
        0.0, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    entropy_coef: float = option(0.0, "weight of the router entropy loss", minimum=0, maximum=LARGEST_WEIGHT)
    z_loss_coef: float = option(0.0, "weight of the router z-loss on the logits", minimum=0, maximum=LARGEST_WEIGHT)
    load_ema_strength: float = option(
        0.0,
        "scores are lowered by this times the running average of each expert's load over the mean load",
        minimum=0,
        maximum=LARGEST_WEIGHT,
    )
    shared: bool = option(False, "all layers use one router's parameters; running averages and states stay their own")

    def check(self) -> None:
        """Raise ConfigError for options of the router that do not go together."""

    def check_sizes(self, num_experts: int, top_k: int, tokens_per_pass: int, passes_per_step: int) -> None:
        """Raise ConfigError for so many experts, or tokens of all ranks, as the router cannot work with."""

    def name_parts(self) -> list[str]:
        """What names the router in a run's name: its name and what decides most about it."""
        return [self.name]


@dataclass
class RoutingInput:
    """What a router sees of one batch.

    hidden_BSd: any float dtype; zero at padding, whatever was given there. mask_BS: bool, True for real tokens;
    None when all are. token_ids_BS: int64 or None. carry_BSED: routing vectors of the previous routed layer, or
    None. temperature: > 0, one number or learned, [N or 1, E or 1]. noise_seed: fixes all noise of this layer in
    this pass, so that recomputing the pass repeats it. state: this layer's, after the tokens already decoded.
    previous_state: the previous layer's, after this pass. stretches: each document on its own, where packed blocks
    keep documents apart; None lets recurrence cross. ranks: whose tokens make up the batch.
    """

    hidden_BSd: Tensor
    mask_BS: Tensor | None = None
    token_ids_BS: Tensor | None = None
    previous_ids_BS: Tensor | None = None
    carry_BSED: Tensor | None = None
    temperature: float | Tensor = 1.0
    noise_seed: int = 0
    training: bool = False
    state: State = None
    previous_state: State = None
    stretches: Stretches | None = None
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        # Padding may hold anything: a NaN there, times a gradient of 0, would be NaN in the gradients of weights.
        if self.mask_BS is not None:
            self.hidden_BSd = self.hidden_BSd.masked_fill(~self.mask_BS[..., None], 0)

    def real(self, values_BSx: Tensor) -> Tensor:
        """The real tokens of `values_BSx`, flattened to [N, ...] in reading order."""
        return values_BSx.flatten(0, 1) if self.mask_BS is None else values_BSx[self.mask_BS]

    def placed(self, values_Nx: Tensor) -> Tensor:
        """The inverse of `real`, [B, S, ...], zero at padding."""
        shape = (*self.hidden_BSd.shape[:2], *values_Nx.shape[1:])
        if self.mask_BS is None:
            return values_Nx.view(shape)
        mask_BSx = self.mask_BS.view(*self.mask_BS.shape, *[1] * (values_Nx.ndim - 1))
        return values_Nx.new_zeros(shape).masked_scatter(mask_BSx, values_Nx)

    def split(self, values_BSx: Tensor) -> Tensor:
        """The values of whole sequences; of each document's stretch as a row of its own, where they are kept apart."""
        return values_BSx if self.stretches is None else self.stretches.split(values_BSx)

    def join(self, values_GTx: Tensor) -> Tensor:
        """The inverse of `split`."""
        return values_GTx if self.stretches is None else self.stretches.join(values_GTx)

    @property
    def split_mask(self) -> Tensor | None:
        """True for the real tokens of what `split` gives; None when all are."""
        if self.stretches is None or self.mask_BS is not None:
            return None if self.mask_BS is None else self.split(self.mask_BS)
        return self.stretches.mask_GT

    def sequences(self) -> tuple[Tensor, int]:
        """The sequence of each real token, int64 [N], and how many there are; documents kept apart are sequences."""
        if self.stretches is not None:
            return self.real(self.stretches.row_BS), len(self.stretches.mask_GT)
        b, s = self.hidden_BSd.shape[:2]
        rows_BS = torch.arange(b, device=self.hidden_BSd.device)[:, None].expand(b, s)
        return self.real(rows_BS), b

    def generator(self) -> torch.Generator:
        """A random generator of this layer and pass alone: noise never moves the global random state."""
        return torch.Generator(device=self.hidden_BSd.device).manual_seed(self.noise_seed)


@dataclass
class RouterOutput:
    """What a router returns, float32, over the N real tokens.

    scores_NE: what selection ranks, higher first. weights_NE: what the chosen weights are taken from.
    probs_NE: the router's distribution, rows sum to 1; None for routers without one. logits_NE: before the
    softmax, for the z-loss. representation_ED: the experts' representations for the Gram metrics.
    """

    scores_NE: Tensor
    weights_NE: Tensor
    probs_NE: Tensor | None = None
    logits_NE: Tensor | None = None
    representation_ED: Tensor | None = None
    carry_BSED: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    state: State = None


class Router(Float32State, ABC):
    """One layer's router. Subclasses give `forward`; those with state of their own give the hooks too.

    `label`: how tables call it; its name without one. `routes`: False for a dense model, which has no router.
    `learned`: it has weights and logits. `two_rules`: by which options its scores in training and in inference are of
    two rules, noise aside, as a text to be formatted with `router` and `osr`; empty where they are of one.
    `needs_source`: it is a part of somebody else's model, so that a model from scratch cannot have it, and its weights
    are final. `decides`: its scores are a choice that is made already, which plain top-k alone executes.
    `choosers`: whose choice they can be ranked for, a token's or an expert's; `pair` where each score is to be above 0.
    `normalizes`: False where a token's weights are used as they are, never divided by their sum. `needs_outputs`:
    it has losses of its experts' outputs. `shared_parts`: its modules that are one for all layers, whether or not the
    rest is shared. `uses_osr`, `uses_vocabulary`: its constructor takes `osr`, `vocabulary_size`.
    """

    Config: ClassVar[type[RouterConfig]] = RouterConfig
    label: ClassVar[str] = ""
    routes: ClassVar[bool] = True
    uses_osr: ClassVar[bool] = False
    uses_vocabulary: ClassVar[bool] = False
    learned: ClassVar[bool] = True
    two_rules: ClassVar[str] = ""
    needs_source: ClassVar[bool] = False
    decides: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    choosers: ClassVar[tuple[str, ...]] = ("token",)
    normalizes: ClassVar[bool] = True
    shared_parts: ClassVar[tuple[str, ...]] = ()
    learned_temperature: nn.Module | None

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RouterConfig):
        super().__init__()
        self.hidden_size, self.num_experts, self.top_k = hidden_size, num_experts, top_k
        self.config = config
        # The model's builder puts a LearnedTemperature here when one is wanted.
        self.register_module("learned_temperature", None)

    @classmethod
    def selections(cls) -> list[str]:
        """The selection rules that go with it."""
        if cls.decides:
            return [PLAIN]
        return [rule.name for rule in SELECTIONS.values() if rule.chooser in cls.choosers]

    def take(self, gate: nn.Module, sigmoid: bool) -> None:
        """Keep the source's own gate, whose scores are sigmoids or not; called once, where `needs_source`."""

    def set_token_counts(self, counts_V: np.ndarray) -> None:
        """Take in how often each token stands in the training text; called once, before training."""

    @abstractmethod
    def forward(self, inputs: RoutingInput) -> RouterOutput:
        """Scores, weights and state for the real tokens of `inputs`."""

    def reset_parameters(self) -> None:
        """Draw the initial weights from the global random state (the caller has seeded it for this module)."""

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        """Weight of each loss term at an optimizer step; terms that are off are absent."""
        c = self.config
        named = {"load_balance": c.load_balance_coef, "router_entropy": c.entropy_coef, "router_z": c.z_loss_coef}
        return {name: value for name, value in named.items() if value}

    def losses_of_outputs(
        self, outputs_Ad: Tensor, token_A: Tensor, expert_A: Tensor, chosen_NE: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms in training of what the experts made, [A, d], of each assignment before its weight."""
        return {}

    def commit(self, updates: dict[str, Tensor]) -> None:
        """Move running averages by one training pass; called once per pass, also under gradient checkpointing."""

    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Move load-driven state once per optimizer step; counts_E are its assignments per expert on all ranks."""

    def agree(self, layers: Sequence[Self]) -> None:
        """Move state that all layers have alike by what each of them, `layers`, took in; called after all their
        `after_step`s."""

    def settle_steps(self, trained: int) -> int:
        """Training batches over which load-driven state settles once so many steps of training are over."""
        return 0

    def settle(self, counts_E: Tensor, index: int) -> None:
        """Move load-driven state by batch `index` (from 1) of those, the weights at rest."""

    @property
    def fits_costs(self) -> bool:
        """Whether that state is fitted to the costs of all tokens of those batches at once."""
        return False

    def fit(self, cost_NE: Tensor) -> None:
        """Fit load-driven state to these costs under the rule of inference, the layers below being final."""

    def flops_per_token(self) -> float:
        """Forward floating-point operations of the routing of one token (multiply and add count as two)."""
        return 2.0 * sum(p.numel() for p in self.parameters() if p.ndim >= 2)


_REGISTRY: dict[str, type[Router]] = {}


def register_router(cls: type[Router]) -> type[Router]:
    """Class decorator: makes a router known by its schema's default name. Raises ValueError for none or a taken one."""
    name = cls.Config().name
    if not name:
        raise ValueError(f"router {cls.__name__} has no name: its Config is a @dataclass with a default `name`")
    check_free("router", name, _REGISTRY.get(name), cls)
    _REGISTRY[name] = cls
    return cls


def routers() -> dict[str, type[Router]]:
    """All registered routers by name; every module of `routing/routers/` is found by itself."""
    import_all("spectra_exp.routing.routers")
    return dict(sorted(_REGISTRY.items()))


def router_class(name: str) -> type[Router]:
    """The router registered as `name`; ConfigError with the nearest name otherwise."""
    known = routers()
    if name not in known:
        raise ConfigError.unknown("router.name", name, known)
    return known[name]


def linear_init(linear: nn.Linear, std: float = 0.02) -> None:
    """Normal weights of the given standard deviation, zero bias."""
    nn.init.normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)

"""The SPECTRA router (docs/method.md 1): routing vectors, expression vectors, OSR cost, transport plan.

Shapes: B sequences, S tokens each, N real tokens, d hidden size, E experts, D router dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_COUNT, LARGEST_WEIGHT, LARGEST_WIDTH
from spectra_exp.foundations.collective import ALONE, Ranks, all_rows
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.kernels import PLAIN
from spectra_exp.foundations.options import option
from spectra_exp.foundations.parts import part
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, State, register_router
from spectra_exp.routing.expression import EXPRESSIONS, RunningAverage, RunningMean, real_mean
from spectra_exp.routing.losses import projector_orthogonality, speciality_penalty
from spectra_exp.routing.orthogonality import MEASURES, representation_loss
from spectra_exp.routing.osr import OsrConfig, gram, linear_warmup, osr_cost
from spectra_exp.routing.potentials import fitted, nudged, sequence_offsets
from spectra_exp.routing.projectors import ORTHOGONALIZATIONS, make_expression
from spectra_exp.routing.quantiles import needed_bias, quantile
from spectra_exp.routing.sequence import ENCODERS, GateBiases, make_encoder
from spectra_exp.routing.sequence.min_gru import GATE_BIAS, SPREADS
from spectra_exp.routing.similarity import SIMILARITIES
from spectra_exp.routing.sinkhorn import Plan, plan_of, sinkhorn
from spectra_exp.routing.unit_vectors import unit_vectors


@dataclass
class SpectraConfig(RouterConfig):
    """Options of the SPECTRA router."""

    name: str = option("spectra", "which router this is")
    entropy_coef: float = option(1e-3, "weight of the router entropy loss", minimum=0, maximum=LARGEST_WEIGHT)
    dim: int = option(16, "D: size of each routing and expression vector", minimum=1, maximum=LARGEST_WIDTH)
    sequence: str = option("min_gru", "what turns hidden states into routing vectors", choices=list(ENCODERS))
    gate_bias: float = option(
        GATE_BIAS,
        "min_gru: the gates' first bias; a token's own part is its sigmoid",
        minimum=-20,
        maximum=20,
        later=True,
    )
    gate_spread: str = option(
        "none", "min_gru: several time scales, biases spread over experts or dimensions", choices=SPREADS, later=True
    )
    gate_bias_low: float = option(
        -1.0, "min_gru: the other end of spread biases, the slowest", minimum=-20, maximum=20, later=True
    )
    carry: str = option(
        "token",
        "what a layer hands to the next: its vectors at the same token, its final state (not causal), or nothing",
        choices=["token", "final_state", "none"],
    )
    expression: str = option("projector", "where expression vectors come from", choices=list(EXPRESSIONS))
    orthogonalization: str = option(
        "init",
        "how the projector is made orthogonal: at the start, every n steps, in each forward pass, or never",
        choices=list(ORTHOGONALIZATIONS),
    )
    orthogonalize_every: int = option(
        100, "optimizer steps between two periodic orthogonalisations", unit="steps", minimum=1, maximum=LARGEST_COUNT
    )
    similarity: str = option("cosine", "how routing and expression vectors are compared", choices=list(SIMILARITIES))
    orthogonality_measure: str = option(
        "gram", "what the representation orthogonality loss measures", choices=list(MEASURES)
    )
    ortho_coef: float = option(0.01, "weight of the projector orthogonality loss", minimum=0, maximum=LARGEST_WEIGHT)
    speciality_coef: float = option(5e-3, "weight of the speciality penalty", minimum=0, maximum=LARGEST_WEIGHT)

    def check(self) -> None:
        if self.carry == "final_state" and not ENCODERS[self.sequence].fixed_state:
            accepted = ", ".join(name for name, encoder in ENCODERS.items() if encoder.fixed_state)
            raise ConfigError(
                "router.carry",
                f"'final_state' needs a recurrence, but router.sequence={self.sequence} has none",
                f"give router.sequence one of {accepted}",
            )

    def name_parts(self) -> list[str]:
        return [self.name, self.sequence]


@register_router
class SpectraRouter(Router):
    """SPECTRA. *Source:* paper 5.1 and 8; docs/method.md 1, which says where it departs."""

    Config = SpectraConfig
    config: SpectraConfig
    hard_potentials_E: Tensor
    uses_osr = True
    two_rules = (
        "training by osr.training={osr.training} (osr.solver={osr.solver}), "
        "evaluation by osr.sinkhorn_inference={osr.sinkhorn_inference}"
    )
    choosers = ("token", "expert")
    label = "SPECTRA"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: SpectraConfig, osr: OsrConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.osr = osr
        # Of the iterations that it has, or None.
        self.kernel = PLAIN if osr.solver == "sinkhorn" and osr.log_sinkhorn_enabled else None
        gates = GateBiases(config.gate_bias, config.gate_bias_low, config.gate_spread)
        self.sequence = make_encoder(config.sequence, hidden_size, num_experts, config.dim, gates)
        self.expression = make_expression(
            config.expression,
            config.orthogonalization,
            config.orthogonalize_every,
            hidden_size,
            num_experts,
            config.dim,
        )
        self.similarity = SIMILARITIES[config.similarity](config.dim)
        self.representation = RunningAverage((num_experts, config.dim))
        self.soft_potentials = RunningAverage((num_experts,))
        self.register_buffer("hard_potentials_E", torch.zeros(num_experts))
        # What this step's passes would have needed. Whole steps are saved, so this never is.
        self._needed: list[Tensor] = []
        # A running mean of routing vectors has no gradient, so an orthogonality loss on it would do nothing.
        self.trains_representation = osr.so_lambda_max > 0 and not isinstance(self.expression, RunningMean)

    def reset_parameters(self) -> None:
        self.hard_potentials_E.zero_()

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        raw_BSED, new_state = self._vectors(inputs)
        if self.config.carry == "token" and inputs.carry_BSED is not None:
            raw_BSED = raw_BSED + inputs.carry_BSED
        vectors_BSED = unit_vectors(raw_BSED)
        with part("expression"):
            raw_expressions = self.expression.raw(inputs.hidden_BSd, vectors_BSED, inputs.mask_BS, inputs.ranks)
            expressions = self.expression.finish(raw_expressions)
        units = self.similarity.of_unit_vectors
        compared = (vectors_BSED, expressions) if units else (raw_BSED, raw_expressions)
        with part("similarity"):
            similarity_BSE = self.similarity(*compared)
        similarity_NE = inputs.real(similarity_BSE)
        per_token = expressions.shape[:2] == vectors_BSED.shape[:2]
        # What is not per token is the same on every rank.
        mask_BS, ranks = (inputs.mask_BS, inputs.ranks) if per_token else (None, ALONE)
        batch_mean_ED = ranks.mean(real_mean(expressions, mask_BS))
        representation_ED = batch_mean_ED if inputs.training else self.representation.value_or(batch_mean_ED)
        with part("gram"):
            gram_EE = gram(representation_ED)
        osr = self.osr
        with part("cost"):
            cost_NE = osr_cost(
                similarity_NE, gram_EE, osr.repulsion_weight, osr.saturation_weight, osr.saturation_threshold
            )
        potentials, offsets = self._potentials(cost_NE.detach(), inputs)
        output = self._decide(cost_NE, potentials, inputs)
        output.representation_ED = representation_ED
        output.carry_BSED = vectors_BSED
        output.state = (new_state, offsets) if self.osr.online_rate else new_state
        output.tensors = {"similarity": similarity_NE, "cost": cost_NE}
        if inputs.training:
            output.losses = self._losses(inputs.real(vectors_BSED), gram_EE)
            output.updates["representation"] = batch_mean_ED.detach()
            if isinstance(self.expression, RunningMean):
                routing_mean_ED = real_mean(vectors_BSED.detach(), inputs.mask_BS)
                output.updates["routing_mean"] = inputs.ranks.mean(routing_mean_ED)
        return output

    def _vectors(self, inputs: RoutingInput) -> tuple[Tensor, Tensor | None]:
        """The sequence encoder over whole sequences, or over each document's stretch on its own."""
        with part("sequence"):
            raw_BSED, state = self.sequence(
                inputs.split(inputs.hidden_BSd), inputs.split_mask, self._first_state(inputs)
            )
        return inputs.join(raw_BSED), state

    def _first_state(self, inputs: RoutingInput) -> Tensor | None:
        """Where the recurrence starts: after the tokens already decoded, else (`final_state`) at the previous layer's
        state after its last token, which has seen the whole sequence: the paper's rule, and not causal."""
        if inputs.state is not None:
            return encoder_state(inputs.state)
        return encoder_state(inputs.previous_state) if self.config.carry == "final_state" else None

    def _potentials(self, cost_NE: Tensor, inputs: RoutingInput) -> tuple[Tensor, Tensor | None]:
        """Potentials of the dual rule, [E], or of each token, [N, E], where they move inside a sequence; with these the
        offsets after the last token, [1, B, E]."""
        osr, potentials_E = self.osr, self.potentials_E()
        if not osr.online_rate:
            return potentials_E, None
        earlier = inputs.state[1] if isinstance(inputs.state, tuple) else None
        before = None if earlier is None else earlier[0]
        cost, rates = inputs.split(inputs.placed(cost_NE)), (osr.online_rate, osr.online_decay)
        with part("potentials"):
            offsets, last = sequence_offsets(cost, inputs.split_mask, potentials_E, self.top_k, *rates, before)
        return potentials_E + inputs.real(inputs.join(offsets)), last[None]

    def potentials_E(self) -> Tensor:
        """The per-expert potentials of the dual rule, in units of the cost."""
        return self.soft_potentials.value if self.osr.potentials == "soft" else self.hard_potentials_E

    def _plan(self, cost_NE: Tensor, epsilon: float | Tensor, ranks: Ranks) -> Plan:
        osr = self.osr
        with part("sinkhorn"):
            if osr.solver == "softmax":
                return plan_of(-cost_NE / epsilon, torch.zeros_like(self.hard_potentials_E), ranks)
            return sinkhorn(
                cost_NE,
                epsilon,
                osr.sinkhorn_iterations,
                log_domain=osr.log_sinkhorn_enabled,
                gradient=osr.sinkhorn_grad,
                ranks=ranks,
                kernel=self.kernel,
            )

    def _decide(self, cost_NE: Tensor, potentials: Tensor, inputs: RoutingInput) -> RouterOutput:
        """Scores and weights under the rule of training or of inference (docs/method.md 1.8)."""
        epsilon = self.osr.sinkhorn_epsilon * inputs.temperature
        logits_NE = -cost_NE / epsilon
        if inputs.training:
            return self._decide_training(cost_NE, potentials, logits_NE, epsilon, inputs.ranks)
        match self.osr.sinkhorn_inference:
            case "true":
                plan = self._plan(cost_NE, epsilon, inputs.ranks)
                scores_NE, figures = plan.log_plan_NE, {"sinkhorn_residual": plan.residual}
            case "dual":
                scores_NE, figures = torch.log_softmax(logits_NE + potentials / epsilon, dim=-1), {}
            case _:
                scores_NE, figures = torch.log_softmax(logits_NE, dim=-1), {}
        probs_NE = scores_NE.exp()
        return RouterOutput(scores_NE, probs_NE, probs_NE, logits_NE, figures=figures)

    def _decide_training(
        self, cost_NE: Tensor, potentials: Tensor, logits_NE: Tensor, epsilon: float | Tensor, ranks: Ranks
    ) -> RouterOutput:
        plan = self._plan(cost_NE, epsilon, ranks)
        # In the units of inference's scores, of which an epsilon per expert changes the order.
        balanced_NE = ((potentials - cost_NE) / epsilon).detach()
        scores_NE = balanced_NE if self.osr.training == "potentials" else plan.log_plan_NE
        output = RouterOutput(scores_NE, plan.plan_NE, plan.plan_NE, logits_NE)
        output.figures["sinkhorn_residual"] = plan.residual
        output.updates["soft_potentials"] = plan.potentials_E
        if self.osr.potentials == "quantile":
            output.updates["needed_bias"] = needed_bias(-cost_NE.detach(), potentials, self.top_k)
        # The load that inference would execute: under training=potentials it is the executed load itself.
        would_choose = balanced_NE.topk(self.top_k, dim=-1).indices
        output.updates["load_counts"] = torch.zeros_like(self.hard_potentials_E).index_add_(
            0, would_choose.flatten(), torch.ones_like(would_choose, dtype=torch.float32).flatten()
        )
        return output

    def _losses(self, vectors_NED: Tensor, gram_EE: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.trains_representation:
            measure = self.config.orthogonality_measure
            losses["representation_ortho"] = representation_loss(gram_EE, measure, self.osr.srip_enabled)
        if self.config.ortho_coef and self.expression.projector_weight is not None:
            losses["projector_ortho"] = projector_orthogonality(self.expression.projector_weight)
        if self.config.speciality_coef:
            losses["speciality"] = speciality_penalty(vectors_NED)
        return losses

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        coefficients = super().loss_coefficients(step, total_steps)
        own = {"projector_ortho": self.config.ortho_coef, "speciality": self.config.speciality_coef}
        coefficients |= {name: value for name, value in own.items() if value}
        if self.trains_representation:
            warmup = linear_warmup(step, self.osr.so_warmup_steps, total_steps)
            coefficients["representation_ortho"] = self.osr.so_lambda_max * warmup
        return coefficients

    @torch.no_grad()
    def commit(self, updates: dict[str, Tensor]) -> None:
        self.representation.move(updates["representation"])
        self.soft_potentials.move(updates["soft_potentials"])
        if "needed_bias" in updates:
            self._needed.append(updates["needed_bias"])
        if isinstance(self.expression, RunningMean):
            self.expression.mean.move(updates["routing_mean"])

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Move the potentials by the load, at a rate that follows the learning rate's, or to the step's quantile."""
        self.expression.after_step()
        if self._needed:
            quantile_E = quantile(all_rows(torch.cat(self._needed)), self.top_k / self.num_experts)
            self.hard_potentials_E.copy_(quantile_E - quantile_E.mean())
            self._needed = []
        elif self._fits_load and self.osr.potentials == "hard":
            rate = self.osr.potential_rate * learning_rate_scale**self.osr.potential_decay
            self.hard_potentials_E.copy_(nudged(self.hard_potentials_E, counts_E, rate))

    def settle_steps(self, trained: int) -> int:
        return min(self.osr.settle_steps, round(self.osr.settle_share * trained)) if self._fits_load else 0

    @property
    def _fits_load(self) -> bool:
        return self.osr.potentials != "soft" and self.osr.solver == "sinkhorn"

    @torch.no_grad()
    def settle(self, counts_E: Tensor, index: int) -> None:
        """Move the potentials at a rate that falls as 1/index: towards the load error's root, noise averaged out.

        *Source:* Robbins and Monro 1951 (A stochastic approximation method).
        """
        self.hard_potentials_E.copy_(nudged(self.hard_potentials_E, counts_E, self.osr.potential_rate / index))

    @property
    def fits_costs(self) -> bool:
        return self.osr.settle_rule == "quantile"

    @torch.no_grad()
    def fit(self, cost_NE: Tensor) -> None:
        """Set the potentials to those that balance these tokens."""
        self.hard_potentials_E.copy_(fitted(cost_NE, self.hard_potentials_E, self.top_k))

    def flops_per_token(self) -> float:
        e = self.num_experts
        compared = self.similarity.flops_per_token(e)
        repulsion = 2 * e * e if self.osr.repulsion_weight else 0
        transport = 8 * e * self.osr.sinkhorn_iterations if self.osr.solver == "sinkhorn" else 4 * e
        balance = transport + (6 * e if self.osr.online_rate else 0)
        return self.sequence.flops_per_token() + self.expression.flops_per_token() + compared + repulsion + balance


def encoder_state(state: State) -> Tensor | None:
    """The sequence encoder's part of a router's state."""
    return state[0] if isinstance(state, tuple) else state

"""The OSR cost: similarity, repulsion between like experts, a brake on saturated scores (docs/method.md 1.5-1.6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_COUNT, LARGEST_RATE, LARGEST_WEIGHT, MOST_ITERATIONS
from spectra_exp.foundations.options import option

# Rules of inference: a softmax per token, Sinkhorn over the batch, or the potentials (docs/method.md 1.8).
INFERENCE_RULES = ("false", "true", "dual")
# Doublings of the power in `squared_spectral_norm`.
SQUARINGS = 10


@dataclass
class NoOsr:
    """Routers without a transport problem have no options here."""


@dataclass
class OsrConfig:
    """The cost, the transport plan, and which rule selects in training and in inference."""

    solver: str = option("sinkhorn", "how scores become a plan", choices=["sinkhorn", "softmax"])
    repulsion_weight: float = option(0.5, "lambda: weight of the repulsive cost", minimum=0, maximum=LARGEST_WEIGHT)
    saturation_weight: float = option(
        0.5, "beta: weight of the cost of saturated similarities", minimum=0, maximum=LARGEST_WEIGHT
    )
    saturation_threshold: float = option(
        0.7, "tau: |similarity| above which the saturation cost starts", minimum=0, maximum=LARGEST_WEIGHT
    )
    sinkhorn_epsilon: float = option(
        0.05, "entropic regularisation, in units of the cost", above=0, maximum=LARGEST_WEIGHT
    )
    sinkhorn_iterations: int = option(
        3, "column-and-row scalings", unit="iterations", minimum=1, maximum=MOST_ITERATIONS
    )
    log_sinkhorn_enabled: bool = option(True, "scale by logsumexp (true) or by products with clamped exponents")
    sinkhorn_grad: str = option(
        "through", "gradient through the iterations, or with the potentials held fixed", choices=["through", "stopped"]
    )
    sinkhorn_tolerance: float = option(
        1.0,
        "largest relative error of a column sum in training that passes without a warning",
        above=0,
        maximum=LARGEST_WEIGHT,
        affects_result=False,
    )
    training: str = option(
        "plan",
        "what selects in training: the plan, or the potentials that inference uses",
        choices=["plan", "potentials"],
    )
    sinkhorn_inference: str = option(
        "false",
        "rule of inference: per-token softmax (false), Sinkhorn over the batch (true), potentials (dual)",
        choices=list(INFERENCE_RULES),
    )
    potentials: str = option(
        "soft",
        "potentials: running average of Sinkhorn's (soft), fitted to the executed load (hard), or what would have "
        "balanced the last step (quantile)",
        choices=["soft", "hard", "quantile"],
    )
    potential_rate: float = option(
        0.05, "step of the hard potentials per optimizer step, in units of the cost", above=0, maximum=LARGEST_RATE
    )
    potential_decay: float = option(
        1.0,
        "power of the learning rate's schedule that this step follows: 1 falls with it, 0 stays",
        minimum=0,
        maximum=1,
    )
    settle_steps: int = option(
        0,
        "training batches routed after the last optimizer step, weights at rest, over which the hard potentials settle "
        "(at most osr.settle_share of the run's steps)",
        unit="batches",
        minimum=0,
        maximum=LARGEST_COUNT,
    )
    settle_share: float = option(
        0.2, "most batches to settle over, as a share of the run's steps", above=0, maximum=1, later=True
    )
    settle_rule: str = option(
        "nudges",
        "how they settle: nudged by each batch's load, or quantiles of all their costs, iterated layer after layer",
        choices=["nudges", "quantile"],
        later=True,
    )
    online_rate: float = option(
        0.0,
        "step of the potentials inside a sequence after each token, in units of the cost, causal; 0: they stay",
        minimum=0,
        maximum=LARGEST_RATE,
        later=True,
    )
    online_decay: float = option(
        0.95, "what is left of such a step one token later", minimum=0, maximum=0.9999, later=True
    )
    srip_enabled: bool = option(True, "add the spectral part to the representation orthogonality loss")
    so_lambda_max: float = option(
        1e-3, "final weight of the representation orthogonality loss", minimum=0, maximum=LARGEST_WEIGHT
    )
    so_warmup_steps: int = option(
        1000,
        "steps over which that weight rises from 0 (at most 10 % of the run)",
        unit="steps",
        minimum=0,
        maximum=LARGEST_COUNT,
    )

    def __post_init__(self) -> None:
        # The command line reads true and false as booleans; here they are names of rules.
        self.sinkhorn_inference = str(self.sinkhorn_inference).lower()


def gram(representation_ED: Tensor) -> Tensor:
    """Gram matrix [E, E] of the rows after normalising each to length 1."""
    rows = torch.nn.functional.normalize(representation_ED, dim=-1)
    return rows @ rows.T


def osr_cost(similarity_NE: Tensor, gram_EE: Tensor, repulsion: float, saturation: float, threshold: float) -> Tensor:
    """Cost [N, E] = -S + lambda |S| (G o (1-I))^2 + beta relu(|S|-tau)^2.

    The square makes the repulsion blind to the sign of a correlation. *Source:* paper 5.1; docs/method.md 1.6.
    """
    cost_NE = -similarity_NE
    magnitude_NE = similarity_NE.abs()
    if repulsion:
        off_diagonal = gram_EE - torch.diag_embed(torch.diagonal(gram_EE))
        cost_NE = cost_NE + repulsion * (magnitude_NE @ off_diagonal.square())
    if saturation:
        cost_NE = cost_NE + saturation * torch.relu(magnitude_NE - threshold).square()
    return cost_NE


def representation_orthogonality(gram_EE: Tensor, spectral: bool) -> Tensor:
    """0.7 ||G-I||_F^2, plus 0.3 sigma_max(G-I)^2 when `spectral` (0.7 and 0.3 from docs/method.md 1, losses)."""
    difference = gram_EE - torch.eye(gram_EE.shape[0], dtype=gram_EE.dtype, device=gram_EE.device)
    loss = 0.7 * difference.square().sum()
    if spectral:
        loss = loss + 0.3 * squared_spectral_norm(difference)
    return loss


def squared_spectral_norm(symmetric_EE: Tensor) -> Tensor:
    """sigma_max^2 of a symmetric matrix, with its gradient, by products alone: a decomposition waits for the device.

    Power iteration with 2 * 2^SQUARINGS steps: at two values that it cannot tell apart either one will do.
    """
    with torch.no_grad():
        power_EE = symmetric_EE
        for _ in range(SQUARINGS + 1):
            power_EE = power_EE / torch.linalg.matrix_norm(power_EE).clamp(min=torch.finfo(power_EE.dtype).tiny)
            power_EE = power_EE @ power_EE.mT
        # The longest column, for a start that cannot be orthogonal to the vector sought.
        lengths_E = torch.linalg.vector_norm(power_EE, dim=0)
        column_E1 = power_EE.index_select(1, lengths_E.argmax()[None])
        vector_E1 = torch.nn.functional.normalize(column_E1, dim=0)
    return (symmetric_EE @ vector_E1).square().sum()


def linear_warmup(step: int, warmup_steps: int, total_steps: int) -> float:
    """Share of a warmed-up weight at `step`: rises linearly to 1 over the warm-up, at most 10 % of the run.

    *Source:* docs/method.md 1, losses: a run is short when a tenth of it is below the warm-up.
    """
    steps = min(warmup_steps, max(1, round(0.1 * total_steps))) if warmup_steps else 0
    return 1.0 if steps == 0 else min(1.0, (step + 1) / steps)

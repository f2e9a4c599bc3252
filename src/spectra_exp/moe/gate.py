"""Our routing in the place of a sparse Hugging Face model's own gate; its experts and what is around them stay.

Shapes: B sequences, S tokens each, N real tokens, M = B * S tokens, A assignments, E experts, K experts per token,
d hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.moe.context import ContextHolder, RoutingContext
from spectra_exp.moe.layer import RoutedLayer
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import Router


class ReroutedGate(RoutedLayer):
    """Called by a sparse block as its own gate is: hidden states in, (scores, weights [M, K], experts [M, K]) out."""

    def __init__(self, layer: int, settings: MoeSettings, router: Router, holder: ContextHolder, block: nn.Module):
        super().__init__(layer, settings, router, holder)
        # Not a child: the block holds its experts, and they must not be saved twice.
        self._block: tuple[Any] = (block,)

    @property
    def experts(self) -> nn.Module:
        """The block's experts."""
        return self._block[0].experts

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the original gate's. Padding tokens get weights of 0, and so do places that a token has no expert for."""
        context = self.holder.current or RoutingContext(training_rule=self.training)
        hidden_BSd = context.batch(hidden)
        inputs, output, chosen_NE, weights_NE = self.route(hidden_BSd, context)
        tokens_Nd = inputs.real(hidden_BSd)
        sums_Ed = output_sums(self.experts, tokens_Nd, chosen_NE) if context.keep_outputs else None
        width = self.settings.top_k
        if not self.rule_in_force(context.training_rule).at_most_k or self.intervention is not None:
            width = max(width, int(chosen_NE.sum(1).max())) if len(chosen_NE) else width
        unexecuted = (chosen_NE.sum(1) - width).clamp(min=0).sum()
        self._leave_record(context, inputs, output, chosen_NE, weights_NE, sums_Ed, tokens_Nd, unexecuted)
        # Distinct experts in every row: kernels need not cope with one expert twice.
        experts_NK = torch.where(chosen_NE, weights_NE.detach(), -1.0).topk(width, dim=1).indices
        weights_NK = weights_NE.gather(1, experts_NK).to(hidden.dtype)
        if inputs.mask_BS is None:
            return output.scores_NE, weights_NK, experts_NK
        place_M = inputs.mask_BS.flatten()
        experts_MK = torch.arange(width, device=hidden.device).repeat(len(place_M), 1)
        weights_MK = weights_NK.new_zeros(len(place_M), width)
        experts_MK[place_M] = experts_NK
        weights_MK = weights_MK.masked_scatter(place_M[:, None], weights_NK)
        return output.scores_NE, weights_MK, experts_MK


@torch.no_grad()
def output_sums(experts: nn.Module, tokens_Nd: Tensor, chosen_NE: Tensor) -> Tensor:
    """Each expert's summed output over its tokens, [E, d]; a second pass through stock experts, unweighted."""
    token_A, expert_A = chosen_NE.nonzero(as_tuple=True)
    if not len(token_A):
        return tokens_Nd.new_zeros(chosen_NE.shape[1], tokens_Nd.shape[1]).float()
    one_A1 = torch.ones(len(token_A), 1, dtype=tokens_Nd.dtype, device=tokens_Nd.device)
    outputs_Ad = experts(tokens_Nd[token_A], expert_A[:, None], one_A1).float().flatten(0, -2)
    return outputs_Ad.new_zeros(chosen_NE.shape[1], tokens_Nd.shape[1]).index_add(0, expert_A, outputs_Ad)

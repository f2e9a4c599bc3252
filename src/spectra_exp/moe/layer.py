"""One routed layer: router, selection, dispatch, experts, combine; its routing is left as a record.

Shapes: B sequences, S tokens each, N real tokens, E experts, K experts per token, d hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spectra_exp.foundations.collective import total_over_ranks
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.parts import part
from spectra_exp.moe.context import ContextHolder, RoutingContext
from spectra_exp.moe.experts import Experts
from spectra_exp.moe.interventions import Intervention, Routing
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import Router, RouterOutput, RoutingInput
from spectra_exp.routing.expression import RunningAverage
from spectra_exp.routing.losses import load_balance_by_sequence, load_balance_of_counts, router_entropy, router_z_loss
from spectra_exp.routing.selection import SelectionRule, assignment_weights, rule_in_force, select_topk


class RoutedLayer(nn.Module):
    """What every routed layer does: score, select, leave a record, answer the load. Its experts are a subclass's."""

    def __init__(self, layer: int, settings: MoeSettings, router: Router, holder: ContextHolder):
        super().__init__()
        self.layer, self.settings, self.holder = layer, settings, holder
        self.router = router
        # Set by `intervening` alone, for passes without a gradient.
        self.intervention: Intervention | None = None
        # Each expert's load over the mean load, float32 like the router; the layer's own even if that is shared.
        wanted = settings.router.load_ema_strength > 0
        self.load_average = RunningAverage((settings.num_experts,)).float() if wanted else None
        # Assignments since the last optimizer step; whole steps are saved, so this never is. Not a buffer either:
        # from_pretrained leaves those that are not saved uninitialised.
        self.step_counts_E: Tensor | None = None
        # Executed ones, which the load average follows; a router may report other counts as its load.
        self.executed_counts_E: Tensor | None = None
        # The same on all ranks: what `losses.balance_scope=global_batch` has counted in this step.
        self.balance_counts_E: Tensor | None = None

    if TYPE_CHECKING:
        # A child, or what the block around it holds.
        @property
        def experts(self) -> nn.Module: ...

    def route(self, hidden_BSd: Tensor, context: RoutingContext) -> tuple[RoutingInput, RouterOutput, Tensor, Tensor]:
        """What the router saw and said, the executed assignments, bool [N, E], and their weights [N, E]."""
        inputs = self._routing_input(hidden_BSd, context)
        # Routing arithmetic is float32 whatever the model's dtype and autocast are.
        with torch.autocast(hidden_BSd.device.type, enabled=False):
            if self.router.learned_temperature is not None:
                inputs.temperature = self.router.learned_temperature(inputs)
            with part("router"):
                output = self.router(inputs)
            settings = self.settings
            with part("selection"):
                chosen_NE = self.select(output.scores_NE.detach(), context.training_rule)
                weights_NE = assignment_weights(output.weights_NE, chosen_NE, settings.normalizes)
            if settings.weight_scale != 1.0:
                weights_NE = weights_NE * settings.weight_scale
            if self.intervention is not None:
                ranked_NE = self.ranked(output.scores_NE)
                routing = Routing(chosen_NE, weights_NE, ranked_NE, output.weights_NE, settings.top_k)
                chosen_NE, weights_NE = self.intervention(routing)
        return inputs, output, chosen_NE, weights_NE

    def select(self, scores_NE: Tensor, training_rule: bool) -> Tensor:
        """Executed assignments, bool [N, E], under the rule of training or of inference."""
        settings, rule = self.settings, self.rule_in_force(training_rule)
        chosen_NE = rule.choose(self.ranked(scores_NE), settings.top_k, settings.selection.capacity_factor)
        if chosen_NE.dtype != torch.bool or chosen_NE.shape != scores_NE.shape:
            gave = f"{str(chosen_NE.dtype).removeprefix('torch.')} {list(chosen_NE.shape)}"
            wanted = f"bool {list(scores_NE.shape)}: tokens, experts"
            raise SpectraError(f"selection rule '{rule.name}' gave {gave}, not {wanted}")
        return chosen_NE

    def rule_in_force(self, training_rule: bool) -> SelectionRule:
        """The selection rule of training or of inference."""
        return rule_in_force(self.settings.selection, training_rule)

    def ranked(self, scores_NE: Tensor) -> Tensor:
        """The scores that selection ranks, [N, E]: the router's, lowered by the load average where there is one."""
        if self.load_average is None:
            return scores_NE
        # Zero before the first optimizer step.
        return scores_NE - self.settings.router.load_ema_strength * self.load_average.value

    def _routing_input(self, hidden_BSd: Tensor, context: RoutingContext) -> RoutingInput:
        return RoutingInput(
            hidden_BSd.float(),
            context.mask_BS,
            context.token_ids_BS,
            context.previous_ids_BS,
            carry_BSED=context.carries_BSED.get(self.layer - 1),
            temperature=context.temperature,
            noise_seed=context.layer_noise_seed(self.layer),
            training=context.training_rule,
            state=context.states.get(self.layer),
            previous_state=context.new_states.get(self.layer - 1),
            ranks=context.ranks,
            stretches=context.stretches,
        )

    def _leave_record(
        self,
        context: RoutingContext,
        inputs: RoutingInput,
        output: RouterOutput,
        chosen_NE: Tensor,
        weights_NE: Tensor,
        sums_Ed: Tensor | None,
        tokens_Nd: Tensor,
        unexecuted: Tensor | None,
    ) -> None:
        context.carries_BSED[self.layer] = output.carry_BSED
        context.new_states[self.layer] = output.state
        if context.keep_tensors:
            context.tensors[self.layer] = {name: t.detach() for name, t in output.tensors.items()}
        losses = dict(output.losses)
        if context.training_rule:
            counts_E = chosen_NE.sum(0).float()
            context.updates[self.layer] = {"load_counts": counts_E} | output.updates | {"executed_counts": counts_E}
            losses |= self._distribution_losses(context, inputs, output, chosen_NE)
        real, representation_ED = self.settings.num_real, output.representation_ED
        context.records[self.layer] = RoutingRecord(
            layer=self.layer,
            chosen_NE=chosen_NE[:, :real],
            weights_NE=weights_NE[:, :real].detach(),
            probs_NE=None if output.probs_NE is None else _among(output.probs_NE.detach(), real),
            # A copy: it may be a weight itself, which FSDP takes apart again after the pass.
            representation_ED=None if representation_ED is None else representation_ED[:real].detach().clone(),
            output_sum_ED=sums_Ed,
            losses=losses,
            figures=output.figures,
            # A copy, so that the whole activation is not held by its part.
            hidden_Nd=tokens_Nd[: context.keep_hidden].detach().clone() if context.keep_hidden else None,
            unexecuted=unexecuted,
            null_assignments=chosen_NE[:, real:].sum() if self.settings.num_null else None,
        )

    def _distribution_losses(
        self, context: RoutingContext, inputs: RoutingInput, output: RouterOutput, chosen_NE: Tensor
    ) -> dict[str, Tensor]:
        """The terms that need only the distribution; a coefficient of 0 switches one off."""
        config, losses = self.router.config, {}
        if config.load_balance_coef and self.settings.losses.balance_scope == "sequence":
            losses["load_balance"] = self._sequence_balance(inputs, output)
        elif config.load_balance_coef:
            counts_E = self._balance_counts(context, chosen_NE.sum(0))
            assert output.probs_NE is not None
            losses["load_balance"] = load_balance_of_counts(output.probs_NE, counts_E)
        if config.entropy_coef:
            assert output.probs_NE is not None
            losses["router_entropy"] = router_entropy(output.probs_NE)
        if config.z_loss_coef:
            assert output.logits_NE is not None
            losses["router_z"] = router_z_loss(output.logits_NE)
        return losses

    def _sequence_balance(self, inputs: RoutingInput, output: RouterOutput) -> Tensor:
        """The load-balance loss of each sequence by the scores without a bias, mean over the sequences of all ranks."""
        unbiased_NE = select_topk(output.weights_NE.detach(), self.settings.top_k)
        sequence_N, number = inputs.sequences()
        assert output.probs_NE is not None
        losses_Q = load_balance_by_sequence(output.probs_NE, unbiased_NE, sequence_N, number)
        seen_Q = torch.zeros_like(losses_Q).index_fill_(0, sequence_N, 1.0)
        # A rank's part of the mean, times their number, since the ranks' gradients are averaged.
        total, ranks = inputs.ranks.sum(torch.stack([seen_Q.sum(), torch.ones_like(seen_Q.sum())]))
        return losses_Q.sum() * ranks / total.clamp(min=1)

    def _balance_counts(self, context: RoutingContext, counts_E: Tensor) -> Tensor:
        """What f of the load-balance loss is counted from; `counts_E`: the executed assignments of this pass.

        Under `global_batch` these are summed over ranks, and those of the step's earlier micro-batches are added: f
        is what this step has counted so far, which is approximate, since the first micro-batches do not know the last.
        """
        if self.settings.losses.balance_scope == "micro_batch":
            return counts_E
        counts_E = context.ranks.sum(counts_E)
        context.updates[self.layer]["balance_counts"] = counts_E
        return _added(self.balance_counts_E, counts_E)

    @torch.no_grad()
    def commit(self, context: RoutingContext) -> None:
        """Take one training pass into the running averages and the step's counts; once per pass."""
        updates = context.updates[self.layer]
        self.step_counts_E = _added(self.step_counts_E, updates["load_counts"])
        if self.load_average is not None:
            self.executed_counts_E = _added(self.executed_counts_E, updates["executed_counts"])
        if "balance_counts" in updates:
            self.balance_counts_E = _added(self.balance_counts_E, updates["balance_counts"])
        self.router.commit(updates)

    @torch.no_grad()
    def after_step(self, learning_rate_scale: float) -> None:
        """Let the router answer the load of the optimizer step just made, if it routed anything."""
        if self.step_counts_E is not None:
            self.router.after_step(total_over_ranks(self.step_counts_E), learning_rate_scale)
        if self.load_average is not None and self.executed_counts_E is not None:
            executed_E = total_over_ranks(self.executed_counts_E)
            self.load_average.move(executed_E / executed_E.mean().clamp(min=1e-9))
        self.step_counts_E = self.executed_counts_E = self.balance_counts_E = None


class MoeLayer(RoutedLayer):
    """Takes an MLP's place in a backbone: hidden_BSd in, hidden_BSd out."""

    experts: Experts

    def __init__(
        self, layer: int, hidden_size: int, settings: MoeSettings, router: Router, holder: ContextHolder, std: float
    ):
        super().__init__(layer, settings, router, holder)
        sizes = hidden_size, settings.expert_size, settings.gated, settings.activation, std, settings.biases
        self.experts = Experts(settings.num_real, *sizes)
        # Every token passes these; copies of an MLP stay as they are.
        self.shared = Experts(settings.num_shared, *sizes) if settings.num_shared else None
        if self.shared is not None and settings.shared_is_frozen:
            self.shared.requires_grad_(False)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output, in the shape of `hidden`; padding tokens give zeros and take part in nothing."""
        context = self.holder.current or RoutingContext(training_rule=self.training)
        hidden_BSd = context.batch(hidden)
        inputs, output, chosen_NE, weights_NE = self.route(hidden_BSd, context)
        tokens_Nd = inputs.real(hidden_BSd)
        most = self._most(len(tokens_Nd), context)
        with part("dispatch"):
            real = self.settings.num_real
            combined_Nd, rows = self.experts(tokens_Nd, chosen_NE[:, :real], weights_NE[:, :real], most)
            if self.settings.num_null and self.settings.null_kind == "copy":
                combined_Nd = combined_Nd + weights_NE[:, real:].sum(1, keepdim=True).to(tokens_Nd.dtype) * tokens_Nd
            if self.shared is not None:
                combined_Nd = combined_Nd + self._shared_output(self.shared, tokens_Nd)
                if self.settings.shared_is_frozen:
                    combined_Nd = combined_Nd / (1 + self.settings.num_shared)
        if context.training_rule:
            at = rows.assignments
            output.losses |= self.router.losses_of_outputs(
                rows.outputs_Ad, at.token_A, at.expert_A, chosen_NE[:, :real]
            )
        sums_Ed = rows.sums_Ed() if context.keep_outputs else None
        # What a GPU has no place for; everywhere, so that a rule breaks its bound on no machine unseen.
        unexecuted = None if most is None else (rows.assignments.counts_E.sum() - most).clamp(min=0)
        self._leave_record(context, inputs, output, chosen_NE, weights_NE, sums_Ed, tokens_Nd, unexecuted)
        output_BSd = self._unflatten(combined_Nd.to(hidden_BSd.dtype), hidden_BSd, inputs.mask_BS)
        return self.dropout(output_BSd).view_as(hidden)

    def _most(self, num_tokens: int, context: RoutingContext) -> int | None:
        """At least as many assignments as a pass can make of `num_tokens`; None where only the pass knows."""
        if self.intervention is not None:
            return None
        settings, rule = self.settings, self.rule_in_force(context.training_rule)
        shape = num_tokens, settings.num_experts, settings.top_k
        return rule.most_assignments(*shape, settings.selection.capacity_factor)

    def _shared_output(self, shared: Experts, tokens_Nd: Tensor) -> Tensor:
        """The sum of the shared experts' outputs, [N, d]."""
        every_NE = torch.ones(len(tokens_Nd), self.settings.num_shared, dtype=torch.bool, device=tokens_Nd.device)
        return shared(tokens_Nd, every_NE, every_NE.to(tokens_Nd.dtype), every_NE.numel())[0]

    @staticmethod
    def _unflatten(values_Nd: Tensor, like_BSd: Tensor, mask_BS: Tensor | None) -> Tensor:
        if mask_BS is None:
            return values_Nd.view_as(like_BSd)
        return torch.zeros_like(like_BSd).masked_scatter(mask_BS[..., None], values_Nd)


def _among(probs_NE: Tensor, real: int) -> Tensor:
    """The distribution over the first `real` experts, given that it is one of them."""
    if real == probs_NE.shape[1]:
        return probs_NE
    kept_NE = probs_NE[:, :real]
    return kept_NE / kept_NE.sum(1, keepdim=True).clamp(min=torch.finfo(kept_NE.dtype).tiny)


def _added(earlier: Tensor | None, more: Tensor) -> Tensor:
    return more if earlier is None else earlier + more

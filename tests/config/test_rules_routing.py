"""Which of the routers' options go together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from config_cases import load

from spectra_exp.config.rules_routing import outputs_are_seen
from spectra_exp.foundations.errors import ConfigError

REFUSED = {
    "router=random router.shared=true": "router.shared: router=random has no parameters",
    "router=dense router.shared=true": "router.shared: router=dense has no parameters",
    "router.shared=true model.num_layers=1": "router.shared: model.num_layers=1 leaves no other layer",
    "router=random temperature=learned_token": "temperature.learned: router=random has no logits",
    "router=hash temperature=learned_global": "temperature.learned: router=hash has no logits",
    "temperature=cosine temperature.learned=layer": "temperature.learned: 'layer' and temperature.schedule=cosine",
    "temperature=learned_layer temperature.value=0.001": "temperature.value: 0.001 was given",
    "router.carry=final_state router.sequence=linear": "router.carry: 'final_state' needs a recurrence",
    "router.carry=final_state router.sequence=attention": "give router.sequence one of gru, gru_block, min_gru, lstm",
    "router=hash router.load_ema_strength=0.1": "router.load_ema_strength: router=hash has no scores",
    "router=expert_choice router.load_ema_strength=0.1": "router.load_ema_strength: selection=expert_choice",
    "router.orthogonalize_every=5": "would have no effect with no router.orthogonalization=periodic",
    "router.orthogonalization=none router.expression=embedding": "no effect with no router.expression=projector",
    "router.orthogonalization=newton_schulz router.ortho_coef=0.5": "router.ortho_coef: 0.5 would have no effect",
    "router=causal_bias router.strength=0 router.decay=0.5": "router.decay: 0.5 would have no effect",
    "router.expression=embedding router.ortho_coef=0.5": "router.ortho_coef: 0.5 would have no effect",
    "router.expression=running_mean osr.so_lambda_max=0.5": "osr.so_lambda_max: 0.5 would have no effect",
    "osr.potentials=quantile osr.settle_steps=0 osr.potential_rate=0.2": "osr.potential_rate: 0.2 would have no effect",
    "router.orthogonality_measure=logdet osr.srip_enabled=false": "osr.srip_enabled: False would have no effect",
    "router.orthogonality_measure=logdet osr.so_lambda_max=0": "router.orthogonality_measure: logdet would have no",
    "launch.max_seeds=5": "launch.max_seeds: 5 would have no effect with no launch.until_decided",
    "data=smoltalk data.path=. data.online=true": "data.online: True would have no effect with data.path",
    "data=smoltalk data.path=. data.revision=abc": "data.revision: abc would have no effect with data.path",
    "router=random selection=quota": "selection.rule: 'quota' does not go with router=random",
    "router=loss_free osr=paper": "osr: 'paper' would have no effect with router=loss_free",
    "router=random router.load_balance_coef=0.1": "router.load_balance_coef: router=random has no distribution",
    "losses.balance_scope=global_batch": "global_batch would have no effect with router.load_balance_coef=0",
    "router=switch router.load_balance_coef=0 losses.balance_scope=global_batch": "losses.balance_scope: global_batch",
    "router=dense losses.balance_scope=global_batch": "losses.balance_scope: global_batch would have no effect",
    "router=hash losses.balance_scope=sequence": "losses.balance_scope: sequence would have no effect",
    "baseline=quantile model.top_k=8": "router=quantile needs a (k+1)-th largest score, and 8 of 8",
    "baseline=bip model.top_k=8": "give at most 7",
    "router=quantile model.num_experts=64 trainer.batch_size=1 data.sequence_length=32": "trainer.batch_size: router="
    "quantile ranks the tokens of a step, and 32 are fewer than model.num_experts=64",
    "router=bip model.num_experts=33 trainer.batch_size=1 data.sequence_length=32 trainer.accumulation=2": "a batch",
    "baseline=output_orthogonality model.top_k=1": "model.top_k: router=output_orthogonality compares the outputs",
    "router=output_orthogonality selection=expert_choice": "selection.rule: 'expert_choice' does not go with",
    "baseline=remoe model.top_k=8": "model.top_k: router=remoe decides which experts a token leaves out, and 8 of 8",
    "router=expert_threshold model.top_k=8": "give at most 7",
    "router=remoe selection=topk": "selection.rule: 'topk' does not go with router=remoe",
    "router=switch selection=threshold": "selection.rule: 'threshold' does not go with router=switch",
    "router=remoe router.l1_factor=1": "router.l1_factor",
    "router=expert_threshold router.decay=1": "router.decay",
    "model.null_experts=8": "model.null_experts: 8 of model.num_experts=8 leave no expert that computes anything",
    "model.null_kind=copy": "model.null_kind: copy would have no effect with model.null_experts=0",
    "model.equal_to=flops": "model.equal_to: flops would have no effect with router=spectra",
    "baseline=quantile model.top_k=9": "9 of 8 experts leave none; give at most 7",
    "baseline=remoe model.top_k=9": "9 of 8 leave none; give at most 7",
    "router=dense model.num_shared=1": "model.num_shared: 1 would have no effect with router=dense",
    "router=dense model.null_experts=2": "model.null_experts: 2 would have no effect with router=dense",
    "router=dense model.equal_to=active": "model.equal_to: active would have no effect with router=dense",
    "baseline=switch_wide model.equal_to=flops": "baseline=switch_wide sets active",
    "router=quantile router.ema=1": "router.ema",
    "baseline=fine_grained model.expert_size=130": "baseline=fine_grained: model.expert_size would be f / 4 = "
    "32.5 with model.expert_size=130",
    "baseline=shared_expert model.top_k=1": "baseline=shared_expert: model.top_k would be k - 1 = 0",
    "baseline=null_experts model.num_experts=7": "baseline=null_experts: model.num_experts would be 3 * E / 2 = 10.5",
    "baseline=null_experts model.top_k=3": "baseline=null_experts: model.top_k would be 3 * k / 2 = 4.5",
    "baseline=null_experts model.null_experts=12": "12 was given, but baseline=null_experts sets E / 2",
    "baseline=fine_grained model=upcycle model.source=x": "baseline=fine_grained: sets model.expert_size, which "
    "model=upcycle does not have",
    "baseline=shared_expert model=reroute model.source=x": "model.num_experts is E - 1, and model.num_experts is not",
    "baseline=fine_grained baseline.sizes.top_k=k": "baseline.sizes",
    "baseline=loss_free_sequence losses.balance_scope=micro_batch": "baseline=loss_free_sequence sets sequence",
    "baseline=rmoe model.num_layers=1": "model.num_layers: router=rmoe passes a state between layers",
    "baseline=rmoe router.width=0": "router.width: 0 was given; must be at least 1",
    "baseline=mlp router.width=64 router.dim=8": "router.dim: 8 would have no effect with router.width",
    "baseline=causal_bias router.decay=1": "router.decay: 1.0 was given; must be at most 0.9999",
    "baseline=beta_memory_stateless router.recurrent=true": "baseline=beta_memory_stateless sets False",
    "osr.potentials=quantile model.top_k=8": "model.top_k: osr.potentials=quantile needs a (k+1)-th expert",
    "osr.settle_rule=quantile temperature=learned_expert": "osr.settle_rule: osr.settle_rule=quantile ranks by",
    "osr.online_rate=0.1 router.load_ema_strength=0.1": "osr.online_rate: osr.online_rate does not know of",
    "osr=paper osr.online_rate=0.1": "osr.online_rate: 0.1 would have no effect with no osr.sinkhorn_inference=dual",
    "osr.online_decay=0.5": "osr.online_decay: 0.5 would have no effect with osr.online_rate=0",
    "osr.settle_rule=quantile osr.settle_steps=0": "osr.settle_rule: quantile would have no effect with osr.settle_st",
    "router.sequence=gru router.gate_spread=experts": "router.gate_spread: experts would have no effect",
    "router.gate_bias_low=0": "router.gate_bias_low: 0 would have no effect with router.gate_spread=none",
    "router=switch losses.balance_scope=batch": "losses.balance_scope: 'batch' is not accepted",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_in_one_line_that_says_why(line):
    with pytest.raises(ConfigError) as error:
        load(line)
    assert REFUSED[line] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "router.shared=true router=switch",
        "router.carry=final_state router.sequence=min_gru",
        "router.orthogonalization=periodic router.orthogonalize_every=5",
        "router.orthogonalization=newton_schulz ablation=no_expression",
        "router.orthogonality_measure=mean_cosine router.similarity=bilinear",
        "router.load_ema_strength=0.1 selection=quota",
        "temperature=learned_expert temperature.value=2 router=sinkhorn",
        "baseline=loss_free router.score=softmax",
        "baseline=switch_top2 losses.balance_scope=global_batch",
        "router.sequence=linear model.equal_to=active",
        "router.load_balance_coef=0.01 losses.balance_scope=global_batch",
        "router.expression=embedding osr.so_lambda_max=0.5",
        "osr.potentials=quantile osr.settle_rule=nudges osr.settle_steps=5 osr.potential_rate=0.2",
    ],
)
def test_accepted(line):
    assert load(line).router.name


def test_losses_of_outputs_need_experts_of_our_own():
    """A source's own experts give their weighted sum alone."""
    x = SimpleNamespace(router=SimpleNamespace(name="output_orthogonality"), choices={"model": "reroute"})
    with pytest.raises(ConfigError, match="give model=upcycle"):
        outputs_are_seen(x)
    x.choices["model"] = "upcycle"
    outputs_are_seen(x)

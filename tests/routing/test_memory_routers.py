"""Routers of equal size, with a memory over tokens or over layers, or with a bias inside each sequence.

Each beside its wrong version. Letters: B sequences, S tokens each, N real tokens, d hidden size, E experts, W channels.
"""

from __future__ import annotations

import pytest
import torch
from router_cases import EXPERTS, HIDDEN, inputs_of, normal, router_of, settings_of
from torch.profiler import ProfilerActivity, profile

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields
from spectra_exp.routing.documents import Stretches
from spectra_exp.routing.routers.mlp import MlpConfig, MlpRouter
from spectra_exp.routing.sequence import ENCODERS

B, S = 3, 7


@pytest.mark.parametrize("sequence", ENCODERS)
@pytest.mark.parametrize(("hidden", "experts", "dim"), [(12, 4, 16), (128, 8, 16), (64, 32, 8)])
def test_mlp_is_as_large_as_spectras_router(sequence, hidden, experts, dim):
    """To the parameters of half a hidden unit; wrong version: as wide as the experts' vectors are together, E D."""
    from spectra_exp.routing.osr import OsrConfig
    from spectra_exp.routing.routers.spectra import SpectraConfig, SpectraRouter

    router = MlpRouter(hidden, experts, 2, MlpConfig(dim=dim, sequence=sequence))
    spectra = SpectraRouter(hidden, experts, 2, SpectraConfig(dim=dim, sequence=sequence), OsrConfig())
    wanted, got = (sum(p.numel() for p in r.parameters()) for r in (spectra, router))
    assert abs(got - wanted) <= (hidden + experts) / 2
    if sequence in ("gru", "gru_block", "min_gru", "lstm", "attention"):
        assert experts * dim * (hidden + experts) < 0.8 * wanted
    assert router.flops_per_token() == 2 * got


def test_mlp_width_can_be_given():
    assert router_of(settings_of("mlp", width=5)).up.weight.shape == (5, HIDDEN)
    with pytest.raises(ConfigError, match="router.width: 0 was given; must be at least 1"):
        check_fields(MlpConfig(width=0), "router")


def loop(router, hidden_BSd: torch.Tensor) -> torch.Tensor:
    """Logits [B, S, E] of the memory, one token after another."""
    memory_Bd, logits = torch.zeros(len(hidden_BSd), HIDDEN), []
    for t in range(hidden_BSd.shape[1]):
        memory_Bd = torch.sigmoid(router.decay_d) * memory_Bd + hidden_BSd[:, t]
        logits.append(router.linear(memory_Bd))
    return torch.stack(logits, dim=1)


@torch.no_grad()
def test_beta_memory_is_its_formula_and_starts_at_nine_tenths():
    router = router_of(settings_of("beta_memory"))
    torch.testing.assert_close(torch.sigmoid(router.decay_d), torch.full((HIDDEN,), 0.9), atol=1e-4, rtol=0)
    router.decay_d.copy_(normal(HIDDEN, seed=4))
    output = router(inputs_of())
    torch.testing.assert_close(output.logits_NE, loop(router, inputs_of().hidden_BSd).flatten(0, 1))
    # Wrong version: an average, which weighs a token by 1 − β.
    average_NE = output.logits_NE * 0.1
    assert not torch.allclose(average_NE, output.logits_NE, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("name", ["beta_memory", "causal_bias"])
def test_a_chunk_goes_on_from_the_state(name):
    router, hidden_BSd = router_of(settings_of(name)), inputs_of().hidden_BSd
    whole, state, parts = router(inputs_of()).scores_NE.view(B, S, EXPERTS), None, []
    for begin, end in ((0, 3), (3, 4), (4, 7)):
        output = router(inputs_of(B, end - begin, hidden_BSd=hidden_BSd[:, begin:end], state=state))
        state = output.state
        parts.append(output.scores_NE.view(B, end - begin, EXPERTS))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    # Wrong version: a chunk that forgets what was before it.
    forgot = router(inputs_of(B, 3, hidden_BSd=hidden_BSd[:, 4:])).scores_NE.view(B, 3, EXPERTS)
    assert (forgot - whole[:, 4:]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["beta_memory", "causal_bias"])
def test_documents_kept_apart_start_anew(name):
    """As `data.cross_document` says; wrong version: the memory of the one before."""
    router = router_of(settings_of(name))
    apart = Stretches.of(torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).expand(B, S))
    whole, split = router(inputs_of()).scores_NE, router(inputs_of(stretches=apart)).scores_NE
    second = router(inputs_of(B, 4, hidden_BSd=inputs_of().hidden_BSd[:, 3:])).scores_NE
    torch.testing.assert_close(split.view(B, S, EXPERTS)[:, 3:].flatten(0, 1), second)
    assert not torch.allclose(whole, split, atol=1e-3)


@pytest.mark.parametrize("name", ["beta_memory", "causal_bias"])
def test_no_loop_over_tokens(name):
    """The number of operations grows with log S; wrong version: `loop` above."""

    def calls(length: int) -> int:
        router, inputs = router_of(settings_of(name)), inputs_of(1, length)
        with profile(activities=[ProfilerActivity.CPU]) as seen, torch.no_grad():
            router(inputs)
        return sum(event.count for event in seen.key_averages())

    assert calls(512) - calls(256) == calls(256) - calls(128) < 128


@torch.no_grad()
@pytest.mark.parametrize("name", ["beta_memory", "rmoe"])
def test_the_control_has_the_same_weights_and_no_state(name):
    """Wrong version: a control of weights of its own, whose difference would be the draw's."""
    full, control = (router_of(settings_of(name, recurrent=r)) for r in (True, False))
    shared = dict(full.named_parameters())
    assert all(torch.equal(value, shared[n]) for n, value in control.named_parameters())
    changed = inputs_of().hidden_BSd.clone()
    changed[:, 0] += 2
    carry = full(inputs_of(seed=9)).carry_BSED
    for router, sees in ((full, True), (control, False)):
        before = router(inputs_of()).scores_NE.view(B, S, EXPERTS)
        after = router(inputs_of(hidden_BSd=changed, carry_BSED=carry)).scores_NE.view(B, S, EXPERTS)
        assert torch.equal(before[:, 1:], after[:, 1:]) != sees
    assert control(inputs_of()).state is None


@torch.no_grad()
def test_rmoe_is_a_gru_cell_over_layers():
    router = router_of(settings_of("rmoe", width=6))
    below = normal(B, S, 1, 6, seed=3)
    output = router(inputs_of(carry_BSED=below))
    cell = torch.nn.GRUCell(6, 6)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in router.gru.named_parameters()})
    projected_Nd = router.projection(inputs_of().hidden_BSd).flatten(0, 1)
    state_NH = cell(projected_Nd, below.flatten(0, 2))
    torch.testing.assert_close(output.carry_BSED.flatten(0, 2), state_NH)
    torch.testing.assert_close(output.logits_NE, router.linear(state_NH))
    # Wrong version: a recurrence over tokens, the sequence handed to the kernel as it is.
    over_tokens = router.gru(router.projection(inputs_of().hidden_BSd))[0].flatten(0, 1)
    assert not torch.allclose(over_tokens, state_NH, atol=1e-2)


@torch.no_grad()
def test_causal_bias_is_its_formula():
    router = router_of(settings_of("causal_bias", strength=0.3, decay=0.8))
    output = router(inputs_of())
    shares, scores = (x.view(B, S, EXPERTS) for x in (output.probs_NE, output.weights_NE))
    mass_BE, expected = torch.full((B, EXPERTS), 1 / EXPERTS), []
    for t in range(S):
        expected.append(scores[:, t] - 0.3 * (EXPERTS * mass_BE - 1))
        mass_BE = 0.8 * mass_BE + 0.2 * shares[:, t]
    torch.testing.assert_close(output.scores_NE.view(B, S, EXPERTS), torch.stack(expected, 1))
    torch.testing.assert_close(output.weights_NE, torch.sigmoid(output.logits_NE))
    # Wrong version: a mass that holds the token's own scores.
    own = scores[:, 0] - 0.3 * (EXPERTS * (0.8 / EXPERTS + 0.2 * shares[:, 0]) - 1)
    assert (own - expected[0]).abs().max() > 1e-2


@torch.no_grad()
def test_causal_bias_levels_each_sequence_and_the_wrong_sign_tilts_it():
    hidden_BSd = normal(8, 128, HIDDEN) * 0.5 + 2 * normal(8, 1, HIDDEN, seed=1)

    def imbalance(strength: float) -> float:
        router = router_of(settings_of("causal_bias", strength=abs(strength)))
        router.config.strength = strength
        scores = router(inputs_of(8, 128, hidden_BSd=hidden_BSd)).scores_NE.view(8, 128, EXPERTS)
        load_BE = torch.zeros(8, EXPERTS).scatter_add_(1, scores.topk(2).indices.flatten(1), torch.ones(8, 256))
        return float((load_BE.std(1, unbiased=False) / load_BE.mean(1)).mean())

    assert imbalance(0.4) < 0.8 * imbalance(0.0) < imbalance(-1.0)

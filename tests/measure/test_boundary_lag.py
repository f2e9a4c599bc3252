"""boundary_lag: routing that lags by a known number of tokens, made by hand, and as random routing would have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from routing_cases import layer_of, routings, statistics_of, tokens_of

from spectra_exp.measure import boundaries
from spectra_exp.measure.boundaries import WINDOW, boundary_lag, lean_H, since_boundary
from spectra_exp.measure.floors import evaluation_floors
from spectra_exp.measure.merge import merged

LENGTH = 80


def lagging(lag: int, noise: float = 0.0, pairs: int = 60, seed: int = 0, kept_apart: bool = False):
    """One layer's statistics: each sequence has a document of one domain and one of another, of which the routing,
    `noise` of it random, takes notice `lag` tokens late."""
    rng = np.random.default_rng(seed)
    experts, documents, domains, sequences = [], [], [], []
    for pair in range(pairs):
        first, second = rng.choice(3, 2, replace=False)
        of = np.repeat([first, second], LENGTH)
        seen = np.concatenate([np.full(LENGTH + lag, first), np.full(LENGTH - lag, second)])
        # Each domain has two experts of its own of six.
        chosen = 2 * seen + rng.integers(2, size=2 * LENGTH)
        drawn = rng.random(2 * LENGTH) < noise
        experts += np.where(drawn, rng.integers(6, size=2 * LENGTH), chosen).tolist()
        domains += of.tolist()
        documents += np.repeat([2 * pair, 2 * pair + 1], LENGTH).tolist()
        sequences += np.repeat([2 * pair, 2 * pair + kept_apart], LENGTH).tolist()
    return layer_of([[e] for e in experts], 6, 1, documents=documents, domains=domains, sequences=sequences)


@pytest.mark.parametrize("lag", [1, 2, 5, 11, 20])
@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_a_lag_is_found(lag: int, noise: float) -> None:
    assert boundary_lag(lagging(lag, noise)) == pytest.approx(lag, abs=0.05 + 2 * noise)


def test_routing_that_follows_at_once_has_none_and_one_that_never_does_has_the_window() -> None:
    assert boundary_lag(lagging(0)) == 0.0
    assert boundary_lag(lagging(LENGTH - 1)) is not None
    assert boundary_lag(lagging(40)) == WINDOW


def test_documents_kept_apart_and_a_single_domain_have_no_boundary() -> None:
    assert boundary_lag(lagging(5, kept_apart=True)) is None
    assert boundary_lag(layer_of([[0], [1], [0]], 2, 1)) is None
    # A domain of which nothing but a window is there has no profile.
    assert boundary_lag(layer_of([[0], [0], [1]], 2, 1, documents=[0, 0, 1], domains=[0, 0, 1])) is None


def test_places_after_a_boundary_by_hand() -> None:
    tokens = tokens_of(
        9,
        documents=[0, 0, 1, 1, 2, 3, 3, 4, 4],
        domains=[0, 0, 1, 1, 1, 2, 2, -1, 0],
        sequences=[0, 0, 0, 0, 0, 0, 1, 1, 1],
    )
    since_N, before_N = since_boundary(tokens)
    # Another document of the same domain is no boundary; a new sequence and an unknown domain are none either.
    assert since_N.tolist() == [-1, -1, 0, 1, 2, 0, -1, -1, -1]
    assert before_N[since_N >= 0].tolist() == [0, 0, 0, 1]


def test_the_window_is_not_in_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: profiles over all tokens. Where documents are short a lagging window then looks settled."""
    short = lagging(25)
    assert boundary_lag(short) == pytest.approx(25, abs=1)
    whole = short.settled_ME + short.after_HME.sum(axis=0)
    wrong = type(short)(**(vars(short) | {"settled_ME": whole}))
    assert not np.allclose(lean_H(wrong)[:20], lean_H(short)[:20], rtol=0.2)


def test_planted_fault_the_profiles_change_places() -> None:
    late = lagging(6)
    swapped = type(late)(**(vars(late) | {"after_HME": late.before_HME, "before_HME": late.after_HME}))
    # Nearer the old domain would then be called nearer the new one: no lag at all.
    assert boundary_lag(late) == pytest.approx(6, abs=0.6) and boundary_lag(swapped) == 0.0


def test_chance_has_the_loads_and_no_knowledge_of_domains() -> None:
    stats = lagging(20, noise=0.3)
    drawn = boundaries.random_boundaries(stats, np.random.default_rng(0))
    for name in ("after_HME", "before_HME", "settled_ME"):
        table = getattr(drawn, name)
        assert (table.sum(axis=-1) == getattr(stats, name).sum(axis=-1)).all() and (table >= 0).all()
    assert (drawn.after_HME.sum(axis=1) == drawn.before_HME.sum(axis=1)).all()
    floors = evaluation_floors(stats)
    assert 0 <= floors["boundary_lag"] < 10 < boundary_lag(stats)


@settings(max_examples=20)
@given(routings())
def test_parts_add_up_to_the_whole_and_ranks_to_one(routing) -> None:
    records, tokens, top_k = routing
    whole = statistics_of(records, tokens, top_k)[0]
    known = tokens.domain_ids_N >= 0
    assert whole.after_HME.sum() + whole.settled_ME.sum() == int(records[0].chosen_NE[known].sum())
    twice = merged([whole, whole])
    assert (twice.after_HME == 2 * whole.after_HME).all() and (twice.settled_ME == 2 * whole.settled_ME).all()

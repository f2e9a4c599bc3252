"""Domains: routings whose right answers are known, scikit-learn, and the right kind of chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_subjects import (
    DOMAINS,
    at_random,
    by_document,
    by_domain,
    by_token,
    held_out,
    made_documents,
    made_request,
    two_of_four,
)
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score, silhouette_score

from spectra_exp.interpret.parts import affinity as affinity_part
from spectra_exp.interpret.parts.affinity import affinity, significance
from spectra_exp.interpret.parts.separation import separation
from spectra_exp.interpret.parts.vocabulary import vocabulary


def figure(table: pd.DataFrame, metric: str, layer: int = 0) -> pd.Series:
    return table[(table["metric"] == metric) & (table["layer"] == layer)].iloc[0]


def matrix(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[table["layer"] == 0].pivot(index="domain", columns="expert", values=name).to_numpy()


def test_a_router_that_is_a_function_of_the_domain_is_pure() -> None:
    request = made_request(by_domain)
    result = affinity(request)
    shares_M = np.bincount(request.subject.trace.domains_N) / request.subject.trace.num_tokens
    assert matrix(result.tables["purity"], "purity") == pytest.approx(np.eye(4))
    # P(e | d) / P(e) is 1 / P(d), which is D for domains of one size.
    assert matrix(result.tables["affinity"], "affinity") == pytest.approx(np.diag(1 / shares_M))
    assert np.diag(1 / shares_M) == pytest.approx(4 * np.eye(4), abs=0.2)
    purity = figure(result.tables["significance"], "domain_purity")
    assert purity["value"] == pytest.approx(1) and purity["p"] == pytest.approx(1 / 500)
    information = figure(result.tables["significance"], "domain_mutual_information")
    assert information["value"] == pytest.approx(math.log(len(DOMAINS)), abs=0.01)


def test_a_large_domain_weighs_no_more_than_a_small_one() -> None:
    """Experts that serve all domains alike are a quarter each domain's, though one domain has most of the text."""

    def in_turn(ids_N, documents_N):
        return (np.arange(len(ids_N)) % 4)[:, None]

    few = made_documents(3)
    most = [d for d in made_documents(30, seed=1) if d.domain == DOMAINS[0]]
    request = made_request(in_turn, text=held_out([*few, *most]))
    shares = matrix(affinity(request).tables["purity"], "purity")
    assert request.subject.trace.statistics[0].counts_ME.sum(axis=1)[0] > 1000
    assert shares == pytest.approx(np.full((4, 4), 0.25), abs=0.02)


def test_random_routing_sits_at_the_floor() -> None:
    request = made_request(at_random)
    table = affinity(request).tables["significance"]
    for metric in ("domain_purity", "domain_mutual_information"):
        row = figure(table, metric)
        assert row["chance_low"] <= row["value"] <= row["chance_high"] and row["p"] > 0.02
    row = figure(vocabulary(request).tables["vocabulary"], "vocabulary_specialization")
    assert row["chance_low"] - 0.005 <= row["value"] <= row["chance_high"] + 0.005 and row["p"] > 0.02
    row = figure(separation(request).tables["separation"], "expert_diversity")
    assert row["value"] == pytest.approx(row["chance"], abs=0.003)


def test_routing_by_document_is_no_evidence_of_domains() -> None:
    row = figure(affinity(made_request(by_document)).tables["significance"], "domain_mutual_information")
    assert row["value"] > 0.01 and row["p"] > 0.05


def test_chance_by_single_tokens_would_call_that_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: domains shuffled token by token make any routing by document significant."""
    subject = made_request(by_document).subject
    trace = subject.trace

    def token_draws(stats, seed, draws):
        rng = np.random.default_rng(seed)
        for _ in range(draws):
            counts = np.zeros((stats.num_domains, stats.num_experts), dtype=np.int64)
            np.add.at(counts, (rng.permutation(trace.domains_N), trace.first_NL[:, 0]), 1)
            yield _Counts(counts)

    monkeypatch.setattr(affinity_part, "document_draws", token_draws)
    row = figure(significance(trace.statistics, 0), "domain_mutual_information")
    assert row["p"] < 0.01


class _Counts:
    """Statistics that know their counts by domain alone."""

    def __init__(self, counts_ME: np.ndarray):
        self.counts_ME = counts_ME


def test_mutual_information_is_scikit_learns() -> None:
    request = made_request(by_token, at_random)
    table, trace = affinity(request).tables["significance"], request.subject.trace
    for layer in (0, 1):
        expected = mutual_info_score(trace.domains_N, trace.first_NL[:, layer])
        assert figure(table, "domain_mutual_information", layer)["value"] == pytest.approx(expected)


def test_silhouette_and_diversity_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectra_exp.interpret.parts import separation as module

    monkeypatch.setattr(module, "LEAST_TOKENS", 100)
    request = made_request(two_of_four, top_k=2)
    table, trace = separation(request).tables["separation"], request.subject.trace
    labels = trace.first_NL[trace.sample_H, 0]
    expected = silhouette_score(trace.hidden_LHd[0], labels, metric="cosine")
    assert figure(table, "silhouette")["value"] == pytest.approx(expected, abs=1e-5)
    used = trace.used(0)
    pairs = [normalized_mutual_info_score(used[:, i], used[:, j]) for i in range(4) for j in range(i)]
    assert figure(table, "expert_diversity")["value"] == pytest.approx(1 - np.mean(pairs))


def test_too_few_tokens_have_no_silhouette_and_it_is_said() -> None:
    result = separation(made_request(by_domain))
    assert figure(result.tables["separation"], "silhouette")[["value", "p"]].isna().all()
    assert any("needs at least 2000 tokens" in note for note in result.notes)


def test_a_router_of_token_ids_is_specialized_in_vocabulary() -> None:
    result = vocabulary(made_request(by_token, by_domain))
    by_id, domain = (figure(result.tables["vocabulary"], "vocabulary_specialization", layer) for layer in (0, 1))
    assert by_id["value"] == 1 and by_id["p"] == pytest.approx(1 / 50)
    # The words that the domains share go to all four experts.
    assert 0.5 < domain["value"] < 0.95
    owned = result.tables["by_expert"]
    assert (owned[owned["layer"] == 0]["mean_share"] == 1).all()

"""Losses of a sample of the held-out text when routing is not what the router decided.

Letters: N sampled tokens, L layers, E experts, M domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch

from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import HeldOut, evenly, mean_of, token_losses
from spectra_exp.moe.interventions import Intervention, intervening
from spectra_exp.statistics.intervals import Interval
from spectra_exp.statistics.resampling import mean_over_documents

# From the domains of a pass's tokens to what its layers do instead.
Plan = Callable[[np.ndarray], Mapping[int, Intervention]]


class Rerouted:
    """Scores one sample of whole blocks, evenly spread over the text, again and again.

    `base_N`: nats of predicting each token as routed, NaN for the first of a block.
    """

    def __init__(self, subject: Subject, tokens: int):
        self.subject, self.text = subject, sample_of(subject.held_out, tokens)
        self.domains_N, self.documents_N = self.text.domain_ids_MS.ravel(), self.text.document_ids_MS.ravel()
        self.base_N = self.losses(always({}))

    @torch.no_grad()
    def losses(self, plan: Plan) -> np.ndarray:
        """float32 [N]: the losses under the plan."""
        engine, found = self.subject.engine, []
        rows, length = self.text.token_ids_MS.shape
        step = engine.rows_at_once(length)
        for start in range(0, rows, step):
            ids_BS, documents_BS, domains_BS = self.text.batch(start, step)
            with intervening(self.subject.own_run.model, plan(domains_BS.flatten().numpy())):
                found.append(token_losses(engine.forward(ids_BS, documents_BS).logits_BSV, ids_BS))
        return np.concatenate(found)

    def added(self, plan: Plan) -> np.ndarray:
        """float32 [N]: what the plan adds to the loss of each token."""
        return self.losses(plan) - self.base_N

    def mean_added(self, added_N: np.ndarray, seed: int, domain: int | None = None) -> Interval | None:
        """Mean over the tokens (of one domain) with its interval over documents; None where it has no scored token."""
        own_N = in_domain(self.domains_N, domain)
        return mean_over_documents(added_N[own_N], self.documents_N[own_N], seed)


def in_domain(domains_N: np.ndarray, domain: int | None) -> np.ndarray:
    """bool [N]: which tokens are of the domain; all of them where it is None."""
    return np.ones(len(domains_N), dtype=bool) if domain is None else domains_N == domain


def always(interventions: Mapping[int, Intervention]) -> Plan:
    """The plan of these interventions, whatever the tokens."""
    return lambda domains_N: interventions


def sample_of(text: HeldOut, tokens: int) -> HeldOut:
    """At most `tokens` tokens of the text in whole blocks, evenly spread over it; at least one block."""
    rows, length = text.token_ids_MS.shape
    chosen = evenly(rows, max(1, tokens // length))
    ids, documents, domains = (np.ascontiguousarray(array[chosen], dtype=np.int64) for array in text.arrays)
    return HeldOut(ids, documents, domains, text.domains)


def correlation_within_layers(rows: pd.DataFrame, x: str, y: str) -> float | None:
    """Mean over the layers of the rank correlation of two columns; None where no layer has one.

    Pooled over layers it would mostly tell which layers matter.
    """
    layers = rows.dropna(subset=[x, y]).groupby("layer")
    return mean_of([rank_correlation(own[x].to_numpy(float), own[y].to_numpy(float)) for _, own in layers])


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation; None for fewer than three points or where one side does not vary."""
    from scipy.stats import spearmanr

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)

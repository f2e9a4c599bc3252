"""The paper's hypotheses as stated tests over finished runs: docs/metrics.md, Tests and hypotheses."""

from spectra_exp.reporting.hypotheses.catalogue import HYPOTHESES, Verdict, all_verdicts
from spectra_exp.reporting.hypotheses.table import hypotheses_table

__all__ = ["HYPOTHESES", "Verdict", "all_verdicts", "hypotheses_table"]

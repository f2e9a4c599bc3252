"""`spectra-exp figures` by its name in the last version."""

from spectra_exp.config.verb import renamed
from spectra_exp.reporting.make_figures import main

if __name__ == "__main__":
    raise SystemExit(renamed("spectra_exp.analysis.figures", "figures", main))

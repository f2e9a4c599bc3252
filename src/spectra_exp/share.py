"""`spectra-exp share` by its name in the last version."""

from spectra_exp.config.verb import renamed
from spectra_exp.reporting.share import main

if __name__ == "__main__":
    raise SystemExit(renamed("spectra_exp.share", "share", main))

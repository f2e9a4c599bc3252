"""`spectra-exp study` by its name in the last version."""

from spectra_exp.config.verb import renamed
from spectra_exp.studies.listing import main

if __name__ == "__main__":
    raise SystemExit(renamed("spectra_exp.studies", "study", main))

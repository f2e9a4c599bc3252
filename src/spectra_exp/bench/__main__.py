"""`spectra-exp bench` by its name in the last version."""

from spectra_exp.bench.command import main
from spectra_exp.config.verb import renamed

if __name__ == "__main__":
    raise SystemExit(renamed("spectra_exp.bench", "bench", main))

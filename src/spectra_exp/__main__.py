"""`python -m spectra_exp VERB ...`, which is `spectra-exp VERB ...`."""

from spectra_exp.cli import command

if __name__ == "__main__":
    raise SystemExit(command())

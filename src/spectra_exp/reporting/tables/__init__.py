"""Every table of the paper, from whatever runs there are: `python -m spectra_exp.reporting.tables`."""

"""The report: one page to read and to share, and a page per run: `python -m spectra_exp.reporting.report`."""

"""The report: one page to read and to share, and a page per run: `spectra-exp report`."""

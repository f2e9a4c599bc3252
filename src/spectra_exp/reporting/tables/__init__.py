"""Every table of the paper, from whatever runs there are: `spectra-exp tables`."""

"""spectra-exp: train Mixture-of-Experts language models under many routers and measure their routing."""

from spectra_exp.autoload import register_with_transformers

__version__ = "0.1.0"

register_with_transformers()

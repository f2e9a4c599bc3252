"""spectra-exp: train Mixture-of-Experts language models under many routers and measure their routing."""

__version__ = "0.1.0"

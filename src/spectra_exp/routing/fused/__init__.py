"""Loops of routing as a few Triton kernels; importing a module of this package needs triton."""

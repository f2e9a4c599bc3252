"""Reads the routing of stock sparse models of Hugging Face, by hooks: the monitor and the interpretation use it."""

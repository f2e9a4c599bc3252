"""Trainer callbacks, one per file."""

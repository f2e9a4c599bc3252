"""One module for each part of an analysis; `registry.parts` finds them by themselves."""

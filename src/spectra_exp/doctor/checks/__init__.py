"""The checks, each a function of an examined model; a file holds those of one kind and is found by itself."""

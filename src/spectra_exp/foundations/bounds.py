"""Upper bounds of keys: far above any use, and below what overflows, never ends or fits no machine."""

from __future__ import annotations

# NumPy takes no larger one.
LARGEST_SEED = 2**32 - 1
# Optimizer steps, tokens, rows, bytes, seconds: counts that only take time.
LARGEST_COUNT = 10**9
# Tokens in a sequence, entries of a vocabulary, sequences in a batch.
LARGEST_LENGTH = 2**20
# Width of a matrix.
LARGEST_WIDTH = 2**18
MOST_EXPERTS = 2**16
MOST_LAYERS = 2**10
MOST_HEADS = 2**10
# Scalings of one transport, all of which are kept for the backward pass.
MOST_ITERATIONS = 10**4
# Words that the package writes itself.
MOST_WORDS = 10**8
# Each domain has a document at least, however few words are asked for.
MOST_WORDS_OF_A_DOCUMENT = 10**6
# Threads of one process, whose stacks count as its memory.
MOST_THREADS = 2**8
MOST_PROCESSES = 2**10
MOST_JOBS = 2**12
# Jobs that one line stands for.
MOST_OF_A_SWEEP = 10**6
# Seeds of a design with looks, whose levels are simulated.
MOST_LOOKED_AT = 100
# MiB: a pebibyte.
LARGEST_MEMORY = 2**30
# Weights of losses and costs, temperatures and the like, whose defaults are near 1 or below.
LARGEST_WEIGHT = 1e4
# Learning rates and other steps.
LARGEST_RATE = 100.0
# Bytes of a text; with what a run adds to a folder's name a path stays below the 4,096 of Linux.
LONGEST_TEXT = 2**11
# Bytes of one name in a path.
LONGEST_NAME = 255

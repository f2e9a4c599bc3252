from __future__ import annotations

import sys
from pathlib import Path

# The made runs of the tests of tables and the small run of the tests of kills serve here too.
sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("analysis", "end_to_end")]

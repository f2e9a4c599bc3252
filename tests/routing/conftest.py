from __future__ import annotations

import sys
from pathlib import Path

# Whole small models, which the tests of the moe room are made of, serve here too.
sys.path.insert(0, str(Path(__file__).parents[1] / "moe"))

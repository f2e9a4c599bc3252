from __future__ import annotations

import sys
from pathlib import Path

# The routings that the tests of the records room are made of serve here too.
sys.path.insert(0, str(Path(__file__).parents[1] / "records"))

"""Train and measure one run, or with -m many: python train.py --help."""

import os
from pathlib import Path

os.environ["SPECTRA_ROOT"] = str(Path(__file__).resolve().parent)

from spectra_exp.cli import main  # noqa: E402  the root must be known first

if __name__ == "__main__":
    raise SystemExit(main())

"""Prints the lowest version of each dependency that pyproject.toml admits, as constraints for pip; torch's stays."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    name, lowest = re.match(r"([\w-]+)[>=]=([\d.]+)", requirement).groups()
    if name != "torch":
        print(f"{name}=={lowest}")

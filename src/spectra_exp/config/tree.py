"""Where `conf/`, studies and downstream tasks lie: the project's own, and those of plug-ins and of one's work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import ConfigError

# The folders that hold studies; each is also the word that chooses one on the command line.
KINDS = ("sweeps", "ablations", "replications")

_PACKAGE = Path(__file__).resolve().parents[1]
# What the wheel holds of the checkout's folders: conf/, those of KINDS, downstream/, paper/.
_SHIPPED = _PACKAGE / "_shipped"
# The folders of the plug-ins that were imported.
_beside_plugins: dict[Path, None] = {}


def project_root() -> Path:
    """The folder that holds the project's `conf/`: SPECTRA_ROOT, else what was installed, else the checkout."""
    if root := os.environ.get("SPECTRA_ROOT"):
        return Path(root)
    return _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1]


def installed() -> bool:
    """Whether the package is used without a checkout, and so without `make` and `train.py`."""
    return project_root() == _SHIPPED


def train_words() -> list[str]:
    """The words that begin a command which trains."""
    return ["spectra-exp", "run"] if installed() else ["python", "train.py"]


def default_outputs() -> Path:
    """Where outputs go unless told: the checkout's outputs/; where the package is installed, that of the folder."""
    return (Path.cwd() if installed() else project_root()) / "outputs"


def add_root(folder: Path) -> None:
    """Have the options and studies beside a plug-in found."""
    if is_own(folder):
        _beside_plugins[folder.resolve()] = None


def is_own(folder: Path) -> bool:
    """Whether the folder has a `conf/` that adds to the project's; one with own defaults is another project's."""
    primary = folder / "conf" / "config.yaml"
    return primary.parent.is_dir() and not (primary.is_file() and b"defaults:" in primary.read_bytes())


def roots() -> tuple[Path, ...]:
    """The folders whose `conf/`, studies and `downstream/` count: the project's, plug-ins', this one."""
    work = Path.cwd()
    own = [*_beside_plugins, *([work] if is_own(work) else [])]
    return tuple(dict.fromkeys([project_root(), *own]))


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file; an empty one has none. Raises ConfigError, which names it, for what is no such file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    # A ValueError: a date that there is not.
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(str(path), " ".join(str(error).split())) from error
    if not isinstance(content, dict | None):
        raise ConfigError(str(path), "does not hold keys and their values", "write lines of `key: value`")
    return content or {}


def option_files(group: str) -> dict[str, Path]:
    """The file of each option of a group, in the order of their names. ConfigError for a name that stands twice."""
    found = named_files(f"conf/{group}")
    return {name: found[name] for name in sorted(found)}


def check_names() -> None:
    """Raise ConfigError for a name that stands twice among the options, studies and downstream tasks of all roots."""
    if len(roots()) > 1:
        groups = {f"conf/{path.name}" for root in roots() for path in (root / "conf").glob("*/")}
        for folder in sorted(groups | {*KINDS, "downstream"}):
            named_files(folder)


def named_files(folder: str) -> dict[str, Path]:
    """The YAML files in that folder of every root by their names. ConfigError for a name that stands twice."""
    found: dict[str, Path] = {}
    for root in roots():
        for path in sorted((root / folder).glob("*.yaml")):
            if path.stem in found:
                raise ConfigError(str(path), f"{found[path.stem]} has the same name", "give it another name")
            found[path.stem] = path
    return found

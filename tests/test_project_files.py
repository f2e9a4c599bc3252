"""What stands beside the code is of one version, and its commands are commands that there are."""

from __future__ import annotations

import re
import shlex

import yaml

import spectra_exp
from spectra_exp.cli import VERBS
from spectra_exp.config.tree import project_root
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs

ROOT = project_root()


def test_one_version_and_one_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert cited["version"] == spectra_exp.__version__ and f'version = "{cited["version"]}"' in project
    assert cited["license"] == "Apache-2.0" and 'license = "Apache-2.0"' in project
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_the_workflow_and_the_hooks_run_what_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yaml").read_text())
    steps = [step["run"].split() for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert steps and all(words[0] == "make" and set(words[1:]) <= targets for words in steps)
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for words in re.findall(r"^make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.M):
        assert words in targets


def test_the_scripts_for_a_cluster_launch_a_study():
    for path in (ROOT / "slurm").iterdir():
        (line,) = (line for line in path.read_text().splitlines() if "spectra-exp" in line)
        words = shlex.split(line.removeprefix("exec "))
        assert words[:1] == ["spectra-exp"] and words[1] in VERBS
        choice, *typed = (word.replace("${1:-baselines}", "baselines") for word in words[2:] if word != "${@:2}")
        kind, _, name = choice.partition("=")
        assert len(study_jobs(load_study(name, kind), typed)) >= 5 * 8

"""Each recipe of docs/howto/router.md: one thing of each kind is added outside the package, and no file is touched.

The files that the page shows are used as they stand there.
`tests/throwaway` holds a router, a selection rule, a metric and a data source as one module, and an ablation; with a
copy of the project's own options they make a root of their own, in a temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import MODEL

from spectra_exp.config.tree import project_root

ADDED = Path(__file__).parent / "throwaway"
SMALL = [
    *MODEL,
    "data.sequence_length=32",
    "data.vocabulary_size=300",
    "data.evaluation_tokens=1024",
    "data.probe_tokens=256",
    "trainer.batch_size=4",
    "trainer.max_steps=3",
    "logger.progress=false",
]
PARTS = ["plugins=[throwaway_parts]", "router=throwaway", "selection=throwaway", "data=throwaway"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the project's own options and studies, and what is added."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("conf", "sweeps", "ablations"):
        shutil.copytree(project_root() / name, folder / name)
    shutil.copytree(ADDED, folder, dirs_exist_ok=True)
    return folder


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the project in that root."""
    places = [str(root), str(project_root() / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "SPECTRA_ROOT": str(root),
        "SPECTRA_OUTPUTS": str(root / "outputs"),
        "PYTHONPATH": os.pathsep.join(places),
    }
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True, timeout=300
    )


def train(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run(root, "-m", "spectra_exp", "run", *SMALL, *overrides)


@pytest.mark.slow
def test_the_files_of_the_page_are_a_plug_in_that_trains_and_is_tabulated(tmp_path):
    text = (project_root() / "docs" / "howto" / "router.md").read_text(encoding="utf-8")
    files = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, re.M | re.S))
    assert {Path(name).parts[0] for name in files} > {"conf", "sweeps", "my_router.py"} and len(files) == 11
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    places = [str(project_root() / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"SPECTRA_OUTPUTS": str(tmp_path / "outputs"), "PYTHONPATH": os.pathsep.join(places)}
    environment.pop("SPECTRA_ROOT", None)
    mine = ["sweeps=sharpness", "router.sharpness=1", "selection=above_mean", "data=counting", "seed=0"]
    for words in (
        ["pytest", "-q", "-p", "no:cacheprovider", "."],
        ["spectra_exp", "run", "ablation=no_carry", "osr=causal", "--cfg", "job"],
        ["spectra_exp", "run", *mine, *SMALL, "launch.view=false"],
        ["spectra_exp", "tables", "study=sharpness", "show=sharpness"],
    ):
        command = [sys.executable, "-m", *words]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    tables = tmp_path / "outputs" / "tables" / "sharpness"
    assert "busiest_share" in (tables / "sharpness.md").read_text().partition("Mine")[2]
    kept = (tables / "routing_metrics.md").read_text()
    assert "Own metrics" in kept and "busiest_share" in kept.partition("What chance gives")[2]


# Prints the exit status of each of the command lines that it is given.
EACH = "import json, sys; from spectra_exp.cli import main; print([main(line) for line in json.loads(sys.argv[1])])"


@pytest.mark.slow
def test_router_rule_metric_and_source_train_and_are_measured(root):
    ended = train(root, *PARTS, "router.sharpness=3", "data.documents=50")
    assert ended.returncode == 0, ended.stderr
    folder = Path(ended.stdout.strip().splitlines()[-1])
    summary = json.loads((folder / "summary.json").read_text())
    assert folder.name.startswith("throwaway-throwaway-e4k2-throwaway-s0-") and summary["status"] == "completed"
    assert 0.25 <= summary["metrics"]["busiest_share"] <= 1 and 0.25 <= summary["floors"]["busiest_share"] <= 1
    assert {"val_loss_up", "val_loss_down"} <= set(summary["metrics"])
    # Its own rule holds in evaluation too: it sees one token at a time, and gives tokens different numbers of experts.
    assert summary["causal"] and summary["causal_training"] and not summary["metrics_training_rule"]
    # In a worker process as well.
    ended = train(root, *PARTS, "-m", "seed=1", "launch=parallel", "launch.view=false")
    assert ended.returncode == 0, ended.stderr


def test_they_keep_the_contracts(root):
    """The contract tests of this folder find a plug-in by themselves."""
    tests = Path(__file__).parent
    files = [tests / "routing" / "test_router_contract.py", tests / "moe" / "test_executed.py"]
    named = ["-k", "throwaway", *map(str, files)]
    ended = run(root, "-m", "pytest", "-p", "no:cacheprovider", "-p", "throwaway_parts", *named)
    assert ended.returncode == 0, ended.stdout
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) > 30


@pytest.mark.slow
def test_an_ablation_stands_in_its_study_and_in_the_table(root):
    shown = run(root, "-m", "spectra_exp", "study", "show", "core", "seed=0", "osr=causal", "json=true")
    assert shown.returncode == 0, shown.stderr
    overrides = [run["overrides"] for run in json.loads(shown.stdout)["runs"]]
    names = [part.removeprefix("ablation=") for line in overrides for part in line if part.startswith("ablation=")]
    assert names[-2:] == ["no_carry", "cumulative_6"] and len(names) == len(overrides) == 13
    short = ["data.train_words=20000", "data.validation_words=4000", "launch.view=false"]
    ended = train(root, "ablations=core", "ablation=no_carry", "seed=0", "osr=causal", *short)
    assert ended.returncode == 0, ended.stderr
    ended = run(root, "-m", "spectra_exp", "tables", "study=core")
    assert ended.returncode == 0, ended.stderr
    assert "− Carry" in (root / "outputs" / "tables" / "core" / "table07_ablation.md").read_text()


METRIC = "from spectra_exp.measure.base import metric\n"
# Command lines, in the order of one process, and what each of them is told.
REFUSED = (
    (["selection=nowhere"], "selection.rule: 'nowhere' is not accepted; valid: topk, quota"),
    (["router=nowhere"], "schema_nowhere"),
    (["data=nowhere"], "schema_nowhere"),
    (["selection=throwaway", "router=switch"], "selection.rule: 'throwaway' is not accepted"),
    (["plugins=[throwaway_part]"], "plugins: there is no module 'throwaway_part'; put its folder on PYTHONPATH"),
    (["plugins=[broken]"], "plugins: 'broken' does not load (ValueError: metric 'load_cv' is registered twice)"),
    (["plugins=throwaway_parts"], "plugins: throwaway_parts was given; it is a list of modules: plugins=[a,b]"),
    ([*PARTS, "selection.capacity_factor=2"], "capacity_factor: 2 would have no effect with selection=throwaway"),
    ([*PARTS, "selection.at_inference=true"], "at_inference: True would have no effect with selection=throwaway"),
    # The last one, since what a module registered stays in the process.
    (["plugins=[typo]"], "floor of metric 'mine': unknown name 'marginal'; did you mean 'marginals'?"),
)


def test_what_is_not_registered_is_refused_in_one_line(root):
    planted = {
        "conf/selection/nowhere.yaml": "# Planted\ndefaults: [schema, _self_]\nrule: nowhere\n",
        "conf/router/nowhere.yaml": "# @package _global_\n# Planted\ndefaults: [schema_nowhere@router, _self_]\n",
        "conf/data/nowhere.yaml": "# Planted\ndefaults: [schema_nowhere, _self_]\n",
        "broken.py": f'{METRIC}metric("load_cv", "lower", range=(0, 1))(abs)\n',
        "typo.py": f'{METRIC}metric("mine", "lower", range=(0, 1), floor="marginal")(abs)\n',
    }
    for name, text in planted.items():
        (root / name).write_text(text)
    try:
        ended = run(root, "-c", EACH, json.dumps([overrides for overrides, _ in REFUSED]))
    finally:
        for name in planted:
            (root / name).unlink()
    told = ended.stderr.splitlines()
    assert json.loads(ended.stdout) == [2] * len(REFUSED) and len(told) == len(REFUSED), ended.stderr
    for line, (_, expected) in zip(told, REFUSED, strict=True):
        assert line.startswith("error: ") and expected in line


def test_an_ablation_of_a_study_that_is_not_there_is_told(root):
    planted = root / "conf" / "ablation" / "no_carry.yaml"
    text = planted.read_text()
    planted.write_text(text.replace("[core]", "[coer]"))
    try:
        shown = run(root, "-m", "spectra_exp", "study", "show", "core")
        assert shown.returncode == 2 and "did you mean 'core'" in shown.stderr and "no_carry" in shown.stderr
    finally:
        planted.write_text(text)

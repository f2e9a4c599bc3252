"""One's own router beside one's work, in a folder outside the repository: in runs, help, tables, workers, identity."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_exp.config import plugins
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.errors import ConfigError

TEMPLATE = project_root() / "examples" / "my_router"
SMALL = ["router=my_router", "debug=smoke", "model.num_layers=2", "model.hidden_size=32", "logger.progress=false"]

BARE = """from dataclasses import dataclass
from spectra_exp.routing.base import RouterConfig, register_router
from spectra_exp.routing.linear import LinearRouter
"""
UNFIT = """@dataclass
class Unfit(RouterConfig):
    name: str = "unfit"
    sizes: tuple[complex, ...] = ()
@register_router
class R(LinearRouter):
    Config = Unfit
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A copy of the template."""
    return Path(shutil.copytree(TEMPLATE, tmp_path / "work"))


def spectra(work: Path, *words: str, module: str = "spectra_exp", **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in that folder, as one types it there."""
    kept = {k: v for k, v in os.environ.items() if k not in ("SPECTRA_ROOT", "SPECTRA_OUTPUTS")}
    places = os.pathsep.join([str(project_root() / "src"), kept.pop("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        env=kept | {"PYTHONPATH": places, "SPECTRA_OUTPUTS": str(work / "outputs")} | variables,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=300,
    )


def stale_rows(work: Path) -> dict[str, str]:
    """Whether each row of the table is stale, by label."""
    assert (ended := spectra(work, "tables")).returncode == 0, ended.stderr
    with open(work / "outputs" / "tables" / "routing_metrics.csv", encoding="utf-8") as file:
        return {row["label"]: row["stale"] for row in csv.DictReader(file)}


@pytest.mark.full
@pytest.mark.slow
def test_the_template_in_help_in_runs_in_workers_in_tables_and_in_the_code_version(work):
    shown = spectra(work, "run", "--help", "router").stdout
    assert "keys of router=my_router" in shown and "router.sharpness" in shown
    ended = spectra(work, "run", *SMALL)
    assert ended.returncode == 0, ended.stderr
    code = json.loads((Path(ended.stdout.split()[-1]) / "summary.json").read_text())["fingerprints"]["code"]
    assert code.count("|") == 1 and code.partition("|")[2].startswith("my_router:")
    ended = spectra(work, "run", *SMALL, "-m", "seed=1,2", "launch=parallel", "launch.view=false")
    assert ended.returncode == 0, ended.stderr
    ended = spectra(work, "run", *SMALL, "seed=3", "trainer.processes=2")
    assert ended.returncode == 0, ended.stderr
    assert set(stale_rows(work).values()) == {"False"} and any("My router" in label for label in stale_rows(work))
    source = work / "my_router.py"
    source.write_text(source.read_text() + "# edited\n")
    assert set(stale_rows(work).values()) == {"True"}
    # Where the plug-in is not imported nothing is said of its code, and that is told.
    (work / "conf" / "config.yaml").unlink()
    ended = spectra(work, "tables")
    assert ended.returncode == 0 and "its plug-in is not imported here; give plugins=[my_router]" in ended.stderr
    assert "its plug-in" not in spectra(work, "tables", "plugins=[my_router]").stderr


def test_the_template_s_own_test_passes_and_a_router_without_its_gradient_fails(work):
    ended = spectra(work, "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(work), module="pytest")
    assert ended.returncode == 0, ended.stdout
    source = work / "my_router.py"
    source.write_text(source.read_text().replace("super().logits(inputs)", "super().logits(inputs).detach()"))
    ended = spectra(work, "-q", "-p", "no:cacheprovider", str(work), module="pytest")
    assert ended.returncode == 1 and "check_the_output_alone_trains_every_parameter" in ended.stdout


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("conf/config.yaml", "plugins: [nowhere]", "plugins: there is no module 'nowhere'"),
        ("conf/config.yaml", "plugins: my_router", "plugins: my_router was given; it is a list"),
        ("conf/config.yaml", "- my_router\n", "conf/config.yaml: does not hold keys and their values"),
        ("conf/router/switch.yaml", "# Mine\n", "conf/router/switch.yaml: "),
        ("conf/baseline/dense.yaml", "# Mine\n", "conf/baseline/dense.yaml: "),
        ("sweeps/a_quota.yaml", "title: Mine\n", "sweeps/a_quota.yaml: "),
        ("my_router.py", f"{BARE}@register_router\nclass R(LinearRouter): ...\n", "router R has no name"),
        ("my_router.py", f"{BARE}{UNFIT}", "schema of router=unfit: Unsupported value type: 'complex'"),
        (
            "my_router.py",
            f"{BARE}{UNFIT}".replace("sizes: tuple[complex, ...] = ()", "z_loss_coef: str = ''"),
            "schema of router=unfit: its field 'z_loss_coef' has another type than RouterConfig's; give it",
        ),
        (
            "my_router.py",
            f"from __future__ import annotations\n{BARE}{UNFIT}".replace("complex", "Unknown"),
            "schema of router=unfit: name 'Unknown' is not defined",
        ),
        ("my_router.py", "import torch\nraise ValueError('no')", "'my_router' does not load (ValueError: no)"),
        ("my_router.py", "import not_installed_here", "'my_router' needs the module 'not_installed_here'"),
        ("my_router.py", "import my_rout", "'my_router' needs the module 'my_rout'"),
        ("conf/config.yaml", "day: 2024-13-45\n", "conf/config.yaml: month must be in 1..12"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_any_job(work, name, text, told):
    path = work / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ended = spectra(work, "run", *SMALL)
    assert (ended.returncode, ended.stdout) == (2, "") and told in ended.stderr and ended.stderr.count("\n") == 1


def test_a_router_of_a_name_that_there_is_is_one_line(work):
    source = work / "my_router.py"
    source.write_text(source.read_text().replace('option("my_router"', 'option("switch"'))
    ended = spectra(work, "run", "router=switch", "debug=smoke")
    assert ended.returncode == 2 and "router 'switch' is registered twice" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_cell_of_a_notebook_brings_its_router_and_one_that_runs_again_replaces_it(work, tmp_path):
    cell = (work / "my_router.py").read_text()
    script = tmp_path / "twice.py"
    script.write_text(
        "from spectra_exp import compose\nfrom spectra_exp.config.resolved import Compositions\n"
        f"print(Compositions()(['router=my_router']))\ncell = {cell!r}\nfor value in ('2.0', '3.5'):\n"
        "    exec(cell.replace('option(2.0', f'option({value}'), globals())\n"
        "    found = Compositions()(['router=my_router']).values['router.sharpness']\n"
        "    print(compose('router=my_router').router.sharpness, found)\n"
    )
    (work / "conf" / "config.yaml").unlink()
    (work / "my_router.py").unlink()
    kept = os.environ | {"PYTHONPATH": str(project_root() / "src")}
    ended = subprocess.run([sys.executable, str(script)], env=kept, cwd=work, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (0, ["None", "2.0", "2.0", "3.5", "3.5"]), ended.stderr


def test_a_folder_of_another_hydra_project_is_left_alone(work):
    (work / "conf" / "config.yaml").write_text("defaults:\n  - model: resnet\n")
    (work / "conf" / "router" / "switch.yaml").write_text("# Not ours\n")
    assert spectra(work, "run", "--help", "router").returncode == 0


def test_two_installed_plug_ins_of_one_name_are_told(monkeypatch):
    points = [type("Point", (), {"name": "a", "value": value}) for value in ("one", "two")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    with pytest.raises(ConfigError, match="two installed packages have a plug-in 'a'"):
        plugins._installed.__wrapped__()

"""A checkout named by SPECTRA_ROOT that lacks what the tables are made of."""

from __future__ import annotations

import shutil

import pytest
from made_runs import summary, write

from spectra_exp.config.tree import project_root
from spectra_exp.reporting.make_figures import main as figures
from spectra_exp.reporting.make_report import main as report
from spectra_exp.reporting.make_tables import main as tables


@pytest.mark.parametrize("command", [tables, figures, report])
def test_a_root_without_the_studies_is_one_line(command, tmp_path, monkeypatch, capsys):
    outputs, root = tmp_path / "outputs", tmp_path / "root"
    write(outputs, summary("switch", 0, {"val_loss": 4.0}))
    shutil.copytree(project_root() / "conf", root / "conf")
    monkeypatch.setenv("SPECTRA_ROOT", str(root))
    assert command([f"outputs={outputs}"]) != 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: SPECTRA_ROOT: {root} has no stud")
    shutil.rmtree(root / "conf")
    assert command([f"outputs={outputs}"]) != 0
    assert f"{root} holds no conf/config.yaml" in capsys.readouterr().err

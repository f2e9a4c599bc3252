"""The notebooks of examples/: saved without outputs, and executed as they are but for their size."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import spectra_exp
from spectra_exp.config.tree import project_root

NOTEBOOKS = sorted((project_root() / "examples").glob("*.ipynb"))
# What is made smaller for a test, and into what.
SMALLER = {'SIZE = ["debug=demo"]': 'SIZE = ["debug=smoke", "model.num_layers=2", "trainer.max_steps=4"]'}


def cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_without_outputs_and_imports_what_there_is(path: Path) -> None:
    assert len(NOTEBOOKS) == 2 and cells(path)
    for cell in cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module == "spectra_exp":
                assert all(hasattr(spectra_exp, name.name) for name in node.names)


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    text = path.read_text(encoding="utf-8")
    for usual, smaller in SMALLER.items():
        text = text.replace(json.dumps(usual)[1:-1], json.dumps(smaller)[1:-1])
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out.output_type for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert "error" not in shown and shown.count("execute_result") >= 2
    if path.stem == "comparison":
        assert shown.count("display_data") == 2 and len(list((tmp_path / "outputs" / "runs").iterdir())) == 6

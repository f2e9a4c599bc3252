"""`spectra-exp doctor run=ID`: a tiny trained run is sound, and one whose weights were tampered with is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import SMALL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.doctor.command import main
from spectra_exp.runs.checkpoints import MANIFEST, _manifest_text
from spectra_exp.runs.plan import plan
from spectra_exp.training.execute import execute

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of SPECTRA with its usual rules: potentials in training and in inference."""
    prepare_environment()
    outputs = tmp_path_factory.mktemp("outputs")
    planned = plan(load_experiment([*SMALL, "router=spectra", f"outputs={outputs}"]))
    assert execute(planned, "") == "completed"
    return planned.folder.path


def damaged(run: Path, outputs: Path, change: Callable[[Weights], None], sealed: bool = True) -> list[str]:
    """The words that examine a copy of the run with other weights; `sealed`: its manifest goes with them."""
    copied = outputs / "runs" / run.name
    shutil.copytree(run, copied)
    (checkpoint,) = (path.parent for path in copied.rglob(MANIFEST))
    file = checkpoint / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(weights)
    save_file(weights, file, {"format": "pt"})
    if sealed:
        (checkpoint / MANIFEST).write_text(_manifest_text(checkpoint, int(checkpoint.name.removeprefix("step-"))))
    return [f"run={run.name}", f"outputs={outputs}", "device=cpu"]


def findings(outputs: Path, run: Path) -> dict[str, dict]:
    file = outputs / "doctor" / run.name / "findings.json"
    return {one["check"]: one for one in json.loads(file.read_text())["findings"]}


def copy_an_expert(weights: Weights) -> None:
    for name, tensor in weights.items():
        if "layers.0" in name and ".experts." in name:
            tensor[1] = tensor[0]


def starve_an_expert(weights: Weights) -> None:
    for name, tensor in weights.items():
        if name.endswith("hard_potentials_E"):
            tensor[0] = -100.0


def test_a_trained_run_is_sound(run: Path, capsys) -> None:
    outputs = run.parent.parent
    assert main([f"run={run.name}", f"outputs={outputs}", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "Step 12, the run's own held-out text." in out and "fault" not in out and "doubtful" not in out
    found = findings(outputs, run)
    assert found["bias_steps"]["figure"] == pytest.approx(1, abs=0.1) and found["causality"]["status"] == "ok"
    assert "osr.sinkhorn_inference=dual" in found["modes"]["note"]


@pytest.mark.parametrize(("change", "check"), [(copy_an_expert, "copied_experts"), (starve_an_expert, "idle_experts")])
def test_a_damaged_run_is_a_fault(run: Path, tmp_path: Path, change, check: str, capsys) -> None:
    assert main(damaged(run, tmp_path, change)) == 1
    found = findings(tmp_path, run)
    assert {name for name, one in found.items() if one["status"] == "fault"} == {check}
    assert found[check]["meaning"] in capsys.readouterr().out


def test_a_checkpoint_that_is_not_what_was_written_is_one_line(run: Path, tmp_path: Path, capsys) -> None:
    assert main(damaged(run, tmp_path, copy_an_expert, sealed=False)) == 1
    err = capsys.readouterr().err
    assert "no whole checkpoint" in err and "Traceback" not in err
    assert main([f"run={run.name[:-1]}", f"outputs={run.parent.parent}"]) == 2
    assert f"did you mean '{run.name}'" in capsys.readouterr().err

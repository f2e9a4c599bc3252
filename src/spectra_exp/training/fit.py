"""Whether a checkpoint was made by this run, by a model of the same shape, told in words before it is loaded."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.whole_weights import WEIGHTS
from spectra_exp.runs.folder import needed_by


def check_fits(model: SpectraMoeForCausalLM, checkpoint: Path, run_id: str) -> None:
    """Raise SpectraError for a checkpoint of another model or run, with the number of experts where that differs."""
    stored = _stored_shapes(checkpoint)
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    experts = next((shape[0] for name, shape in stored.items() if name.endswith("experts.up")), None)
    # Empty experts have no weights.
    empty, wanted = model.settings.num_null, model.settings.num_experts
    fix = "force=true starts the run anew"
    if experts is not None and model.routed_layers and experts + empty != wanted:
        raise SpectraError(
            f"{checkpoint}: made with {experts + empty} experts, and model.num_experts is {wanted}; {fix}"
        )
    for name, shape in sorted(stored.items()):
        if name in own and own[name] != shape:
            raise SpectraError(f"{checkpoint}: made by another model: {name} is {shape}, here {own[name]}; {fix}")
    if (made_by := needed_by(checkpoint)["run_id"]) != run_id:
        raise SpectraError(f"{checkpoint}: made by another run, {made_by}; {fix}")


def _stored_shapes(checkpoint: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for path in checkpoint.glob(WEIGHTS):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return shapes

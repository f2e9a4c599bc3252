"""A run's model card: what the model is, how to load it, and the figures of its summary, none of them typed in."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from spectra_exp.measure.compute import describe_metrics
from spectra_exp.presentation.text import markdown_text
from spectra_exp.reporting.tables.verdicts import direction

LOSSES = ("val_loss", "val_perplexity", "val_accuracy")
USAGE = (
    "```python\n"
    "import spectra_exp  # registers the model type\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = AutoModelForCausalLM.from_pretrained("FOLDER")\n'
    'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
    'prompt = tokenizer("Once", return_tensors="pt", return_token_type_ids=False)\n'
    "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0]))\n"
    "```"
)


def model_card(summary: dict[str, Any], config: dict[str, Any]) -> str:
    """The README.md of a shared model, with metadata that the hub reads, out of a run's summary and configuration."""
    metrics, floors = summary["metrics"], summary["floors"]
    routing = [row["name"] for row in describe_metrics() if row["name"] in metrics]
    rows = [*(name for name in LOSSES if name in metrics), *routing]
    parts = [
        f"---\n{_metadata(summary, config).to_yaml()}\n---",
        f"# {markdown_text(summary['label'])}",
        f"A Mixture-of-Experts language model trained by spectra-exp, run {markdown_text(summary['run_id'])}.",
        USAGE,
        "## The run\n\n" + _facts(summary, config),
        "## Figures\n\nOn the held-out set, after the last step; by chance: what random routing scores there "
        "(val_loss: the frequencies of tokens alone).",
        _table(rows, metrics, floors | {"val_loss": summary["unigram_loss"]}),
        f"Made by\n\n{_fenced(_without_folders(summary['command']))}",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(summary: dict[str, Any], config: dict[str, Any]) -> ModelCardData:
    source = config["model"].get("source")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=config["data"]["name"],
            dataset_name=config["data"]["name"],
            metric_type=name,
            metric_value=summary["metrics"][name],
        )
        for name in LOSSES
        if name in summary["metrics"]
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["mixture-of-experts", "spectra-exp", config["router"]["name"]],
        # A name on the hub; a path would mean nothing to others.
        base_model=source if source and not Path(source).exists() else None,
        model_name=summary["run_id"],
        eval_results=results or None,
    )


def _facts(summary: dict[str, Any], config: dict[str, Any]) -> str:
    model, sizes = config["model"], summary["parameters"]
    causal = "yes" if summary["causal"] else "no: its predictions depend on later tokens or on other sequences"
    facts = {
        "router": config["router"]["name"],
        "experts": f"{model['num_experts']}, of which {model['top_k']} per token",
        "parameters": f"{sizes['total']:,}, of which {sizes['active']:,} active per token",
        "FLOPs per token": f"{summary['flops_per_token']:.4g}",
        "made from": f"{summary['model']} of {Path(model['source']).name}" if model.get("source") else None,
        "data": config["data"]["name"],
        "steps": f"{summary['steps']:,}",
        "seed": summary["seed"],
        "causal (measured)": causal,
    }
    return "\n".join(f"- {name}: {markdown_text(value)}" for name, value in facts.items() if value is not None)


def _fenced(text: str) -> str:
    """A code block that no text ends."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _without_folders(command: str) -> str:
    """The command with the names of files alone: where they lay is nobody else's business."""
    return shlex.join(re.sub(r"=(['\"]?).*/(?=[^/])", r"=\1", word) for word in shlex.split(command))


def _table(names: list[str], metrics: dict[str, float], floors: dict[str, float]) -> str:
    lines = ["| metric | value | by chance | better |", "|---|---|---|---|"]
    for name in names:
        better = direction(name)
        floor = f"{floors[name]:.4g}" if floors.get(name) is not None else ""
        lines.append(f"| {name} | {metrics[name]:.4g} | {floor} | {'' if better == 'none' else better} |")
    return "\n".join(lines)

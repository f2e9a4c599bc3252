"""`spectra-exp share`: a finished run's model for others to load, its weights, tokenizer and a card of its figures."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.data.cache import read_entry
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import one_line_errors
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.moe.whole_weights import WEIGHTS, WEIGHTS_INDEX
from spectra_exp.reporting.model_card import model_card
from spectra_exp.runs.folder import RunFolder, find_run
from spectra_exp.runs.stored import StoredRun

MODEL_FILES = ("config.json", "generation_config.json", WEIGHTS, WEIGHTS_INDEX)
# What in a configuration names code to run, for whoever loads it and allows that.
CODE_KEYS = ("auto_map", "custom_pipelines")
# What a source's tokenizer is made of besides tokenizer.json.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def share(run: RunFolder, target: Path, outputs: Path) -> Path:
    """The new folder `target`, whole or absent. Raises SpectraError for a run without a result, or a taken place."""
    stored = StoredRun(run.path)
    if stored.refusal is not None:
        raise SpectraError(f"{run.run_id}: {stored.refusal}; only a completed run has figures to share")
    if stored.config is None:
        problem = stored.problems.get(run.config, "there is none")
        raise SpectraError(f"{run.config}: {problem}; a model card is made of it")
    summary, config = stored.required_summary, stored.config
    if target.exists():
        raise ConfigError("to", f"{target} is there already", "give a new folder")
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise SpectraError(f"{run.run_id}: no whole checkpoint is left; force=true trains it again")
    if not any(checkpoint.glob(WEIGHTS)):
        raise SpectraError(f"{checkpoint}: it holds no weights ({WEIGHTS}); force=true trains the run again")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for path in sorted(path for pattern in MODEL_FILES for path in checkpoint.glob(pattern)):
            _copy_file(path, partial / path.name)
        _copy_tokenizer(config["data"], summary, outputs, partial)
        (partial / "README.md").write_text(_card(run, summary, config), encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _card(run: RunFolder, summary: dict[str, Any], config: dict[str, Any]) -> str:
    try:
        return model_card(summary, config)
    except (KeyError, TypeError, ValueError) as error:
        raise SpectraError(f"{run.summary}: it lacks what the model card says ({error})") from error


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; of a configuration, what is not the name of code."""
    if source.suffix != ".json":
        shutil.copyfile(source, target)
        return
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SpectraError(f"{source}: not readable as JSON ({' '.join(str(error).split())[:160]})") from error
    bare = _without_code(values)
    if bare == values:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(bare, indent=2, ensure_ascii=False), encoding="utf-8")


def _without_code(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_code(value) for key, value in values.items() if key not in CODE_KEYS}
    return [_without_code(value) for value in values] if isinstance(values, list) else values


def _copy_tokenizer(data: dict[str, Any], summary: dict[str, Any], outputs: Path, target: Path) -> None:
    """The tokenizer that the run read its text with: the named one's own files, else the one trained for the run."""
    named = Path(data["tokenizer"]) if data["tokenizer"] else None
    if named is not None and named.is_dir():
        for name in TOKENIZER_FILES:
            if (named / name).is_file():
                _copy_file(named / name, target / name)
        return
    fingerprint = summary["fingerprints"].get("data")
    if not re.fullmatch("[0-9a-f]{32}", fingerprint or ""):
        raise SpectraError(f"{summary['run_id']}: its summary's fingerprint of the data, {fingerprint!r}, is not one")
    entry = read_entry(outputs / "cache" / fingerprint)
    if entry is None:
        problem = "its tokenised data is no longer in the cache, and the tokenizer with it"
        raise SpectraError(f"{summary['run_id']}: {problem}; the run's command (in its summary) makes it again")
    from transformers import PreTrainedTokenizerFast

    end = entry.facts["eos_token"]
    file = str(entry.folder / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, eos_token=end, pad_token=end).save_pretrained(target)


@dataclass(frozen=True)
class ShareOptions(VerbOptions):
    """What is shared, and where it goes."""

    run: str | None = option(None, "a finished run's id, or its folder")
    to: str | None = option(None, "the folder to make", path=True)


def share_run(options: ShareOptions) -> int:
    """Write the folder. Raises SpectraError when that cannot be done."""
    if options.run is None or options.to is None:
        raise ConfigError("run" if options.run is None else "to", "is missing", "give run=ID to=FOLDER")
    with one_line_errors(options.to):
        print(share(find_run(options.run, options.folder), Path(options.to), options.folder))
    return DONE


main = Verb(
    "share",
    ShareOptions,
    share_run,
    "A finished run's model, tokenizer and model card, in a folder that others can load.",
    ("run=spectra-gru-sinkhorn-quota-e8k2-embedded-s0-0123abcd to=my-model",),
    bare=("run", "to"),
)

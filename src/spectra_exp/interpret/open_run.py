"""Opens a run of this project: its newest checkpoint, its own held-out text."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging as transformers_logging

from spectra_exp.data.corpus import Corpus, data_fingerprint, load_corpus
from spectra_exp.data.documents import UNLABELLED, digest
from spectra_exp.data.schema import DataConfig, sources
from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.interpret.subject import Run, Subject
from spectra_exp.interpret.trace import UNKNOWN, Engine, HeldOut, Pass
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.families import down_projections
from spectra_exp.moe.model import SpectraMoeForCausalLM, load_checkpoint
from spectra_exp.runs.checkpoints import MANIFEST
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.plan import FINAL
from spectra_exp.runs.stored import StoredRun
from spectra_exp.training.evaluation import Evaluator

log = logging.getLogger(__name__)

# Tokens looked at unless more or fewer are asked for.
USUAL_TOKENS = 32_768
# How often the newest checkpoint is looked up where a running training removes it.
ATTEMPTS = 3


class OwnEngine(Engine):
    """A model of this project, scored as its evaluations score it."""

    model: SpectraMoeForCausalLM

    def __init__(self, model: SpectraMoeForCausalLM, evaluator: Evaluator):
        self.model, self.evaluator = model, evaluator
        self.num_layers = len(model.routed_layers)
        self.num_experts, self.top_k = model.settings.num_real, model.settings.top_k
        self.vocabulary_size = model.config.backbone.vocab_size
        self.longest = model.config.backbone.max_position_embeddings

    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        """Logits and routing under the rule of inference."""
        context = RoutingContext(keep_outputs=True, keep_hidden=ids_BS.numel())
        batch = {"input_ids": ids_BS, "document_ids": documents_BS}
        logits_BSV = self.evaluator.logits(self.model, batch, context)
        return Pass(logits_BSV, [context.records[layer.layer] for layer in self.model.routed_layers])

    def rows_at_once(self, length: int) -> int:
        """The run's own evaluation batch: under a quota at inference the routing depends on it."""
        return self.evaluator.batch_size

    def weights_EF(self, layer: int) -> np.ndarray:
        """Each expert's flattened down-projection, float32."""
        return down_projections(self.model.routed_layers[layer].experts).detach().float().flatten(1).cpu().numpy()


@dataclass(frozen=True)
class Newest:
    """A loaded checkpoint: its model, its step, and the hash of its manifest."""

    model: SpectraMoeForCausalLM
    step: int
    fingerprint: str


def open_run(path: Path, tokens: int | None, seed: int, device: torch.device) -> Subject:
    """The run in the folder `path`, looked at on `tokens` held-out tokens (None: the usual ones).

    Raises SpectraError, one line, without a readable configuration, a whole checkpoint, or the run's own data.
    """
    stored = StoredRun(path)
    folder, config, summary = stored.folder, stored.config, stored.summary
    stored.require(folder.config.name)
    stored.require(folder.summary.name)
    if config is None:
        raise SpectraError(f"{folder.config}: is missing")
    known: dict[str, Any] = summary or {}
    newest = newest_model(folder, _made_anew(known))
    data = _data_config(config["data"], folder.config)
    recorded = (known.get("fingerprints") or {}).get("data")
    if recorded is not None and data_fingerprint(data) != recorded:
        raise SpectraError(f"{path}: its data is not what the run was trained on any more; bring it back")
    cache = (path.parent.parent if path.parent.name == "runs" else Path(config["outputs"])) / "cache"
    corpus = load_corpus(data, cache)
    trainer = config["trainer"]
    if device.type == "cpu":
        torch.set_num_threads(trainer["cpu_threads"])
    model = newest.model.to(device).eval()
    evaluator = Evaluator(
        corpus.final or corpus,
        trainer["evaluation_batch_size"],
        data.probe_tokens,
        device,
        trainer["precision"] == "bf16",
        data.cross_document,
    )
    return Subject(
        name=folder.run_id,
        label=known.get("label") or config["router"]["name"],
        path=path,
        step=newest.step,
        fingerprint=newest.fingerprint,
        engine=OwnEngine(model, evaluator),
        tokenizer=corpus.load_tokenizer(),
        held_out=_held_out(data, corpus, cache, tokens),
        run=Run(folder, config, summary, corpus, evaluator, model),
        seed=seed,
    )


def _made_anew(summary: dict[str, Any]) -> str:
    """How to make the run once more: a finished one is made again only when forced to."""
    command = summary.get("command")
    if command is None:
        return "give its command again"
    forced = "" if summary["status"] not in FINAL or "force=true" in command.split() else " force=true"
    return f"run it again: {command}{forced}"


def newest_model(folder: RunFolder, again: str) -> Newest:
    """The model of the newest whole checkpoint; `again`: how to make the run once more.

    Raises SpectraError without one, or where each was removed while it was read: a run
    that still trains removes a checkpoint when it has a newer one, so the newest is then looked up again.
    """
    transformers_logging.disable_progress_bar()
    for _ in range(ATTEMPTS):
        listed = folder.checkpoints()
        checkpoint = folder.latest_checkpoint()
        if checkpoint is None:
            if folder.checkpoints() != listed:
                continue
            raise SpectraError(f"{folder.path}: the run has no whole checkpoint; {again}")
        try:
            fingerprint = digest((checkpoint / MANIFEST).read_bytes())[:16]
            model = load_checkpoint(checkpoint)
        except (OSError, ValueError, SafetensorError) as error:
            if (checkpoint / MANIFEST).is_file():
                raise SpectraError(f"{checkpoint}: not readable ({first_line(error)})") from error
            continue
        return Newest(model, int(checkpoint.name.removeprefix("step-")), fingerprint)
    raise SpectraError(
        f"{folder.path}: its newest checkpoint was removed {ATTEMPTS} times while it was read; it still trains: try "
        "again, or give it a larger trainer.checkpoint_every"
    )


def _data_config(values: dict[str, Any], path: Path) -> DataConfig:
    schema = sources().get(str(values.get("name")))
    if schema is None or set(values) - {f.name for f in fields(schema)}:
        raise SpectraError(f"{path}: its data group is not one that this code knows; run it again")
    return schema(**values)


def _held_out(data: DataConfig, corpus: Corpus, cache: Path, tokens: int | None) -> HeldOut:
    """Whole blocks of the validation split: those the run was scored on, or more of it where more are asked for."""
    scored = corpus.final or corpus
    wanted = min(USUAL_TOKENS, scored.eval_blocks.size) if tokens is None else tokens
    if wanted > scored.eval_blocks.size:
        scored = load_corpus(replace(data, evaluation_tokens=wanted, final_evaluation_tokens=None), cache)
    rows = max(1, wanted // scored.sequence_length)
    if rows > len(scored.eval_blocks):
        log.warning(
            "tokens=%d is more than the %d of the run's held-out split: all are taken", wanted, scored.eval_blocks.size
        )
    arrays = (scored.eval_blocks, scored.eval_document_ids, scored.eval_domain_ids)
    tokens_MS, documents_MS, domains_MS = (np.asarray(array[:rows], dtype=np.int64) for array in arrays)
    domains = list(scored.domains)
    if UNLABELLED in domains:
        domains_MS = np.where(domains_MS == domains.index(UNLABELLED), UNKNOWN, domains_MS)
    return HeldOut(tokens_MS, documents_MS, domains_MS, [] if domains == [UNLABELLED] else domains)

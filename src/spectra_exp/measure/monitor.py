"""The project's metrics for anybody's sparse Hugging Face model, in anybody's Trainer or evaluation loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from spectra_exp.foundations.collective import of_every_rank
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.measure.accumulate import EvaluationAccumulator, weight_cosines
from spectra_exp.measure.base import MetricTable
from spectra_exp.measure.compute import compute_floors, compute_metrics
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.merge import merged
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.gate import output_sums
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.watch import BlockWatch, Seen, extra_pass, record_of, watch_blocks

EVALUATION, TRAINING = "evaluation", "training"


class RoutingMonitor(TrainerCallback):
    """Watches a model's routing from its making to `close()`; a context manager, and a callback for Trainer.

        with RoutingMonitor(model) as monitor:
            evaluate(model)
        print(monitor.metrics())

        trainer = Trainer(model, ..., callbacks=[RoutingMonitor(model)])
        trainer.evaluate()["eval_routing_load_cv"]

    It reads what was executed by hooks, so the model need not return its router logits, and counts real tokens only
    (`attention_mask`). domains: names to label passes with (`with monitor.domain("code"): ...`). training: watch passes
    in training mode too; Trainer then logs `routing_...`. outputs: mean expert outputs, at the cost of a second pass
    through the experts in evaluation. top_k: experts per token, for models that do not say. all_ranks: under
    torch.distributed the figures are of the tokens of all processes, of which each must then ask for them; False: of
    this process's alone, and it waits for nobody. Raises SpectraError for a model without sparse blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        domains: Sequence[str] = (),
        training: bool = False,
        outputs: bool = True,
        top_k: int | None = None,
        all_ranks: bool = True,
    ):
        self.model, self.domains, self.training, self.outputs = model, list(domains), training, outputs
        self.all_ranks = all_ranks
        config = model.config.get_text_config()
        self.vocabulary_size = config.vocab_size
        # Our own models leave records: nothing needs to be read by hooks on their blocks.
        self.routed_layers = getattr(model, "routed_layers", [])
        known = top_k or getattr(config, "num_experts_per_tok", None)
        self.blocks = [] if self.routed_layers else watch_blocks(model, known)
        self._domain = -1
        self._sums: dict[str, EvaluationAccumulator] = {}
        self._pending: dict[str, float] = {}
        self._ids_BS: Tensor | None = None
        self._mask_BS: Tensor | None = None
        self._handles = [handle for block in self.blocks for handle in block.attach()]
        self._handles.append(model.register_forward_pre_hook(self._begin, with_kwargs=True))
        self._handles.append(model.register_forward_hook(self._end))

    def __enter__(self) -> RoutingMonitor:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; what was seen stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def reset(self, mode: str = EVALUATION) -> None:
        """Forget what was seen in evaluation, or in training."""
        self._sums.pop(mode, None)

    @contextmanager
    def domain(self, name: str) -> Iterator[None]:
        """Label the passes of a block with one of `domains`."""
        if name not in self.domains:
            raise ConfigError.unknown("domain", name, self.domains)
        before, self._domain = self._domain, self.domains.index(name)
        try:
            yield
        finally:
            self._domain = before

    def statistics(self, mode: str = EVALUATION) -> list[LayerStatistics]:
        """Counts and sums of each sparse layer. Raises SpectraError when no pass was seen."""
        own = self._sums[mode].statistics() if mode in self._sums else None
        ranks = [found for found in (of_every_rank(own) if self.all_ranks else [own]) if found is not None]
        if not ranks:
            raise SpectraError(f"RoutingMonitor has seen no pass in {mode} mode")
        merged_layers = [merged(layer) for layer in zip(*ranks, strict=True)] if len(ranks) > 1 else ranks[0]
        layers = zip(merged_layers, self.blocks or self.routed_layers, strict=True)
        return [replace(stats, weight_cosines_EE=weight_cosines(layer.experts)) for stats, layer in layers]

    def table(self, mode: str = EVALUATION) -> MetricTable:
        """Every metric by layer and over all."""
        return compute_metrics(self.statistics(mode))

    def metrics(self, mode: str = EVALUATION) -> dict[str, float]:
        """The mean over layers of every metric; `table()` has them by layer."""
        return self.table(mode).all()

    def floors(self, mode: str = EVALUATION) -> dict[str, float]:
        """What chance would score, as `<metric>_floor`; takes seconds per layer."""
        return compute_floors(self.statistics(mode)).all()

    def _begin(self, model: nn.Module, inputs: tuple, named: dict) -> None:
        if model.training and not self.training:
            return
        self._ids_BS = named.get("input_ids", inputs[0] if inputs else None)
        if self._ids_BS is None:
            raise SpectraError("RoutingMonitor needs input_ids: metrics are of tokens")
        mask = named.get("attention_mask")
        self._mask_BS = mask[:, -self._ids_BS.shape[1] :] if mask is not None and mask.ndim == 2 else None
        for block in self.blocks:
            block.begin()

    @torch.no_grad()
    def _end(self, model: nn.Module, inputs: tuple, output: Any) -> None:
        ids_BS, self._ids_BS = self._ids_BS, None
        if ids_BS is None:
            return
        real_BS = torch.ones_like(ids_BS) if self._mask_BS is None else self._mask_BS
        if self.routed_layers:
            records = [output.routing.records[layer.layer] for layer in self.routed_layers]
            top_k = model.settings.top_k
        else:
            seen = [block.finish() for block in self.blocks]
            top_k = seen[0].experts_MK.shape[1]
            pairs = enumerate(zip(self.blocks, seen, strict=True))
            records = [self._record(layer, block, s, real_BS, model.training) for layer, (block, s) in pairs]
        if bool(real_BS.any()):
            sums = self._sums_for(TRAINING if model.training else EVALUATION, records[0].chosen_NE.shape[1], top_k)
            sums.update(records, self._tokens(ids_BS, real_BS, sums))

    def _record(
        self, layer: int, block: BlockWatch, seen: Seen, real_BS: Tensor, training: bool
    ) -> RoutingRecord:
        real_M = real_BS.flatten().bool().to(seen.experts_MK.device)
        if len(real_M) != len(seen.experts_MK):
            raise SpectraError(f"{block.name} routed {len(seen.experts_MK)} tokens of a batch of {len(real_M)}")
        record = record_of(layer, seen, real_M, block.num_experts, _rows_by_expert(block))
        if self.outputs and not training and not block.listed:
            with extra_pass():
                record.output_sum_ED = output_sums(block.experts, seen.hidden_Md[real_M], record.chosen_NE)
        return record

    def _tokens(self, ids_BS: Tensor, real_BS: Tensor, sums: EvaluationAccumulator) -> TokenBatch:
        """Each sequence counts as a document; only domains need them apart."""
        documents_BS = torch.zeros_like(ids_BS)
        if self.domains:
            first, rows = sums.num_documents, len(ids_BS)
            sums.reserve(first + rows)
            documents_BS = torch.arange(first, first + rows, device=ids_BS.device)[:, None].expand_as(ids_BS)
        return TokenBatch.from_padded(ids_BS, real_BS, documents_BS, torch.full_like(ids_BS, self._domain))

    def _sums_for(self, mode: str, num_experts: int, top_k: int) -> EvaluationAccumulator:
        if mode not in self._sums:
            shape = len(self.blocks or self.routed_layers), num_experts, top_k, self.vocabulary_size
            self._sums[mode] = EvaluationAccumulator(*shape, max(len(self.domains), 1), 1)
        return self._sums[mode]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Trainer's hook: adds the metrics to what is logged (for loggers whose callbacks come after this one)."""
        prefix = _prefix(logs)
        if prefix and EVALUATION in self._sums:
            found = self._pending = {f"{prefix}_routing_{k}": v for k, v in self.metrics().items()}
        elif not prefix and TRAINING in self._sums and "loss" in logs:
            found = {f"routing_{k}": v for k, v in self.metrics(TRAINING).items()}
            self.reset(TRAINING)
        else:
            return
        logs.update(found)
        state.log_history[-1].update(found)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict | None = None, **kwargs: Any) -> None:
        """Trainer's hook: adds the metrics to what `evaluate()` returns, and begins anew."""
        metrics.update(self._pending)
        self._pending = {}
        self.reset()


def _prefix(logs: dict) -> str:
    """`eval`, or what else Trainer was told to call an evaluation; empty for figures of training."""
    names = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime") and key != "train_runtime"]
    return names[0] if names else ""


def _rows_by_expert(block: BlockWatch) -> Tensor | None:
    """The linear gate's row of each expert, [E, d], where the block has one."""
    for name, child in block.block.named_children():
        weight = getattr(child, "weight", None)
        if name != "experts" and isinstance(weight, Tensor) and weight.ndim == 2 and len(weight) == block.num_experts:
            return weight.detach().float()
    return None

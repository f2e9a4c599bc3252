"""The project's metrics for anybody's sparse Hugging Face model, in anybody's Trainer or evaluation loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, Trainer, TrainerCallback

from spectra_exp.foundations.collective import of_every_rank
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.measure.accumulate import EvaluationAccumulator, weight_cosines
from spectra_exp.measure.base import MetricTable
from spectra_exp.measure.compute import compute_floors, compute_metrics
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.merge import merged
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.layer import RoutedLayer
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.stock.streams import TokenStream, token_streams
from spectra_exp.moe.stock.watch import BlockWatch, finished, watch_blocks

EVALUATION, TRAINING = "evaluation", "training"
Layer = BlockWatch | RoutedLayer


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
        config = _configuration(model)
        self.vocabulary_size = config.vocab_size
        self.streams = _streams(model, top_k or getattr(config, "num_experts_per_tok", None))
        self._domain = -1
        self._sums: dict[str, list[EvaluationAccumulator | None]] = {}
        # Layers whose distribution did not explain what was executed, by mode: they have none.
        self._unexplained: dict[str, set[tuple[int, int]]] = {}
        self._pending: dict[str, float] = {}
        self._evaluation_loop: FrameType | None = None
        self._handles: list[RemovableHandle] = []
        for place, stream in enumerate(self.streams):
            self._attach(place, stream)

    def _attach(self, place: int, stream: TokenStream[Layer]) -> None:
        for layer in stream.layers:
            self._handles += layer.attach() if isinstance(layer, BlockWatch) else []
        # A pass's end must be seen before its ids are forgotten.
        self._handles.append(stream.module.register_forward_hook(partial(self._end, place)))
        for module in stream.entrances:
            enter, leave = partial(self._enter, place), partial(self._leave, place)
            self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(leave, always_call=True))

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
        self._unexplained.pop(mode, None)

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
        own = [s for sums in self._sums.get(mode, []) if sums is not None for s in sums.statistics()] or None
        ranks = [found for found in (of_every_rank(own) if self.all_ranks else [own]) if found is not None]
        if not ranks:
            raise SpectraError(f"RoutingMonitor has seen no pass in {mode} mode{_if_compiled(self.model)}")
        if self._num_layers != len(ranks[0]):
            raise SpectraError(f"RoutingMonitor has seen passes of {len(ranks[0])} of {self._num_layers} sparse layers")
        merged_layers = [merged(layer) for layer in zip(*ranks, strict=True)] if len(ranks) > 1 else ranks[0]
        layers = enumerate(zip(merged_layers, self._experts(), strict=True))
        return [replace(stats, layer=i, weight_cosines_EE=weight_cosines(experts)) for i, (stats, experts) in layers]

    def table(self, mode: str = EVALUATION) -> MetricTable:
        """Every metric by layer and over all."""
        return compute_metrics(self.statistics(mode))

    def metrics(self, mode: str = EVALUATION) -> dict[str, float]:
        """The mean over layers of every metric; `table()` has them by layer."""
        return self.table(mode).all()

    def floors(self, mode: str = EVALUATION) -> dict[str, float]:
        """What chance would score, as `<metric>_floor`; takes seconds per layer."""
        return compute_floors(self.statistics(mode)).all()

    @property
    def _num_layers(self) -> int:
        return sum(len(stream.layers) for stream in self.streams)

    def _experts(self) -> list[nn.Module]:
        layers = [layer for stream in self.streams for layer in stream.layers]
        return [layer.block.experts if isinstance(layer, BlockWatch) else layer.experts for layer in layers]

    @torch.compiler.disable
    def _enter(self, place: int, module: nn.Module, inputs: tuple, named: dict) -> None:
        stream = self.streams[place]
        if module.training and not self.training:
            return
        if getattr(module, "_is_replica", False):
            raise SpectraError(
                "DataParallel copies the model to several devices in each pass, which RoutingMonitor cannot follow; "
                "use DistributedDataParallel, or one device"
            )
        stream.enter(module, inputs, named)
        if module is not stream.module:
            return
        if stream.ids_BS is None:
            raise SpectraError("RoutingMonitor needs input_ids: metrics are of tokens")
        for layer in stream.layers:
            if isinstance(layer, BlockWatch):
                layer.begin()

    @torch.compiler.disable
    def _leave(self, place: int, module: nn.Module, inputs: tuple, output: Any) -> None:
        self.streams[place].forget()

    @torch.compiler.disable
    @torch.no_grad()
    def _end(self, place: int, module: nn.Module, inputs: tuple, output: Any) -> None:
        stream = self.streams[place]
        ids_BS = stream.ids_BS
        if ids_BS is None:
            return
        mode, real_BS = TRAINING if stream.module.training else EVALUATION, stream.real_BS()
        if mode == EVALUATION:
            self._note_loop()
        if isinstance(stream.layers[0], BlockWatch):
            records, top_k = self._read(mode, cast("TokenStream[BlockWatch]", stream), real_BS)
        else:
            routed = [layer for layer in stream.layers if isinstance(layer, RoutedLayer)]
            records, top_k = [output.routing.records[layer.layer] for layer in routed], routed[0].settings.top_k
        if not bool(real_BS.any()):
            return
        sums = self._sums_for(mode, place, records[0].chosen_NE.shape[1], top_k)
        self._keep_only_explained(mode, place, sums, records)
        sums.update(records, self._tokens(ids_BS, real_BS, sums))

    def _read(self, mode: str, stream: TokenStream[BlockWatch], real_BS: Tensor) -> tuple[list[RoutingRecord], int]:
        """The records of what the blocks of a stream did in the pass that ends, and the experts per token."""
        try:
            seen = finished(stream.layers)
        except SpectraError as error:
            raise SpectraError(f"{error}{_if_compiled(self.model)}") from None
        records, real_M = [], real_BS.flatten()
        for layer, (block, one) in enumerate(zip(stream.layers, seen, strict=True)):
            if len(real_M) != len(one.chosen_ME):
                raise SpectraError(f"{block.name} routed {len(one.chosen_ME)} tokens of a batch of {len(real_M)}")
            record = block.record(layer, one, real_M)
            if self.outputs and mode == EVALUATION and record.hidden_Nd is not None:
                record.output_sum_ED = block.output_sums(record.hidden_Nd, record.chosen_NE)
            records.append(record)
        return records, max(one.top_k for one in seen)

    def _keep_only_explained(
        self, mode: str, place: int, sums: EvaluationAccumulator, records: list[RoutingRecord]
    ) -> None:
        unexplained = self._unexplained.setdefault(mode, set())
        for record in records:
            if record.probs_NE is None:
                unexplained.add((place, record.layer))
            if (place, record.layer) in unexplained:
                record.probs_NE = None
                sums.forget_probabilities(record.layer)

    def _note_loop(self) -> None:
        """Begin anew where the pass is the first of an evaluation by a Trainer that this is a callback of: what came
        before is no part of it."""
        loop = _evaluation_loop(self)
        if loop is not self._evaluation_loop:
            self.reset()
            self._evaluation_loop = loop

    def _tokens(self, ids_BS: Tensor, real_BS: Tensor, sums: EvaluationAccumulator) -> TokenBatch:
        """Each sequence counts as a document; only domains need them apart."""
        documents_BS = torch.zeros_like(ids_BS)
        if self.domains:
            first, rows = sums.num_documents, len(ids_BS)
            sums.reserve(first + rows)
            documents_BS = torch.arange(first, first + rows, device=ids_BS.device)[:, None].expand_as(ids_BS)
        return TokenBatch.from_padded(ids_BS, real_BS, documents_BS, torch.full_like(ids_BS, self._domain))

    def _sums_for(self, mode: str, place: int, num_experts: int, top_k: int) -> EvaluationAccumulator:
        of_streams = self._sums.setdefault(mode, [None] * len(self.streams))
        found = of_streams[place]
        if found is None:
            shape = len(self.streams[place].layers), num_experts, top_k, self.vocabulary_size
            found = of_streams[place] = EvaluationAccumulator(*shape, max(len(self.domains), 1), 1)
        return found

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
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

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Trainer's hook: adds the metrics to what `evaluate()` returns, and begins anew."""
        if not self._pending and (why := _if_compiled(self.model)):
            raise SpectraError(f"RoutingMonitor has seen no pass of this evaluation{why}")
        metrics.update(self._pending)
        self._pending = {}
        self._end_of_loop()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: dict | None = None, **kwargs: Any) -> None:
        """Trainer's hook: predictions are no part of an evaluation."""
        self._end_of_loop()

    def _end_of_loop(self) -> None:
        self.reset()
        self._evaluation_loop = None


def _prefix(logs: dict) -> str:
    """`eval`, or what else Trainer was told to call an evaluation; empty for figures of training."""
    names = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime") and key != "train_runtime"]
    return names[0] if names else ""


def _configuration(model: nn.Module) -> PreTrainedConfig:
    """The text configuration of the Hugging Face model that `model` is, or is wrapped around."""
    for module in model.modules():
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
            return config.get_text_config()
    raise SpectraError(f"{type(model).__name__} holds no Hugging Face model: no module of it has a configuration")


def _streams(model: nn.Module, top_k: int | None) -> list[TokenStream[Layer]]:
    """What is watched. Our own models leave records: nothing needs to be read by hooks on their blocks."""
    for module in model.modules():
        if layers := getattr(module, "routed_layers", None):
            return [TokenStream([module], layers)]
    blocks = watch_blocks(model, top_k)
    if not blocks:
        raise SpectraError(f"{type(model).__name__} has no sparse block to watch: it is a dense model")
    return token_streams(model, [(block.name, block) for block in blocks])


def _evaluation_loop(callback: TrainerCallback) -> FrameType | None:
    """The call of Trainer.evaluation_loop, of a Trainer with this callback, that this pass is made in; None outside.
    Trainer tells callbacks when an evaluation ends, but not when it begins."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not Trainer.evaluation_loop.__code__:
        frame = frame.f_back
    callbacks = [] if frame is None else frame.f_locals["self"].callback_handler.callbacks
    return frame if callback in callbacks else None


def _if_compiled(model: nn.Module) -> str:
    """What to say in addition where a part of the model was compiled: hooks that come later are not called."""
    for module in model.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            return (
                "; it was compiled by torch.compile, and if it ran before RoutingMonitor was attached, its hooks are "
                "not called: attach first, call torch.compiler.reset(), or watch the model as it was before"
            )
    return ""

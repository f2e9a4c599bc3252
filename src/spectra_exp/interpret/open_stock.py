"""Opens a stock Hugging Face MoE model by folder; its routing is what its experts were called with.

Letters: N tokens, E experts, K experts per token, d hidden size, F numbers of one expert's weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from spectra_exp.data.documents import UNLABELLED, Document, digest, mixed_order
from spectra_exp.data.files import documents_of
from spectra_exp.data.packing import tokenise
from spectra_exp.data.schema import EmbeddedData
from spectra_exp.data.sources import read_documents
from spectra_exp.data.tokenizer import named_tokenizer
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.interpret.subject import Engine, Subject
from spectra_exp.interpret.trace import HeldOut, Pass
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.whole_weights import check_weight_files, load_whole

USUAL_TOKENS, SEQUENCE_LENGTH = 32_768, 512
# Logits of one pass: 64 M numbers are 256 MB in float32.
MOST_LOGITS = 64 * 2**20
OWN_TYPE = "spectra_moe"
# Nothing is fetched, and no code that came with a model is run.
ONLY_HERE = {"local_files_only": True, "trust_remote_code": False}


@dataclass
class _Layer:
    """The experts of one routed layer, the router beside them, and what the running pass called them with."""

    experts: nn.Module
    router: nn.Module | None
    calls: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


class StockEngine(Engine):
    """A model of transformers' own classes.

    Since version 5 these call `experts(hidden_states, top_k_index, top_k_weights)` in every family; a hook on that
    call sees the experts that are executed, whatever the router returned.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self._layers = routed_layers(model)
        self.num_layers = len(self._layers)
        counts = {len(layer.experts.down_proj) for layer in self._layers}
        if len(counts) > 1:
            raise SpectraError(f"its layers have different numbers of experts ({', '.join(map(str, sorted(counts)))})")
        self.num_experts = counts.pop() if counts else 0
        self.top_k = int(getattr(model.config, "num_experts_per_tok", None) or 0)
        self.vocabulary_size = model.get_input_embeddings().num_embeddings
        self.longest = int(getattr(model.config, "max_position_embeddings", None) or SEQUENCE_LENGTH)
        for layer in self._layers:
            layer.experts.register_forward_pre_hook(_note_call(layer), with_kwargs=True)
            if layer.router is not None:
                layer.router.register_forward_hook(_note_logits(layer))

    @torch.no_grad()
    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        """Logits and executed routing; documents of a sequence see each other."""
        for layer in self._layers:
            layer.calls.clear()
            layer.logits.clear()
        logits_BSV = self.model(input_ids=ids_BS.to(self.model.device), use_cache=False).logits
        return Pass(logits_BSV, [self._record(place, layer) for place, layer in enumerate(self._layers)])

    def rows_at_once(self, length: int) -> int:
        """As many sequences as keep the logits within MOST_LOGITS, at most 16."""
        return max(1, min(16, MOST_LOGITS // (length * self.vocabulary_size)))

    def weights_EF(self, layer: int) -> np.ndarray:
        """Each expert's flattened down-projection, float32."""
        return self._layers[layer].experts.down_proj.detach().float().flatten(1).cpu().numpy()

    def _record(self, place: int, layer: _Layer) -> RoutingRecord:
        hidden_Nd, ids_NK, weights_NK = (torch.cat(parts) for parts in zip(*layer.calls, strict=True))
        # A column more than there are experts: some families name it where they drop a token.
        chosen_NE = torch.zeros(len(ids_NK), self.num_experts + 1, dtype=torch.bool, device=ids_NK.device)
        chosen_NE.scatter_(1, ids_NK, True)
        weights_NE = torch.zeros(chosen_NE.shape, dtype=torch.float32, device=ids_NK.device)
        weights_NE.scatter_(1, ids_NK, weights_NK.float())
        chosen_NE, weights_NE = chosen_NE[:, :-1], weights_NE[:, :-1]
        return RoutingRecord(
            layer=place,
            chosen_NE=chosen_NE,
            weights_NE=weights_NE,
            probs_NE=_distribution(layer.logits, chosen_NE),
            representation_ED=None if layer.router is None else layer.router.weight.detach().float(),
            output_sum_ED=self._output_sums(layer.experts, hidden_Nd, chosen_NE),
            losses={},
            figures={},
            hidden_Nd=hidden_Nd,
        )

    def _output_sums(self, experts: nn.Module, hidden_Nd: Tensor, chosen_NE: Tensor) -> Tensor:
        """float32 [E, d]: each expert's summed output over its tokens, each token through it alone at weight 1."""
        sums = []
        for expert in range(self.num_experts):
            rows_cd = hidden_Nd[chosen_NE[:, expert]]
            if not len(rows_cd):
                sums.append(torch.zeros(rows_cd.shape[1], device=rows_cd.device))
                continue
            alone = torch.full((len(rows_cd), 1), expert, device=rows_cd.device)
            # Not called as a module: the hook is for the model's own calls.
            made_cd = experts.forward(rows_cd, alone, torch.ones_like(alone, dtype=rows_cd.dtype))
            sums.append(made_cd.float().sum(0))
        return torch.stack(sums)


def routed_layers(model: nn.Module) -> list[_Layer]:
    """The modules that transformers calls with chosen experts, in order, each with the router beside it."""
    found = []
    for parent in model.modules():
        for experts in parent.children():
            if not _takes_experts(experts):
                continue
            weights = (getattr(child, "weight", None) for child in parent.children())
            beside = zip(parent.children(), weights, strict=True)
            rows = len(experts.down_proj)
            routers = [child for child, w in beside if w is not None and w.ndim == 2 and len(w) == rows]
            found.append(_Layer(experts, routers[0] if len(routers) == 1 else None))
    return found


def _takes_experts(module: nn.Module) -> bool:
    weight = getattr(module, "down_proj", None)
    stacked = isinstance(weight, nn.Parameter) and weight.ndim == 3
    return stacked and "top_k_index" in inspect.signature(module.forward).parameters


def _note_call(layer: _Layer) -> Any:
    names = list(inspect.signature(layer.experts.forward).parameters)

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        values = dict(zip(names, given, strict=False)) | named
        hidden = values["hidden_states"].detach()
        ids, weights = values["top_k_index"].detach(), values["top_k_weights"].detach()
        layer.calls.append((hidden.reshape(-1, hidden.shape[-1]), ids, weights))

    return note


def _note_logits(layer: _Layer) -> Any:
    def note(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        first = made[0] if isinstance(made, tuple) else made
        if isinstance(first, Tensor):
            layer.logits.append(first.detach())

    return note


def _distribution(logits: list[Tensor], chosen_NE: Tensor) -> Tensor | None:
    """The softmax of what the router returned first, None where the executed experts are not its largest entries."""
    if not logits:
        return None
    joined = torch.cat([part.reshape(-1, part.shape[-1]) for part in logits]).float()
    if joined.shape != chosen_NE.shape:
        return None
    outside = joined.masked_fill(chosen_NE, -torch.inf).amax(dim=1)
    inside = joined.masked_fill(~chosen_NE, torch.inf).amin(dim=1)
    return joined.softmax(dim=1) if bool((inside >= outside).all()) else None


def open_stock(
    key: str, path: Path, tokens: int | None, texts: str | None, seed: int, device: torch.device
) -> Subject:
    """The model in the folder `path`, looked at on the documents of `texts`, or on the embedded validation text.

    Raises SpectraError, one line, for what cannot be opened.
    """
    config = _read_config(key, path)
    if not (path / "tokenizer.json").is_file():
        raise ConfigError(key, f"{path} has no tokenizer.json", "save the model's tokenizer beside it")
    file = named_tokenizer(str(path))
    tokenizer = file.load()
    with _one_line(key, path):
        check_weight_files(key, path)
        model = load_whole(key, AutoModelForCausalLM, path, config=config, **ONLY_HERE)
    model = model.to(device).eval()
    engine = StockEngine(model)
    documents = documents_of(texts, "texts") if texts is not None else read_documents(EmbeddedData()).validation
    held_out = _packed(documents, tokenizer, file.end_token, engine.longest, tokens)
    # Reading tens of gigabytes again would take minutes; a file that was written anew has another time.
    weights = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in path.glob("*.safetensors"))
    print_of = digest((path / "config.json").read_bytes(), *weights)
    return Subject(
        name=path.name,
        label=f"{model.config.model_type} ({path.name})",
        path=path,
        step=None,
        fingerprint=digest(print_of, held_out.token_ids_MS.tobytes())[:16],
        engine=engine,
        tokenizer=tokenizer,
        held_out=held_out,
        run=None,
        seed=seed,
    )


def _read_config(key: str, path: Path) -> PreTrainedConfig:
    transformers_logging.disable_progress_bar()
    with _one_line(key, path):
        config = AutoConfig.from_pretrained(path, **ONLY_HERE)
    if config.model_type == OWN_TYPE:
        raise ConfigError(key, f"{path} is a checkpoint of a run", "name the run's folder, which holds config.yaml")
    return config


@contextmanager
def _one_line(key: str, path: Path) -> Iterator[None]:
    """A block in which what transformers raises for a folder that it cannot load becomes one line."""
    try:
        yield
    except SpectraError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(key, f"{path} is not a causal language model that transformers loads ({reason})") from error


def _packed(documents: list[Document], tokenizer: Any, end_token: str, longest: int, tokens: int | None) -> HeldOut:
    """The documents end to end in sequences of one length; each ends with the end token."""
    ordered = mixed_order(documents)
    domains = sorted({document.domain for document in ordered})
    stream = tokenise(tokenizer, ordered, end_token_id=tokenizer.token_to_id(end_token), domains=domains)
    length = min(longest, SEQUENCE_LENGTH, len(stream.tokens))
    tokens_MS, documents_MS, domains_MS = stream.blocks(length, USUAL_TOKENS if tokens is None else tokens)
    if domains == [UNLABELLED]:
        domains, domains_MS = [], np.full_like(domains_MS, -1)
    return HeldOut(tokens_MS, documents_MS, domains_MS, domains)

"""Opens a stock Hugging Face MoE model by folder; its routing is what its experts were called with.

Letters: N tokens, E experts, K experts per token, d hidden size, F numbers of one expert's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from spectra_exp.data.documents import UNLABELLED, digest, mixed_order
from spectra_exp.data.packing import tokenise
from spectra_exp.data.sources import read_documents
from spectra_exp.data.sources.embedded import EmbeddedData
from spectra_exp.data.sources.files import documents_of
from spectra_exp.data.tokenizer import TokenizerFile, named_tokenizer
from spectra_exp.foundations.errors import ConfigError, SpectraError, first_line
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import Engine, HeldOut, Pass
from spectra_exp.moe.families import down_projections
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.stock.watch import Seen, finished, watch_blocks
from spectra_exp.moe.whole_weights import check_weight_files, load_whole

USUAL_TOKENS, SEQUENCE_LENGTH = 32_768, 512
# Logits of one pass: 64 M numbers are 256 MB in float32.
MOST_LOGITS = 64 * 2**20
OWN_TYPE = "spectra_moe"
# Nothing is fetched, and no code that came with a model is run.
ONLY_HERE = {"local_files_only": True, "trust_remote_code": False}


class StockEngine(Engine):
    """A model of transformers' own classes, read as `RoutingMonitor` reads it: by what its experts are called with.

    Raises SpectraError for a sparse model whose routing cannot be read.
    """

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self._watches = watch_blocks(model, getattr(model.config, "num_experts_per_tok", None))
        for watch in self._watches:
            watch.attach()
        self.num_layers = len(self._watches)
        self.num_experts = self._watches[0].num_experts if self._watches else 0
        embeddings: Any = model.get_input_embeddings()
        self.vocabulary_size = embeddings.num_embeddings
        self.longest = int(getattr(model.config, "max_position_embeddings", None) or SEQUENCE_LENGTH)
        self._explained: dict[int, bool] = {}

    @cached_property
    def top_k(self) -> int:  # type: ignore[override]
        """Experts per token, as a pass of a few tokens shows: families name it in many ways. SpectraError as above."""
        _, seen = self._pass(torch.zeros(1, min(4, self.longest), dtype=torch.int64))
        return max((one.top_k for one in seen), default=0)

    @torch.no_grad()
    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        """Logits and executed routing; documents of a sequence see each other."""
        logits_BSV, seen = self._pass(ids_BS)
        return Pass(logits_BSV, [self._record(place, one) for place, one in enumerate(seen)])

    def rows_at_once(self, length: int) -> int:
        """As many sequences as keep the logits within MOST_LOGITS, at most 16."""
        return max(1, min(16, MOST_LOGITS // (length * self.vocabulary_size)))

    def weights_EF(self, layer: int) -> np.ndarray:
        """Each expert's flattened down-projection, float32."""
        return down_projections(self._watches[layer].block.experts).detach().float().flatten(1).cpu().numpy()

    @torch.no_grad()
    def _pass(self, ids_BS: Tensor) -> tuple[Tensor, list[Seen]]:
        for watch in self._watches:
            watch.begin()
        logits_BSV = self.model(input_ids=ids_BS.to(self.model.device), use_cache=False).logits
        return logits_BSV, finished(self._watches)

    def _record(self, place: int, seen: Seen) -> RoutingRecord:
        watch = self._watches[place]
        record = watch.record(place, seen)
        record.output_sum_ED = watch.output_sums(seen.hidden_Md, seen.chosen_ME)
        known = self._explained.setdefault(place, record.probs_NE is not None)
        if known and record.probs_NE is None:
            raise SpectraError(f"{watch.name}: its router's scores explain the weights of some tokens, not of others")
        if not known:
            record.probs_NE = None
        return record


def open_stock(key: str, path: Path, tokens: int | None, texts: str | None, seed: int, device: torch.device) -> Subject:
    """The model in the folder `path`, looked at on the documents of `texts`, or on the embedded validation text.

    Raises SpectraError, one line, for what cannot be opened.
    """
    config = read_config(key, path)
    if not (path / "tokenizer.json").is_file():
        raise ConfigError(key, f"{path} has no tokenizer.json", "save the model's tokenizer beside it")
    file = named_tokenizer(str(path))
    model = load_stock(key, path, config, device)
    engine = StockEngine(model)
    _try_a_pass(key, path, engine)
    held_out = packed(texts, file, engine.longest, tokens)
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
        tokenizer=file.load(),
        held_out=held_out,
        run=None,
        seed=seed,
    )


def _try_a_pass(key: str, path: Path, engine: StockEngine) -> None:
    """Find out on a few tokens that the model runs and its routing can be read. ConfigError, one line, if not."""
    try:
        experts = engine.top_k
    except SpectraError as error:
        raise ConfigError(key, f"{path}: {error}") from error
    # Whatever a model's code may raise: it is somebody else's.
    except Exception as error:
        raise ConfigError(key, f"{path} was loaded, but transformers cannot run it ({first_line(error)})") from error
    if engine.num_layers and not experts:
        raise ConfigError(key, f"the routed layers of {path} sent no token to an expert", "is it a trained model?")


def read_config(key: str, path: Path) -> PreTrainedConfig:
    """The configuration of the model in a folder. ConfigError, one line, for what is none, or is a run's checkpoint."""
    transformers_logging.disable_progress_bar()
    with one_line(key, path):
        config = AutoConfig.from_pretrained(path, **ONLY_HERE)
    if config.model_type == OWN_TYPE:
        raise ConfigError(key, f"{path} is a checkpoint of a run", "name the run's folder, which holds config.yaml")
    return config


def load_stock(key: str, path: Path, config: PreTrainedConfig, device: torch.device) -> PreTrainedModel:
    """The model in a folder, whole, on the device and in evaluation mode. ConfigError, one line, for what is none."""
    with one_line(key, path):
        check_weight_files(key, path)
        model = load_whole(key, AutoModelForCausalLM, path, config=config, **ONLY_HERE)
        return model.to(device).eval()  # type: ignore[arg-type]


@contextmanager
def one_line(key: str, path: Path) -> Iterator[None]:
    """A block in which what transformers raises for a folder that it cannot load becomes one line."""
    try:
        yield
    except SpectraError:
        raise
    except (OSError, ValueError, KeyError) as error:
        problem = f"{path} is not a causal language model that transformers loads ({first_line(error)})"
        raise ConfigError(key, problem) from error


def packed(texts: str | None, file: TokenizerFile, longest: int, tokens: int | None) -> HeldOut:
    """The documents of `texts`, or the embedded validation text, end to end in sequences of one length.

    Each document ends with the end token.
    """
    tokenizer = file.load()
    documents = documents_of(texts, "texts") if texts is not None else read_documents(EmbeddedData()).validation
    ordered = mixed_order(documents)
    domains = sorted({document.domain for document in ordered})
    stream = tokenise(tokenizer, ordered, end_token_id=tokenizer.get_vocab()[file.end_token], domains=domains)
    length = min(longest, SEQUENCE_LENGTH, len(stream.tokens))
    tokens_MS, documents_MS, domains_MS = stream.blocks(length, USUAL_TOKENS if tokens is None else tokens)
    if domains == [UNLABELLED]:
        domains, domains_MS = [], np.full_like(domains_MS, -1)
    return HeldOut(tokens_MS, documents_MS, domains_MS, domains)

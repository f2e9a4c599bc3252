"""A model that somebody else trained, as a starting point: where its files are, what they hold, the loaded model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.foundations.errors import ConfigError, hub_errors, nearest
from spectra_exp.moe.schema import RerouteConfig, SourceModelConfig, UpcycleConfig
from spectra_exp.moe.whole_weights import ONLY_HERE, check_weight_files, load_whole

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

KEY = "model.source"
# Quantised weights that transformers gives as plain ones: GPT-OSS and DeepSeek-V3 as they were released.
READ_WHOLE = ("mxfp4", "fp8")
# What transformers raises for a configuration that it cannot use.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError, OSError)
# What is fetched from the hub: no pickled weights, no code.
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class SourceFacts:
    """What the configuration of a source says, without its weights. max_positions: None where nothing limits it."""

    folder: Path
    model_type: str
    vocabulary_size: int
    num_layers: int
    max_positions: int | None
    packs: bool
    num_experts: int | None = None
    top_k: int | None = None


def source_folder(config: SourceModelConfig) -> Path:
    """The local folder of `model.source`: a path, or a model of the hub that lies in the local cache.

    Only `model.download=true` asks the hub. Raises ConfigError, with what to get and where to put it.
    """
    name = config.source
    if not name:
        fix = "give model.source=FOLDER or a model's name on the Hugging Face hub"
        raise ConfigError(KEY, "no model was given", fix)
    path = Path(name).expanduser()
    if path.is_dir():
        if config.revision:
            raise ConfigError("model.revision", f"{config.revision} of a folder would have no effect", "drop it")
        return _checked(path.resolve())
    if path.is_file():
        raise ConfigError(KEY, f"{path} is a file", f"give the folder of a saved model: {path.resolve().parent}?")
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        beside = [p.name for p in path.parent.glob("[!.]*") if p.is_dir()]
        close = nearest(path.name, beside)
        hint = f"did you mean '{close}'? " if close else ""
        fix = f"{hint}give a folder with config.json and *.safetensors, or OWNER/NAME of a model on the hub"
        raise ConfigError(KEY, f"there is no folder {path}", fix)
    return _checked(_from_hub(name, config.revision, config.download))


def _from_hub(name: str, revision: str | None, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    at = f" --revision {revision}" if revision else ""
    get = (
        f"run `hf download {name}{at} --local-dir FOLDER` on a machine with a network and give model.source=FOLDER "
        "(config.json, *.safetensors and tokenizer.json are enough)"
    )
    try:
        found = snapshot_download(name, revision=revision, local_files_only=not download, allow_patterns=WANTED)
    except HFValidationError as error:
        raise ConfigError(KEY, f"'{name}' is neither a folder nor a name on the hub", "check it") from error
    except hub_errors() + (OSError,) as error:
        if not download:
            problem = f"'{name}' is no folder and not in the local Hugging Face cache"
            raise ConfigError(KEY, problem, f"give model.download=true to fetch it, or {get}") from error
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(KEY, f"'{name}' could not be fetched ({reason})", get) from error
    return Path(found)


def _checked(folder: Path) -> Path:
    """The folder, once it is known to hold a configuration and safe weights."""
    if not (folder / "config.json").is_file():
        raise ConfigError(KEY, f"{folder} holds no config.json", "give the folder of a saved Hugging Face model")
    check_weight_files(KEY, folder)
    return folder


def source_fingerprint(folder: Path) -> str:
    """32 hex digits over the content of the configuration and the weights, wherever they lie."""
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")], key=lambda path: path.name)
    hashed = hashlib.sha256()
    for path in files:
        status = path.stat()
        hashed.update(f"{path.name}:{_content(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return hashed.hexdigest()[:32]


@lru_cache(maxsize=256)
def _content(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole_config(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(folder, **ONLY_HERE)
    except UNREADABLE as error:
        problem = f"{folder}: its config.json cannot be read ({' '.join(str(error).split())[:200]})"
        fix = "give a model of a family that transformers knows without code of its own"
        raise ConfigError(KEY, problem, fix) from error
    if whole.model_type == "spectra_moe":
        raise ConfigError(KEY, f"{folder} is a model of ours", "give a plain Hugging Face model")
    for config in (whole, whole.get_text_config(decoder=True)):
        quantised = getattr(config, "quantization_config", None)
        if quantised is None:
            continue
        method = quantised.get("quant_method", "bitsandbytes") if isinstance(quantised, dict) else quantised
        if method not in READ_WHOLE:
            fix = "give the model as it was before, in float32, bfloat16 or float16"
            raise ConfigError(KEY, f"{folder}: its weights are quantised ({method})", fix)
        # Whatever this machine has kernels for, the weights are numbers that can be trained.
        quantised["dequantize"] = True
    return whole


def source_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the source's language model: of a model that also sees or hears, that of its text part."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = _whole_config(folder).get_text_config(decoder=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(KEY, f"model_type '{config.model_type}' is no causal language model", "give one")
    return config


def source_facts(config: SourceModelConfig) -> SourceFacts:
    """The facts of a configured source. Raises ConfigError when it cannot be used."""
    folder = source_folder(config)
    status = (folder / "config.json").stat()
    sparse = isinstance(config, RerouteConfig)
    first_dense = config.first_k_dense_replace if isinstance(config, UpcycleConfig) else 0
    return _facts(folder, sparse, first_dense, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _facts(folder: Path, sparse: bool, first_dense: int, modified_ns: int) -> SourceFacts:
    from spectra_exp.moe.attention import keeps_documents_apart
    from spectra_exp.moe.families import TOP_K, num_experts_of, sparse_family
    from spectra_exp.moe.upcycle import check_upcycles

    config = source_config(folder)
    own: dict[str, Any] = {}
    if not sparse:
        check_upcycles(_empty(config), first_dense)
    else:
        try:
            sparse_family(config)
        except ConfigError as error:
            raise _advised(config, error) from None
        own = dict(num_experts=num_experts_of(config), top_k=getattr(config, TOP_K))
    return SourceFacts(
        folder=folder,
        model_type=config.model_type,
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        max_positions=getattr(config, "max_position_embeddings", None),
        packs=keeps_documents_apart(config),
        **own,
    )


def _advised(config: PreTrainedConfig, refusal: ConfigError) -> ConfigError:
    """What to say of a model that has no row among the sparse ones: `refusal`, or that it can be upcycled."""
    from spectra_exp.moe.upcycle import check_upcycles

    try:
        check_upcycles(_empty(config), 0)
    except ConfigError:
        return refusal
    return ConfigError(KEY, f"'{config.model_type}' is a dense model", "give model=upcycle")


def _empty(config: PreTrainedConfig) -> PreTrainedModel:
    """The model without weights or memory for them: what its layers are made of."""
    import torch
    from transformers import AutoModelForCausalLM

    from spectra_exp.moe.attention import attention_for

    try:
        with torch.device("meta"):
            attention = attention_for(config)
            return AutoModelForCausalLM.from_config(
                config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
            )
    except UNREADABLE as error:
        problem = f"no model can be built from its config.json ({' '.join(str(error).split())[:200]})"
        raise ConfigError(KEY, problem, "give a model that transformers loads") from error


def load_source(folder: Path) -> PreTrainedModel:
    """The source's causal language model, float32, with its weights; no code of its folder is run."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from spectra_exp.moe.attention import attention_for

    config = source_config(folder)
    attention = attention_for(config)
    whole = _whole_config(folder)
    if whole.model_type == config.model_type:
        own = dict(config=whole, attn_implementation=attention, dtype=torch.float32)
        model = load_whole(KEY, AutoModelForCausalLM, folder, **own)
        model.config.tie_word_embeddings = _is_tied(model)
        return model
    # A model that also sees: its decoder and head become a language model of their own.
    seeing = load_whole(KEY, AutoModelForImageTextToText, folder, config=whole, dtype=torch.float32)
    config.tie_word_embeddings = _is_tied(seeing)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
    )
    model.base_model.load_state_dict(seeing.get_decoder().state_dict())
    model.get_output_embeddings().load_state_dict(seeing.get_output_embeddings().state_dict())
    model.generation_config = seeing.generation_config
    return model.eval()


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether the head is the embedding: config.json may say so of a model whose files hold another head."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight

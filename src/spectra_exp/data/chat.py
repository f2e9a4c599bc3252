"""Conversations as text by a chat template, with the places of what the assistant says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from spectra_exp.foundations.errors import ConfigError

Messages = Sequence[dict[str, str]]
# Character ranges of a text.
Spans = tuple[tuple[int, int], ...]
Renderer = Callable[[Messages], tuple[str, Spans]]

# *Source:* ChatML, as the SmolLM2 and Qwen2 models use it.
START, END = "<|im_start|>", "<|im_end|>"
MARKERS = (START, END)


def chatml(messages: Messages) -> tuple[str, Spans]:
    """The conversation as ChatML, and where the assistant's turns are: their content and the mark that ends each."""
    text, spans = "", []
    for message in messages:
        text += f"{START}{message['role']}\n"
        begun = len(text)
        text += f"{message['content']}{END}"
        if message["role"] == "assistant":
            spans.append((begun, len(text)))
        text += "\n"
    return text, tuple(spans)


def renderer(tokenizer: str | None) -> Renderer:
    """ChatML, or the chat template of the named tokenizer where it has one."""
    template = tokenizer and _template_of(Path(tokenizer).expanduser())
    if not template:
        return chatml
    from transformers import PreTrainedTokenizerFast

    folder = _folder(Path(tokenizer).expanduser())
    config = _config_of(folder)
    named = {name: config[name] for name in ("bos_token", "eos_token") if config.get(name)}
    applied = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=template,
        **{name: token["content"] if isinstance(token, dict) else token for name, token in named.items()},
    )

    def render(messages: Messages) -> tuple[str, Spans]:
        def text_of(count: int, prompt: bool = False) -> str:
            return applied.apply_chat_template(list(messages[:count]), tokenize=False, add_generation_prompt=prompt)

        text, spans = text_of(len(messages)), []
        for place, message in enumerate(messages):
            if message["role"] == "assistant":
                before, after = text_of(place, prompt=True) if place else "", text_of(place + 1)
                if not text.startswith(before) or not text.startswith(after):
                    raise ConfigError(
                        "data.tokenizer",
                        "its chat template writes earlier turns anew, so that turns have no place of their own",
                        "give another tokenizer, or none for ChatML",
                    )
                spans.append((len(before), len(after)))
        return text, tuple(spans)

    return render


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _config_of(folder: Path) -> dict:
    file = folder / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _template_of(path: Path) -> str | None:
    file = _folder(path) / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else _config_of(_folder(path)).get("chat_template")

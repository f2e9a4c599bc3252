"""Conversations as text by a chat template, with the places of what the assistant says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from spectra_exp.foundations.errors import ConfigError

Messages = Sequence[dict[str, str]]
# Character ranges of a text.
Spans = tuple[tuple[int, int], ...]
# A conversation and the role whose turns are looked for.
Renderer = Callable[[Messages, str], tuple[str, Spans]]

# *Source:* ChatML, as the SmolLM2 and Qwen2 models use it.
START, END = "<|im_start|>", "<|im_end|>"
MARKERS = (START, END)
# The role whose turns a loss usually counts.
ASSISTANT = "assistant"

_KEY, _FIX = "data.tokenizer", "give another tokenizer, or none for ChatML"


class BrokenTemplate(ConfigError):
    """A chat template that is no program at all, and writes no conversation."""


class Unwritable(ConfigError):
    """A conversation that the chat template does not write, and why not."""


def chatml(messages: Messages, role: str = ASSISTANT) -> tuple[str, Spans]:
    """The conversation as ChatML, and where the turns of `role` are: their content and the mark that ends each."""
    text, spans = "", []
    for message in messages:
        text += f"{START}{message['role']}\n"
        begun = len(text)
        text += f"{message['content']}{END}"
        if message["role"] == role:
            spans.append((begun, len(text)))
        text += "\n"
    return text, tuple(spans)


def renderer(tokenizer: str | None) -> Renderer:
    """ChatML, or the chat template of the named tokenizer where it has one.

    A template's renderer raises Unwritable for a conversation that the template refuses, and BrokenTemplate.
    """
    if not tokenizer or not (template := _template_of(tokenizer)):
        return chatml
    import jinja2
    from transformers import PreTrainedTokenizerFast

    folder = _folder(Path(tokenizer).expanduser())
    config = _config_of(folder)
    named = {name: config[name] for name in ("bos_token", "eos_token") if config.get(name)}
    applied = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=template,
        **{name: token["content"] if isinstance(token, dict) else token for name, token in named.items()},
    )

    def render(messages: Messages, role: str = ASSISTANT) -> tuple[str, Spans]:
        def text_of(count: int, prompt: bool = False) -> str:
            some = list(messages[:count])
            try:
                return str(applied.apply_chat_template(some, tokenize=False, add_generation_prompt=prompt))
            except jinja2.TemplateSyntaxError as error:
                problem = f"its chat template is broken in line {error.lineno}: {error.message}"
                raise BrokenTemplate(_KEY, problem, _FIX) from None
            # A template is a program, and raises whatever one can.
            except Exception as error:
                raise Unwritable(_KEY, f"its chat template says: {error or type(error).__name__}", _FIX) from None

        if not messages:
            return "", ()
        text, spans = text_of(len(messages)), []
        for place, message in enumerate(messages):
            if message["role"] == role:
                before, after = text_of(place, prompt=True) if place else "", text_of(place + 1)
                if not text.startswith(before) or not text.startswith(after):
                    problem = "its chat template writes earlier turns anew, so that turns have no place of their own"
                    raise Unwritable(_KEY, problem, _FIX)
                spans.append((len(before), len(after)))
        return text, tuple(spans)

    return render


def _template_of(tokenizer: str) -> str | dict[str, str] | None:
    """The chat template of a named tokenizer, or its templates by name; None where it has none."""
    folder = _folder(Path(tokenizer).expanduser())
    file = folder / "chat_template.jinja"
    try:
        template = file.read_text(encoding="utf-8") if file.is_file() else _config_of(folder).get("chat_template")
    except UnicodeDecodeError:
        raise ConfigError(_KEY, f"{file} is not UTF-8", "save it as UTF-8") from None
    if isinstance(template, list):
        return {named["name"]: named["template"] for named in template}
    return template


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _config_of(folder: Path) -> dict:
    file = folder / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

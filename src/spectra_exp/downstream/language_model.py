"""A trained model as the harness sees one: log-likelihoods, and text that it goes on with.

Padding is masked, so that it is never routed. Shapes: B sequences, S tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast

from spectra_exp.moe.model import SpectraMoeForCausalLM

# What is generated where a task sets no length.
MOST_NEW_TOKENS = 256


class SpectraLM(TemplateLM):
    """`model` in evaluation mode on `device`; sequences are cut at their beginning to `max_length` tokens."""

    def __init__(
        self,
        model: SpectraMoeForCausalLM,
        tokenizer: Tokenizer,
        end_token: str,
        batch_size: int,
        max_length: int,
        device: torch.device,
        progress: Callable[[int, int], None],
    ):
        super().__init__()
        self.model, self.tokens, self.end_token = model.to(device).eval(), tokenizer, end_token
        self.batch_size, self.max_length = batch_size, max_length
        self._device, self.progress = device, progress
        self.end_token_id = tokenizer.get_vocab()[end_token]
        # Scores are of greedy text, however a source's own generation_config.json samples or penalises.
        self.model.generation_config = GenerationConfig()

    @property
    def eot_token_id(self) -> int:
        return self.end_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.tokens.encode(string, add_special_tokens=False).ids

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of each (context, continuation); the progress shown is our own."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of each continuation, and whether each of its tokens is the likeliest."""
        # Long ones first: batches of like lengths, and memory runs out at once or never.
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            for place, result in zip(places, self._batch([requests[i][1:] for i in places]), strict=True):
                found[place] = result
            self.progress(start + len(places), len(order))
        return found

    @torch.no_grad()
    def _batch(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        # The last token is predicted and never read.
        rows = [(context + continuation)[-self.max_length - 1 :][:-1] for context, continuation in pairs]
        length = max(map(len, rows))
        ids_BS = torch.full((len(rows), length), self.end_token_id)
        mask_BS = torch.zeros_like(ids_BS)
        for row, ids in enumerate(rows):
            ids_BS[row, : len(ids)] = torch.tensor(ids)
            mask_BS[row, : len(ids)] = 1
        logits_BSV = self.model(
            input_ids=ids_BS.to(self._device), attention_mask=mask_BS.to(self._device), use_cache=False
        ).logits
        results = []
        for row, (ids, (_, continuation)) in enumerate(zip(rows, pairs, strict=True)):
            targets = torch.tensor(continuation[-len(ids) :], device=self._device)
            logits_SV = logits_BSV[row, len(ids) - len(targets) : len(ids)].float()
            log_probs_S = logits_SV.log_softmax(-1).gather(1, targets[:, None])[:, 0]
            results.append((float(log_probs_S.sum()), bool((logits_SV.argmax(-1) == targets).all())))
        return results

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows that do not overlap."""
        found = []
        for (text,) in (request.args for request in requests):
            ids = self.tok_encode(text)
            windows = get_rolling_token_windows(ids, self.end_token_id, self.max_length, context_len=1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            found.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return found

    @torch.no_grad()
    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model goes on with, greedily, up to the first of the task's stop texts."""
        decoder = PreTrainedTokenizerFast(tokenizer_object=self.tokens, eos_token=self.end_token)
        found = []
        for number, (context, settings) in enumerate(request.args for request in requests):
            until = settings.get("until", [])
            stops = [until] if isinstance(until, str) else list(until)
            most = min(settings.get("max_gen_toks", MOST_NEW_TOKENS), self.max_length - 1)
            # What follows no text at all follows the end of another.
            before = self.tok_encode(context) or [self.end_token_id]
            ids = torch.tensor([before[-(self.max_length - most) :]], device=self._device)
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=self.end_token_id,
                pad_token_id=self.end_token_id,
                **({"stop_strings": stops, "tokenizer": decoder} if stops else {}),
            )
            text = self.tokens.decode(output[0, ids.shape[1] :].tolist())
            found.append(min((text.partition(stop)[0] for stop in stops), key=len, default=text))
            self.progress(number + 1, len(requests))
        return found

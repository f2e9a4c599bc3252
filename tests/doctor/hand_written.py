"""A sparse language model as a user writes one: a `PreTrainedModel` whose auxiliary loss is always in the loss.

Shapes: B sequences, S tokens, M = B S, d hidden size, E experts, K experts per token, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, one_hot, silu
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoeCausalLMOutputWithPast

E, d, V = 4, 16, 61


class HandConfig(PreTrainedConfig):
    """`coefficient_aux`: weight of the auxiliary loss; `normalised`: weights of a token are made to sum to 1."""

    model_type = "hand_written"

    def __init__(
        self, num_experts_per_tok: int = 2, normalised: bool = True, coefficient_aux: float = 0.01, **named: Any
    ):
        self.num_experts_per_tok, self.normalised = num_experts_per_tok, normalised
        self.coefficient_aux = coefficient_aux
        self.hidden_size, self.num_hidden_layers, self.vocab_size = d, 2, V
        super().__init__(**named)


class Gate(nn.Module):
    def __init__(self, config: HandConfig):
        super().__init__()
        self.config, self.weight = config, nn.Parameter(0.5 * torch.randn(E, d))

    def forward(self, hidden_Md: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [M, E], weights [M, K] and indices [M, K]."""
        logits_ME = linear(hidden_Md.float(), self.weight.float())
        weights_MK, indices_MK = logits_ME.softmax(-1).topk(self.config.num_experts_per_tok, -1)
        if self.config.normalised:
            weights_MK = weights_MK / weights_MK.sum(-1, keepdim=True)
        return logits_ME, weights_MK.to(hidden_Md.dtype), indices_MK


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_experts = E
        self.up, self.down_proj = (nn.Parameter(0.2 * torch.randn(E, *shape)) for shape in ((d, 24), (24, d)))

    def forward(self, hidden_Md: Tensor, indices_MK: Tensor, weights_MK: Tensor) -> Tensor:
        out_Md = torch.zeros_like(hidden_Md)
        for expert in range(E):
            rows, places = (indices_MK == expert).nonzero(as_tuple=True)
            made = silu(hidden_Md[rows] @ self.up[expert]) @ self.down_proj[expert]
            out_Md.index_add_(0, rows, made * weights_MK[rows, places, None])
        return out_Md


class Block(nn.Module):
    """The mean of the tokens so far in place of attention, and experts."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.mix, self.gate, self.experts = nn.Linear(d, d), Gate(config), Experts()

    def forward(self, hidden_BSd: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        real_BS1 = mask_BS[..., None].to(hidden_BSd.dtype)
        hidden_BSd = hidden_BSd + self.mix((hidden_BSd * real_BS1).cumsum(1) / real_BS1.cumsum(1).clamp(min=1))
        logits_ME, weights_MK, indices_MK = self.gate(hidden_BSd.flatten(0, 1))
        return hidden_BSd + self.experts(hidden_BSd.flatten(0, 1), indices_MK, weights_MK).view_as(
            hidden_BSd
        ), logits_ME


class HandWritten(PreTrainedModel, GenerationMixin):
    config_class = HandConfig
    # The Trainer divides the whole loss by the micro-batches of a step.
    accepts_loss_kwargs = False

    def __init__(self, config: HandConfig):
        super().__init__(config)
        self.embed, self.head = nn.Embedding(V, d), nn.Linear(d, V, bias=False)
        self.blocks = nn.ModuleList([Block(config) for _ in range(2)])
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As the modules made them."""

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **named: Any
    ) -> MoeCausalLMOutputWithPast:
        mask_BS = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden_BSd, layers = self.embed(input_ids), []
        for block in self.blocks:
            hidden_BSd, logits_ME = block(hidden_BSd, mask_BS)
            layers.append(logits_ME[mask_BS.flatten().bool()])
        logits_BSV = self.head(hidden_BSd)
        loss, aux_loss = None, torch.stack([self.balance(logits_ME) for logits_ME in layers]).mean()
        if labels is not None:
            loss = self.total(cross_entropy(logits_BSV[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), aux_loss)
        return MoeCausalLMOutputWithPast(loss=loss, aux_loss=aux_loss, logits=logits_BSV)

    def balance(self, logits_ME: Tensor) -> Tensor:
        """E sum f P of one layer."""
        shares_ME = logits_ME.softmax(-1)
        counted_ME = one_hot(shares_ME.topk(self.config.num_experts_per_tok, -1).indices, E).sum(1).float()
        return E * (shares_ME.mean(0) * counted_ME.mean(0)).sum()

    def total(self, language: Tensor, auxiliary: Tensor) -> Tensor:
        return language + self.config.coefficient_aux * auxiliary

    def prepare_inputs_for_generation(self, input_ids: Tensor, attention_mask: Tensor, **named: Any) -> dict[str, Any]:
        return {"input_ids": input_ids, "attention_mask": attention_mask}

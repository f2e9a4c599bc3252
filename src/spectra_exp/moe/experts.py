"""The experts of one layer and how tokens reach them.

Shapes: N real tokens, A assignments (token, expert), E experts, d hidden size, f expert width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

BIASES = ("up_bias", "gate_bias", "down_bias")


class Experts(nn.Module):
    """E feed-forward networks with stacked weights, gated (down(act(gate x) * up x)) or not (down(act(up x))).

    Weights are stored as [E, out, in], as nn.Linear stores each, and biases, where there are any, as [E, out].
    """

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        expert_size: int,
        gated: bool,
        activation: str,
        std: float,
        biases: Sequence[str] = (),
    ):
        super().__init__()
        self.num_experts, self.hidden_size, self.std = num_experts, hidden_size, std
        self.up = nn.Parameter(torch.empty(num_experts, expert_size, hidden_size))
        self.gate = nn.Parameter(torch.empty(num_experts, expert_size, hidden_size)) if gated else None
        self.down = nn.Parameter(torch.empty(num_experts, hidden_size, expert_size))
        for name in BIASES:
            size = hidden_size if name == "down_bias" else expert_size
            self.register_parameter(name, nn.Parameter(torch.zeros(num_experts, size)) if name in biases else None)
        self.activation = ACT2FN[activation]

    def reset_parameters(self) -> None:
        """Draw initial weights from the global random state, normal with the backbone's deviation; biases are 0."""
        for name, weight in self.named_parameters():
            if name in BIASES:
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=self.std)

    def forward(self, tokens_Nd: Tensor, chosen_NE: Tensor, weights_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum of the chosen experts' outputs [N, d], and each expert's summed output [E, d] (detached)."""
        # Row-major nonzero of the transpose lists assignments sorted by expert, then by token.
        expert_A, token_A = chosen_NE.T.nonzero(as_tuple=True)
        counts = torch.bincount(expert_A, minlength=self.num_experts).tolist()
        # unbind once: indexing a stacked parameter would zero-fill its whole gradient per expert.
        stacked = {name: getattr(self, name) for name in ("up", "down", "gate", *BIASES)}
        weights = {name: w.unbind(0) for name, w in stacked.items() if w is not None}
        outputs = []
        for expert, rows_cd in enumerate(tokens_Nd[token_A].split(counts)):
            if counts[expert]:
                outputs.append(self._expert(rows_cd, **{name: w[expert] for name, w in weights.items()}))
        if not outputs:
            return torch.zeros_like(tokens_Nd), tokens_Nd.new_zeros(self.num_experts, self.hidden_size)
        output_Ad = torch.cat(outputs)
        weight_A1 = weights_NE[token_A, expert_A][:, None].to(output_Ad.dtype)
        combined_Nd = torch.zeros_like(tokens_Nd, dtype=output_Ad.dtype).index_add(0, token_A, output_Ad * weight_A1)
        sums = [rows.detach().float().sum(0) for rows in output_Ad.split(counts)]
        return combined_Nd, torch.stack(sums)

    def _expert(
        self,
        rows_cd: Tensor,
        up: Tensor,
        down: Tensor,
        gate: Tensor | None = None,
        up_bias: Tensor | None = None,
        gate_bias: Tensor | None = None,
        down_bias: Tensor | None = None,
    ) -> Tensor:
        linear = nn.functional.linear
        inner = linear(rows_cd, up, up_bias)
        inner = self.activation(inner) if gate is None else self.activation(linear(rows_cd, gate, gate_bias)) * inner
        return linear(inner, down, down_bias)


class DenseMlp(nn.Module):
    """One feed-forward network as wide as the K experts that a routed layer uses: the dense backbone's MLP."""

    def __init__(self, hidden_size: int, width: int, gated: bool, activation: str, std: float, dropout: float):
        super().__init__()
        self.up = nn.Linear(hidden_size, width, bias=False)
        self.gate = nn.Linear(hidden_size, width, bias=False) if gated else None
        self.down = nn.Linear(width, hidden_size, bias=False)
        self.activation, self.std, self.dropout = ACT2FN[activation], std, nn.Dropout(dropout)

    def forward(self, hidden_BSd: Tensor) -> Tensor:
        """The MLP of every token, [B, S, d]."""
        inner = self.up(hidden_BSd)
        inner = self.activation(inner) if self.gate is None else self.activation(self.gate(hidden_BSd)) * inner
        return self.dropout(self.down(inner))

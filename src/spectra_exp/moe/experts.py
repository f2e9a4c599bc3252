"""The experts of one layer and how tokens reach them.

Shapes: N real tokens, A assignments (token, expert), E experts, d hidden size, f expert width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from spectra_exp.foundations.kernels import PLAIN, TRITON
from spectra_exp.foundations.parts import part
from spectra_exp.moe.dispatch import Assignments, ExpertRows, WeightedSum, sorted_assignments, sorted_on_device

# Its name until torch 2.10.
grouped_mm = getattr(nn.functional, "grouped_mm", None) or torch._grouped_mm
BIASES = ("up_bias", "gate_bias", "down_bias")
# Offsets within the tokens, and within the rows of one expert, that a kernel can count.
MOST_ENTRIES = 2**31
# Bytes of which the rows of a grouped product's matrices must be multiples.
GROUPED_ALIGNMENT = 16


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
        self.activation_name, self.activation = activation, ACT2FN[activation]
        self.kernel = PLAIN

    def reset_parameters(self) -> None:
        """Draw initial weights from the global random state, normal with the backbone's deviation; biases are 0."""
        for name, weight in self.named_parameters():
            if name in BIASES:
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=self.std)

    def forward(
        self, tokens_Nd: Tensor, chosen_NE: Tensor, weights_NE: Tensor, most: int | None = None
    ) -> tuple[Tensor, ExpertRows]:
        """Weighted sum of the chosen experts' outputs [N, d], and the outputs themselves.

        `most`: at least as many assignments as there are, where that is known without asking the device. On a GPU one
        grouped product then serves all experts, and in 16 bits or by the kernels nothing waits for the host; elsewhere
        each expert has its own.
        """
        if self.kernel == TRITON and 0 < len(tokens_Nd) * max(self.up.shape[1:]) < MOST_ENTRIES:
            return self._fused(tokens_Nd, chosen_NE, weights_NE, most)
        if tokens_Nd.is_cuda and self._aligned(tokens_Nd):
            at = sorted_on_device(chosen_NE, most)
            with part("experts"):
                rows = self._grouped(tokens_Nd, at)
        else:
            rows = self._looped(tokens_Nd, sorted_assignments(chosen_NE))
        at = rows.assignments
        weight_A = weights_NE[at.token_A, at.expert_A].to(rows.outputs_Ad.dtype)
        return WeightedSum.apply(rows.outputs_Ad, weight_A, at.token_A, len(tokens_Nd)), rows

    def _fused(
        self, tokens_Nd: Tensor, chosen_NE: Tensor, weights_NE: Tensor, most: int | None
    ) -> tuple[Tensor, ExpertRows]:
        """All of it in a few kernels, which `what_triton_lacks` has found possible; the outputs take no gradient."""
        # Needs triton, which is not everywhere.
        from spectra_exp.moe.fused.experts import fused_experts

        entries = int(chosen_NE.sum()) if most is None else min(most, chosen_NE.numel())
        matrices, dtype = (self.up, self.gate, self.down), autocast_dtype(tokens_Nd)
        sums_Nd, outputs_Ad, lists = fused_experts(
            tokens_Nd, chosen_NE, weights_NE, matrices, self.activation_name, dtype, max(entries, 1)
        )
        real_A = torch.arange(len(lists.token_A), device=sums_Nd.device) < lists.bounds_E[-1]
        return sums_Nd, ExpertRows(outputs_Ad, Assignments(lists.token_A, lists.expert_A, lists.counts_E, real_A))

    def _looped(self, tokens_Nd: Tensor, at: Assignments) -> ExpertRows:
        """The experts one after the other; a synchronisation to know where each one's rows end."""
        counts = at.counts_E.tolist()
        # unbind once: indexing a stacked parameter would zero-fill its whole gradient per expert.
        weights = {name: w.unbind(0) for name, w in self._stacked().items()}
        rows_Ecd = tokens_Nd.index_select(0, at.token_A).split(counts)
        with part("experts"):
            outputs = [
                self._expert(rows_cd, **{name: w[expert] for name, w in weights.items()})
                for expert, rows_cd in enumerate(rows_Ecd)
                # Where nobody has a token the first expert computes none, so that all weights get a gradient of 0.
                if counts[expert] or (expert == 0 and not any(counts))
            ]
        return ExpertRows(torch.cat(outputs), at)

    def _grouped(self, tokens_Nd: Tensor, at: Assignments) -> ExpertRows:
        """All experts in one product per matrix; rows that are no assignments are zero, and so are their gradients."""
        w = self._stacked()
        ends_E = at.counts_E.cumsum(0, dtype=torch.int32)
        unused_A1 = None if at.real_A is None else ~at.real_A[:, None]

        def product(rows_Ax: Tensor, matrix: str) -> Tensor:
            # What lies behind the last group is left as it was in memory, on the way back too.
            cleared_Ax = rows_Ax if unused_A1 is None else rows_Ax.masked_fill(unused_A1, 0)
            result_Ay = grouped_mm(cleared_Ax, w[matrix].to(rows_Ax.dtype).mT, offs=ends_E)
            if (bias_Ey := w.get(f"{matrix}_bias")) is not None:
                result_Ay = result_Ay + bias_Ey.to(result_Ay.dtype)[at.expert_A]
            return result_Ay if unused_A1 is None else result_Ay.masked_fill(unused_A1, 0)

        dtype = autocast_dtype(tokens_Nd)
        rows_Ad = tokens_Nd.to(dtype).index_select(0, at.token_A)
        inner_Af = product(rows_Ad, "up")
        inner_Af = self.activation(product(rows_Ad, "gate")) * inner_Af if "gate" in w else self.activation(inner_Af)
        return ExpertRows(product(inner_Af, "down"), at)

    def _stacked(self) -> dict[str, Tensor]:
        """The stacked weights and biases that there are."""
        named = {name: getattr(self, name) for name in ("up", "down", "gate", *BIASES)}
        return {name: w for name, w in named.items() if w is not None}

    def _aligned(self, tokens_Nd: Tensor) -> bool:
        """Whether the rows of every matrix have the alignment that grouped products need."""
        itemsize = autocast_dtype(tokens_Nd).itemsize
        return all(size * itemsize % GROUPED_ALIGNMENT == 0 for size in self.up.shape[1:])

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


def autocast_dtype(values: Tensor) -> torch.dtype:
    """What a matrix product of these values is computed in: autocast's type where it is on."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype

"""Sequence encoders by name: what turns hidden states into routing vectors (docs/method.md 1.1)."""

from __future__ import annotations

from spectra_exp.routing.sequence.attention import AttentionEncoder
from spectra_exp.routing.sequence.base import SequenceEncoder, real_tokens_first
from spectra_exp.routing.sequence.gru_block import BlockGruEncoder
from spectra_exp.routing.sequence.linear import LinearEncoder, SharedLinearEncoder
from spectra_exp.routing.sequence.min_gru import GateBiases, MinGruEncoder
from spectra_exp.routing.sequence.rnn import GruEncoder, LstmEncoder

ENCODERS: dict[str, type[SequenceEncoder]] = {
    "gru": GruEncoder,
    "gru_block": BlockGruEncoder,
    "min_gru": MinGruEncoder,
    "lstm": LstmEncoder,
    "attention": AttentionEncoder,
    "linear": LinearEncoder,
    "shared_linear": SharedLinearEncoder,
}


def make_encoder(name: str, hidden_size: int, num_experts: int, dim: int, gates: GateBiases) -> SequenceEncoder:
    """The encoder of that name; `gates` are those of encoders that have them."""
    cls = ENCODERS[name]
    own = (gates,) if issubclass(cls, MinGruEncoder) else ()
    return cls(hidden_size, num_experts, dim, *own)


__all__ = [
    "ENCODERS",
    "AttentionEncoder",
    "BlockGruEncoder",
    "GateBiases",
    "GruEncoder",
    "LinearEncoder",
    "LstmEncoder",
    "MinGruEncoder",
    "SequenceEncoder",
    "SharedLinearEncoder",
    "make_encoder",
    "real_tokens_first",
]

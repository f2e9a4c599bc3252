"""Sequence encoders by name: what turns hidden states into routing vectors (docs/method.md 1.1)."""

from __future__ import annotations

from spectra_exp.routing.sequence.attention import AttentionEncoder
from spectra_exp.routing.sequence.base import SequenceEncoder, real_tokens_first
from spectra_exp.routing.sequence.gru_block import BlockGruEncoder
from spectra_exp.routing.sequence.linear import LinearEncoder, SharedLinearEncoder
from spectra_exp.routing.sequence.min_gru import MinGruEncoder
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

__all__ = [
    "ENCODERS",
    "AttentionEncoder",
    "BlockGruEncoder",
    "GruEncoder",
    "LinearEncoder",
    "LstmEncoder",
    "MinGruEncoder",
    "SequenceEncoder",
    "SharedLinearEncoder",
    "real_tokens_first",
]

"""Reads what W&B writes offline, from the public layout of its files: LevelDB's log format, one protobuf per record."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

FILE_HEADER, BLOCK, PIECE_HEADER = 7, 2**15, 7
# Kinds of piece that end a record: a whole one, and the last of several.
WHOLE, LAST = 1, 4


def records(path: Path) -> Iterator[Record]:
    """The records of one `.wandb` file."""
    data, at, content = path.read_bytes(), FILE_HEADER, b""
    while at + PIECE_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < PIECE_HEADER:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        content += data[at + PIECE_HEADER : at + PIECE_HEADER + length]
        at += PIECE_HEADER + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(content)
            content = b""


class Piece:
    """One `.wandb` file: `run` (the record), config, rows, summary, exit code (None: not finished), preempting."""

    def __init__(self, path: Path):
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self.preempting = False
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= _values(record.run.config.update)
            elif kind == "history":
                self.rows.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
            elif kind == "preempting":
                self.preempting = True

    @property
    def steps(self) -> list[int]:
        """The steps of the rows, each once."""
        return sorted({row["step"] for row in self.rows})


def pieces(folder: Path) -> list[Piece]:
    """The offline pieces in a run's folder, oldest first."""
    return [Piece(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

"""The file of an archive: one row a part of a run, or of what runs share, each with its hash.

owner   a run's id; for what runs share, the kind and the name or the hash of the content (defaults:0123456789abcdef)
part    as in `content`; of what runs share: tree
shape, floats, wholes, texts    the part, as `trees.pack` takes it apart
sha256  of owner and content
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.archive.content import ArchivedRun
from spectra_exp.archive.trees import Packed, applied, difference, pack, unpack
from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import atomic_path, regular

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1
ENDING = ".parquet"
# Of the file's metadata.
KEY = b"spectra_exp_archive"
# Kinds of what runs share, before the colon of an owner.
DEFAULTS, LAUNCH, PROFILE = "defaults", "launch", "profile"
SHARED_PART = "tree"
# Of the edited parts that a message names.
NAMED = 3
ROWS_KEY = tuple[str, str]


@dataclass
class Archive:
    """Parts by owner and name; runs are read from it when they are asked for."""

    path: Path
    parts: dict[ROWS_KEY, Packed] = field(default_factory=dict)

    @property
    def run_ids(self) -> list[str]:
        """The runs in it, by name."""
        return sorted({owner for owner, _ in self.parts if ":" not in owner})

    def run(self, run_id: str) -> ArchivedRun:
        """One run."""
        return ArchivedRun(self.path, run_id, lambda part: self._part(run_id, part))

    def runs(self) -> dict[str, ArchivedRun]:
        """All runs, by name."""
        return {run_id: self.run(run_id) for run_id in self.run_ids}

    def shared(self, kind: str) -> Iterator[tuple[str, Any]]:
        """What runs share of that kind: name and content, by name."""
        for owner, part in sorted(self.parts):
            if owner.startswith(f"{kind}:"):
                yield owner.partition(":")[2], self._unpacked(owner, part)

    def add_run(self, run_id: str, parts: Mapping[str, Any], defaults: str) -> None:
        """Add a run in place of what there is of it; its configuration as the difference from the named defaults."""
        base = self._unpacked(f"{DEFAULTS}:{defaults}", SHARED_PART)["config"]
        packed = {
            (run_id, part): pack({"defaults": defaults, **difference(tree, base)} if part == "config" else tree)
            for part, tree in parts.items()
        }
        self.parts = {key: value for key, value in self.parts.items() if key[0] != run_id} | packed

    def add_shared(self, kind: str, name: str | None, content: Any) -> str:
        """Add what runs share and return its name, the hash of its content where it has none."""
        packed = pack(content)
        name = name or packed.digest()[:16]
        self.parts[f"{kind}:{name}", SHARED_PART] = packed
        return name

    def runs_alone(self, run_ids: Collection[str]) -> Archive:
        """An archive of these of its runs, without what was launched and profiled."""
        kept = {
            key: value for key, value in self.parts.items() if key[0] in run_ids or key[0].startswith(f"{DEFAULTS}:")
        }
        return Archive(self.path, kept)

    def take(self, other: Archive) -> list[str]:
        """Add all of another archive; the names of runs that both have with other figures, of which the own ones stay.

        Of launches by the same name the later one stays.
        """
        own, differing = set(self.run_ids), []
        for run_id in other.run_ids:
            if run_id not in own:
                self.parts |= {key: value for key, value in other.parts.items() if key[0] == run_id}
            elif self.parts.get((run_id, "summary")) != other.parts.get((run_id, "summary")):
                differing.append(run_id)
        for key, value in other.parts.items():
            is_older = key in self.parts and not (
                key[0].startswith(f"{LAUNCH}:") and unpack(value)["launched"] > unpack(self.parts[key])["launched"]
            )
            if ":" in key[0] and not is_older:
                self.parts[key] = value
        return differing

    def _part(self, run_id: str, part: str) -> Any:
        found = self._unpacked(run_id, part)
        if part != "config" or found is None:
            return found
        base = self._unpacked(f"{DEFAULTS}:{found['defaults']}", SHARED_PART)
        if base is None:
            raise SpectraError(f"{self.path}: the defaults that {run_id} differs from are gone; take a whole copy")
        return applied(base["config"], found)

    def _unpacked(self, owner: str, part: str) -> Any:
        packed = self.parts.get((owner, part))
        if packed is None:
            return None
        try:
            return unpack(packed)
        except ValueError as error:
            raise SpectraError(f"{self.path}: {owner} {part}: {error}; take a whole copy") from error


def write_archive(archive: Archive, path: Path) -> None:
    """Write it whole or not at all; the same content gives the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Runs of one part beside each other: they are alike.
    keys = sorted(archive.parts, key=lambda key: (key[1], key[0]))
    rows = [
        {"owner": key[0], "part": key[1], **vars(archive.parts[key]), "sha256": row_digest(key, archive.parts[key])}
        for key in keys
    ]
    head = {KEY: json.dumps({"schema": SCHEMA, "sha256": whole_digest(row["sha256"] for row in rows)})}
    table = pa.Table.from_pylist(rows, schema=_schema().with_metadata(head))
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=["owner", "part", "shape", "texts.list.element"],
            column_encoding={"floats.list.element": "BYTE_STREAM_SPLIT", "wholes.list.element": "BYTE_STREAM_SPLIT"},
            dictionary_pagesize_limit=2**26,
            data_page_size=2**26,
            row_group_size=2**20,
            write_batch_size=2**20,
            write_statistics=False,
        )


def read_archive(path: Path) -> Archive:
    """The archive at `path`. Raises SpectraError, which names what is wrong, for a damaged, edited or foreign file:
    the first parts that were edited, that some were taken away or added."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def refused(*problems: str) -> SpectraError:
        return SpectraError(f"{path}: {'; '.join(problems)}; take a whole copy, or pack it again")

    try:
        table = pq.ParquetFile(regular(path)).read()
    except FileNotFoundError:
        raise refused("there is no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise refused(f"damaged, or no archive ({first_line(error)})") from error
    try:
        head = json.loads((table.schema.metadata or {})[KEY])
        fits = table.column_names == _schema().names
    except (KeyError, ValueError):
        head, fits = {}, False
    if not fits:
        raise refused("not an archive of runs")
    if head.get("schema") != SCHEMA:
        raise refused(f"schema {head.get('schema')} is not the schema {SCHEMA} that this code reads")
    parts: dict[ROWS_KEY, Packed] = {}
    digests, edited = [], []
    for row in table.to_pylist():
        packed = Packed(row["shape"], row["floats"], row["wholes"], row["texts"])
        key = row["owner"], row["part"]
        parts[key] = packed
        digests.append(row["sha256"])
        if row_digest(key, packed) != row["sha256"]:
            edited.append(f"{' '.join(key)} was edited or damaged")
    if edited:
        more = [f"and {len(edited) - NAMED} parts more"] if len(edited) > NAMED else []
        raise refused(*edited[:NAMED], *more)
    if len(parts) != len(digests) or whole_digest(digests) != head.get("sha256"):
        raise refused("parts were taken away or added since it was written")
    return Archive(path, parts)


def row_digest(key: ROWS_KEY, packed: Packed) -> bytes:
    """The SHA-256 of a part and of whose it is."""
    return hashlib.sha256(f"{key[0]}\n{key[1]}\n{packed.digest()}".encode()).digest()


def whole_digest(digests: Iterable[bytes]) -> str:
    """The SHA-256 over those of all parts."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "owner": pa.string(),
            "part": pa.string(),
            "shape": pa.string(),
            "floats": pa.list_(pa.float64()),
            "wholes": pa.list_(pa.int64()),
            "texts": pa.list_(pa.string()),
            "sha256": pa.binary(32),
        }
    )

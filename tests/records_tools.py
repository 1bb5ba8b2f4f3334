"""What tests of record files share: the golden files' records, and files of a known shape."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pistributer.records import RecordReader, RecordWriter

#: Written by the original program; see golden/README.md.
GOLDEN = Path(__file__).parent / "golden" / "disky"
MANIFEST: list[dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_text())


def golden_records(entry: dict[str, Any]) -> list[bytes]:
    """The records of a golden file, made again from its line in the manifest."""
    return [_golden_record(entry, number) for number in range(entry["count"])]


def _golden_record(entry: dict[str, Any], number: int) -> bytes:
    tag = entry["tag"]
    dice = int.from_bytes(hashlib.sha256(f"{tag}/size/{number}".encode()).digest()[:8], "big")
    size = dice % 2 ** ((dice >> 8) % (entry["max_bits"] + 1))
    if entry["kind"] == "text":
        text = f"{tag} record {number} ".encode()
        return (text * (size // len(text) + 1))[:size]
    parts = (hashlib.sha256(f"{tag}:{number}:{part}".encode()).digest() for part in range(size // 32 + 1))
    return b"".join(parts)[:size]


def digest(records: list[Any]) -> str:
    """`sha256_of_lengths_and_records` of the manifest."""
    found = hashlib.sha256()
    for record in records:
        found.update(len(record).to_bytes(8, "little"))
        found.update(record)
    return found.hexdigest()


def write(path: Path, records: list[bytes], *, flush_every: int = 0, **options: Any) -> None:
    with RecordWriter(path, **options) as writer:
        for number, record in enumerate(records, 1):
            writer.write_record(record)
            if flush_every and number % flush_every == 0:
                writer.flush()


def read(path: Path, **options: Any) -> list[bytes]:
    with RecordReader(path, **options) as reader:
        return [record.to_bytes() for record in reader]


def numbered(count: int, size: int) -> list[bytes]:
    """`count` different records of `size` bytes, each of which says which it is."""
    return [(f"record {number:08d} ".encode() * (size // 16 + 1))[:size] for number in range(count)]

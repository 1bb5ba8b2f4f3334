"""Record files beside array_record, JSON lines, SQLite and bare system calls, on the same records.

    python benchmarks/records.py                 1,000,000 records of 100 B, then 100,000 of 10 kB; six minutes
    python benchmarks/records.py --size 100      only the small ones
    python benchmarks/records.py --scale 0.1     a tenth of each
    python benchmarks/records.py --save          … kept in benchmarks/results/, a page for each size

Every case is a process of its own, so that its peak memory is its own; cases take turns, several times, and medians are shown.
Everything runs with sync="none": the page cache. What is read was written a moment before, so it comes from memory: the
figures say what a format costs, not what a disk does. Records are made of 5,000 words, as logs are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine

#: Records that a program hands over together.
BATCH = 1000
#: How many records of each size, in bytes.
COUNTS = {100: 1_000_000, 10_000: 100_000}
SHARDS = 2
MIB = 1 << 20


class Work:
    """What one case has to do: `count` records of `size` bytes, of which a few thousand are different."""

    def __init__(self, path: str, count: int, size: int) -> None:
        self.path, self.count, self.size = path, count, size
        dice = random.Random(count)
        words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))).encode() for _ in range(5000)]
        text = b" ".join(dice.choices(words, k=2_000_000))
        different = max(BATCH, min(count, 10 * MIB // size))
        starts = [dice.randrange(len(text) - size) for _ in range(different)]
        self._pool = [text[start : start + size] for start in starts]

    def batches(self) -> Iterator[list[bytes]]:
        pool, at = self._pool, 0
        for start in range(0, self.count, BATCH):
            if at + BATCH > len(pool):
                at = 0
            yield pool[at : at + min(BATCH, self.count - start)]
            at += BATCH

    def texts(self) -> Iterator[list[str]]:
        """The same for formats that hold text only."""
        return ([record.decode() for record in batch] for batch in self.batches())


# -- writing


def write_bare(work: Work) -> None:
    fd = os.open(work.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for batch in work.batches():
        os.write(fd, b"".join(batch))
    os.close(fd)


def write_bare_singly(work: Work) -> None:
    fd = os.open(work.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for batch in work.batches():
        for record in batch:
            os.write(fd, record)
    os.close(fd)


def write_bare_hashed(work: Work) -> None:
    from pistributer.records.hot import hash64

    fd = os.open(work.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for batch in work.batches():
        data = b"".join(batch)
        hash64(data)
        os.write(fd, data)
    os.close(fd)


def write_batches(work: Work, compression: str | None = None) -> None:
    from pistributer.records import RecordWriter

    with RecordWriter(work.path, compression) as writer:
        for batch in work.batches():
            writer.write_records(batch)


def write_singly(work: Work, compression: str | None = None) -> None:
    from pistributer.records import RecordWriter

    with RecordWriter(work.path, compression) as writer:
        for batch in work.batches():
            for record in batch:
                writer.write_record(record)


def write_sharded(work: Work, compression: str | None = None) -> None:
    from pistributer.records import MultiThreadedWriter

    with MultiThreadedWriter.new_with_shards(work.path, num_shards=SHARDS, compression=compression) as writer:
        for batch in work.batches():
            writer.write_records(batch)


def write_array_record(work: Work, compression: str = "uncompressed") -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(work.path, f"group_size:{MIB // work.size},{compression}")  # chunks as large as ours
    for batch in work.batches():
        for record in batch:
            writer.write(record)
    writer.close()


def write_jsonl(work: Work) -> None:
    import orjson

    with open(work.path, "wb", buffering=MIB) as file:
        for batch in work.texts():
            file.write(b"".join([orjson.dumps(text) + b"\n" for text in batch]))


def write_sqlite(work: Work) -> None:
    import sqlite3

    connection = sqlite3.connect(work.path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = off")
    connection.execute("PRAGMA synchronous = off")
    connection.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, record BLOB)")
    connection.execute("BEGIN")
    for batch in work.batches():
        connection.executemany("INSERT INTO records (record) VALUES (?)", [(record,) for record in batch])
    connection.execute("COMMIT")
    connection.close()


# -- reading; each returns how many records and bytes it saw


Seen = tuple[int, int]


def read_bare(work: Work) -> Seen:
    fd, total = os.open(work.path, os.O_RDONLY), 0
    while part := os.read(fd, MIB):
        total += len(part)
    os.close(fd)
    return work.count, total


def read_bare_singly(work: Work) -> Seen:
    fd, total = os.open(work.path, os.O_RDONLY), 0
    while record := os.read(fd, work.size):
        total += len(record)
    os.close(fd)
    return work.count, total


def read_bare_hashed(work: Work) -> Seen:
    from pistributer.records.hot import hash64

    fd, total = os.open(work.path, os.O_RDONLY), 0
    while part := os.read(fd, MIB):
        hash64(part)
        total += len(part)
    os.close(fd)
    return work.count, total


def read_batches(work: Work) -> Seen:
    from pistributer.records import RecordReader

    count = size = 0
    with RecordReader(work.path) as reader:
        while batch := reader.read_batch():
            count += len(batch)
            size += len(batch[-1]) * len(batch)
    return count, size


def read_singly(work: Work) -> Seen:
    from pistributer.records import RecordReader

    count = size = 0
    with RecordReader(work.path) as reader:
        for record in reader:
            count += 1
            size += len(record)
    return count, size


def read_sharded(work: Work) -> Seen:
    from pistributer.records import MultiThreadedReader

    count = size = 0
    with MultiThreadedReader.new_with_shards(work.path, num_shards=SHARDS, worker_threads=SHARDS) as reader:
        while batch := reader.read_batch():
            count += len(batch)
            size += len(batch[-1]) * len(batch)
    return count, size


def read_array_record(work: Work) -> Seen:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(work.path, "readahead_buffer_size:16777216")
    count = size = 0
    for _ in range(reader.num_records()):
        size += len(reader.read())
        count += 1
    return count, size


def read_array_record_all(work: Work) -> Seen:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(work.path, "readahead_buffer_size:0,max_parallelism:2")
    count = size = 0
    for start in range(0, reader.num_records(), 10 * BATCH):
        batch = reader.read(start, min(start + 10 * BATCH, reader.num_records()))
        count += len(batch)
        size += sum(map(len, batch))
    return count, size


def read_jsonl(work: Work) -> Seen:
    import orjson

    count = size = 0
    with open(work.path, "rb", buffering=MIB) as file:
        for line in file:
            size += len(orjson.loads(line))
            count += 1
    return count, size


def read_sqlite(work: Work) -> Seen:
    import sqlite3

    connection = sqlite3.connect(work.path)
    count = size = 0
    for (record,) in connection.execute("SELECT record FROM records ORDER BY number"):
        size += len(record)
        count += 1
    return count, size


#: name: (file, writes, what). The first that writes a file makes it for those that read it.
CASES: dict[str, tuple[str, Callable[[Work], Any]]] = {
    "bare write, a batch a call": ("bare", write_bare),
    "bare write, a record a call": ("bare1", write_bare_singly),
    "bare write and the hash": ("hashed", write_bare_hashed),
    "records, in batches": ("none", write_batches),
    "records, one by one": ("none1", write_singly),
    "records, 2 shards": ("shards", write_sharded),
    "records zstd, in batches": ("zstd", lambda work: write_batches(work, "zstd")),
    "records zstd, one by one": ("zstd1", lambda work: write_singly(work, "zstd")),
    "records zstd, 2 shards": ("zshards", lambda work: write_sharded(work, "zstd")),
    "array_record, uncompressed": ("array", write_array_record),
    "array_record, zstd": ("zarray", lambda work: write_array_record(work, "zstd:3")),
    "JSON lines (orjson)": ("jsonl", write_jsonl),
    "SQLite, no journal": ("sqlite", write_sqlite),
    "bare read, 1 MiB a call": ("bare", read_bare),
    "bare read, a record a call": ("bare", read_bare_singly),
    "bare read and the hash": ("bare", read_bare_hashed),
    "read records, in batches": ("none", read_batches),
    "read records, one by one": ("none", read_singly),
    "read records, 2 shards": ("shards", read_sharded),
    "read records zstd, in batches": ("zstd", read_batches),
    "read records zstd, one by one": ("zstd", read_singly),
    "read records zstd, 2 shards": ("zshards", read_sharded),
    "read array_record, uncompressed": ("array", read_array_record),
    "read array_record, uncompressed, in parallel": ("array", read_array_record_all),
    "read array_record, zstd": ("zarray", read_array_record),
    "read array_record, zstd, in parallel": ("zarray", read_array_record_all),
    "read JSON lines (orjson)": ("jsonl", read_jsonl),
    "read SQLite": ("sqlite", read_sqlite),
}


def run_case(name: str, folder: str, count: int, size: int) -> dict[str, float]:
    """In a process of its own: seconds and peak memory of one case."""
    import sqlite3  # noqa: F401

    import orjson  # noqa: F401 - so that no case pays for an import
    from array_record.python import array_record_module  # noqa: F401

    import pistributer.records.compression

    pistributer.records.compression.zstd()
    kind, work = CASES[name]
    task = Work(os.path.join(folder, kind), count, size)
    if is_reading(name):
        read_through(Path(task.path))
    else:
        write_through(task)
    memory_before = reset_peak()
    cpu_before = time.process_time()
    started = time.perf_counter()
    seen = work(task)
    elapsed = time.perf_counter() - started
    if seen is not None and seen[0] != count:
        raise AssertionError(f"{name} saw {seen[0]} records of {count}")
    added = memory("VmHWM") - memory_before
    return {"seconds": elapsed, "cpu": time.process_time() - cpu_before, "added_bytes": added}


def write_through(task: Work) -> None:
    """Memory that nobody used lately costs a virtual machine more than the write; so use it, and give it back."""
    with open(f"{task.path}.warm", "wb", buffering=0) as file:
        for _ in range(task.count * task.size // MIB):
            file.write(bytes(MIB))
    os.unlink(f"{task.path}.warm")


def read_through(path: Path) -> None:
    """The first read after a write costs the kernel more than any later one, whoever makes it."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with open(file, "rb", buffering=0) as opened:
            while opened.read(MIB):
                pass


def reset_peak() -> int:
    """Forget the peak so far; resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def disk_size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def measure(folder: Path, count: int, size: int, repeats: int, only: str) -> list[dict[str, Any]]:
    figures: dict[str, list[dict[str, float]]] = {}
    sizes: dict[str, int] = {}
    names = [name for name in CASES if only in name or name.startswith("bare")]
    for _ in range(repeats):
        for kind in dict.fromkeys(CASES[name][0] for name in names):
            # One format at a time, and gone before the kernel begins to write it out: dirty pages would slow the next one.
            place = Path(tempfile.mkdtemp(dir=folder))
            for name in names:
                if CASES[name][0] == kind:
                    figures.setdefault(name, []).append(child(name, place, count, size))
                    sizes[name] = disk_size(place / kind)
            shutil.rmtree(place)
    return [summary(name, figures[name], sizes[name], count, size) for name in names]


def child(name: str, place: Path, count: int, size: int) -> dict[str, float]:
    print(f"measuring: {count:,} × {size:,} B, {name}", file=sys.stderr, flush=True)
    arguments = [sys.executable, __file__, "--case", name, str(place), str(count), str(size)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(name: str, found: list[dict[str, float]], disk: int, count: int, size: int) -> dict[str, Any]:
    seconds = statistics.median(one["seconds"] for one in found)
    return {
        "name": name,
        "count": count,
        "size": size,
        "seconds": seconds,
        "best_seconds": min(one["seconds"] for one in found),
        "cpu_seconds": statistics.median(one["cpu"] for one in found),
        "records_per_second": count / seconds,
        "mb_per_second": count * size / seconds / 1e6,
        "added_bytes": max(one["added_bytes"] for one in found),
        "file_bytes": disk,
    }


def tables(results: list[dict[str, Any]]) -> Iterator[str]:
    for reading in (False, True):
        part = [one for one in results if is_reading(one["name"]) == reading]
        floor = part[0]
        yield f"{'Read' if reading else 'Write'} {floor['count']:,} records of {floor['size']:,} B\n"
        header = ["case", "records/s", "MB/s", "of bare", "CPU s", "memory", "file"]
        yield machine.markdown_table(header, [row(one, floor) for one in part]) + "\n"


def is_reading(name: str) -> bool:
    return name.startswith(("read", "bare read"))


def row(one: dict[str, Any], floor: dict[str, Any]) -> list[str]:
    return [
        one["name"],
        f"{one['records_per_second']:,.0f}",
        f"{one['mb_per_second']:,.0f}",
        f"{floor['seconds'] / one['seconds']:.0%}",
        f"{one['cpu_seconds']:.2f}",
        f"{one['added_bytes'] / 1e6:,.0f} MB",
        f"{one['file_bytes'] / 1e6:,.0f} MB",
    ]


def page(document: dict[str, Any]) -> str:
    lines = [
        f"Machine: {machine.facts_line(document['machine'])}\n",
        f'sync="none"; medians of {document["repeats"]}; the hash runs as {document["hash"]}. "memory" is what the case '
        "added to its process at its peak.\n",
        *tables(document["results"]),
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--size", type=int, choices=sorted(COUNTS), action="append", help="only records of so many bytes"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the records")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write; default: the system's temporary folder")
    parser.add_argument("--only", default="", help="only cases whose name holds this text, and the bare ones")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    parser.add_argument("--case", nargs=4, metavar=("NAME", "FOLDER", "COUNT", "SIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.case:
        name, folder, count, size = options.case
        print(json.dumps(run_case(name, folder, int(count), int(size))))
        return
    from pistributer.records import hot

    for size in options.size or sorted(COUNTS):
        with tempfile.TemporaryDirectory(prefix="pistributer-records-", dir=options.folder) as folder:
            facts = machine.facts(Path(folder))
            count = int(COUNTS[size] * options.scale)
            results = measure(Path(folder), count, size, options.repeats, options.only)
        document = {"machine": facts, "sync": "none", "hash": hot.kind, "repeats": options.repeats, "results": results}
        print(json.dumps(document) if options.json else page(document))
        if options.save:
            machine.save(f"records_{size}", document, page(document))


if __name__ == "__main__":
    main()

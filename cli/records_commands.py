"""`pistributer records cat|head|count|verify|repair|convert`."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import click

from . import exits, terminal
from .root import Group

if TYPE_CHECKING:
    from pistributer.records import CorruptionStrategy, RecordReader, Report

_ENCODINGS = ("json", "text", "base64")
_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")
_recover = click.option("--recover", is_flag=True, help="Skip what is damaged and say so, instead of stopping there.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_as_lines = click.option("--json", "as_json", is_flag=True, help="Print a JSON object a record.")
_encoding = click.option("--encoding", type=click.Choice(_ENCODINGS), default="json", show_default=True,
                         help="What a line says: the record itself, or a JSON string of it.")  # fmt: skip


@click.group(cls=Group, epilog=exits.TABLE)
def records() -> None:
    """Look into record files, check, repair and convert them.

    \b
    Examples:
      pistributer records head log.records -n 3       the first records
      pistributer records verify log.records          check every byte
      pistributer records convert log.records log.jsonl
    """


@records.command(epilog=exits.TABLE)
@_files
@_recover
@_as_lines
def cat(files: tuple[str, ...], recover: bool, as_json: bool) -> None:
    """Print the records of files, each with a newline behind it.

    \b
    Examples:
      pistributer records cat log.records | grep error
      pistributer records cat shards/shard_* --json
      pistributer records cat broken.records --recover
    """
    _print_records(files, None, recover=recover, as_json=as_json)


@records.command(epilog=exits.TABLE)
@_files
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="How many records.")
@_recover
@_as_lines
def head(files: tuple[str, ...], count: int, recover: bool, as_json: bool) -> None:
    """Print the first records of files.

    \b
    Examples:
      pistributer records head log.records
      pistributer records head log.records -n 1 --json
    """
    _print_records(files, count, recover=recover, as_json=as_json)


def _print_records(files: tuple[str, ...], count: int | None, *, recover: bool, as_json: bool) -> None:
    out = _open("-", "wb")
    for file in files:
        with _reader(file, recover=recover) as reader:
            for batch in _batches(reader, count):
                out.write(b"".join(_lines(file, batch, as_json=as_json)))
    out.flush()


def _batches(reader: RecordReader, count: int | None) -> Iterator[list[Any]]:
    """Batches of at most `count` records in all, with their numbers."""
    number = 0
    while (count is None or number < count) and (batch := reader.read_batch(None if count is None else count - number)):
        yield list(enumerate(batch, number))
        number += len(batch)


def _lines(file: str, batch: list[tuple[int, Any]], *, as_json: bool) -> Iterable[bytes]:
    if not as_json:
        return [record.to_bytes() + b"\n" for _, record in batch]
    import orjson

    return [orjson.dumps({"file": file, "record": number, **_content(record)}) + b"\n" for number, record in batch]


def _content(record: Any) -> dict[str, Any]:
    data = record.to_bytes()
    try:
        return {"size": len(data), "text": data.decode()}
    except UnicodeDecodeError:
        return {"size": len(data), "base64": base64.b64encode(data).decode()}


@contextmanager
def _reader(file: str, *, recover: bool) -> Iterator[RecordReader]:
    """The file, opened; afterwards, what was damaged in it goes to stderr."""
    from pistributer.records import RecordReader

    with RecordReader(file, _strategy(recover)) as reader:
        yield reader
        for damage in [*reader.damage, *([reader.torn] if reader.torn else [])]:
            click.echo(f"warning: {damage}", err=True)


def _strategy(recover: bool) -> CorruptionStrategy:
    from pistributer.records import CorruptionStrategy

    return CorruptionStrategy.RECOVER if recover else CorruptionStrategy.ERROR


@records.command("count", epilog=exits.TABLE)
@_files
@_as_json
def count_command(files: tuple[str, ...], as_json: bool) -> None:
    """Count the records of files by what their chunk headers say: milliseconds a gigabyte, and no check of the data.

    \b
    Examples:
      pistributer records count log.records
      pistributer records count shards/shard_* --json
    """
    from pistributer.records import RecordReader

    found = [
        {"file": file, "records": RecordReader.count_records(file), "size": os.path.getsize(file)} for file in files
    ]
    if as_json:
        terminal.print_json(found)
        return
    rows = [_count_cells(one) for one in found]
    if len(rows) > 1:
        total = {name: sum(one[name] for one in found) for name in ("records", "size")}  # type: ignore[misc]
        rows.append(_count_cells({"file": "total", **total}))
    terminal.print_table(rows, right=("records", "size"))


def _count_cells(found: dict[str, Any]) -> dict[str, str]:
    return {
        "file": found["file"],
        "records": terminal.human_count(found["records"]),
        "size": terminal.human_size(found["size"]),
    }


@records.command("verify", epilog=exits.TABLE)
@_files
@_as_json
def verify_command(files: tuple[str, ...], as_json: bool) -> None:
    """Check every byte of files. Ends with 4 if anything is damaged; changes nothing.

    \b
    Examples:
      pistributer records verify log.records
      pistributer records verify shards/shard_* --json
    """
    from pistributer.records import verify

    reports = [_with_bar(partial(verify, file)) for file in files]
    if as_json:
        terminal.print_json([_document(report) for report in reports])
    else:
        for report in reports:
            _print_report(report)
    if not all(report.ok for report in reports):
        if not as_json:
            click.echo("hint:   pistributer records repair FILE keeps what is sound", err=True)
        raise SystemExit(exits.INTEGRITY)


@records.command("repair", epilog=exits.TABLE)
@click.argument("file")
@click.argument("output", required=False)
@_as_json
def repair_command(file: str, output: str | None, as_json: bool) -> None:
    """Keep what is sound of a damaged file, and say what was lost and where.

    With OUTPUT, that is the new file and FILE stays as it is. Without, FILE is replaced, and what it was is kept beside
    it as FILE.damaged.

    \b
    Examples:
      pistributer records repair log.records
      pistributer records repair log.records rescued.records --json
    """
    from pistributer.records import repair

    report = _with_bar(partial(repair, file, output))
    if as_json:
        terminal.print_json(_document(report))
        return
    _print_report(report)
    if report.repaired is None:
        terminal.print_line("nothing to repair")
        return
    terminal.print_line(f"kept {report.records:,} records in {report.repaired}")
    if output is None:
        terminal.print_line(f"the damaged file is {report.original}")


def _with_bar(work: Callable[..., Report]) -> Report:
    with terminal.progress("bytes") as bar:
        return work(progress=bar.update)


def _document(report: Report) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(report), "ok": report.ok, "records_lost": report.records_lost}


def _print_report(report: Report) -> None:
    state = "ok" if report.ok else "damaged"
    sizes = f"{report.chunks:,} chunks, {terminal.human_size(report.size)}"
    terminal.print_line(f"{report.path}: {state}, {report.records:,} records, {sizes}")
    for damage in [*report.damage, *([report.torn] if report.torn else [])]:
        terminal.print_line(f"  {damage}")


@records.command(epilog=exits.TABLE)
@click.argument("source")
@click.argument("target")
@_encoding
@click.option("--compression", type=click.Choice(("none", "zstd")), default="none", show_default=True,
              help="Of the record file that is written.")  # fmt: skip
@_recover
@click.option("--force", is_flag=True, help="Write over TARGET if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def convert(
    source: str, target: str, encoding: Any, compression: str, recover: bool, force: bool, as_json: bool
) -> None:
    """Convert JSON lines to records, or records to JSON lines.

    The one of SOURCE and TARGET whose name ends in .jsonl, or is - for stdin or stdout, is the lines.

    \b
    Examples:
      pistributer records convert log.jsonl log.records --compression zstd
      pistributer records convert log.records log.jsonl
      pistributer records convert pictures.records - --encoding base64
    """
    if _is_lines(source) == _is_lines(target):
        raise click.UsageError("one of SOURCE and TARGET must be JSON lines: a name that ends in .jsonl, or -")
    if target != "-" and os.path.exists(target) and not force:
        raise click.UsageError(f"{target!r} is there already; --force writes over it")
    if _is_lines(source):
        done = _lines_to_records(source, target, encoding, compression)
    else:
        done = _records_to_lines(source, target, encoding, recover=recover)
    document = {"source": source, "target": target, "records": done}
    if as_json and target != "-":
        terminal.print_json(document)
    else:
        click.echo(f"converted {done:,} records", err=True)


def _is_lines(name: str) -> bool:
    return name == "-" or name.endswith(".jsonl")


def _lines_to_records(source: str, target: str, encoding: Any, compression: str) -> int:
    from pistributer.records import RecordWriter
    from pistributer.records.converting import from_lines

    with _open(source, "rb") as lines, RecordWriter(target, compression) as writer:
        return writer.write_records(from_lines(_watched(lines, _size(source)), encoding))


def _records_to_lines(source: str, target: str, encoding: Any, *, recover: bool) -> int:
    from pistributer.records.converting import to_lines

    done, size = 0, _size(source)
    with _reader(source, recover=recover) as reader, _open(target, "wb") as out, terminal.progress("bytes") as bar:
        for line in to_lines(reader, encoding):
            out.write(line)
            done += 1
            bar.update(reader.tell().chunk, size)
    return done


def _open(name: str, mode: str) -> IO[bytes]:
    from pistributer import errors

    with errors.typed_os_errors("open", name):
        return click.open_file(name, mode)


def _size(name: str) -> int | None:
    return None if name == "-" else os.path.getsize(name)


def _watched(lines: Iterable[bytes], total: int | None) -> Iterator[bytes]:
    """The lines, with a bar that says how far they are."""
    done = 0
    with terminal.progress("bytes") as bar:
        for line in lines:
            done += len(line)
            bar.update(done, total)
            yield line

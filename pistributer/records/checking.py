"""Verifying a file, and repairing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..storage.replacing import keep_and_replace, remove_quietly, sync_directory
from ..storage.whole_append import WholeAppendFile
from .damage import CorruptionStrategy, Damage
from .layout import PADDING, SIGNATURE, SIGNATURE_KIND, ChunkHeader, lay_out_chunk, pack_header
from .reading import Path, RecordReader, decode, open_to_read
from .walking import Walker

#: Told the offset that was reached and the size of the file, in bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a file holds and what is wrong with it."""

    path: str
    #: Bytes of the file.
    size: int
    chunks: int
    records: int
    #: Bytes of the records themselves.
    decoded_size: int
    #: Damaged bytes, in the order of the file.
    damage: tuple[Damage, ...]
    #: The incomplete chunk at the end; None if the file ends well.
    torn: Damage | None
    #: Set by `repair` if it wrote a file: which one, and where the damaged one is.
    repaired: str | None = None
    original: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage and self.torn is None

    @property
    def records_lost(self) -> int | None:
        """How many records are lost for certain; None if some of the damage does not tell."""
        counts = [damage.records for damage in [*self.damage, *([self.torn] if self.torn else [])]]
        return None if None in counts else sum(count for count in counts if count)


def verify(path: Path, *, progress: Progress | None = None) -> Report:
    """Read everything in the file, check every hash and every record, and report. Changes nothing.

    Raises RecordsMissing, NotARecordFile or a StorageError; never for damage.
    """
    return _walk(os.fsdecode(path), lambda header, data: None, progress)


def repair(path: Path, output: Path | None = None, *, progress: Progress | None = None) -> Report:
    """Write a file of the chunks that are sound, each hash checked, and report what was lost and where.

    With `output`, that is the new file (it is emptied if it is there) and `path` stays as it is. Without, a file that is
    sound is left alone, and a damaged one is replaced; what it was is kept beside it as `NAME.damaged` (`-2`, … if that
    name is taken), which the report names.

    Killed at any point, `path` is what it was or what it shall be, and in the latter case the copy is there; what may be
    left is a file `.NAME.PID.tmp`. Raises as `verify`, and FileInUse if somebody writes to the file at this moment.
    """
    path = os.fsdecode(path)
    with RecordReader(path):
        pass  # what is no record file is refused before anything is made
    if output is not None:
        _refuse_same_file(path, output)
        return _repair_into(path, os.fsdecode(output), progress)
    held = WholeAppendFile(path).open()  # a writer would go on writing to the file that is put aside
    try:
        found = verify(path, progress=progress)
        if found.torn is None and all(damage.unsupported for damage in found.damage):
            return found
        return _replace(path, progress)
    finally:
        held.close()


def _refuse_same_file(path: str, output: Path) -> None:
    if os.path.exists(output) and os.path.samefile(path, output):
        raise ValueError("the output of a repair can not be the file itself; leave it out to replace the file")


def _replace(path: str, progress: Progress | None) -> Report:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        report = _repair_into(path, temporary, progress)
        return replace(report, original=keep_and_replace(path, temporary, f"{path}.damaged"), repaired=path)
    except BaseException:
        remove_quietly(temporary)
        raise


def _repair_into(path: str, output: str, progress: Progress | None) -> Report:
    written = WholeAppendFile(output).open(truncate=True)
    try:
        written.append([SIGNATURE])

        def keep(header: ChunkHeader, data: bytearray) -> None:
            again = pack_header(header.kind, data, header.records, header.decoded_size)
            written.append(lay_out_chunk(written.size, again, data))

        report = _walk(path, keep, progress)
        written.sync()
    finally:
        written.close()
    sync_directory(os.path.dirname(output))
    return replace(report, original=path, repaired=output)


def _walk(path: str, keep: Callable[[ChunkHeader, bytearray], None], progress: Progress | None) -> Report:
    """Call `keep` for every chunk that is sound, also if it is so to another program only."""
    chunks = records = decoded_size = 0
    fd = open_to_read(path)
    try:
        walker = Walker(fd, path, CorruptionStrategy.RECOVER)
        walker.check_signature()
        size = walker.size()
        while (place := walker.place()) is not None:
            header, data = place.header, walker.data(place)
            if data is None or header.kind in (SIGNATURE_KIND, PADDING):
                continue
            if header.records and decode(walker, place, data) is None:
                if not walker.damage[-1].unsupported:
                    continue
            else:
                records, decoded_size = records + header.records, decoded_size + header.decoded_size
            keep(header, data)
            chunks += 1
            if progress is not None:
                progress(place.end, size)
        return Report(path, size, chunks, records, decoded_size, tuple(walker.damage), walker.torn)
    finally:
        os.close(fd)

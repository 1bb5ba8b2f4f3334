"""Reading a state file: one YAML document, and behind it the journal, one YAML document a change.

What a dying process can leave, and what a reader does:

* A last line without its newline, begun by the journal: the change never returned. It is cut off.
* The first lines of a change of several (` # +2`) without the others: the same.
* A hole of NUL bytes after a power cut (sync="none"): what follows it is of a later state, so it is cut off from there.
* The original's files end without a newline; a complete entry at the end counts.
* Release 26.1 of the original rewrites its file in place, after it has written a copy behind a mark: the copy counts if
  what stands before it can not be read.

Anything else that is no YAML is no crash but an edit gone wrong, and is refused with its line; nothing is changed then.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import errors
from . import documents

#: YAML allows this at the start of a line only as the start of a document, even inside a quoted text.
_MARK = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
#: Lines that may stand before the first document.
_PREAMBLE = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n|%[^\n]*\n|\xef\xbb\xbf)*\Z")
_MORE = re.compile(r"\s*(?:# \+(\d+))?\s*\Z")
_MORE_AT_END = re.compile(r"\] # \+(\d+)\s*\Z")
_ENTRY = b"--- ["
_LAST_VALID = b"\n---\n### LAST VALID STATE ###\n"

_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class Change:
    """One document of the journal."""

    #: The offset at which it begins.
    start: int
    #: A mapping that replaces everything, or an operation.
    value: Any
    #: How many documents that follow belong to the same change.
    more: int


@dataclass
class Stream:
    """What a file says."""

    document: Any
    changes: list[Change]
    #: Bytes from the start that are good; what stands behind them was left by a dying process.
    end: int
    #: Bytes of the document, before the journal.
    document_end: int
    #: What the file should be instead, if it was cut short while it was rewritten in place.
    rescued: bytes | None = None


def read(data: bytes, path: str) -> Stream:
    """Raises NotAState, with the line, for what is no state and was left by no crash."""
    try:
        return _read(data, path)
    except errors.NotAState:
        before, mark, copy = data.rpartition(_LAST_VALID)
        if not mark or not copy or not before.endswith(copy):
            raise
        found = _read(copy, path)
        found.rescued = copy
        return found


def _read(data: bytes, path: str) -> Stream:
    first = _document_end(data)
    end = _sound_end(data, first)
    first = min(first, end)
    document = _document(data[:first], path)
    changes, end = _journal(data, first, end, path)
    return Stream(document, changes, end, first)


def read_changes(data: bytes, path: str) -> tuple[list[Change], int]:
    """The changes in a piece of a journal, and how many of its bytes are good."""
    return _journal(data, 0, _sound_end(data, 0), path)


def _journal(data: bytes, start: int, end: int, path: str) -> tuple[list[Change], int]:
    changes = []
    for begin, chunk in _chunks(data[:end], start):
        value, more = _parse(chunk, begin, data, path)
        if value is not None:
            changes.append(Change(begin, value, more))
    unfinished = _first_unfinished(changes)
    return changes[:unfinished], end if unfinished == len(changes) else changes[unfinished].start


# -- what a crash left


def _sound_end(data: bytes, journal: int) -> int:
    """Where what a dying process left begins: a hole in the journal, or a line of it without its newline."""
    hole = data.find(b"\0", journal)
    if hole >= 0:
        data = data[:hole]
    line = data.rfind(b"\n") + 1
    tail = data[line:]
    if hole >= 0 or (tail and _is_torn(tail, data[:line])):
        # The original's mark stands on a line of its own.
        return line - 4 if data[:line].endswith(b"\n---\n") else line
    return len(data)


def _is_torn(tail: bytes, before: bytes) -> bool:
    if _ENTRY.startswith(tail) or tail.startswith(_ENTRY):
        return True
    return before.endswith((b"\n---\n", b"\n---\r\n")) and tail.startswith(b"[") and _original_entry(tail) is None


def _original_entry(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _first_unfinished(changes: list[Change]) -> int:
    """Where a change of several lines begins of which the last are missing; behind the last one if there is none."""
    first = len(changes)
    if changes and changes[-1].more:
        first -= 1
        while first and changes[first - 1].more == changes[first].more + 1:
            first -= 1
    return first


# -- documents


def _document_end(data: bytes) -> int:
    """Where the journal begins: at the second document, or the first if that is a change already."""
    marks = _MARK.finditer(data)
    first = next(marks, None)
    if first is None:
        return len(data)
    if not _PREAMBLE.match(data[: first.start()]):
        return first.start()
    if data[first.end() :].lstrip().startswith(b"["):
        return first.start()
    second = next(marks, None)
    return len(data) if second is None else second.start()


def _document(data: bytes, path: str) -> Any:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_a_state(path, data, error.start, "not UTF-8") from error
    try:
        document = documents.load(text)
    except (ValueError, errors.StateValueError) as error:
        raise _not_a_state(path, b"", 0, str(error)) from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _not_a_state(path, b"", 0, f"a {type(document).__name__} where a state has a mapping")
    return document


def _chunks(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Each document of the journal with its offset."""
    marks = [found.start() for found in _MARK.finditer(data, start)]
    for begin, end in itertools.pairwise([*marks, len(data)]):
        yield begin, data[begin:end]


def _parse(chunk: bytes, start: int, data: bytes, path: str) -> tuple[Any, int]:
    """The value of a document of the journal and how many more belong to it. JSON first: it is what most entries are.

    It is also what the original meant by its entries, of which YAML misreads some.
    """
    try:
        text = chunk.decode()
        found = _parse_json(text) or _parse_yaml(text)
    except ValueError as error:
        raise _not_a_state(path, data, start, str(error)) from error
    value, _ = found
    if value is not None and not isinstance(value, dict) and not _is_operation(value):
        raise _not_a_state(path, data, start, f"no change that this release knows: {value!r:.80}")
    return found


def _parse_json(text: str) -> tuple[Any, int] | None:
    start = text.find("[", 3, 6)
    if start < 0:
        return None
    try:
        value, end = _decoder.raw_decode(text, start)
    except ValueError:
        return None
    rest = _MORE.match(text, end)
    return None if rest is None else (value, int(rest[1] or 0))


def _parse_yaml(text: str) -> tuple[Any, int]:
    more = _MORE_AT_END.search(text)
    return documents.load(text), int(more[1]) if more else 0


def _is_operation(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[1], list)


def _not_a_state(path: str, data: bytes, offset: int, why: str) -> errors.NotAState:
    line = data.count(b"\n", 0, offset) + 1
    where = f"{path!r}, from line {line}," if offset else f"{path!r}"
    return errors.NotAState(
        f"{where} can not be read as a state: {why}",
        hint="mend it with a text editor; nothing was changed",
        path=path,
        line=line,
    )

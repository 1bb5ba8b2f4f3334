"""The calls that the classic `put` and `next` are made of, in C where it was built: most of their time is system calls then.

    QuickSharedAppend(file, pause, look_every)(rows)   what `SharedAppendFile.append` does, if nothing has changed since
                                                       this object last wrote; True, or False if nothing was done
    QuickTake(cursor, buffer)()                        what `ChannelReader.take` does, if the next row is in memory and the
                                                       cursor where this reader left it; the row, or None if nothing was done

Both do to the slots of the Python objects and to the files what those methods do, with the same locks and the same system
calls in the same order, so a kill in the middle leaves what it leaves there. After a False or a None the caller calls the
method, which waits for another thread's turn, opens, heals, refills, or says what is wrong. Between the locks no bytecode
runs and nobody waits for the interpreter, so other processes wait less, too.

Without C both names are None, and the methods do it all. There is no twin in Python, as QuickAppend has one: it would be
those methods again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .shared_append import SharedAppendFile
    from .shared_cursor import SharedCursor


class RowBuffer:
    """Whole rows of a batch, in memory."""

    __slots__ = ("odd", "position", "rows", "start")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.fill(b"", 0, odd=False)

    def fill(self, rows: bytes, start: int, *, odd: bool) -> None:
        #: Each with its newline.
        self.rows = rows
        #: Where the first of them begins in the batch, and where the next one begins among them, in bytes.
        self.start = start
        self.position = 0
        #: Some row is empty or damaged, so each is looked at.
        self.odd = odd


class _MakeAppend(Protocol):
    def __call__(self, file: SharedAppendFile, pause: float, look_every: float, /) -> _Append: ...


class _Append(Protocol):
    def __call__(self, rows: bytes, /) -> bool: ...


class _MakeTake(Protocol):
    def __call__(self, cursor: SharedCursor, buffer: RowBuffer, /) -> _Take: ...


class _Take(Protocol):
    def __call__(self) -> str | None: ...


if TYPE_CHECKING:
    QuickSharedAppend: _MakeAppend | None
    QuickTake: _MakeTake | None
else:
    try:
        from ._quick import QuickSharedAppend, QuickTake
    except ImportError:  # built without a compiler
        QuickSharedAppend = QuickTake = None

"""The classic file channels: `Pistributer` (.jsonl) and `PistributerTxt` (.txt), with the API and the files of release 0.2.0.

A channel is a file of rows, each ended by a newline. `put` appends to NAME. A reader renames NAME to NAME.in_use, hands out
its rows in order, and notes in NAME.index how far it has come. These are the files that 0.2.0 used: a folder that it left
goes on where it stopped, and it can open what we leave when nobody is active.

Promised here, and not by 0.2.0: any number of threads and processes may put and read at once, several readers of one
channel included. Each row goes to exactly one reader, whole, and rows come out in the order in which they went in, whoever
put them (of two puts at the same moment, one is first). A process killed with `kill -9` loses nothing that `put` returned
for, unless it is a reader that was inside `next()`: that one row is then either consumed or not. As in 0.2.0, there is no
acknowledgement; the queues of `open_queue` have one.

Not promised: that rows survive a power cut (nothing is synced, as in 0.2.0), fairness between readers.

How it works, with what a kill between any two steps leaves: `storage/shared_append.py` (writers), `storage/shared_batch.py`
(the batch), `storage/shared_cursor.py` (the index). The locks are kernel locks on the files themselves: writers lock the
file that they append to, readers NAME.index. Where behaviour differs from 0.2.0 on purpose:

* A row that could not come back as it was is refused (`queues/classic_rows.py`).
* Rows end at a newline only. 0.2.0 also ended them at a carriage return.
* A last line without newline is a row if it comes from 0.2.0, whose `new` left such lines; `new` now ends it. Once we have
  touched the channel, it is what a killed writer left: it goes to NAME.quarantine, as do rows with NULs or broken UTF-8.
* While NAME.in_use is there and not sealed, rows are appended to it and there is no NAME. (Two files that writers may
  append to would cost the order, or a new file for each batch, which takes as long as 20 puts.) So the current batch,
  which `size()` and `getIndex()` speak of, may be longer than with 0.2.0.
* NAME.index stays when a batch is used up, because it is the readers' lock; NAME.in_use may stay behind empty, to be used
  on. `close()` removes the latter.
* An index that makes no sense has rows delivered again; 0.2.0 deleted them if it was too large.
* Channels on network filesystems are refused, because locks do not hold there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import ClassVar, Self, overload

from .. import errors
from ..storage.shared_append import ChannelPaths
from .classic_reading import ChannelReader
from .classic_rows import encode_jsonl, encode_txt, jsonl_text
from .classic_writing import REQUIRED, Writing

StrPath = str | os.PathLike[str]


class FileChannel:
    """What `Pistributer` and `PistributerTxt` share: reading. Threads may share an object; a forked child may use its copy.

    The camelCase names are those of release 0.2.0 and stay.
    """

    suffix: ClassVar[str]
    _writing: ClassVar[Writing]

    #: The files of the channel: `data`, `index` and `in_use`, as absolute paths.
    path: dict[str, str]
    #: "" for a bare name, else the working directory at opening, as in release 0.2.0.
    abspath: str

    def __init__(self, path: StrPath) -> None:
        """Open the channel at `path` for reading. If it has rows and none are in use, they are taken into use.

        A channel that does not exist is empty, and stays so until somebody puts; nothing is created.

        Raises ValueError if the name does not end with the driver's suffix, FolderMissing (a FileNotFoundError) if its
        folder does not exist, NotWritable, UnsafeFilesystem.
        """
        name = os.fspath(path)
        self._writing.check(name)
        self.abspath = os.path.abspath(".") if os.sep in name else ""
        paths = ChannelPaths(os.path.abspath(name))
        self.path = {"data": paths.data, "index": paths.index, "in_use": paths.in_use}
        self._reader = ChannelReader(paths)
        self._reader.start()
        self._quick_take = self._reader.quick or self._reader.take

    # -- reading

    def next(self) -> str:
        """Return the oldest unread row, as text, and mark it as consumed.

        The mark is in the index file before this returns, so the row is not handed out again, even if this process is
        killed before it has dealt with it.

        Raises ChannelEmpty (a StopIteration) if nothing is unread, QueueClosed after `close`.
        """
        row = self._quick_take()
        if row is None:
            row = self._reader.take()
            if row is None:
                raise errors.ChannelEmpty(f"the channel {self.path['data']!r} is empty")
        return row

    def isEmpty(self) -> bool:
        """Whether nothing is unread at this moment. Never disturbs another reader."""
        return self._reader.is_empty()

    is_empty = isEmpty

    def __iter__(self) -> Iterator[str]:
        """Iterate over unread rows until the channel is empty. Each is consumed when it is handed out."""
        return self

    __next__ = next

    # -- counting

    def size(self) -> int:
        """Count the rows of the channel, those of the current batch that are consumed already included."""
        return self._reader.size()

    def remaining(self) -> int:
        """Count the unread rows."""
        return self._reader.remaining()

    @property
    def q(self) -> list[str]:
        """The rows of the current batch, consumed ones included. Read from disk each time."""
        return [row.decode(errors="replace") for row in self._reader.rows_in_use()]

    # -- the index

    def getIndex(self) -> dict[str, int]:
        """Return ``{"index": n}``: n rows of the current batch are consumed. 0 if the index file is missing or damaged."""
        return {"index": self._reader.index()}

    def updateIndex(self, count: int) -> None:
        """Set how many rows of the current batch count as consumed; at least none, at most all."""
        self._reader.move(count, relative=False)

    def increaseIndex(self, count: int = 1) -> None:
        """Skip `count` rows of the current batch."""
        self._reader.move(count, relative=True)

    def decreaseIndex(self, count: int = 1) -> None:
        """Step `count` rows back, so that they are handed out again. Not beyond the start of the current batch."""
        self._reader.move(-count, relative=True)

    # -- closing

    def close(self) -> None:
        """Let go of the files. Reading raises QueueClosed afterwards; closing twice is fine."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.path["data"],)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path['data']!r})"


_jsonl = Writing(".jsonl", encode_jsonl, jsonl_text)
_txt = Writing(".txt", encode_txt, str)
# `put` looks here itself before it calls anything: a function call is a twentieth of its time.
_jsonl_files, _txt_files = _jsonl.files.known, _txt.files.known


class Pistributer(FileChannel):
    """A channel of JSON rows in a `.jsonl` file. `next()` returns the text of a row; `json.loads` makes it a value.

    >>> import tempfile; folder = tempfile.mkdtemp()
    >>> Pistributer.put(f"{folder}/channel.jsonl", {"value": "hello"})
    True
    >>> queue = Pistributer(f"{folder}/channel.jsonl")
    >>> queue.next()
    '{"value":"hello"}'
    >>> queue.isEmpty()
    True
    """

    suffix = ".jsonl"
    _writing = _jsonl

    @overload
    @staticmethod
    def put(path: StrPath, value: object) -> bool: ...
    @overload
    @staticmethod
    def put(path: StrPath, *, string: object) -> bool: ...
    @overload
    @staticmethod
    def put(*, target_path: StrPath, string: object) -> bool: ...
    @staticmethod
    def put(
        path: StrPath = "", value: object = REQUIRED, *, target_path: StrPath = "", string: object = REQUIRED
    ) -> bool:
        """Append one row to the channel at `path` and return True.

        A str is stored as it is and must be one line; any other value as compact JSON. The file is made if there is none,
        its folder is not. It stays open for the next call. Any number of threads and processes may put at once. No sync:
        a killed process loses nothing, a power cut may cost the last seconds.

        `target_path` and `string` are the names that release 0.2.0 used in its source.

        Raises ValueError if the name does not end with ".jsonl", FolderMissing (a FileNotFoundError), RowError (a
        ValueError; for a type that JSON does not know also a TypeError) for what can not be a row, DiskFull, NotWritable,
        TooManyOpenFiles. After an error nothing was stored.
        """
        try:
            row = encode_jsonl(value)
        except TypeError:
            if value is not REQUIRED:
                raise
            return Pistributer.put(path or target_path, _jsonl.given("value", string))
        try:
            file = _jsonl_files[path]  # type: ignore[index]
        except KeyError:
            path = path or target_path
            file = _jsonl.files.find(path)
        return file.quick(row) or _jsonl.files.append(path, row)

    @staticmethod
    def put_many(path: StrPath, values: Iterable[object]) -> bool:
        """Append the values in order and return True. As `put`, with one system call for each MiB or 1,000 rows.

        Values are checked before any of their batch is stored. After an error the batches before it stand, and on a full
        disk the rows that fitted; the error's `stored` says how many in all.
        """
        return _jsonl.put_many(path, values)

    @overload
    @staticmethod
    def new(path: StrPath, value: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @overload
    @staticmethod
    def new(path: StrPath, *, string: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @overload
    @staticmethod
    def new(*, target_path: StrPath, string: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @staticmethod
    def new(
        path: StrPath = "",
        value: object = REQUIRED,
        overwrite: bool = False,
        sep: str = "",
        *,
        target_path: StrPath = "",
        string: object = REQUIRED,
    ) -> bool:
        """Make the data file at `path`, with `value` and `sep` as its content, and return True.

        Folders are made as needed. A str may hold several lines; the last one gets its newline if it has none. With
        `overwrite` the rows of an existing data file are replaced (not those that a reader has taken into use).

        Raises ValueError, RowError, FileExistsError, IsADirectoryError, DiskFull and other StorageErrors.
        """
        return _jsonl.new(path or target_path, _jsonl.given("value", value, string), overwrite, sep)


class PistributerTxt(FileChannel):
    """A channel of text rows in a `.txt` file.

    >>> import tempfile; folder = tempfile.mkdtemp()
    >>> PistributerTxt.put(f"{folder}/events.txt", "start")
    True
    >>> PistributerTxt(f"{folder}/events.txt").next()
    'start'
    """

    suffix = ".txt"
    _writing = _txt

    @overload
    @staticmethod
    def put(path: StrPath, value: object) -> bool: ...
    @overload
    @staticmethod
    def put(path: StrPath, *, string: object) -> bool: ...
    @overload
    @staticmethod
    def put(*, target_path: StrPath, string: object) -> bool: ...
    @staticmethod
    def put(
        path: StrPath = "", value: object = REQUIRED, *, target_path: StrPath = "", string: object = REQUIRED
    ) -> bool:
        """Append `str(value)`, one line, to the channel at `path` and return True.

        The file is made if there is none, its folder is not. It stays open for the next call. Any number of threads and
        processes may put at once. No sync: a killed process loses nothing, a power cut may cost the last seconds.

        `target_path` and `string` are the names that release 0.2.0 used in its source.

        Raises ValueError if the name does not end with ".txt", FolderMissing (a FileNotFoundError), RowError (a
        ValueError) for a text that is empty or not one line, DiskFull, NotWritable, TooManyOpenFiles. After an error
        nothing was stored.
        """
        try:
            row = encode_txt(value)
        except TypeError:
            if value is not REQUIRED:
                raise
            return PistributerTxt.put(path or target_path, _txt.given("value", string))
        try:
            file = _txt_files[path]  # type: ignore[index]
        except KeyError:
            path = path or target_path
            file = _txt.files.find(path)
        return file.quick(row) or _txt.files.append(path, row)

    @staticmethod
    def put_many(path: StrPath, values: Iterable[object]) -> bool:
        """Append `str(value)` of each in order and return True. As `put`, with one system call for each MiB or 1,000 rows.

        Values are checked before any of their batch is stored. After an error the batches before it stand, and on a full
        disk the rows that fitted; the error's `stored` says how many in all.
        """
        return _txt.put_many(path, values)

    @overload
    @staticmethod
    def new(path: StrPath, value: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @overload
    @staticmethod
    def new(path: StrPath, *, string: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @overload
    @staticmethod
    def new(*, target_path: StrPath, string: object, overwrite: bool = False, sep: str = "") -> bool: ...
    @staticmethod
    def new(
        path: StrPath = "",
        value: object = REQUIRED,
        overwrite: bool = False,
        sep: str = "",
        *,
        target_path: StrPath = "",
        string: object = REQUIRED,
    ) -> bool:
        """Make the data file at `path`, with `str(value)` and `sep` as its content, and return True.

        Folders are made as needed. The text may hold several lines; the last one gets its newline if it has none. With
        `overwrite` the rows of an existing data file are replaced (not those that a reader has taken into use).

        Raises ValueError, RowError, FileExistsError, IsADirectoryError, DiskFull and other StorageErrors.
        """
        return _txt.new(path or target_path, _txt.given("value", value, string), overwrite, sep)

"""Writing to the classic file channels of one suffix: what `put`, `put_many` and `new` of both drivers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from .. import errors
from ..storage.shared_append import ChannelPaths, SharedAppendFiles, rewrite
from ..storage.shared_batch import may_use_on, prepare, with_lock
from ..storage.shared_cursor import SharedCursor
from .classic_rows import encode_content

#: Rows and bytes that `put_many` writes at once.
_BATCH_ROWS = 1000
_BATCH_BYTES = 1024 * 1024


class _Required:
    """No row can be made of it, in any driver, so `put` need not look for it first."""

    def __repr__(self) -> str:
        return "<required>"

    def __str__(self) -> str:
        raise TypeError("a required argument is missing")


#: Default of a parameter that has two names, one of which must be given.
REQUIRED: Final[Any] = _Required()


class Writing:
    """The writing side of one driver."""

    def __init__(self, suffix: str, encode: Callable[[Any], bytes], text: Callable[[Any], str]) -> None:
        self.suffix = suffix
        #: A value to its row, with the newline.
        self._encode = encode
        #: A value to the text that `new` writes.
        self._text = text
        self.files = SharedAppendFiles(self.check, prepare, may_use_on)

    def check(self, path: str) -> None:
        if not path.endswith(self.suffix):
            raise ValueError(f'Path must end with "{self.suffix}" > "{path}"')

    @staticmethod
    def given(name: str, *values: Any) -> Any:
        """The one of `values` that was given."""
        for value in values:
            if value is not REQUIRED:
                return value
        raise TypeError(f"missing argument: {name!r}")

    def put_many(self, path: str | os.PathLike[str], values: Iterable[Any]) -> bool:
        self.files.find(path)  # a bad path is an error even if there are no values
        stored = 0
        try:
            for rows in self._batches(values):
                self.files.append(path, b"".join(rows))
                stored += len(rows)
        except errors.PistributerError as error:
            error.stored = stored + getattr(error, "stored", 0)  # type: ignore[attr-defined]
            raise
        return True

    def _batches(self, values: Iterable[Any]) -> Iterator[list[bytes]]:
        rows: list[bytes] = []
        size = 0
        for value in values:
            rows.append(row := self._encode(value))
            size += len(row)
            if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def new(self, path: str | os.PathLike[str], value: Any, overwrite: bool, sep: str) -> bool:
        name = os.path.abspath(path)
        self.check(name)
        if os.path.isdir(name):
            raise IsADirectoryError(f'This is a folder, require a file to write "{name}"')
        content = encode_content(f"{self._text(value)}{sep}")
        if content and not content.endswith(b"\n"):
            content += b"\n"  # otherwise the next row would be glued to this one
        if os.path.exists(name) and not overwrite:
            raise FileExistsError(f'File exists "{name}"')
        with errors.typed_os_errors("make the folder of", name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        paths = ChannelPaths(name)
        prepare(paths)
        # With the readers' lock, because the file must not become NAME.in_use under our hands.
        with_lock(SharedCursor(paths.index), lambda _: rewrite(name, content, exclusive=not overwrite))
        return True

"""The folder of a jsonl or txt queue: what lies where, and whether this release may open it.

::

    jobs/                         its own kernel lock: making the queue, counting changes, quarantine
      pistributer.json            what this is: format, driver, whether txt rows may be objects; written once
      bell, NNNN.fifo             who sleeps, and how to wake them (storage/doorbell.py)
      shards/0001.lock            held by the process that appends to shard 1
      shards/0001.cursor          how far shard 1 has been claimed; its kernel lock is held while claiming
      shards/0001-000000000000.jsonl   rows; the number is the ordinal of the first row in this segment
      shards/0002.source          shard 2 belongs to a source (queues/sources.py)
      claims/0001.lock            held by the consumer that owns journal 1, until it dies
      claims/0001.jsonl           the rows it holds (queues/journal.py)
      delayed/000029395260.jsonl  rows that fall due in that minute (queues/delayed.py)
      dead.jsonl                  buried rows
      quarantine.jsonl            damaged bytes, with where they were found
      reserve                     space kept back, so that a full disk can be emptied by consuming
"""

from __future__ import annotations

import os
import re
from typing import Any

import orjson

from .. import errors
from ..storage.filesystem import require_local
from ..storage.locks import Flock
from ..storage.replacing import remove_litter, replace_file, reserve_space
from .rows import JSON, TXT, TXT_OR_OBJECTS, Codec

FORMAT = 1
#: A claim needs room for a copy of its rows before it can free any; this much is kept back for it, in bytes.
_RESERVE_BYTES = 8192
_DESCRIPTION = "pistributer.json"


def driver_of(path: str) -> str | None:
    """The driver of the queue in the folder `path`, as its description says; None if there is none, or it is damaged."""
    try:
        with open(os.path.join(path, _DESCRIPTION), "rb") as file:
            driver = orjson.loads(file.read())["driver"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return driver if isinstance(driver, str) else None


class Folder:
    """Paths and description of one queue folder. Opening makes what is missing, under the folder's lock."""

    #: How its rows are written.
    codec: Codec

    def __init__(self, path: str, *, driver: str, create: bool, durable: bool, objects: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.driver = driver
        self.suffix = f".{driver}"
        self.shards = os.path.join(self.path, "shards")
        self.claims = os.path.join(self.path, "claims")
        self.delayed = os.path.join(self.path, "delayed")
        self.dead = os.path.join(self.path, "dead.jsonl")
        self.quarantine = os.path.join(self.path, "quarantine.jsonl")
        self.lock = Flock(self.path, folder=True)
        self._reserve = os.path.join(self.path, "reserve")
        with errors.typed_os_errors("open the queue", path):
            if not self._is_described():
                self._create(create, durable, objects)
            require_local(self.path)
            self.keep_reserve()

    def _is_described(self) -> bool:
        """Whether a description is there and this release may go on; FormatError if it may not."""
        try:
            with open(os.path.join(self.path, _DESCRIPTION), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise errors.NotAQueue(
                f"{self.path!r} is a file, and a {self.driver} queue is a folder",
                hint="open a classic channel with Pistributer(path), a database with 'sqlite:PATH'",
                path=self.path,
            ) from None
        self.codec = self._check(data)
        return True

    def _check(self, data: bytes) -> Codec:
        try:
            found: Any = orjson.loads(data)
            version, driver, objects = int(found["format"]), str(found["driver"]), bool(found.get("objects", False))
        except (ValueError, KeyError, TypeError) as error:
            raise errors.NotAQueue(
                f"{os.path.join(self.path, _DESCRIPTION)!r} is damaged: {error}",
                hint=f'if it is a {self.driver} queue, restore it: {{"format":{FORMAT},"driver":"{self.driver}"}}',
                path=self.path,
            ) from error
        if version > FORMAT:
            raise errors.NewerFormat(
                f"{self.path!r} has format {version}, and this release knows up to {FORMAT}",
                hint="upgrade pistributer",
                path=self.path,
                found=version,
                known=FORMAT,
            )
        if driver != self.driver:
            raise errors.DriverMismatch(
                f"{self.path!r} is a {driver} queue, not {self.driver}",
                hint=f"open it as '{driver}:{self.path}'",
                path=self.path,
                found=driver,
                asked=self.driver,
            )
        return JSON if driver != "txt" else TXT_OR_OBJECTS if objects else TXT

    def _create(self, create: bool, durable: bool, objects: bool) -> None:
        """Make the queue. Killed between any two steps, the next opener finds no description and makes the rest."""
        if not create:
            raise errors.FolderMissing(f"there is no queue at {self.path!r}", hint="check the path", path=self.path)
        try:
            os.mkdir(self.path)
        except FileExistsError:
            self._refuse_foreign()
        with self.lock:
            if self._is_described():
                return
            remove_litter(self.path)
            for folder in (self.shards, self.claims):
                os.makedirs(folder, exist_ok=True)
            description: dict[str, Any] = {"format": FORMAT, "driver": self.driver}
            if objects and self.driver == "txt":
                description["objects"] = True
            data = orjson.dumps(description) + b"\n"
            replace_file(os.path.join(self.path, _DESCRIPTION), data, durable=durable)
            self.codec = self._check(data)

    def _refuse_foreign(self) -> None:
        """A folder with other people's files in it is not turned into a queue."""
        ours = {"shards", "claims", "bell", "reserve"}
        foreign = [name for name in os.listdir(self.path) if name not in ours and not name.endswith(".tmp")]
        if foreign and not os.path.exists(os.path.join(self.path, _DESCRIPTION)):
            raise errors.NotAQueue(
                f"{self.path!r} is not a queue and is not empty (it holds {sorted(foreign)[0]!r})",
                hint="give the queue a folder of its own",
                path=self.path,
            )

    # -- room for consumers on a full disk

    def keep_reserve(self) -> None:
        """Set the reserve aside again if it was used and there is room."""
        if not os.path.exists(self._reserve):
            reserve_space(self._reserve, _RESERVE_BYTES)

    def use_reserve(self) -> bool:
        """Give the reserve back to the disk. False if that has been done before."""
        try:
            os.unlink(self._reserve)
        except FileNotFoundError:
            return False
        return True

    # -- shards

    def shard_numbers(self) -> list[int]:
        """Numbers of all shards that hold rows or have held some."""
        return sorted({int(name[:4]) for name in os.listdir(self.shards) if name[4:] == ".lock"})

    def shard_lock(self, number: int) -> str:
        return os.path.join(self.shards, f"{number:04d}.lock")

    def cursor(self, number: int) -> str:
        return os.path.join(self.shards, f"{number:04d}.cursor")

    def segment(self, number: int, base: int) -> str:
        return os.path.join(self.shards, f"{number:04d}-{base:012d}{self.suffix}")

    def segments(self, number: int) -> list[int]:
        """First ordinals of the segments of a shard, oldest first."""
        pattern = re.compile(rf"{number:04d}-(\d{{12,}}){re.escape(self.suffix)}")
        return sorted(int(match[1]) for name in os.listdir(self.shards) if (match := pattern.fullmatch(name)))

    def source(self, number: int) -> str:
        return os.path.join(self.shards, f"{number:04d}.source")

    def source_numbers(self) -> list[int]:
        """Numbers of the shards that belong to sources."""
        return sorted(int(name[:-7]) for name in os.listdir(self.shards) if name.endswith(".source"))

    # -- claim journals

    def journal(self, number: int) -> str:
        return os.path.join(self.claims, f"{number:04d}.jsonl")

    def journal_lock(self, number: int) -> str:
        return os.path.join(self.claims, f"{number:04d}.lock")

    def journal_numbers(self) -> list[int]:
        return sorted(int(name[:-5]) for name in os.listdir(self.claims) if name.endswith(".lock"))

    def journal_has_rows(self, number: int) -> bool:
        """Whether journal `number` is not empty; an idle consumer's is."""
        try:
            return os.stat(self.journal(number)).st_size > 0
        except FileNotFoundError:
            return False

"""Results in a persistent dictionary of the user's choice: `App("jobs", results=S3Dict("bucket"))`.

Each result is an item under its job's id, a dict with the fields of `Finished`. It is stored before its job is acknowledged,
as with the log. Nothing expires by itself: delete items when you have read them, or by age with `oldest_keys`.

Why this is not the default: docs/decisions.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pistributer import errors

from .results import Finished, to_finished

if TYPE_CHECKING:
    from pistributer.dicts.contract import PersiDict


class DictResults:
    """Writes as ResultLog does, and finds as ResultReader does. Thread-safe, as the dictionary is."""

    def __init__(self, store: PersiDict[Any]) -> None:
        if store.append_only:
            raise ValueError(
                "a dictionary for results can not be append-only: a job that ran twice has its last result"
            )
        self._store = store

    def add(
        self, job_id: str, value: Any, until: float = 0.0, *, task: str = "", seconds: float = 0.0, attempts: int = 1
    ) -> None:
        """Store a result. Raises RowError if the dictionary's format can not hold it."""
        kept = {"ok": True, "value": value, "until": until, "attempts": attempts, "at": time.time(), "seconds": seconds}
        try:
            self._store[job_id] = kept
        except errors.BadValue as error:
            raise errors.RowError(error.message, hint=error.hint) from error

    def add_failure(
        self, job_id: str, kind: str, text: str, traceback: str, attempts: int, until: float = 0.0, *, task: str = "",
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self._store[job_id] = asdict(
            Finished(False, None, kind, text, traceback, attempts, until, time.time(), seconds)
        )

    def flush(self) -> None:
        """Nothing to do: each result is stored at once."""

    def close(self) -> None:
        """Nothing to do: the dictionary belongs to the app."""

    def watch(self, jobs: Iterable[str]) -> None:
        """Nothing to do: whatever is in the dictionary is found."""

    def forget(self, job: str) -> None:
        """Nothing to do."""

    def find(self, job_id: str) -> Finished | None:
        """How the job ended, if the dictionary says so."""
        found = self._store.get(job_id)
        if found is None or (finished := to_finished(found)).expired:
            return None
        return finished

"""What a test puts in the place of an app's folders and worker processes (`pistributer.testing`).

This is the only seam: whatever else a test runs is what production runs.
"""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pistributer.queues.contract import Queue

#: A JSON object in the environment: apps that are made for one URL live at another, in this process and its children.
REDIRECT: Final = "PISTRIBUTER_REDIRECT"


class StandIn(abc.ABC):
    """Set as `App.stand_in`."""

    @abc.abstractmethod
    def open_queue(self, name: str, options: Mapping[str, Any]) -> Queue:
        """The app's queue of that name; `options` are those of `open_queue`."""

    @abc.abstractmethod
    def now(self) -> float:
        """Seconds since the epoch."""

    @abc.abstractmethod
    def wait_for(self, job_id: str, timeout: float | None) -> str | None:
        """Somebody waits for this job, which has not ended: run what is to be run. If it has not ended then, say why."""


def redirected(url: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """`url`, unless the environment says that its app lives elsewhere: a test's pool does, for its processes."""
    told = os.environ.get(REDIRECT)
    return url if told is None else json.loads(told).get(os.fspath(url), url)

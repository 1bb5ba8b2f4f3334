"""How long results of an app have to stay, where a sender asked for longer than the app does: `results/longest`.

One JSON line, `{"age": 604800.0, "until": 1764320400.0}`: nothing that is younger than `age` seconds is deleted by its age
before the moment `until`. Every worker process minds it when it deletes old logs, or the results that one process was asked to
keep would go with another one's.

It is replaced as a whole, under a lock, before the first result that needs it is in a log. Killed in between, logs stay
longer than they have to, within the room that results may take.
"""

from __future__ import annotations

import os
import time

import orjson

from pistributer.storage.locks import Flock
from pistributer.storage.replacing import replace_file


class Longest:
    """The note of one folder, as one process knows it. `least` is how many seconds everything is kept anyway."""

    def __init__(self, folder: str, least: float) -> None:
        self._path = os.path.join(folder, "longest")
        self._least = least
        self._age, self._until = 0.0, 0.0

    def keep_until(self, moment: float) -> None:
        """A result is about to be kept until then."""
        now = time.time()
        age = moment - now
        # A second less: a retention is added to a clock that goes on.
        if age > self._least and (age - 1.0 > self._age or moment > self._until):
            self._extend(age, now + 2 * age)

    def read(self) -> float:
        """So many seconds, now; 0: nobody has asked."""
        age, until = self._load()
        return age if time.time() < until else 0.0

    def _extend(self, age: float, until: float) -> None:
        with Flock(f"{self._path}.lock"):
            known_age, known_until = self._load()
            if time.time() < known_until:
                age, until = max(age, known_age), max(until, known_until)
            replace_file(self._path, orjson.dumps({"age": age, "until": until}) + b"\n", durable=False)
        self._age, self._until = age, until

    def _load(self) -> tuple[float, float]:
        try:
            with open(self._path, "rb") as file:
                found = orjson.loads(file.read())
            return float(found["age"]), float(found["until"])
        except (FileNotFoundError, ValueError):  # a power cut may leave it empty
            return 0.0, 0.0

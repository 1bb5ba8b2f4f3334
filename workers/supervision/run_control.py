"""What a supervisor does when it is asked through its control socket.

::

    status                        since when, what runs, which queues are paused
    look                          see at once what operators wish for (run_state.py), instead of within a quarter of a second
    size     what                 the role that is meant, how many processes it has and how many `run` asks for
    scale    what, to, alone      "8", "+2", "-1", "reset"; `alone`: for this supervisor only, and not for the next one
    restart  what                 new processes for one role, or for all workers without `what`
    stop     now                  as TERM does; `now`: as the second one does
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pistributer import errors

from .board import Board
from .crew import Crew
from .supervisor import Supervisor


class Commands:
    """The commands of one run."""

    def __init__(self, crew: Crew, supervisor: Supervisor, board: Board) -> None:
        self._crew = crew
        self._supervisor = supervisor
        self._board = board
        self._begun = time.monotonic()
        self._known: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": self._status,
            "look": self._look,
            "size": self._size,
            "scale": self._scale,
            "restart": self._restart,
            "stop": self._stop,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked. Raises ControlError if that makes no sense, and StorageErrors if the state can not be written."""
        command = self._known.get(request["do"])
        if command is None:
            raise errors.ControlError(
                f"this supervisor does not know {request['do']!r:.100}", hint=f"it knows {', '.join(self._known)}"
            )
        return command(request)

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        totals = self._board.totals()
        roles = {
            name: {"processes": self._supervisor.size(name), "asked": part.asked, "pids": []}
            for name, part in self._crew.parts.items()
        }
        for (role, _), pid in self._supervisor.pids().items():
            roles[role]["pids"].append(pid)  # type: ignore[attr-defined]
        return {
            "up": round(time.monotonic() - self._begun, 3),
            "stopping": self._supervisor.stopping,
            "paused": sorted(self._crew.paused),
            "roles": roles,
            "done": totals.done,
            "failed": totals.failed,
            "retried": totals.retried,
        }

    def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        self._crew.look()
        return {"paused": sorted(self._crew.paused)}

    def _scale(self, request: dict[str, Any]) -> dict[str, Any]:
        part = self._crew.scale(_text(request, "what"), _text(request, "to"), alone=request.get("alone") is True)
        return self._size({**request, "what": part.name})

    def _size(self, request: dict[str, Any]) -> dict[str, Any]:
        part = self._crew.find(_text(request, "what"))
        return {"role": part.name, "processes": self._supervisor.size(part.name), "asked": part.asked}

    def _restart(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("what") is None:
            self._supervisor.reload()
            return {"roles": [name for name, part in self._crew.parts.items() if not part.ends]}
        part = self._crew.find(_text(request, "what"))
        self._supervisor.restart(part.name)
        return {"roles": [part.name]}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._supervisor.stop(now=request.get("now") is True)
        return {}


def _text(request: dict[str, Any], field: str) -> str:
    found = request.get(field)
    if not isinstance(found, str):
        raise errors.ControlError(f"{request['do']} needs a field {field!r} that is a text")
    return found

"""Imported by the fork server, to import once what all workers need: they share that memory until they write to it.

`$PISTRIBUTER_PRELOAD` says what. The fork server has a way of its own to be told, but it swallows errors, and until Python 3.13
did not know the module path of the program that it serves.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterable

from pistributer import errors

VARIABLE = "PISTRIBUTER_PRELOAD"


def describe(modules: Iterable[str]) -> str:
    """The variable's value. BootError for a module that there is not."""
    names = list(modules)
    for name in names:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise errors.BootError(
                f"there is no module {name!r} to preload", hint="name modules that Python can import"
            )
    return json.dumps({"path": sys.path, "modules": names})


def _preload() -> None:
    wanted = json.loads(os.environ.pop(VARIABLE))
    sys.path += [folder for folder in wanted.get("path", ()) if folder not in sys.path]
    for name in wanted.get("modules", ()):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 (workers meet the same error where the supervisor hears of it)
            traceback.print_exc()
    # What is here now will not become garbage; not looking at it keeps its pages shared.
    gc.collect()
    gc.freeze()


if VARIABLE in os.environ:
    _preload()

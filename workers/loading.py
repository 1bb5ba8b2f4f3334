"""Finding the app that a command or a worker is told of: `FILE.py`, `FILE.py:NAME`, `MODULE` or `MODULE:NAME`."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from types import ModuleType

from pistributer import errors

from .app import App


def load_app(source: str) -> App:
    """Import `source` and return its app.

    A file is imported under its own name, with its folder first on the module path, as Python does for a script; so
    `if __name__ == "__main__":` keeps its meaning. Raises BootError.
    """
    place, name = _split(source)
    module = _import(place)
    if name is not None:
        return _named(module, name, place)
    found = {value: key for key, value in vars(module).items() if isinstance(value, App)}
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise errors.BootError(f"{place!r} has no app", hint='it needs a line such as `app = App("jobs")`')
    names = " or ".join(f"{place}:{key}" for key in sorted(found.values()))
    raise errors.BootError(f"{place!r} has {len(found)} apps", hint=f"say which: {names}")


def source_of(app: App) -> str:
    """What `load_app` takes to find `app` in another process. BootError if no module has it under a name."""
    module = sys.modules.get(app.module)
    name = next((key for key, value in vars(module).items() if value is app), None) if module else None
    if module is None or name is None:
        raise errors.BootError(
            f"the app of {app.url!r} is not a global variable of the module {app.module!r} that made it",
            hint="make the app, its tasks and its consumers at the top level of a file",
        )
    file = getattr(module, "__file__", None)
    by_file = module.__spec__ is None or isinstance(module.__spec__.loader, _FileMark)
    if app.module == "__main__" and file is None:
        raise errors.BootError("worker processes can not import an app that was typed in", hint="put it into a file")
    return f"{os.path.abspath(str(file))}:{name}" if by_file else f"{_main_name(module)}:{name}"


def _main_name(module: ModuleType) -> str:
    """The importable name; that of `python -m package.module` is in its spec."""
    return module.__spec__.name if module.__spec__ is not None else module.__name__


class _FileMark(importlib.machinery.SourceFileLoader):
    """Loads a file by its path; its type tells that the module's name alone would not find it again."""


def _split(source: str) -> tuple[str, str | None]:
    place, colon, name = source.rpartition(":")
    if not colon or os.sep in name:
        return source, None
    return place, name


def _import(place: str) -> ModuleType:
    try:
        if place.endswith(".py") or os.sep in place:
            return _import_file(os.path.abspath(place))
        return _import_module(place)
    except errors.BootError:
        raise
    except Exception as error:
        where = "".join(traceback.format_exception(error)).rstrip()
        raise errors.BootError(
            f"importing {place!r} failed with {type(error).__name__}: {error}", hint=f"it stopped here:\n{where}"
        ) from error


def _import_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise errors.BootError(f"there is no file {path!r}", hint="check the path, or name a module: package.module")
    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == path:
            return sys.modules[name]
        name = f"pistributer_app_{name}"  # a user's queue.py must not replace the standard library's
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path, loader=_FileMark(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise errors.BootError(
            f"there is no module {name!r}", hint="name a file (app.py) or a module that Python can import from here"
        ) from error


def _named(module: ModuleType, name: str, place: str) -> App:
    app = getattr(module, name, None)
    if not isinstance(app, App):
        what = "has no" if app is None else f"has a {type(app).__name__} called"
        message = f"{place!r} {what} {name!r} where an app should be"
        raise errors.BootError(message, hint="check the name after the colon")
    return app

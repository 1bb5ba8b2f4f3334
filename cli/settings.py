"""Where the defaults of options come from, if neither the command line nor the environment says: two files.

    flag  >  PISTRIBUTER_RUN_PROCESSES  >  pistributer.toml  >  [tool.pistributer] in pyproject.toml  >  built in

The files are looked for in the working folder and above it; the first folder that has one counts. Tables are named as
commands are, keys as options are, with _ or - between words::

    [run]
    app = "app.py"
    processes = 4

    [queue.peek]
    count = 3
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import exits

if TYPE_CHECKING:
    import click

_FILE: Final = "pistributer.toml"
#: Of the environment variables, and of what they set.
PREFIX: Final = "PISTRIBUTER"
#: What no file sets: they ask for something else than the command, or say where the files are.
_NOT_SET: Final = frozenset({"help", "version", "config"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One option, and where its value comes from."""

    #: As in the file: `run.processes`.
    key: str
    value: Any
    #: A file, `environment PISTRIBUTER_…`, or `default`.
    origin: str


def load(root: click.Group, path: str | None = None) -> dict[str, Any]:
    """What the files say, as click's `default_map`. Ends the command with 78 for a key that no command knows."""
    merged: dict[str, Any] = {}
    for file, tables in _read_all(path):
        _merge(merged, _checked(root, tables, str(file), ()))
    return merged


def take(ctx: click.Context, option: click.Parameter, path: str | None) -> None:
    """The callback of a command's own `--config`: its defaults come from that file."""
    root = ctx.find_root().command
    if path is not None:
        ctx.default_map = load(root, path).get(str(ctx.command.name), {})  # type: ignore[arg-type]


def show(root: click.Group, path: str | None = None) -> list[Setting]:
    """Every option of every command."""
    found = {}
    for file, tables in _read_all(path):
        found.update(_flat(_checked(root, tables, str(file), ()), str(file)))
    settings = []
    for names, command in _commands(root, ()):
        for option in _options(command):
            key = ".".join((*names, shown(option)))
            variable = f"{PREFIX}_{key}".replace(".", "_").replace("-", "_").upper()
            if os.environ.get(variable) and option.param_type_name == "option":
                settings.append(Setting(key, os.environ[variable], f"environment {variable}"))
            else:
                value, origin = found.get(".".join((*names, str(option.name))), (_default(option), "default"))
                # An argument can be set, as `run`'s app is, but nobody wants to read of all that are not.
                if option.param_type_name == "option" or origin != "default":
                    settings.append(Setting(key, value, origin))
    return settings


def _default(option: click.Parameter) -> Any:
    """None where click has a mark of its own for "nothing"."""
    value = option.default
    if getattr(option, "is_flag", False):
        return bool(value is True)
    return value if isinstance(value, str | int | float | list | tuple) else None


def _read_all(path: str | None) -> list[tuple[Path, dict[str, Any]]]:
    """The files that count, the stronger one last. With `path` that one alone."""
    if path is not None:
        return [(Path(path), _read(Path(path)))]
    for folder in (Path.cwd(), *Path.cwd().parents):
        project = folder / "pyproject.toml"
        ours = _read(project).get("tool", {}).get("pistributer") if project.is_file() else None
        found = [] if ours is None else [(project, ours)]
        if (folder / _FILE).is_file():
            found.append((folder / _FILE, _read(folder / _FILE)))
        if found:
            return found
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        exits.fail(f"{path}: {error}", hint="mend the file, or name another with --config", code=exits.CONFIG)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _checked(group: click.Group, tables: dict[str, Any], file: str, above: tuple[str, ...]) -> dict[str, Any]:
    """`tables` with _ for -, if every key is one; the nearest one is named otherwise."""
    context = _context(group)
    checked: dict[str, Any] = {}
    for key, value in tables.items():
        command = group.get_command(context, key)
        if command is None:
            _refuse(key, group.list_commands(context), file, above)
        elif not isinstance(value, dict):
            _fail(f"{'.'.join((*above, key))} is a command, so it is a table of its options", f"[{key}]", file)
        elif hasattr(command, "list_commands"):
            checked[key] = _checked(command, value, file, (*above, key))  # type: ignore[arg-type]
        else:
            checked[key] = _checked_options(command, value, file, (*above, key))
    return checked


def _checked_options(command: Any, given: dict[str, Any], file: str, above: tuple[str, ...]) -> dict[str, Any]:
    known = {str(option.name): option for option in _options(command)}
    # An option may be called otherwise in Python (`--json` is `as_json`); the file says what the command line says.
    names = {shown(option): name for name, option in known.items()}
    checked = {}
    for key, value in given.items():
        if key.replace("_", "-") not in names:
            _refuse(key, list(names), file, above)
        checked[names[key.replace("_", "-")]] = value
    return checked


def shown(option: click.Parameter) -> str:
    """What the command line calls it."""
    longest = max(option.opts, key=len) if option.param_type_name == "option" else str(option.name)
    return longest.lstrip("-").replace("_", "-")


def _refuse(key: str, known: list[str], file: str, above: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
    _fail(f"no such setting: {'.'.join((*above, key))}", hint, file)


def _fail(what: str, hint: str, file: str) -> None:
    exits.fail(f"{file}: {what}", hint=hint, code=exits.CONFIG)


def _flat(tables: dict[str, Any], file: str, above: tuple[str, ...] = ()) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            found.update(_flat(value, file, (*above, key)))
        else:
            found[".".join((*above, key))] = (value, file)
    return found


def _commands(group: click.Group, above: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    context = _context(group)
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and hasattr(command, "list_commands"):
            found += _commands(command, (*above, name))  # type: ignore[arg-type]
        elif command is not None:
            found.append(((*above, name), command))
    return found


def _options(command: click.Command) -> list[click.Parameter]:
    return [option for option in command.params if option.name not in _NOT_SET]


def _context(group: click.Group) -> click.Context:
    import click

    return click.Context(group)

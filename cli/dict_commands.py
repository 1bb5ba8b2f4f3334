"""`pistributer dict ls|get|set|rm|stats|copy`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from . import exits, terminal
from .root import Group

if TYPE_CHECKING:
    from pistributer.dicts import PersiDict

_EXPLAINED = """TARGET is a folder, files:FOLDER or s3://BUCKET/PREFIX. What it is written in is found out; --format says which,
if it holds several. A KEY is its segments with / between them. Items in the format pkl are unpickled, which runs code of
whoever wrote them."""


@click.group("dict", cls=Group, epilog=exits.TABLE)
def dicts() -> None:
    """Look into persistent dictionaries and change them.

    \b
    Examples:
      pistributer dict ls files:cache/ users         the keys that begin with users
      pistributer dict set cache/ users/alice '{"age": 30}'
      pistributer dict get cache/ users/alice
      pistributer dict copy cache/ s3://bucket/cache
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    formats = click.option("--format", "format_", metavar="NAME", help="pkl, json, or the ending of text files.")
    digests = click.option(
        "--digest-len", type=click.IntRange(0, 26), help="As in FileDirDict; found out if left away."
    )
    return formats(digests(command))


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def _open(target: str, format_: str | None, digest_len: int | None, *, create: bool = False) -> PersiDict[Any]:
    from pistributer.dicts.opening import open_dict

    try:
        return open_dict(target, create=create, serialization_format=format_, digest_len=digest_len)
    except ValueError as error:
        exits.fail(str(error), hint="see --format and --digest-len", code=exits.USAGE)


def _key(text: str) -> tuple[str, ...]:
    return tuple(text.strip("/").split("/"))


@dicts.command(epilog=exits.TABLE, help=f"""List keys, those that begin with PREFIX or all.

{_EXPLAINED}

\b
Examples:
  pistributer dict ls cache/ -n 10 --newest
  pistributer dict ls s3://bucket/cache users --json
""")  # fmt: skip
@click.argument("target")
@click.argument("prefix", required=False)
@click.option("-n", "--count", type=click.IntRange(1), help="How many at most.")
@click.option("--newest", is_flag=True, help="The last changed first.")
@_options
@_json_option
def ls(target: str, prefix: str | None, count: int | None, newest: bool, as_json: bool, **how: Any) -> None:
    start = _key(prefix) if prefix else ()
    found = _open(target, **how).get_subdict(start)
    dated: Iterable[tuple[Any, float]] = found.keys_and_timestamps()
    if newest:
        dated = sorted(dated, key=lambda pair: pair[1], reverse=True)
    rows = [("/".join((*start, *key)), moment) for key, moment in islice(dated, count)]
    if as_json:
        terminal.print_json([{"key": key, "timestamp": moment} for key, moment in rows])
        return
    if not rows:
        click.echo("no item", err=True)
    terminal.print_table([{"key": key, "changed": _moment(moment)} for key, moment in rows])


@dicts.command(epilog=exits.TABLE, help=f"""Print a value: text as it is, all else as JSON, or as Python shows it.

{_EXPLAINED}

\b
Examples:
  pistributer dict get cache/ users/alice
  pistributer dict get cache/ users/alice --json     with its ETag and timestamp
""")  # fmt: skip
@click.argument("target")
@click.argument("key")
@_options
@_json_option
def get(target: str, key: str, as_json: bool, **how: Any) -> None:
    found = _open(target, **how)
    result = found.get_with_etag(_key(key))
    if not isinstance(result.actual_etag, str):
        _missing(key, target)
    if as_json:
        document = {"key": key, "etag": result.actual_etag, "timestamp": found.timestamp(_key(key))}
        terminal.print_json(document | {"value": _shown(result.new_value)})
    else:
        text = _shown(result.new_value)
        terminal.print_line(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, indent=2))


@dicts.command("set", epilog=exits.TABLE, help=f"""Store a value, given as JSON, as text with --text, or on stdin with -.

{_EXPLAINED} A TARGET that is not there is made, in JSON unless --format says otherwise.

\b
Examples:
  pistributer dict set cache/ users/alice '{{"age": 30}}'
  pistributer dict set notes/ today --format txt "some words"
  cat big.json | pistributer dict set cache/ big -
""")  # fmt: skip
@click.argument("target")
@click.argument("key")
@click.argument("value")
@click.option("--text", is_flag=True, help="Store the text itself. Dictionaries of text do so anyway.")
@_options
@_json_option
def set_(target: str, key: str, value: str, text: bool, as_json: bool, **how: Any) -> None:
    found = _open(target, create=True, **how)
    given = sys.stdin.read() if value == "-" else value
    is_text = text or found.serialization_format not in ("pkl", "json")
    etag = found.set_item_get_etag(_key(key), given if is_text else _parsed(given))
    if as_json:
        terminal.print_json({"key": key, "etag": etag})


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        exits.fail(f"the value is not JSON: {error}", hint="give --text to store text, or quote it", code=exits.USAGE)


@dicts.command(epilog=exits.TABLE, help=f"""Delete keys. Those that are not there are reported, and the command ends with 3.

{_EXPLAINED}

\b
Examples:
  pistributer dict rm cache/ users/alice users/bob
""")  # fmt: skip
@click.argument("target")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_options
@_json_option
def rm(target: str, keys: tuple[str, ...], as_json: bool, **how: Any) -> None:
    found = _open(target, **how)
    missing = [key for key in keys if not found.discard(_key(key))]
    if as_json:
        terminal.print_json({"deleted": len(keys) - len(missing), "missing": missing})
    for key in missing:
        exits.complain(f"{target!r} has no item {key!r}")
    if missing:
        raise SystemExit(exits.ITEMS_FAILED)


@dicts.command(epilog=exits.TABLE, help=f"""Count items, by their first segment too, and show when they were changed.

{_EXPLAINED}

\b
Examples:
  pistributer dict stats cache/ --json
""")  # fmt: skip
@click.argument("target")
@_options
@_json_option
def stats(target: str, as_json: bool, **how: Any) -> None:
    found = _open(target, **how)
    counts: Counter[str] = Counter()
    moments = []
    for key, moment in found.keys_and_timestamps():
        counts[key[0] if len(key) > 1 else ""] += 1
        moments.append(moment)
    document = {
        "items": sum(counts.values()),
        "format": found.serialization_format,
        "digest_len": getattr(found, "digest_len", 0),
        "oldest": min(moments, default=None),
        "newest": max(moments, default=None),
        "under": {name: count for name, count in sorted(counts.items()) if name},
    }
    if as_json:
        terminal.print_json(document)
        return
    count = "1 item" if document["items"] == 1 else f"{document['items']:,} items"
    terminal.print_line(f"{count}, {document['format']}, digest_len {document['digest_len']}")
    if moments:
        terminal.print_line(f"changed from {_moment(min(moments))} to {_moment(max(moments))}")
    rows = [{"under": name, "items": terminal.human_count(count)} for name, count in sorted(counts.items()) if name]
    terminal.print_table(rows, right=("items",))


@dicts.command(epilog=exits.TABLE, help=f"""Copy all items of SOURCE to TARGET, whatever each is and is written in.

{_EXPLAINED} --format and --digest-len are those of TARGET. Killed half-way, the same command does the rest.

\b
Examples:
  pistributer dict copy cache/ s3://bucket/cache
  pistributer dict copy old/ new/ --format json --digest-len 8
""")  # fmt: skip
@click.argument("source")
@click.argument("target")
@click.option("--from-format", metavar="NAME", help="What SOURCE is written in, if it holds several formats.")
@click.option("--overwrite", is_flag=True, help="Replace items that TARGET has; they are kept otherwise.")
@_options
@_json_option
def copy(source: str, target: str, from_format: str | None, overwrite: bool, as_json: bool, **how: Any) -> None:
    from pistributer.dicts.opening import copy_items

    found = _open(source, from_format, None)
    bar = terminal.ProgressBar("items")
    try:
        into = _open(target, create=True, **how)
        done = copy_items(found, into, overwrite=overwrite, progress=lambda count: bar.update(count, None))
    finally:
        bar.close()
    if as_json:
        terminal.print_json({"written": done.written, "kept": done.kept})
    else:
        kept = f", kept {done.kept:,} that were there" if done.kept else ""
        terminal.print_line(f"copied {done.written:,} items{kept}")


def _missing(key: str, target: str) -> None:
    exits.fail(f"{target!r} has no item {key!r}", hint=f"'pistributer dict ls {target}' lists its keys")


def _shown(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value


def _moment(seconds: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")

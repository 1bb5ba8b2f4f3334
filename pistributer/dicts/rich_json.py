"""JSON that brings every value back as it went in, in the dialect of jsonpickle, which persidict writes.

Values made of None, bool, int, float, str, list and dict with str keys are plain JSON, written by orjson. All others go
through jsonpickle, which writes tuples, sets, bytes, dates, arrays and data frames as objects with tags (`py/tuple`, …).

jsonpickle would import and call what a tag names, so a file could run code. Here a document is looked through first, and
refused (UnsafeValue) unless every name in it is on a list of harmless ones, or a class of the module that defines the
dictionary's `base_class_for_values`. What would be refused when it is read is refused when it is written (BadValue).
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import orjson

from .. import errors

_SCALARS = frozenset({str, int, bool, type(None)})
#: jsonpickle drops these keys from a plain dict, or takes their values for something else.
_TAGGED_KEY = re.compile(rb'"py/[a-z0-9_]+":')
_NON_STRING_KEY = "json://"
#: Tags whose text names something to import.
_NAMING = frozenset({"py/object", "py/type", "py/function", "py/class"})
#: Tags that are refused whatever they say.
_REFUSED = frozenset({"py/repr", "py/mod", "py/module", "py/method", "py/bytes", "py/initargs"})
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
#: How a document begins that orjson wrote for us, with a newline at its end. It reads all numbers of these exactly; in those of
#: others it would take integers over 64 bits for floats.
_OURS = re.compile(rb'["tfn]|[\[{](?:\n  [^ ]|[\]}])')

_TAGGED = "a key of a dict begins with 'py/', which jsonpickle keeps for itself"
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.GeneratorType)

_STANDARD = """
builtins.bytes builtins.complex builtins.dict builtins.float builtins.frozenset builtins.int builtins.list builtins.range
builtins.set builtins.slice builtins.str builtins.tuple collections.Counter collections.OrderedDict collections.defaultdict
collections.deque datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone decimal.Decimal
fractions.Fraction ipaddress.IPv4Address ipaddress.IPv6Address pathlib.PosixPath pathlib.PurePosixPath pathlib.Path
pathlib._local.PosixPath pathlib._local.PurePosixPath uuid.UUID zoneinfo.ZoneInfo
""".split()
_NUMPY = """
ndarray dtype bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 float128 longdouble
complex64 complex128 complex256 clongdouble datetime64 timedelta64 str_ bytes_ void intc uintc longlong ulonglong
""".split()
_NUMPY_FUNCTIONS = """
numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.core.multiarray._reconstruct
numpy.core.multiarray.scalar
""".split()
_PANDAS = """
DataFrame Series Index RangeIndex MultiIndex DatetimeIndex TimedeltaIndex PeriodIndex IntervalIndex CategoricalIndex
Timestamp Timedelta Period Interval Categorical
""".split()
#: Of these packages only what is listed is loaded, even if they define the class that a dictionary is for.
_LISTED = frozenset({"builtins", "numpy", "pandas"})
_HARMLESS = frozenset(
    [
        *_STANDARD,
        *(f"numpy.{name}" for name in _NUMPY),
        *_NUMPY_FUNCTIONS,
        *(f"pandas.{name}" for name in _PANDAS),
    ]
)


def encode(value: Any, trusted: frozenset[str]) -> bytes:
    """`value` as JSON. BadValue if it could not be read back."""
    try:
        if _is_plain(value):
            return _encode_plain(value)
        return _encode_rich(value, trusted)
    except RecursionError:
        raise errors.BadValue("the value is nested too deeply for JSON", hint="flatten it, or use pickle") from None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        return all(map(_is_plain_key, value)) and all(map(_is_plain, value.values()))
    return False


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and not key.startswith(_NON_STRING_KEY)


def _encode_plain(value: Any) -> bytes:
    try:
        data = orjson.dumps(value, None, _OPTIONS)
    except orjson.JSONEncodeError:  # an integer over 64 bits, a lone surrogate, 255 levels: the standard library can
        data = json.dumps(value, indent=4).encode()
    if _TAGGED_KEY.search(data):
        raise errors.BadValue(_TAGGED)
    return data


def _refuse_what_is_dropped(value: Any, seen: set[int]) -> None:
    """jsonpickle leaves out, without a word, functions in a dict, keys that look like its tags, and what is in a bytearray."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, bytearray | memoryview):
        raise errors.BadValue(f"JSON can not hold a {type(value).__name__}", hint="store bytes(value) instead")
    if isinstance(value, _CODE):
        raise errors.BadValue(f"JSON can not hold a {type(value).__name__}", hint="store what it returns instead")
    if isinstance(value, dict):
        if any(isinstance(key, str) and key.startswith("py/") for key in value):
            raise errors.BadValue(_TAGGED)
        inside = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = [*value]
    else:
        inside = [*getattr(value, "__dict__", {}).values()] if not isinstance(value, type) else []
    for part in inside:
        _refuse_what_is_dropped(part, seen)


def _encode_rich(value: Any, trusted: frozenset[str]) -> bytes:
    _refuse_what_is_dropped(value, set())
    pickler, _ = _jsonpickle("numpy" in sys.modules, "pandas" in sys.modules)
    try:
        document = pickler(keys=True, warn=False).flatten(value)
    except RecursionError:
        raise
    except Exception as error:
        raise errors.BadValue(f"JSON can not hold this {type(value).__name__}: {error}") from error
    for name in _names(document):
        if not _may_load(name, trusted):
            raise errors.BadValue(
                f"reading JSON that names {name!r} back could run code, so it is not written",
                hint="give a class of its module as base_class_for_values, or use pickle",
            )
    return _dump(document)


def _dump(document: Any) -> bytes:
    try:
        data = orjson.dumps(document, None, _OPTIONS)
    except orjson.JSONEncodeError:
        data = b"null"
    # orjson writes NaN as null, too.
    return json.dumps(document, indent=4).encode() if b"null" in data else data


def decode(data: bytes, trusted: frozenset[str]) -> Any:
    """The value of a document that `encode` or persidict wrote."""
    try:
        document = _parse(data)
    except (ValueError, RecursionError) as error:
        raise errors.DamagedValue(f"not JSON: {error}") from error
    if _TAGGED_KEY.search(data) is None and b'"json:' not in data:
        return document
    names = set(_names(document))
    for name in names:
        if not _may_load(name, trusted):
            raise errors.UnsafeValue(
                f"this JSON names {name!r}, and reading it could run code",
                hint="if you trust it, open the dictionary with a class of its module as base_class_for_values",
            )
    roots = {name.partition(".")[0] for name in names}
    _, unpickler = _jsonpickle("numpy" in roots, "pandas" in roots)
    try:
        return unpickler(keys=True, on_missing="error").restore(document)
    except Exception as error:
        raise errors.DamagedValue(f"its tags can not be read: {type(error).__name__}: {error}") from error


def _parse(data: bytes) -> Any:
    if data.endswith(b"\n") and _OURS.match(data):
        try:
            return orjson.loads(data)
        except ValueError:
            pass  # what only the standard library reads, or no JSON at all: it will say
    return json.loads(data)


def _names(document: Any) -> Iterator[str]:
    """Everything that a document would have imported, nested documents in strings included."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in _NAMING and isinstance(value, str):
                yield value
            elif key in _REFUSED or (key == "txt" and value is not True and "py/object" in document):
                yield key  # compressed: what is in it can not be looked through
            else:
                yield from _names(key)
                yield from _names(value)
    elif isinstance(document, list):
        for value in document:
            yield from _names(value)
    elif isinstance(document, str):
        yield from _nested_names(document)


def _nested_names(text: str) -> Iterator[str]:
    # jsonpickle writes data frames, and keys that are no strings, as JSON inside of strings.
    text = text.removeprefix(_NON_STRING_KEY).lstrip()
    if text[:1] in ("{", "[", '"'):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from _names(document)


def _may_load(name: str, trusted: frozenset[str]) -> bool:
    """Whether it is on the list, or a class that a trusted module defines: not a function, nor what the module imports."""
    if name in _HARMLESS:
        return True
    module, _, attribute = name.rpartition(".")
    if module not in trusted or module.partition(".")[0] in _LISTED:
        return False
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) and found.__module__ == module


def _jsonpickle(numpy: bool, pandas: bool) -> tuple[Any, Any]:
    """jsonpickle's two classes, with its handlers for what is asked. The handlers are jsonpickle's, for the whole process."""
    try:
        from jsonpickle.pickler import Pickler
        from jsonpickle.unpickler import Unpickler

        if numpy or pandas:
            import jsonpickle.ext.numpy

            jsonpickle.ext.numpy.register_handlers()
        if pandas:
            import jsonpickle.ext.pandas

            jsonpickle.ext.pandas.register_handlers()
    except ImportError as error:
        raise errors.PackageMissing(
            f"JSON with tuples, sets, bytes, dates, arrays or objects needs a package: {error}",
            hint="pip install 'pistributer[dicts]' (and numpy or pandas for their values), or store plain JSON",
        ) from error
    return _strict(Pickler), Unpickler


@functools.cache
def _strict(pickler: Any) -> Any:
    """jsonpickle's writer, that raises for what it would leave out or write as null (functions in functions, locks, …)."""

    class Strict(pickler):  # type: ignore[misc]
        def _pickle_warning(self, obj: Any) -> None:
            raise TypeError(f"there is a {type(obj).__name__} in it")

    return Strict

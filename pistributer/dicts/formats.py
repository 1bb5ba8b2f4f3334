"""How values become bytes and come back: pickle, JSON and plain text. What persidict wrote can be read.

pkl    the standard library's pickle, protocol 5. **Unpickling runs whatever code the bytes name**: see docs/dicts.md.
json   plain JSON where that brings the value back as it was; else JSON with jsonpickle's tags (rich_json.py)
other  text: the characters as UTF-8, nothing added, so the value is a str
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import errors
from . import rich_json
from .keys import is_safe

_INSTALL = "pip install 'pistributer[dicts]'"
#: How an lz4 frame begins (lz4_Frame_format.md); persidict's pickles are such frames, written by joblib.
_LZ4 = b"\x04\x22\x4d\x18"


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write values. Neither function knows where the bytes lie; errors are given a place by the caller."""

    name: str
    #: Value to bytes. Raises BadValue.
    encode: Callable[[Any], bytes]
    #: Bytes to value. Raises DamagedValue, UnsafeValue or PackageMissing.
    decode: Callable[[bytes], Any]
    #: Whether reading runs code that the bytes name.
    runs_code: bool = False
    #: Faster, for bytes that `encode` made in this process.
    decode_own: Callable[[bytes], Any] | None = None


def open_format(name: str, base_class: type | None) -> Format:
    """The format of that name, for values of `base_class`. ValueError for a name that can not end a file name."""
    if not is_safe(name):
        raise ValueError(f"serialization_format must be a file name's ending such as pkl, json or txt, not {name!r}")
    if name == "pkl":
        return _PICKLE
    if name == "json":
        trusted = frozenset({base_class.__module__}) if base_class is not None else frozenset()
        return Format(
            "json", lambda value: rich_json.encode(value, trusted), lambda data: rich_json.decode(data, trusted)
        )
    if base_class is None or not issubclass(base_class, str):
        raise ValueError(f"serialization_format {name!r} is plain text, so base_class_for_values must be str")
    return Format(name, _encode_text, _decode_text)


# -- pickle


def _encode_pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except RecursionError:
        raise errors.BadValue("the value is nested too deeply for pickle", hint="flatten it") from None
    except Exception as error:
        raise errors.BadValue(
            f"pickle can not hold this {type(value).__name__}: {error}", hint="store what it is made from instead"
        ) from error


def _decode_pickle(data: bytes) -> Any:
    # joblib writes arrays behind the pickle that names them, where the standard library does not look.
    # `find` takes half the time of `in`, which first takes what it is given for a number.
    joblib = data.startswith(_LZ4) or data.find(b"joblib.numpy_pickle") >= 0
    return _load(data, _load_joblib if joblib else pickle.loads)


def _decode_own_pickle(data: bytes) -> Any:
    # Ours are never joblib's, and to look for its name in 100 kB takes longer than to read them.
    return _load(data, pickle.loads)


def _load(data: bytes, loads: Callable[[bytes], Any]) -> Any:
    try:
        return loads(data)
    except (errors.PackageMissing, MemoryError):
        raise
    except Exception as error:
        raise errors.DamagedValue(
            f"the pickle can not be read: {type(error).__name__}: {error}",
            hint="if a class or a module is missing, import it; else delete the item or bring it back from a backup",
        ) from error


def _load_joblib(data: bytes) -> Any:
    try:
        import joblib
        import lz4.frame  # noqa: F401 - joblib finds it by itself
    except ImportError as error:
        raise errors.PackageMissing("this value was written by persidict, through joblib", hint=_INSTALL) from error
    return joblib.load(io.BytesIO(data))


_PICKLE = Format("pkl", _encode_pickle, _decode_pickle, runs_code=True, decode_own=_decode_own_pickle)

# -- text


def _encode_text(value: Any) -> bytes:
    try:
        return str(value).encode()
    except UnicodeEncodeError as error:
        raise errors.BadValue(f"UTF-8 can not hold this text: {error.reason} at {error.start}") from error


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise errors.DamagedValue(f"not UTF-8: {error.reason} at byte {error.start}") from error

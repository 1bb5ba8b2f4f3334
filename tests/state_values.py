"""Hypothesis strategies for everything that a state can hold, at any depth."""

from __future__ import annotations

import datetime
import math
from typing import Any

from hypothesis import strategies as st

#: Texts that some reader of YAML 1.1 would take for something else, or not read back.
TRICKY = [
    "", " ", "no", "Yes", "on", "NULL", "~", "null", "true", "1", "0x1f", "0o7", "017", "1_000", "1e3", "1.0", ".5", ".inf",
    "-.INF", ".nan", "NaN", "2001-01-01", "2001-12-14 21:59:43", "1:30", "190:20:30", "=", "<<", "-", "- a", "? a", "a: b",
    "a #b", "#", "[a", "{a}", "&a", "*a", "!a", "%a", "@a", "`a", "|", ">", "'", '"', "\\", "---", "...", "--- [", "\t", "a\tb",
    "\n", "a\n", "a\nb", " a\n b", "a\n\n", "\n\na", "a \nb", "\r", "a\r\nb", "\x00", "\x07", "\x1b[0m", "\x7f", "\x80",
    "\x85", "a\x85b", "\xa0", "\u2028", "a\u2029b", "\ufeff", "\ufffe", "\ufffd", "\uffff", "é", "漢字", "😀", "🏳️‍🌈",
   "\U0010ffff",    "x" * 2000, "word " * 300, "--- [\"set\", [], \"a\", 1]", "a\n--- [1]\nb", '"] # +3', "# +1",
    "### LAST VALID STATE ###",
]  # fmt: skip

texts = st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers() | st.sampled_from([0, -1, 2**63, -(2**64), 10**400, -(10**4200)])
floats = st.floats() | st.sampled_from([1e-7, 1e20, -1e300, 5e-324, math.inf, -math.inf, math.nan, -0.0])
offsets = st.builds(datetime.timezone, st.integers(-23 * 60, 23 * 60).map(lambda n: datetime.timedelta(minutes=n)))
dates = st.dates()
datetimes = st.datetimes() | st.datetimes(
    datetime.datetime(2, 1, 1), datetime.datetime(9998, 12, 30), timezones=offsets, allow_imaginary=False
)
hashable = st.none() | st.booleans() | integers | texts | st.binary(max_size=40) | dates | st.datetimes()
scalars = hashable | floats | datetimes
keys = texts | hashable | st.floats(allow_nan=False)
sets = st.frozensets(hashable, max_size=4)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


values = nested(scalars | sets)
documents = st.dictionaries(keys, values, max_size=5)

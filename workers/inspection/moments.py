"""Moments as people write them: `2026-11-21T14:00`, `14:00`, `90s`, `2h`, `3d`."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def parse_moment(text: str, now: float) -> float:
    """Seconds since the epoch. ValueError for what is no moment.

    A length is so long ago. A date, a time or both are ISO 8601; without a zone they are local. A time alone is the last
    such moment: 14:00 at noon is yesterday's.
    """
    length = _LENGTH.fullmatch(text.strip())
    if length is not None:
        return now - float(length[1]) * _UNITS[length[2]]
    here = datetime.fromtimestamp(now).astimezone()
    try:
        clock = time.fromisoformat(text)
    except ValueError:
        return _parse_date(text)
    found = datetime.combine(here.date(), clock)
    found = found.replace(tzinfo=clock.tzinfo) if clock.tzinfo else found.astimezone()
    return (found if found <= here else found - timedelta(days=1)).timestamp()


def _parse_date(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise ValueError(
            f"{text!r} is no moment; say 2026-11-21T14:00, 14:00, or how long ago: 90s, 30m, 2h, 3d"
        ) from None

"""The refusals that drivers have in common, worded once."""

from __future__ import annotations

from collections.abc import Iterable

from .. import errors
from .contract import Item


def claim_lost(items: Iterable[Item]) -> errors.ClaimLost:
    """Attribute `ids`: the items that were not settled."""
    ids = [item.id for item in items]
    return errors.ClaimLost(
        f"not held by this queue object any more: {', '.join(ids[:5])}{' …' if len(ids) > 5 else ''}",
        hint="it was settled before, or given back when its owner closed, died or forked",
        ids=ids,
    )


def queue_closed(url: str) -> errors.QueueClosed:
    return errors.QueueClosed(f"{url} was closed", hint="open it again with open_queue")


def queue_full(url: str, max_rows: int | None, max_bytes: int | None, stored: int) -> errors.QueueFull:
    """Attribute `stored`: how many rows of a `put_many` are in the queue."""
    limits = [f"{limit:,} {unit}" for limit, unit in ((max_rows, "rows"), (max_bytes, "bytes")) if limit is not None]
    return errors.QueueFull(
        f"{url} holds its limit of {' or '.join(limits)}",
        hint="wait longer, add consumers, or raise the limit",
        stored=stored,
    )


def check_length(row: bytes, limit: int) -> None:
    """RowTooLarge if `row`, without a newline, is over `limit` bytes."""
    if len(row) > limit:
        raise errors.RowTooLarge(
            f"a row of {len(row):,} bytes is over the limit of {limit:,}",
            hint="store the data in a file and put its path, or raise max_row_bytes",
            size=len(row),
            limit=limit,
        )


def check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")

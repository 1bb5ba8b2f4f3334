"""What a pool is, how it is written on the command line, and whose turn it is among its queues."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pistributer import Pool
from pistributer.workers.execution.lanes import Strict, Turns, Weighted
from pistributer.workers.pools import parse_pool, parse_queues, pool_of, require_different


def serve(turns: Turns, rows: list[int], count: int) -> list[int]:
    """Take `count` times, from the first in the order that has rows; which were taken."""
    taken = []
    for _ in range(count):
        empty: list[int] = []
        for index in turns.order():
            if rows[index]:
                rows[index] -= 1
                turns.took(index, empty)
                taken.append(index)
                break
            empty.append(index)
    return taken


def test_strict_takes_the_first_that_has_rows() -> None:
    assert serve(Strict(3), [2, 0, 3], 5) == [0, 0, 2, 2, 2]


def test_weighted_is_smooth() -> None:
    # The example of nginx's documentation of the algorithm.
    assert serve(Weighted([5, 1, 1]), [99, 99, 99], 7) == [0, 0, 1, 0, 2, 0, 0]


def test_weighted_passes_over_what_is_empty_and_lets_nobody_save_up() -> None:
    turns, rows = Weighted([1, 3]), [100, 0]
    assert serve(turns, rows, 10) == [0] * 10
    rows[1] = 100
    assert Counter(serve(turns, rows, 40)) == {0: 10, 1: 30}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_nobody_with_rows_waits_longer_than_a_round(weights: list[int], data: st.DataObject) -> None:
    turns = Weighted(weights)
    waited = [0] * len(weights)
    for _ in range(60):
        rows = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
        order = list(turns.order())
        assert sorted(order) == list(range(len(weights)))
        for index in order:
            if rows[index]:
                turns.took(index, order[: order.index(index)])
                waited = [0 if one == index or not rows[one] else waited[one] + 1 for one in range(len(weights))]
                break
        assert max(waited) <= 2 * sum(weights)


def test_a_mapping_of_queues_is_weighted_and_a_list_strict() -> None:
    pool = Pool("web", {"high": 3, "low": 1})
    assert (pool.order, pool.weights, pool.role) == ("weighted", {"high": 3, "low": 1}, "worker web")
    assert (Pool("web", ["high", "low"]).order, Pool("web").queues) == ("strict", ("web",))
    assert Pool("web", ["a", "b"], order="weighted").weights == {"a": 1, "b": 1}
    assert pickle.loads(pickle.dumps(pool)) == pool
    assert (Pool("a").width, Pool("a", threads=4).width, Pool("a", concurrency=20).width) == (1, 5, 21)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "a", "queues": "high"}, r"say \['high'\]"),
        ({"name": "a", "queues": ["b", "b"]}, "twice"),
        ({"name": "a", "queues": ["b@5"]}, "letters, digits"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "a", "queues": {"b": 0}}, "weight of b must be at least 1"),
        ({"name": "a", "queues": {"b": 1}, "order": "strict"}, "exclude each other"),
        ({"name": "a", "order": "random"}, "strict, weighted"),
        ({"name": "a", "threads": 0}, "threads must be at least 1"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pool(**options)


def test_pools_on_the_command_line() -> None:
    assert parse_queues("high, low") == ["high", "low"]
    assert parse_queues("high=3,low=1") == {"high": 3, "low": 1}
    assert parse_pool("web=high,low") == Pool("web", ["high", "low"])
    assert parse_pool("web=high=3,low=1:processes=2:threads=8") == Pool(
        "web", {"high": 3, "low": 1}, processes=2, threads=8
    )
    assert pool_of("high,low") == Pool("high+low", ["high", "low"])


@pytest.mark.parametrize("text", ["web", "web=", "web=a:color=2", "web=a:threads=many", "web=a=x", "web=a,a", "=a"])
def test_a_pool_that_can_not_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_pool(text)


def test_two_pools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two pools are called 'a'"):
        require_different([Pool("a"), Pool("b"), Pool("a", ["c"])])

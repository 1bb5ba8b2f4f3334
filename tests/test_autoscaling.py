"""How many processes a load deserves, by feeding loads. No process, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pistributer.workers.supervision.autoscaling import Autoscaler, Bounds, Load


def sizes(*loads: Load, least: int = 2, most: int = 8) -> list[int]:
    scaler = Autoscaler(Bounds(least, most), patience=1.0, calm=10.0)
    return [scaler.feed(load) for load in loads]


def waiting(now: float) -> Load:
    return Load(ready=5, busy=2, now=now)


def quiet(now: float, busy: int = 0) -> Load:
    return Load(ready=0, busy=busy, now=now)


def test_it_begins_with_the_least() -> None:
    assert sizes(quiet(0.0)) == [2]


def test_rows_that_wait_without_a_break_double_it_up_to_the_most() -> None:
    assert sizes(*map(waiting, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0])) == [2, 2, 4, 4, 8, 8, 8]


def test_rows_that_come_and_go_change_nothing() -> None:
    assert sizes(waiting(0.0), quiet(0.9, 2), waiting(1.0), quiet(1.9, 2), waiting(2.0)) == [2] * 5


def test_what_was_not_needed_goes_by_halves_after_a_calm() -> None:
    grown = [waiting(0.0), waiting(1.0), waiting(2.0)]
    calm = [quiet(3.0 + second) for second in range(32)]
    found = sizes(*grown, *calm)
    assert (found[2], found[12], found[13], found[24], found[34]) == (8, 8, 4, 2, 2)


def test_as_many_stay_as_were_busy_at_once_meanwhile() -> None:
    grown = [waiting(0.0), waiting(1.0), waiting(2.0)]
    assert sizes(*grown, quiet(3.0, 1), quiet(7.0, 6), quiet(13.0, 1))[-1] == 6


def test_a_row_that_waits_ends_the_calm() -> None:
    grown = [waiting(0.0), waiting(1.0)]
    assert sizes(*grown, quiet(2.0), waiting(11.0), quiet(11.5), quiet(12.5))[-1] == 4


@pytest.mark.parametrize("bounds", [(0, 3), (4, 3)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bounds(*bounds)


loads = st.builds(Load, ready=st.integers(0, 3), busy=st.integers(0, 20), now=st.floats(0, 100))


@given(st.lists(loads), st.integers(1, 9), st.integers(0, 9))
def test_it_never_leaves_its_bounds(fed: list[Load], least: int, more: int) -> None:
    found = sizes(*sorted(fed, key=lambda load: load.now), least=least, most=least + more)
    assert all(least <= size <= least + more for size in found)

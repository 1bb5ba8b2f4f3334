"""The oracle fails every sabotaged run and excuses only what a recorded kill explains. The ledgers are synthetic."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pistributer.workers.stress import ledger, oracle
from pistributer.workers.stress.ledger import ReaderLedger, WriterLedger, path_of
from pistributer.workers.stress.oracle import Verdict
from pistributer.workers.stress.plan import Scenario

SMALL = Scenario(writers=3, readers=3, files=4, shared=2, rows=10, seed=7)
CLASSIC = Scenario(writers=3, readers=3, files=4, shared=2, rows=10, seed=7, api="classic")

#: The rows that each reader was handed, in order.
Deliveries = dict[int, list[int]]


def perfect(scenario: Scenario) -> Deliveries:
    """Every row once: writers in turn, each channel to its readers in turn, in the order of the writers."""
    given: Deliveries = {reader: [] for reader in range(scenario.readers)}
    for seq in range(scenario.rows):
        for writer in range(scenario.writers):
            for assignment in range(scenario.files):
                readers = scenario.readers_of(scenario.channel_of(writer, assignment))
                given[readers[(seq + writer) % len(readers)]].append(scenario.row_number(writer, assignment, seq))
    return given


def word(scenario: Scenario, row: int, value: int | None = None) -> int:
    return ledger.ROW | (scenario.value_of(row) if value is None else value) << 32 | row


def write_writers(scenario: Scenario, folder: Path) -> None:
    for writer in range(scenario.writers):
        with_row = scenario.row_number(writer, 0, 0)
        book = WriterLedger(
            path_of(folder, "writer", writer), files=scenario.files, rows=scenario.rows, first_row=with_row
        )
        for assignment in range(scenario.files):
            book.begin(assignment, scenario.rows)
            book.acknowledge(assignment, scenario.rows)
        book.close()


def write_readers(scenario: Scenario, folder: Path, given: Deliveries) -> None:
    for reader, rows in given.items():
        book = ReaderLedger(path_of(folder, "reader", reader))
        for row in rows:
            book.append(word(scenario, row))
        book.close()


def judge(scenario: Scenario, folder: Path, given: Deliveries) -> Verdict:
    write_writers(scenario, folder)
    write_readers(scenario, folder, given)
    return oracle.judge(scenario, folder)


@pytest.mark.parametrize("scenario", [SMALL, CLASSIC], ids=["queue", "classic"])
def test_a_perfect_run_is_proved_perfect(scenario: Scenario, tmp_path: Path) -> None:
    verdict = judge(scenario, tmp_path, perfect(scenario))
    assert verdict == Verdict(expected=scenario.total, consumed=scenario.total)
    assert verdict.ok


def delete_a_row(given: Deliveries) -> None:
    del given[1][5]


def double_a_row(given: Deliveries) -> None:
    given[0].append(given[0][-1])


def double_a_row_elsewhere(given: Deliveries) -> None:
    given[2].append(given[0][-1])


def swap_two_rows(given: Deliveries) -> None:
    rows = given[0]
    later = next(at for at, row in enumerate(rows) if row == rows[0] + 1)
    rows[0], rows[later] = rows[later], rows[0]


SABOTAGE = {
    "a row deleted": (delete_a_row, {"lost": 1, "wrong_sums": 1}),
    "a row doubled": (double_a_row, {"duplicated": 1}),
    "a row doubled by another reader": (double_a_row_elsewhere, {"duplicated": 1}),
    "two rows swapped": (swap_two_rows, {"out_of_order": 1}),
}


@pytest.mark.parametrize(("sabotage", "found"), SABOTAGE.values(), ids=SABOTAGE)
@pytest.mark.parametrize("scenario", [SMALL, CLASSIC], ids=["queue", "classic"])
def test_sabotage_is_found(
    scenario: Scenario, sabotage: Callable[[Deliveries], None], found: dict[str, int], tmp_path: Path
) -> None:
    given = perfect(scenario)
    sabotage(given)
    verdict = judge(scenario, tmp_path, given)
    assert not verdict.ok
    counts = {name: getattr(verdict, name) for name in ("lost", "duplicated", "malformed", "out_of_order")}
    assert counts == {name: found.get(name, 0) for name in counts}
    assert verdict.examples


def test_a_row_with_another_value_is_malformed(tmp_path: Path) -> None:
    write_writers(SMALL, tmp_path)
    write_readers(SMALL, tmp_path, perfect(SMALL))
    book = ReaderLedger(path_of(tmp_path, "reader", 0))
    row = book.words[ledger.HEADER + 3] & 0xFFFFFFFF
    book.words[ledger.HEADER + 3] = word(SMALL, row, SMALL.value_of(row) ^ 1)
    book.words[ledger.LIVES] = 1
    book.close()
    verdict = oracle.judge(SMALL, tmp_path)
    assert (verdict.malformed, verdict.wrong_sums, verdict.ok) == (1, 1, False)


def test_a_torn_row_is_malformed_and_its_loss_counts(tmp_path: Path) -> None:
    given = perfect(SMALL)
    given[1].pop()
    write_writers(SMALL, tmp_path)
    write_readers(SMALL, tmp_path, given)
    book = ReaderLedger(path_of(tmp_path, "reader", 1))
    book.words[ledger.LIVES] = 1
    # The restart note of this second opening is not part of the scene.
    book.words[ledger.HEADER + len(book) - 1] = ledger.MALFORMED | 4
    book.close()
    verdict = oracle.judge(SMALL, tmp_path)
    assert (verdict.malformed, verdict.lost, verdict.ok) == (1, 1, False)


def test_values_swapped_between_two_rows_are_found_though_the_sums_agree(tmp_path: Path) -> None:
    """Only the identity of each row can tell; so the sums are not the only check."""
    given = perfect(SMALL)
    write_writers(SMALL, tmp_path)
    rows = given[0]
    twin = next(at for at, row in enumerate(rows) if row == rows[0] + 1)
    book = ReaderLedger(path_of(tmp_path, "reader", 0))
    for at, row in enumerate(rows):
        value = SMALL.value_of({0: rows[twin], twin: rows[0]}.get(at, row))
        book.append(word(SMALL, row, value))
    book.close()
    write_readers(SMALL, tmp_path, {1: given[1], 2: given[2]})
    verdict = oracle.judge(SMALL, tmp_path)
    assert (verdict.malformed, verdict.ok) == (2, False)


def test_rows_that_were_never_put_are_named(tmp_path: Path) -> None:
    given = perfect(SMALL)
    write_readers(SMALL, tmp_path, given)
    write_writers(SMALL, tmp_path)
    path_of(tmp_path, "writer", 2).unlink()
    verdict = oracle.judge(SMALL, tmp_path)
    assert verdict.not_put == SMALL.files * SMALL.rows
    assert not verdict.ok


# -- kills


class Reader:
    """A reader that writes its ledger by hand, so that it can be 'killed' anywhere."""

    def __init__(self, scenario: Scenario, folder: Path, index: int) -> None:
        self.scenario, self.path = scenario, path_of(folder, "reader", index)
        self.book = ReaderLedger(self.path)

    def take(self, rows: list[int]) -> None:
        for row in rows:
            self.book.append(word(self.scenario, row))

    def die_and_return(self) -> None:
        self.book.close()
        self.book = ReaderLedger(self.path)


def one_reader(api: str) -> Scenario:
    return Scenario(writers=1, readers=1, files=2, shared=0, rows=20, api=api)  # type: ignore[arg-type]


def test_rows_held_by_a_killed_reader_may_come_again(tmp_path: Path) -> None:
    scenario = one_reader("queue")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.take(list(range(20)))
    reader.book.holding()
    reader.take(list(range(20, 30)))
    reader.die_and_return()
    for row in range(20, 30):
        reader.book.append(word(scenario, row) | ledger.AGAIN)
    reader.take(list(range(30, 40)))
    reader.book.close()
    verdict = oracle.judge(scenario, tmp_path, Counter({("reader", 0): 1}))
    assert (verdict.duplicated, verdict.duplicated_after_kill, verdict.out_of_order) == (10, 10, 0)
    assert verdict.ok


def test_settled_rows_may_not_come_again_even_after_a_kill(tmp_path: Path) -> None:
    scenario = one_reader("queue")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.book.holding()
    reader.take(list(range(40)))
    reader.book.settled()
    reader.die_and_return()
    reader.book.append(word(scenario, 39) | ledger.AGAIN)
    reader.book.close()
    verdict = oracle.judge(scenario, tmp_path, Counter({("reader", 0): 1}))
    assert (verdict.duplicated, verdict.duplicated_after_kill, verdict.ok) == (1, 0, False)


def test_without_a_recorded_kill_nothing_is_excused_and_the_death_is_a_crash(tmp_path: Path) -> None:
    scenario = one_reader("queue")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.book.holding()
    reader.take(list(range(40)))
    reader.die_and_return()
    reader.take([39])
    reader.book.close()
    verdict = oracle.judge(scenario, tmp_path)
    assert (verdict.duplicated, verdict.duplicated_after_kill, verdict.crashes, verdict.ok) == (1, 0, 1, False)


@pytest.mark.parametrize(
    ("missing", "excused"),
    [([20], 1), ([21], 0), ([5], 0), ([20, 21], 1), ([], 0)],
    ids=["the next row", "the row after it", "an earlier row", "two rows", "none"],
)
def test_classic_excuses_exactly_the_row_that_was_being_returned(
    missing: list[int], excused: int, tmp_path: Path
) -> None:
    """The reader dies with `next` running on channel 1, whose rows are 20 to 39, before it has recorded any of them."""
    scenario = one_reader("classic")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.take([row for row in range(20) if row not in missing])
    reader.book.reading(1)
    reader.die_and_return()
    reader.take([row for row in range(20, 40) if row not in missing])
    reader.book.close()
    verdict = oracle.judge(scenario, tmp_path, Counter({("reader", 0): 1}))
    assert (verdict.lost, verdict.lost_in_flight) == (len(missing), excused)
    assert verdict.ok == (len(missing) == excused)


def test_classic_excuses_one_row_for_each_of_two_kills_in_a_row(tmp_path: Path) -> None:
    scenario = one_reader("classic")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.take(list(range(25)))
    for _ in range(2):
        reader.book.reading(1)
        reader.die_and_return()
    reader.take(list(range(27, 40)))
    reader.book.close()
    verdict = oracle.judge(scenario, tmp_path, Counter({("reader", 0): 2}))
    assert (verdict.lost, verdict.lost_in_flight, verdict.ok) == (2, 2, True)


def test_classic_excuses_one_row_of_a_shared_channel_per_killed_reader(tmp_path: Path) -> None:
    scenario = Scenario(writers=2, readers=1, files=1, shared=1, rows=10, api="classic")
    write_writers(scenario, tmp_path)
    reader = Reader(scenario, tmp_path, 0)
    reader.take([0, 10, 1, 11])
    reader.book.reading(0)
    reader.die_and_return()
    reader.take([row for row in range(2, 10) if row != 5] + list(range(12, 20)))
    reader.book.close()
    kills = Counter({("reader", 0): 1})
    assert oracle.judge(scenario, tmp_path, kills).ok
    reader = Reader(scenario, tmp_path, 0)
    assert not oracle.judge(scenario, tmp_path).ok
    reader.book.close()


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_a_put_in_flight_at_a_kill_may_be_stored_or_not(stored: bool, tmp_path: Path) -> None:
    scenario = one_reader("queue")
    path = path_of(tmp_path, "writer", 0)
    book = WriterLedger(path, files=2, rows=20, first_row=0)
    for assignment, begun in ((0, 8), (1, 7)):
        book.begin(assignment, begun)
        book.acknowledge(assignment, 7)
    book.close()
    book = WriterLedger(path, files=2, rows=20, first_row=0)
    assert [book.begun(assignment) for assignment in (0, 1)] == [8, 7]
    for assignment in (0, 1):
        book.begin(assignment, 20)
        book.acknowledge(assignment, 20)
    book.close()
    write_readers(scenario, tmp_path, {0: [row for row in range(40) if stored or row != 7]})
    verdict = oracle.judge(scenario, tmp_path, Counter({("writer", 0): 1}))
    assert (verdict.puts_in_flight, verdict.puts_in_flight_stored) == (1, int(stored))
    assert verdict.expected == verdict.consumed == 39 + stored
    assert verdict.ok


@pytest.mark.parametrize(("api", "excused"), [("queue", True), ("classic", False)])
def test_a_writer_that_came_back_is_another_producer_of_a_queue_but_not_of_a_channel(
    api: str, excused: bool, tmp_path: Path
) -> None:
    scenario = one_reader(api)
    path = path_of(tmp_path, "writer", 0)
    for count in (10, 20):
        book = WriterLedger(path, files=2, rows=20, first_row=0)
        for assignment in (0, 1):
            book.begin(assignment, count)
            book.acknowledge(assignment, count)
        book.close()
    second_life_first = [*range(10, 20), *range(10), *range(20, 40)]
    write_readers(scenario, tmp_path, {0: second_life_first})
    verdict = oracle.judge(scenario, tmp_path, Counter({("writer", 0): 1}))
    assert (verdict.out_of_order == 0) == excused


def test_random_runs_with_one_random_fault_never_pass(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        given = perfect(SMALL)
        rows = given[chance.randrange(SMALL.readers)]
        at = chance.randrange(len(rows))
        if chance.random() < 0.5:
            del rows[at]
        else:
            rows.insert(chance.randrange(len(rows) + 1), rows[at])
        assert not judge(SMALL, folder, given).ok

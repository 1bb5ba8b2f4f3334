"""The ledger survives what it has to witness: SIGKILL at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pistributer.workers.stress import ledger
from pistributer.workers.stress.ledger import Ledger, ReaderLedger, WriterLedger, load, read_header
from pistributer.workers.stress.plan import READERS_PER_SHARED, Scenario

APPENDS_UNTIL_KILLED = """
import sys
from pathlib import Path
from pistributer.workers.stress.ledger import ROW, ReaderLedger
book = ReaderLedger(Path(sys.argv[1]))
number = 0
while True:
    book.append(ROW | number)
    number += 1
    if number % 50_000 == 0:
        print(number, flush=True)
"""


def test_every_word_stored_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    command = [sys.executable, "-c", APPENDS_UNTIL_KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        reported = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    found = load(path)
    assert len(found.log) >= reported
    assert list(found.log) == [ledger.ROW | number for number in range(len(found.log))]


def test_a_word_stored_but_not_counted_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    book = Ledger(path)
    for number in (1, 2, 3):
        book.append(number)
    book.words[ledger.COUNT] = 2
    book.close()
    assert list(load(path).log) == [1, 2, 3]
    again = Ledger(path)
    again.append(4)
    again.close()
    assert list(load(path).log) == [1, 2, 3, 4]


def test_the_log_grows_past_its_first_pages(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    book = ReaderLedger(path)
    for number in range(1, 20_001):
        book.append(number)
    assert len(book) == 20_000
    book.close()
    assert list(load(path).log) == list(range(1, 20_001))


def test_the_header_can_be_read_while_the_owner_writes(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger")
    with (tmp_path / "ledger").open("rb", buffering=0) as file:
        book.append(1)
        assert read_header(file)[ledger.COUNT] == 1
        book.words[ledger.FINISHED] = 99
        assert read_header(file)[ledger.FINISHED] == 99
    book.close()


def test_a_ledger_that_was_never_made_is_empty(tmp_path: Path) -> None:
    found = load(tmp_path / "nothing", extra=4)
    assert (len(found.log), list(found.state(4))) == (0, [0, 0, 0, 0])


def test_a_writer_that_comes_back_names_the_row_in_flight_and_goes_on_after_it(tmp_path: Path) -> None:
    path = tmp_path / "writer"
    book = WriterLedger(path, files=2, rows=10, first_row=100)
    book.begin(0, 3)
    book.acknowledge(0, 3)
    book.begin(1, 3)
    book.acknowledge(1, 2)
    book.close()
    book = WriterLedger(path, files=2, rows=10, first_row=100)
    assert [book.begun(0), book.begun(1)] == [3, 3]
    book.close()
    in_flight = [word & 0xFFFFFFFF for word in load(path, extra=4).log if word >> 60 == ledger.IN_FLIGHT >> 60]
    assert in_flight == [112]


def test_a_reader_that_comes_back_says_what_it_held_and_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "reader"
    book = ReaderLedger(path)
    book.append(ledger.ROW | 1)
    book.holding()
    book.append(ledger.ROW | 2)
    book.append(ledger.ROW | 3)
    book.reading(41)
    book.close()
    ReaderLedger(path).close()
    restart = load(path).log[-1]
    assert (restart >> 60, restart >> 32 & 0xFFFFFFF, restart & 0xFFFFFFFF) == (ledger.RESTART >> 60, 2, 42)


# -- the scenario as arithmetic

FULL = Scenario(writers=300, readers=64, files=30, shared=10, rows=300)


def test_the_full_scenario_is_the_one_of_the_seed() -> None:
    assert (FULL.total, FULL.channels) == (2_700_000, 6_010)


@pytest.mark.parametrize(
    "scenario",
    [FULL, Scenario(writers=3, readers=2, files=4, shared=0), Scenario(writers=2, readers=9, files=3, shared=3)],
    ids=["full", "none shared", "all shared"],
)
def test_every_channel_has_its_writers_and_its_readers(scenario: Scenario) -> None:
    written = {channel for writer in range(scenario.writers) for channel in scenario.channels_of_writer(writer)}
    assert written == set(range(scenario.channels))
    readers: dict[int, list[int]] = {channel: [] for channel in written}
    for reader in range(scenario.readers):
        for channel in scenario.channels_of_reader(reader):
            readers[channel].append(reader)
    for channel, found in readers.items():
        assert found == scenario.readers_of(channel)
        assert len(found) == (min(READERS_PER_SHARED, scenario.readers) if scenario.is_shared(channel) else 1)


def test_a_row_number_leads_back_to_its_channel() -> None:
    for row in (0, 1, 299, 300, 6_000, 8_999, 9_000, FULL.total - 1):
        writer, rest = divmod(row, FULL.files * FULL.rows)
        channel = FULL.channel_of(writer, rest // FULL.rows)
        assert FULL.channel_of_row(row) == channel
        assert FULL.assignment_of(channel) == rest // FULL.rows
        assert FULL.may_write(writer, channel)


@pytest.mark.parametrize(
    "wrong",
    [
        {"writers": 0},
        {"rows": 0},
        {"shared": 31},
        {"shared": -1},
        {"kill_every": -1.0},
        {"kill_every": 1.0, "threads": True},
        {"rows": 10**8},
        {"api": "classic", "sync": "each"},
    ],
    ids=str,
)
def test_a_scenario_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Scenario(**wrong)

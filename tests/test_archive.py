"""An archive of rows that are over: nothing is lost on the way, nothing comes twice, and it can be replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import App, errors, open_queue
from pistributer.cli import exits
from pistributer.cli.root import pistributer
from pistributer.queues.contract import Queue
from pistributer.records import RecordReader
from pistributer.workers.inspection.archive import archive, read_archive, replay

from .crashing import every_kill
from .records_tools import write

VALUES = [{"n": number, "text": "é\n"} for number in range(5)]


def url_of(driver: str, folder: Path) -> str:
    return "memory:" if driver == "memory" else f"{driver}:{folder / 'queue'}"


@pytest.fixture(params=["jsonl", "sqlite", "memory"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Two dead rows, two retained ones, one that waits."""
    with open_queue(url_of(request.param, tmp_path), retention=1000) as opened:
        fill(opened)
        yield opened


def fill(queue: Queue) -> None:
    queue.put_many(VALUES)
    queue.bury(queue.claim(2), error="ValueError: no")
    queue.ack(queue.claim(2))


def archived(path: Path) -> list[dict[str, Any]]:
    return list(read_archive(path))


def test_dead_rows_go_to_the_archive_with_all_that_is_known(queue: Queue, tmp_path: Path) -> None:
    done = archive(queue, tmp_path / "over")
    assert (done.added, done.known, done.dropped) == (2, 0, 2)
    found = archived(tmp_path / "over")
    assert [row["value"] for row in found] == VALUES[:2]
    assert {(row["queue"], row["state"], row["attempt"], row["error"]) for row in found} == {
        (queue.url, "dead", 1, "ValueError: no")
    }
    assert (queue.stats().dead, queue.stats().ready) == (0, 1)


def test_rows_are_archived_once(queue: Queue, tmp_path: Path) -> None:
    assert archive(queue, tmp_path / "over", states=("dead", "retained"), keep=True).added == 4
    done = archive(queue, tmp_path / "over", states=("dead", "retained"))
    assert (done.added, done.known, done.dropped) == (0, 4, 2)
    assert len(archived(tmp_path / "over")) == 4


def test_a_replay_of_many_rows_leaves_none_out(tmp_path: Path) -> None:
    with open_queue(tmp_path / "full") as full, open_queue(tmp_path / "empty") as empty:
        full.put_many(range(2500))
        full.bury(full.claim(2500), error="no")
        assert archive(full, tmp_path / "over").added == 2500
        assert replay(tmp_path / "over", empty) == 2500
        assert [item.value for item in empty.claim(2600)] == list(range(2500))


def test_a_replay_puts_the_values_again(queue: Queue, tmp_path: Path) -> None:
    archive(queue, tmp_path / "over", states=("dead", "retained"))
    with open_queue("memory:") as other:
        assert replay(tmp_path / "over", other) == 4
        assert sorted(item.value["n"] for item in other.claim(10)) == [0, 1, 2, 3]
        assert replay(tmp_path / "over", other, states=("retained",)) == 2
        assert [item.value for item in other.claim(10)] == VALUES[2:4]


def test_a_row_that_dies_again_is_archived_again(tmp_path: Path) -> None:
    with open_queue(tmp_path / "queue") as queue:
        fill(queue)
        archive(queue, tmp_path / "over")
        replay(tmp_path / "over", queue)
        queue.ack(queue.claim(1))
        queue.bury(queue.claim(2), error="again")
        assert archive(queue, tmp_path / "over").added == 2
    assert [row["error"] for row in archived(tmp_path / "over")] == ["ValueError: no"] * 2 + ["again"] * 2


def test_killed_anywhere_no_row_is_lost_and_none_is_archived_twice(tmp_path: Path) -> None:
    def prepare(at: int) -> Callable[[Any], None]:
        with open_queue(tmp_path / f"{at}") as queue:
            fill(queue)
        return lambda tell: archive_there(at)

    def archive_there(at: int) -> None:
        with open_queue(tmp_path / f"{at}") as queue:
            archive(queue, tmp_path / f"{at}.over")

    for at, _ in every_kill(prepare, torn=True):
        with open_queue(tmp_path / f"{at}") as queue:
            before = archived(tmp_path / f"{at}.over") if (tmp_path / f"{at}.over").exists() else []
            dead = [row.value for row in queue.scan("dead")]
            assert [value for value in VALUES[:2] if value not in [row["value"] for row in before] + dead] == []
            archive(queue, tmp_path / f"{at}.over")
            assert queue.stats().dead == 0
        assert [row["value"] for row in archived(tmp_path / f"{at}.over")] == VALUES[:2]
    assert at > 5


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no records\n" * 10)
    write(tmp_path / "records", [b"{}"])
    with open_queue(tmp_path / "queue") as queue:
        fill(queue)
        with pytest.raises(errors.NotARecordFile):
            archive(queue, tmp_path / "text")
        for call in (lambda: archive(queue, tmp_path / "records"), lambda: replay(tmp_path / "records", queue)):
            with pytest.raises(errors.RecordError, match="no archived row"):
                call()
        assert queue.stats().dead == 2
    assert RecordReader.count_records(tmp_path / "records") == 1


# -- the commands


def invoke(*args: object) -> Result:
    return CliRunner().invoke(pistributer, ["queue", *(str(arg) for arg in args)])


def test_archive_and_replay_from_the_command_line(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    fill(app.queue("emails"))
    app.close()
    over = tmp_path / "over.records"
    done = invoke("archive", tmp_path / "jobs", "emails", "--to", over)
    assert done.exit_code == exits.OK
    assert done.stdout == f"archived 2 rows of emails in {over}, dropped 2 from the queue\n"
    document = json.loads(invoke("archive", tmp_path / "jobs", "emails", "--to", over, "--json").stdout)
    assert document == {"queue": "emails", "file": str(over), "added": 0, "known": 0, "dropped": 0}
    done = invoke("replay", tmp_path / "jobs", "emails", "--from", over)
    assert done.stdout == f"put 2 rows of {over} into emails\n"
    assert json.loads(invoke("replay", tmp_path / "jobs", "emails", "--from", over, "--json").stdout)["put"] == 2
    assert invoke("replay", tmp_path / "jobs", "emails", "--from", tmp_path / "none").exit_code == exits.UNAVAILABLE
    assert os.path.exists(over)


def test_the_commands_have_help_with_an_example() -> None:
    for command in ("archive", "replay"):
        assert f"pistributer queue {command} jobs/" in invoke(command, "--help").stdout

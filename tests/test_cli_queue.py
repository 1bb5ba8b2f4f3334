"""`pistributer queue` and `status`: they look without disturbing, and change only what they were told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pistributer import App, open_queue
from pistributer.cli import exits
from pistributer.cli.root import pistributer

DRIVERS = ("jsonl", "txt", "sqlite")


def invoke(*args: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(pistributer, [str(arg) for arg in args], input=answer)


def url_of(driver: str, folder: Path) -> str:
    return f"{driver}:{folder / 'queue'}" + (".db" if driver == "sqlite" else "")


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A queue with five rows: three ready, one delayed, one dead."""
    url = url_of(request.param, tmp_path)
    with open_queue(url) as queue:
        queue.put_many([f"row {number}" for number in range(4)])
        queue.put("later", delay=1000)
        queue.bury(queue.claim(1), error="ValueError: it does not fit")
    return url


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Path]:
    """An app's folder with two queues."""
    app = App(tmp_path / "jobs")
    app.queue("default").put_many(["a", "b"])
    app.queue("emails").put("c")
    yield tmp_path / "jobs"
    app.close()


# -- ls


def test_ls_counts_a_single_queue(url: str) -> None:
    [counted] = json.loads(invoke("queue", "ls", url, "--json").stdout)
    wanted = {"ready": 3, "claimed": 0, "delayed": 1, "dead": 1, "quarantined": 0}
    assert {name: counted[name] for name in wanted} == wanted
    table = invoke("queue", "ls", url).stdout.splitlines()
    assert table[0].split() == ["queue", "ready", "claimed", "delayed", "dead", "size"]
    assert table[1].split()[1:5] == ["3", "0", "1", "1"]


def test_ls_finds_the_driver_of_a_bare_path(url: str) -> None:
    assert invoke("queue", "ls", url.partition(":")[2], "--json").exit_code == 0


def test_ls_lists_the_queues_of_an_app(app: Path) -> None:
    counted = json.loads(invoke("queue", "ls", app, "--json").stdout)
    assert {queue["queue"]: queue["ready"] for queue in counted} == {"default": 2, "emails": 1}


# -- peek


def test_peek_shows_the_next_rows_and_takes_none(url: str) -> None:
    for _ in range(2):
        rows = json.loads(invoke("queue", "peek", url, "-n", "2", "--json").stdout)
        assert [row["value"] for row in rows] == ["row 1", "row 2"]
        assert {row["state"] for row in rows} == {"ready"}


def test_peek_shows_other_states_when_asked(url: str) -> None:
    shown = invoke("queue", "peek", url, "--state", "dead", "--state", "delayed").stdout
    assert "ValueError: it does not fit" in shown
    assert "row 0" in shown
    assert "later" in shown
    assert " in 16m" in shown


def test_peek_takes_the_queue_of_an_app_by_name(app: Path) -> None:
    values = [row["value"] for row in json.loads(invoke("queue", "peek", app, "--json").stdout)]
    assert values == ["a", "b"]
    values = [row["value"] for row in json.loads(invoke("queue", "peek", app, "emails", "--json").stdout)]
    assert values == ["c"]


def test_peek_at_nothing_says_so_on_stderr(tmp_path: Path) -> None:
    open_queue(tmp_path / "q").close()
    result = invoke("queue", "peek", tmp_path / "q")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no row is ready" in result.stderr


# -- purge


def count(url: str) -> dict[str, Any]:
    [counted] = json.loads(invoke("queue", "ls", url, "--json").stdout)
    return {name: counted[name] for name in ("ready", "delayed", "dead")}


def test_purge_deletes_what_waits_and_keeps_the_dead(url: str) -> None:
    result = invoke("queue", "purge", url, "--yes")
    assert (result.exit_code, result.stdout.split()[:3]) == (0, ["purged", "4", "rows"])
    assert count(url) == {"ready": 0, "delayed": 0, "dead": 1}


def test_purge_asks_nobody_when_nobody_is_there(url: str) -> None:
    result = invoke("queue", "purge", url, answer="y\n")
    assert result.exit_code == exits.USAGE
    assert "--yes" in result.stderr
    assert count(url)["ready"] == 3


def test_purge_counts_only_on_a_dry_run(url: str) -> None:
    result = invoke("queue", "purge", url, "--dry-run", "--yes")
    assert result.stdout.startswith("would purge 4 rows")
    assert count(url)["ready"] == 3


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 3)], ids=["yes", "no"])
def test_purge_asks_on_a_terminal(answer: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"jsonl:{tmp_path / 'q'}"
    with open_queue(url) as queue:
        queue.put_many([1, 2, 3])
    monkeypatch.setattr("pistributer.cli.terminal.is_interactive", lambda: True)
    result = invoke("queue", "purge", url, answer=answer)
    assert result.exit_code == (exits.INTERRUPTED if left else exits.OK)
    assert "Delete 3 rows of q?" in result.stderr
    assert count(url)["ready"] == left


# -- what is not there


@pytest.mark.parametrize("command", ["ls", "peek", "purge"])
def test_a_path_with_nothing_of_ours_is_unavailable_and_stays_as_it_was(command: str, tmp_path: Path) -> None:
    result = invoke("queue", command, tmp_path / "nothing")
    assert result.exit_code == exits.UNAVAILABLE
    assert "there is no queue and no app" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_queue_of_an_app_is_answered_with_the_nearest(app: Path) -> None:
    result = invoke("queue", "peek", app, "emials")
    assert result.exit_code == exits.USAGE
    assert "did you mean 'emails'?" in result.stderr


def test_a_single_queue_has_no_queues_inside(url: str) -> None:
    assert invoke("queue", "peek", url, "inner").exit_code == exits.USAGE


def test_a_driver_asked_for_by_name_is_not_second_guessed(tmp_path: Path) -> None:
    open_queue(f"txt:{tmp_path / 'q'}").close()
    result = invoke("queue", "ls", f"jsonl:{tmp_path / 'q'}")
    assert result.exit_code == exits.FAILURE
    assert "is a txt queue" in result.stderr


def test_a_damaged_description_is_an_error_with_a_hint(tmp_path: Path) -> None:
    open_queue(tmp_path / "q").close()
    (tmp_path / "q" / "pistributer.json").write_text("{")
    result = invoke("queue", "ls", tmp_path / "q")
    assert result.exit_code == exits.FAILURE
    assert "damaged" in result.stderr
    assert "hint:" in result.stderr


# -- status


def test_status_shows_an_app_at_rest(app: Path) -> None:
    result = invoke("status", app)
    assert result.exit_code == 0
    assert "no supervisor is running" in result.stdout
    assert "emails" in result.stdout
    document = json.loads(invoke("status", app, "--json").stdout)
    assert document["running"] is False
    assert {queue["name"]: queue["stats"]["ready"] for queue in document["queues"]} == {"default": 2, "emails": 1}


def test_status_points_at_the_dead_letters(tmp_path: Path) -> None:
    app = App(tmp_path / "jobs")
    queue = app.queue("default")
    queue.put("x")
    queue.bury(queue.claim(1), error="no")
    app.close()
    assert "default --state dead" in invoke("status", tmp_path / "jobs").stderr


@pytest.mark.parametrize(
    ("target", "code"), [("nothing", exits.UNAVAILABLE), ("memory:", exits.USAGE)], ids=["missing", "not an app"]
)
def test_status_of_no_app_is_an_error(target: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("status", target)
    assert result.exit_code == code
    assert result.stderr.startswith("error:")

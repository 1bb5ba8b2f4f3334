"""Tables, numbers and the progress bar, as people see them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pistributer.cli import terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (12.4, "12 s"),
        (59.9, "1m 00s"),
        (185, "3m 05s"),
        (7800, "2h 10m"),
        (356400, "4d 3h"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert terminal.human_time(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_700_000, "2.7 MB"), (3e9, "3.0 GB"), (5e12, "5.0 TB")],
)
def test_sizes_in_words(size: float, text: str) -> None:
    assert terminal.human_size(size) == text


@pytest.mark.parametrize(
    ("text", "columns", "clipped"),
    [("short", 10, "short"), ("much too long", 6, "much …"), ("日本語", 4, "日…"), ("a\nb\x1b[31m", 20, "a�b�[31m")],
    ids=["fits", "cut", "wide", "control characters"],
)
def test_text_is_clipped_to_columns_and_stripped_of_control_characters(text: str, columns: int, clipped: str) -> None:
    assert terminal.clip(text, columns) == clipped
    assert terminal.width(clipped) <= columns


def test_a_table_aligns_and_leaves_out_empty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"queue": "emails", "ready": "12", "dead": ""}, {"queue": "日本", "ready": "3", "dead": ""}]
    terminal.print_table(rows, right=("ready",))
    assert capsys.readouterr().out.splitlines() == ["queue   ready", "emails     12", "日本        3"]


def test_an_empty_table_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table([])
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("pistributer.cli.terminal.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Clock(monkeypatch)


def test_without_a_terminal_there_is_one_plain_line_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    bar = terminal.ProgressBar("rows", stream=stream)
    for second in range(35):
        clock.now = 100.0 + second
        bar.update(second * 10, 1000)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("100/1,000 rows  10/s  10.0 s  eta 1m 30s") or "100/1,000 rows" in lines[0]
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_without_a_terminal_nothing_is_said_while_nothing_happens(clock: Clock) -> None:
    stream = io.StringIO()
    bar = terminal.ProgressBar("rows", stream=stream)
    for second in range(0, 100, 10):
        clock.now = 100.0 + second
        bar.update(5, None)
    assert len(stream.getvalue().splitlines()) == 1


def test_on_a_terminal_the_bar_is_redrawn_in_place_and_taken_away(clock: Clock) -> None:
    stream = Terminal()
    bar = terminal.ProgressBar("rows", stream=stream)
    bar.update(50, 100, "3 killed")
    assert stream.getvalue().startswith("\r\x1b[K")
    assert "50%" in stream.getvalue()
    assert "3 killed" in stream.getvalue()
    bar.note("a worker came back")
    bar.close()
    assert stream.getvalue().endswith("\r\x1b[Ka worker came back\n")


def test_the_bar_is_redrawn_ten_times_a_second_at_most(clock: Clock) -> None:
    stream = Terminal()
    bar = terminal.ProgressBar("rows", stream=stream)
    for step in range(100):
        clock.now = 100.0 + step / 1000
        bar.update(step, 100)
    assert stream.getvalue().count("\r") == 1


def test_json_to_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    document: Any = {"text": "é", "rows": [1, 2]}
    terminal.print_json(document)
    assert capsys.readouterr().out == '{"text": "é", "rows": [1, 2]}\n'

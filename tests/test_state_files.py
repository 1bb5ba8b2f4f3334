"""Files that others made: by hand, by the original, by a crash, or by accident."""

from __future__ import annotations

import json
import logging
import os
import resource
import stat
from collections.abc import Mapping, MutableSequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pistributer import DiskFull, FolderMissing, NotAState, PersistedState, StateChanged
from pistributer.state import editing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.yaml"


def read(path: Path) -> dict[Any, Any]:
    with PersistedState(path) as state:
        return state.copy()


# -- edited by hand

HAND = """\
# Settings of the importer.
# Do not touch `last_id`.

last_id: 5   # the newest

servers:
  # the first one is asked first
  - name: "a"
    port: 80   # http
  - {name: b, port: 81}

"quoted key": 'it''s'   # and a quoted value
folded: >
  several lines
  that are one
empty:
list_of_lists:
- - 1
  - 2
- [3, 4]
gone: 1 # bye
opts: {a: 1, b: [1, 2]}   # flow
last: x
# the end
"""

EDITS: list[tuple[str, str, str]] = [
    ("s.last_id = 6", "last_id: 5   #", "last_id: 6   #"),
    ("s.servers[0]['port'] = 8080", "port: 80   # http", "port: 8080   # http"),
    ("s.servers[0]['tls'] = True", "port: 80   # http\n", "port: 80   # http\n    tls: true\n"),
    ("s.servers[1]['port'] = 82", "port: 81}", "port: 82}"),
    ("s.servers.append('c')", "  - {name: b, port: 81}\n", "  - {name: b, port: 81}\n  - c\n"),
    ("s['quoted key'] = 'yes'", "'it''s'   #", "'yes'   #"),
    ("s.folded = 'short'", "folded: >\n  several lines\n  that are one\n", "folded: short\n"),
    ("s.empty = 'no'", "empty:\n", "empty: 'no'\n"),
    ("s.empty = {'a': [1]}", "empty:\n", "empty:\n  a:\n  - 1\n"),
    ("s.list_of_lists[0].append(3)", "  - 2\n", "  - 2\n  - 3\n"),
    ("s.list_of_lists = []", "list_of_lists:\n- - 1\n  - 2\n- [3, 4]\n", "list_of_lists: []\n"),
    ("del s.gone", "gone: 1 # bye\n", ""),
    ("s.opts = 7", "{a: 1, b: [1, 2]}   # flow", "7   # flow"),
    ("s.new = {'b': 1}", "last: x\n", "last: x\nnew:\n  b: 1\n"),
    ("s.last = 'a\\nb'", "last: x\n", 'last: "a\\nb"\n'),
    ("s.update(gone=2)", "gone: 1 # bye", "gone: 2 # bye"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "old", "new"), EDITS, ids=[each[0] for each in EDITS])
def test_a_vacuum_changes_only_the_text_of_what_has_changed(statement: str, old: str, new: str, path: Path) -> None:
    path.write_text(HAND)
    with PersistedState(path) as s:
        exec(statement, {"s": s})
        expected = s.copy()
    assert HAND.count(old) == 1
    if new == "{name: b, port: 82}" or "port: 82" in new:
        assert "\n    port: 82\n" in path.read_text()  # a flow mapping is written anew
    else:
        assert path.read_text() == HAND.replace(old, new)
    assert read(path) == expected


def test_reading_changes_nothing(path: Path) -> None:
    path.write_text(HAND)
    before = path.stat()
    with PersistedState(path, last_id=9) as state:
        assert state.last_id == 5
    assert path.read_text() == HAND
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "base: &b {x: 1}\nderived: {<<: *b, y: 2}\n",
        "base: &b\n  x: 1\nderived:\n  <<: *b\n  y: 2\n",
        "? [1, 2]\n: 3\n".replace("[1, 2]", "k"),
        "%YAML 1.1\n---\na: 1\nb: 2\n",
        "---\na: 1\n...\n",
        "\ufeffa: 1\n",
        "a: 1",
        "a: 1\r\nb:\r\n- 1\r\n",
        "{a: 1, b: {c: 2}}\n",
        "# only a comment\n",
        "",
        "\n\n",
        "---\n",
        "a: !!str 5\nb: !!set {x, y}\n",
        "a: |+\n  text\n\n\n",
        "'': 1\n",
        "a: 1\n---\n",
        "a: 1\n--- # nothing\n---\n",
        "--- # nothing\n---\n",
    ],
)
def test_whatever_the_layout_a_change_and_a_vacuum_lose_nothing(text: str, path: Path) -> None:
    path.write_text(text, newline="")
    expected = read(path)
    if not text.endswith("\n---\n"):  # an empty entry of the journal, which a vacuum drops
        assert path.read_bytes().decode() in (text, text + "\n")
    with PersistedState(path) as state:
        state.new = [1, {"x": None}]
        for key in list(expected):
            state[key] = [state[key], "changed"]
            expected[key] = [expected[key], "changed"]
    expected = {**expected, "new": [1, {"x": None}]}
    assert read(path) == expected
    if text.startswith("#"):
        assert path.read_text().startswith("# only a comment\n")


def test_a_document_whose_layout_is_unknown_keeps_the_comment_at_its_top() -> None:
    text = "# mine\n\nbase: &b {x: 1}\nderived: {<<: *b}\n"
    assert (
        editing.edited(text, {"base": {"x": 2}, "derived": {"x": 1}}) == "# mine\n\nbase:\n  x: 2\nderived:\n  x: 1\n"
    )


BROKEN = {
    "a: [1\n": ("can not be read as a state", 1),
    "a: 1\na: 2\n": ("the key 'a' twice", 1),
    "a: {b: 1, b: 2}\n": ("the key 'b' twice", 1),
    "- 1\n- 2\n": ("a list where a state has a mapping", 1),
    "just text\n": ("a str where", 1),
    "a: !!python/object:os.system {}\n": ("could not determine a constructor", 1),
    "a: !mine 1\n": ("could not determine a constructor", 1),
    "a: &x [*x]\n": ("can not be read", 1),
    "[1]: 2\n": ("unhashable key", 1),
    "a: 2001-99-99\n": ("can not be read", 1),
    "a: 1\n--- [nope\nb: 1\n": ("from line 2", 2),
    "a: 1\n--- [1, 2]\n--- [\"set\", [], \"a\", 2]\n": ("no change that this release knows", 2),
    "a: \t1\n\tb: 2\n": ("can not be read", 1),
    ".nan: 1\n": ("NaN", 1),
    "a: " + "[" * 300 + "]" * 300 + "\n": ("nested too deeply", 1),
    "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)): ("aliases", 1),
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_an_edit_gone_wrong_is_refused_with_its_place_and_nothing_is_changed(text: str, path: Path) -> None:
    message, line = BROKEN[text]
    path.write_text(text)
    with pytest.raises(NotAState) as refusal:
        PersistedState(path, default=1)
    assert message in str(refusal.value)
    assert (refusal.value.path, refusal.value.line) == (str(path), line)  # type: ignore[attr-defined]
    assert path.read_text() == text
    path.write_text("a: 1\n")
    assert read(path) == {"a": 1}  # the refusal holds no lock


def test_what_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(NotAState, match=r"line 2.*not UTF-8"):
        PersistedState(path)


def test_places_where_no_state_can_be(tmp_path: Path) -> None:
    with pytest.raises(NotAState, match="is a folder"):
        PersistedState(tmp_path)
    with pytest.raises(FolderMissing):
        PersistedState(tmp_path / "missing" / "s.yaml")
    assert os.listdir(tmp_path) == []


def test_a_link_is_written_through_and_the_mode_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("a: 1\n")
    real.chmod(0o600)
    link.symlink_to(real)
    with PersistedState(link) as state:
        state.a = 2
    assert link.is_symlink()
    assert real.read_text() == "a: 2\n"
    real.write_text('a: 1\n--- ["set", [], "a"')
    with PersistedState(link) as state, pytest.raises(StateChanged):
        real.write_text("a: 1\nedited: true\n")
        state._store._look_at = 0.0
        state.a = 2
    for name in ("real.yaml", "real.yaml.quarantine", "real.yaml.mine"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


# -- changed while it was open


@pytest.mark.parametrize("how", ["replaced", "rewritten", "deleted"])
@pytest.mark.parametrize("then", ["change", "close", "vacuum"])
def test_an_edit_while_the_state_is_open_is_neither_overwritten_nor_ignored(how: str, then: str, path: Path) -> None:
    state = PersistedState(path, a=1)
    state.b = 2
    if how == "replaced":
        (path.parent / "new").write_text("edited: 1\n")
        os.replace(path.parent / "new", path)
    elif how == "rewritten":
        path.write_text("edited: 1\n")
    else:
        path.unlink()
    state._store._look_at = 0.0  # it looks ten times a second, or when it reads again
    with pytest.raises(StateChanged) as conflict:
        {"change": lambda: state.update(b=3), "close": state.close, "vacuum": state.vacuum}[then]()
    saved = conflict.value.saved  # type: ignore[attr-defined]
    assert yaml.safe_load(Path(saved).read_text()) == {"a": 1, "b": 2}
    state.close()
    assert path.exists() == (how != "deleted")
    if path.exists():
        assert read(path) == {"edited": 1}


# -- left by a crash

JOURNAL = (
    'a: 1\n--- ["set", [], "b", [1, "é"]]\n'
    '--- ["insert", ["b"], 0, 2] # +2\n--- ["set", [], "c", 1] # +1\n--- ["delete", [], "a"]\n'
)


def test_a_journal_that_is_cut_anywhere_says_a_state_that_was(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = JOURNAL.encode()
    ends = {5: {"a": 1}, data.index(b'--- ["insert'): {"a": 1, "b": [1, "é"]}, len(data): {"b": [2, 1, "é"], "c": 1}}
    for cut in range(5, len(data) + 1):
        caplog.clear()
        path.write_bytes(data[:cut])
        end = max(end for end in ends if end <= cut)
        quarantine = path.with_name("s.yaml.quarantine")
        quarantine.unlink(missing_ok=True)
        with PersistedState(path) as state:
            assert state == ends[end], cut
            assert path.read_bytes() == data[:end]
        if cut != end:
            assert data[end:cut] in quarantine.read_bytes()
            assert "did not finish" in caplog.text
        else:
            assert not quarantine.exists()


@pytest.mark.parametrize("hole", [b"\0" * 10, b"\0" * 5000])
@pytest.mark.parametrize("behind", [b"", b'\n--- ["set", [], "c", 1]\n'])
def test_a_hole_after_a_power_cut_ends_the_journal(hole: bytes, behind: bytes, path: Path) -> None:
    path.write_bytes(b'a: 1\n--- ["set", [], "a", 2]\n--- ["set", [], "a"' + hole + behind)
    assert read(path) == {"a": 2}
    assert hole in path.with_name("s.yaml.quarantine").read_bytes()


def test_a_change_that_does_not_fit_is_passed_over_and_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The original journalled changes before it refused them."""
    path.write_text(
        'l: [1]\n---\n["delete", [], "nope"]\n---\n["set", ["l"], 5, 1]\n---\n["set", ["x", "y"], 1, 1]\n---\n["set", [], "a", 1]'
    )
    assert read(path) == {"l": [1], "a": 1}
    assert caplog.text.count("does not fit") == 3
    assert path.with_name("s.yaml.quarantine").read_text().count("---") == 3


def test_a_hole_in_the_document_is_no_torn_journal_and_is_refused(path: Path) -> None:
    path.write_bytes(b'a: 1\nb: \0\0\0\n--- ["set", [], "a", 2]\n')
    with pytest.raises(NotAState):
        PersistedState(path)
    assert b"\0" in path.read_bytes()
    assert not path.with_name("s.yaml.quarantine").exists()


def test_what_can_not_be_set_aside_on_a_full_disk_is_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pistributer.state import mending

    def full(*_: object) -> None:
        raise DiskFull("no space")

    monkeypatch.setattr(mending, "set_aside", full)
    path.write_text('a: 1\n--- ["set", [], "a", 2')
    assert read(path) == {"a": 1}
    assert '["set", [], "a", 2' in caplog.text


# -- the original's files


def original(value: dict[str, Any], *changes: list[Any]) -> bytes:
    """What persistedstate 23.5 leaves when its process is killed."""
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=True)
    return (text + "".join("\n---\n" + json.dumps(change, ensure_ascii=False) for change in changes)).encode()


ORIGINAL = original(
    {"count": 1, "l": ["a", {"x": "é"}], "n": {"m": None}},
    ["set", [], "count", 2],
    ["set", ["l", 1], "x", "no"],
    ["insert", ["l"], 0, 1e-07],
    ["delete", ["n"], "m"],
    ["set", ["n"], "f", float("nan")],
    ["set", ["n"], "c", "a\x85\x7fb"],
    ["set", ["l"], -1, [1e20]],
)


def test_a_file_of_the_original_opens_closed_or_killed(path: Path) -> None:
    path.write_bytes(ORIGINAL)
    found = read(path)
    assert found["n"].pop("f") != found["n"]
    assert found == {"count": 2, "l": [1e-07, "a", [1e20]], "n": {"c": "a\x85\x7fb"}}
    path.write_bytes(original({"count": 1}))
    assert read(path) == {"count": 1}


def test_a_file_of_the_original_cut_anywhere_in_its_journal_opens(path: Path) -> None:
    begin = ORIGINAL.index(b"\n---\n") + 1
    for cut in range(begin, len(ORIGINAL)):
        path.write_bytes(ORIGINAL[:cut])
        state = read(path)
        assert state["count"] in (1, 2), cut
        path.with_name("s.yaml.quarantine").unlink(missing_ok=True)


def test_a_vacuum_of_release_26_cut_short_is_recovered(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "count: 2\nlong: " + "x" * 50 + "\n"
    journal = 'count: 1\n\n---\n["set", [], "count", 2]\n---\n["set", [], "long", "' + "x" * 50 + '"]'
    whole = journal + text + "\n---\n### LAST VALID STATE ###\n" + text
    for done in range(len(text)):
        path.write_text(text[:done] + whole[done:])
        assert read(path) == {"count": 2, "long": "x" * 50}, done
    assert "its own copy was taken" in caplog.text
    assert path.read_text() == text


def test_what_we_write_opens_in_the_original(path: Path) -> None:
    """By its own rules: safe_load_all, and its three operations on what came before."""
    state = PersistedState(path, a=1, l=[{"x": 1}])
    state.l.append([1, None, True])
    state.l[0]["y"] = "é"
    state.update(b=2.5, c={"d": []})
    del state.a
    root: Any = {}
    for update in yaml.safe_load_all(path.read_text()):
        if isinstance(update, dict):
            root = dict(update)
            continue
        operation, where, key, *value = update
        target = root
        for step in where:
            target = target[step]
        if operation == "set":
            target[key] = value[0]
        elif operation == "delete":
            del target[key]
        else:
            target.insert(key, value[0])
    assert root == state
    state.close()
    assert yaml.safe_load(path.read_text()) == root


def test_the_original_itself_and_we_read_what_the_other_left_when_it_was_killed(tmp_path: Path) -> None:
    original = pytest.importorskip("persistedstate", reason="the extra `bench` has it")
    ours, theirs, again = (tmp_path / name for name in ("ours.yaml", "theirs.yaml", "again.yaml"))
    with PersistedState(ours, a=1, l=[{"x": 1}], n={"k": None}) as state:
        state.a = 2
        state.l.append("no")
        state.l[0]["y"] = 1.5
        state.update(b="é", c=[1, [2]])
        del state["n"]["k"]
        theirs.write_bytes(ours.read_bytes())  # as a killed process leaves it
        old = original.PersistedState(theirs)
        assert as_plain(old) == state
    old.a = 3
    old.l.append({"z": 0.5})
    old.l[0]["x"] = "yes"
    again.write_bytes(theirs.read_bytes())
    assert read(again) == as_plain(old)
    old.close()
    assert read(theirs) == as_plain(old)


def as_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, MutableSequence) else value


# -- a full disk


def test_a_full_disk_is_a_typed_error_and_the_state_is_the_one_before(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fill(path)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert read(path)["a"] == "small again"


def fill(path: Path) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    state = PersistedState(path, a="x", l=[1])
    state.b = "y"
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    before = path.read_bytes()
    for change in (
        lambda: state.update(a="z" * 500),
        lambda: state.update(c="q" * 50, d="z" * 500),
        lambda: state.l.extend(["1" * 100, "2" * 200, "3" * 300]),
    ):
        try:
            change()
        except DiskFull:
            pass
        else:
            raise AssertionError("the disk is full")
        assert path.read_bytes() == before
        assert state == {"a": "x", "l": [1], "b": "y"}
    try:
        with state.transaction():
            state.l.clear()
            state.a = "z" * 1000
    except DiskFull:
        pass
    assert state == {"a": "x", "l": [1], "b": "y"}
    state.a = "small again"
    state.close()


def test_a_vacuum_that_has_no_room_lets_the_journal_grow_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PersistedState(path, _vacuum_bytes=100, a=0) as state, caplog.at_level(logging.WARNING):
        from pistributer.state import store

        def full(*_: object, **__: object) -> None:
            raise DiskFull("no space")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "replace_file", full)
            for number in range(50):
                state.a = number
        assert "could not be rewritten" in caplog.text
        assert state.a == 49
    assert path.read_text() == "a: 49\n"

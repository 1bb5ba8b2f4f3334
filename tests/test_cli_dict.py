"""`pistributer dict`, as a shell sees it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pistributer.dicts import FileDirDict

from .s3_server import serving


class Shell:
    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def run(self, *args: str, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            ["pistributer", "dict", *args],
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json"))


@pytest.fixture
def shell(tmp_path: Path, cli_env: dict[str, str]) -> Shell:
    return Shell(tmp_path, cli_env)


def test_from_nothing_to_a_copy(shell: Shell, tmp_path: Path) -> None:
    shell.run("set", "cache/", "users/alice", '{"age": 30}')
    shell.run("set", "files:cache", "users/bob", "-", stdin="[1, 2]")
    shell.run("set", "cache", "top", "some words", "--text")
    assert json.loads(shell.run("get", "cache", "users/alice")) == {"age": 30}
    assert shell.run("get", "cache", "top") == "some words\n"
    found = shell.json("get", "cache", "users/bob")
    assert (found["value"], sorted(found)) == ([1, 2], ["etag", "key", "timestamp", "value"])
    assert {row["key"] for row in shell.json("ls", "cache")} == {"users/alice", "users/bob", "top"}
    assert [row["key"] for row in shell.json("ls", "cache", "--newest", "-n", "1")] == ["top"]
    assert "users/bob" in shell.run("ls", "cache", "users")
    stats = shell.json("stats", "cache")
    assert (stats["items"], stats["format"], stats["under"]) == (3, "json", {"users": 2})
    assert shell.json("copy", "cache", "other", "--format", "pkl", "--digest-len", "4") == {"written": 3, "kept": 0}
    assert shell.json("copy", "cache", "other") == {"written": 0, "kept": 3}
    assert FileDirDict[Any](tmp_path / "other", digest_len=4)["users", "bob"] == [1, 2]
    assert json.loads(shell.run("get", "other", "users/alice")) == {"age": 30}
    assert shell.json("rm", "cache", "top")["deleted"] == 1
    assert "top" in shell.run("rm", "cache", "top", code=3)
    assert "3 items" in shell.run("stats", "other")


def test_mistakes_get_their_code_and_a_hint(shell: Shell) -> None:
    assert "no dictionary" in shell.run("ls", "nowhere", code=69)
    shell.run("set", "d", "a", "1")
    assert "--text" in shell.run("set", "d", "a", "no json", code=2)
    assert "dict ls" in shell.run("get", "d", "none", code=1)
    assert "can not be part of a key" in shell.run("set", "d", "../x", "1", code=1)
    shell.run("set", "d", "a", "words", "--format", "txt")
    assert "several formats" in shell.run("ls", "d", code=2)
    assert shell.run("get", "d", "a", "--format", "txt") == "words\n"
    assert not os.path.exists(shell.folder / "nowhere")


def test_over_s3(shell: Shell) -> None:
    with serving() as server:
        shell.env = {
            **shell.env,
            "AWS_ENDPOINT": server.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        shell.run("set", "s3://the-bucket/some", "a/b", "[1]")
        assert json.loads(shell.run("get", "s3://the-bucket/some", "a/b")) == [1]
        assert shell.json("copy", "s3://the-bucket/some", "here") == {"written": 1, "kept": 0}
        assert FileDirDict[Any](shell.folder / "here", serialization_format="json")["a", "b"] == [1]

"""The examples of persidict's and iodict's own documents run as they are written there.

Three things are put in their place: the modules are ours under their names, each block runs in an empty folder, and names that
an example leaves to its reader (a trained model) are given. Paths are moved under that folder. Nothing else differs.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pistributer
import pistributer.dicts

from .s3_server import Server, serving

LOCAL: dict[str, str] = {
    "configuring files": """
        from persidict import FileDirDict

        store = FileDirDict(
            base_dir="./data",
            serialization_format="json",  # or "pkl" or "txt"
            append_only=False,
            digest_len=8  # hash suffix for case-insensitive filesystems
        )
    """,
    "memory": """
        from persidict import LocalDict

        store = LocalDict()
    """,
    "the null device": """
        from persidict import EmptyDict

        store = EmptyDict()  # All operations work but nothing is stored
    """,
    "write once": """
        from persidict import WriteOnceDict, FileDirDict

        store = WriteOnceDict(
            wrapped_dict=FileDirDict(append_only=True),
            p_consistency_checks=0.1  # 10% random validation
        )
    """,
    "mutable cache": """
        from persidict import MutableDictCached, FileDirDict, LocalDict

        store = MutableDictCached(
            main_dict=FileDirDict(base_dir="./data"),
            data_cache=LocalDict(),
            etag_cache=LocalDict()
        )
    """,
    "append-only cache": """
        from persidict import AppendOnlyDictCached, FileDirDict, LocalDict

        store = AppendOnlyDictCached(
            main_dict=FileDirDict(base_dir="./data", append_only=True),
            data_cache=LocalDict()
        )
    """,
    "overlapping": """
        from persidict import OverlappingMultiDict, FileDirDict

        multi = OverlappingMultiDict(
            dict_type=FileDirDict,
            shared_subdicts_params={"base_dir": "./data"},
            json={},  # Creates multi.json with serialization_format="json"
            pkl={},   # Creates multi.pkl with serialization_format="pkl"
            txt={}    # Creates multi.txt with serialization_format="txt"
        )

        multi.json["config"] = {"setting": "value"}
        multi.pkl["model"] = trained_model
        multi.txt["log"] = "Plain text log entry"
    """,
    "keep": """
        from persidict import FileDirDict, KEEP_CURRENT

        store = FileDirDict(base_dir="./data")
        store["key"] = "original"
        store["key"] = KEEP_CURRENT  # Value remains "original"
        assert store["key"] == "original"
    """,
    "delete": """
        from persidict import FileDirDict, DELETE_CURRENT

        store = FileDirDict(base_dir="./data")
        store["key"] = "value"
        store["key"] = DELETE_CURRENT  # Key is now deleted
        assert "key" not in store
    """,
    "basic usage": """
        from persidict import FileDirDict

        # Create a persistent dictionary
        cache = FileDirDict(base_dir="./cache")

        # Use it like a regular dict
        cache["user_123"] = {"name": "Alice", "score": 95}
        cache["user_456"] = {"name": "Bob", "score": 87}

        print(cache["user_123"])  # {'name': 'Alice', 'score': 95}
        print(len(cache))  # 2
        print("user_123" in cache)  # True

        # Data persists across sessions
        cache2 = FileDirDict(base_dir="./cache")
        print(cache2["user_123"])  # Still there!
    """,
    "hierarchical keys": """
        from persidict import FileDirDict

        store = FileDirDict(base_dir="./data")

        # Keys can be sequences of strings
        store[("users", "alice", "profile")] = {"age": 30}
        store[("users", "bob", "profile")] = {"age": 25}
        store[("configs", "database")] = {"host": "localhost"}

        # Get subdictionaries
        users = store.get_subdict("users")
        print(len(users))  # 2 (alice and bob)

        # Access nested data
        alice = store.get_subdict(("users", "alice"))
        print(alice["profile"])  # {'age': 30}
    """,
    "timestamps": """
        from persidict import FileDirDict
        import time

        log = FileDirDict(base_dir="./logs")

        log["event_1"] = "Started"
        time.sleep(0.1)
        log["event_2"] = "Processing"
        time.sleep(0.1)
        log["event_3"] = "Completed"

        # Get events in chronological order
        for key in log.oldest_keys():
            timestamp = log.timestamp(key)
            print(f"{key}: {log[key]} at {timestamp}")

        # Get most recent events
        recent = log.newest_keys(max_n=2)
        print(recent)  # [('event_3',), ('event_2',)]
    """,
    "caching": """
        from persidict import MutableDictCached, FileDirDict, LocalDict

        # Slow remote storage (e.g., network drive)
        remote = FileDirDict(base_dir="/mnt/network/data")

        # Fast local caches
        data_cache = LocalDict()
        etag_cache = LocalDict()

        # Cached access
        fast_store = MutableDictCached(
            main_dict=remote,
            data_cache=data_cache,
            etag_cache=etag_cache
        )
        fast_store["key"] = "there"  # (of the test: the example supposes that it is there)

        # First access: slow (reads from remote)
        value = fast_store["key"]

        # Subsequent accesses: fast (reads from cache)
        value = fast_store["key"]  # Much faster!
    """,
    "type safety": """
        from persidict import FileDirDict
        import pandas as pd

        # Only allow pandas DataFrames
        df_store = FileDirDict(
            base_dir="./dataframes",
            base_class_for_values=pd.DataFrame,
            serialization_format="json"
        )

        df = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
        df_store["data"] = df  # OK
        assert df_store["data"].equals(df)

        try:
            df_store["text"] = "hello"  # Raises TypeError!
        except TypeError:
            pass
        else:
            raise AssertionError
    """,
    "several formats": """
        from persidict import OverlappingMultiDict, FileDirDict

        multi = OverlappingMultiDict(
            dict_type=FileDirDict,
            shared_subdicts_params={"base_dir": "./storage"},
            json={},
            pkl={},
            txt={}
        )

        # Store same logical data in different formats
        config = {"host": "localhost", "port": 8080}
        multi.json["config"] = config  # Human-readable JSON
        multi.pkl["config"] = config   # Efficient pickle

        # Store plain text
        multi.txt["readme"] = "This is a plain text file."
    """,
    "content-addressed storage": """
        from persidict import WriteOnceDict, FileDirDict

        store = WriteOnceDict(
            wrapped_dict=FileDirDict(append_only=True),
            p_consistency_checks=0.05
        )
    """,
    "iodict": """
        import iodict
        data = iodict.IODict(path='/tmp/iodict')  # Could be any path on the file system
        data["key"] = "value"
        data
        print(data)
    """,
    "iodict with a lock": """
        import threading

        import iodict
        data = iodict.IODict(path='/tmp/iodict', lock=threading.Lock)
    """,
}
PRINTED = {
    "basic usage": "{'name': 'Alice', 'score': 95}\n2\nTrue\n{'name': 'Alice', 'score': 95}\n",
    "hierarchical keys": "2\n{'age': 30}\n",
    "iodict": "{'key': 'value'}\n",
}

REMOTE: dict[str, str] = {
    "overview": """
        from persidict import FileDirDict, S3Dict

        # Local storage
        local_store = FileDirDict(base_dir="my_data")
        local_store["key"] = "value"

        # Cloud storage
        cloud_store = S3Dict(bucket_name="my-bucket")
        cloud_store["api_key"] = "ABC-123"
        assert cloud_store["api_key"] == "ABC-123"
    """,
    "configuring S3": """
        from persidict import S3Dict

        store = S3Dict(
            bucket_name="my-bucket",
            region="us-east-1",
            serialization_format="pkl"
        )
    """,
    "production, distributed": """
        from persidict import MutableDictCached, S3Dict, LocalDict

        store = MutableDictCached(
            main_dict=S3Dict(bucket_name="prod-data"),
            data_cache=LocalDict(),
            etag_cache=LocalDict()
        )
        store["a"] = 1
        assert store["a"] == 1
    """,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "persidict", pistributer.dicts)
    monkeypatch.setitem(sys.modules, "iodict", pistributer)
    return tmp_path


def execute(code: str, folder: Path, **given: Any) -> None:
    code = textwrap.dedent(code).replace("'/tmp/", f"'{folder}/").replace('"/mnt/', f'"{folder}/mnt/')
    exec(compile(code, "<example>", "exec"), {"__name__": "example", **given})


@pytest.mark.parametrize("name", list(LOCAL))
def test_an_example_runs_as_it_is_written(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "type safety":
        pytest.importorskip("pandas")
    execute(LOCAL[name], here, trained_model={"weights": (1, 2)})
    printed = capsys.readouterr().out
    assert printed == PRINTED.get(name, printed)
    if name == "timestamps":
        assert printed.endswith("[('event_3',), ('event_2',)]\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("name", list(REMOTE))
def test_an_example_with_s3_runs_as_it_is_written(
    name: str, here: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {
        "AWS_ENDPOINT": server.url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    execute(REMOTE[name], here)


def test_every_class_of_the_documents_is_public() -> None:
    names = """PersiDict FileDirDict S3Dict LocalDict EmptyDict WriteOnceDict MutableDictCached AppendOnlyDictCached
        OverlappingMultiDict SafeStrTuple NonEmptySafeStrTuple KEEP_CURRENT DELETE_CURRENT ETagHasNotChangedFlag IODict"""
    for name in names.split():
        assert getattr(pistributer, name) is getattr(importlib.import_module("pistributer.dicts"), name)

"""What `pistributer` offers, by name: pinned, documented, visible to type checkers, and cheap to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pistributer
from pistributer import errors

ROOT = Path(__file__).resolve().parent.parent

#: Adding a name is a promise; removing one breaks somebody. Both are changed here on purpose or not at all.
PUBLIC = """
    App AppendOnlyDictCached AsyncDurableQueue AsyncQueue BackendError Backoff BadCall BadKey BadKeyType BadValue
    BootError Bytes Call Cancel ChannelEmpty Child Chord ClaimLost ConcurrencyConflictError ControlError
    CorruptionStrategy DELETE_CURRENT DamagedRecords DamagedValue DictError DictMismatch DiskFull DriverMismatch
    DurableQueue ETagHasNotChangedFlag EmptyDict FileDirDict FileInUse FlushQueue FolderMissing Follower FormatError
    Group GroupJob Hook IODict InconsistentValue Item Job JobFailed JobSkipped KEEP_CURRENT LocalDict
    MultiThreadedReader MultiThreadedWriter MutableDictCached MutationPolicyError NewerFormat NoSupervisor
    NonEmptySafeStrTuple NotAQueue NotARecordFile NotAState NotWritable Outcome OverlappingMultiDict PersiDict
    PersistedState Pistributer PistributerSqlite PistributerTxt Pool Progress Queue RateLimit RecordIndex RecordReader
    RecordWriter Retry Role Row Run S3Dict SafeStrTuple Sending Snooze Source Stats Supervisor Sync Task WriteOnceDict
    __version__ chain chord errors group open_queue run PackageMissing PistributerError QueueClosed QueueError
    QueueFull QueueShutDown RecordError RecordTooLarge RecordTypeError RecordsClosed RecordsMissing ResultLost
    ResultTimeout RowError RowTooLarge RowTypeError ShardsFull SourceBusy StateChanged StateClosed StateError
    StateLocked StateValueError StorageError SyncFailed TaskNotFound TimeLimitExceeded TooManyOpenFiles
    UnknownCompression UnsafeFilesystem UnsafeValue UnsupportedChunk WorkError WorkerDied Attempt Death JobProgress
    LogJobs Metrics TaskMetrics current_run progress read_metrics
""".split()

#: What `import pistributer` must not drag in; most programs that import it only put rows.
EXPENSIVE = "asyncio click filelock http multiprocessing orjson psutil rich sqlite3 yaml".split()


def test_the_public_names_are_these() -> None:
    assert sorted(pistributer.__all__) == sorted(PUBLIC)
    assert dir(pistributer) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(pistributer, name) is getattr(pistributer, name)


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(pistributer.__all__)
    defined = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert {name for name in defined if not name.startswith("_")} == set(errors.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pistributer.no_such_name  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from pistributer import another_unknown_name  # type: ignore[attr-defined]  # noqa: F401


def documented() -> list[tuple[str, object]]:
    """Every public class and function, and every public method and property of theirs."""
    found: list[tuple[str, object]] = []
    for name in PUBLIC:
        thing = getattr(pistributer, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or thing.__module__ == "typing":
            continue
        found.append((name, thing))
        if inspect.isclass(thing):
            members = [(f"{name}.{member}", value) for member, value in vars(thing).items() if is_method(member, value)]
            found.extend(members)
    return found


def is_method(name: str, value: object) -> bool:
    kinds = (staticmethod, classmethod, property)
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))


@pytest.mark.parametrize(("name", "thing"), [pytest.param(name, thing, id=name) for name, thing in documented()])
def test_every_public_name_has_a_docstring(name: str, thing: object) -> None:
    # getdoc follows inheritance: an override may leave the words to the contract that it fulfils.
    owner, _, member = name.partition(".")
    found = inspect.getdoc(getattr(getattr(pistributer, owner), member) if member else thing)
    assert found
    assert len(found.split()) >= 3


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are what mypy and editors read; __getattr__ is what runs."""
    tree = ast.parse((ROOT / "pistributer" / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in guarded[0].body:
        assert isinstance(node, ast.ImportFrom)
        seen.update({alias.name: node.module for alias in node.names})
    assert set(seen) == set(PUBLIC) - {"__version__"}
    for name, module in seen.items():
        home = importlib.import_module(f"pistributer.{module or name}")
        assert getattr(pistributer, name) is (getattr(home, name) if module else home)


@pytest.mark.parametrize("room", ["queues", "state"])
def test_a_room_hands_on_its_public_names(room: str) -> None:
    package = importlib.import_module(f"pistributer.{room}")
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith(f"pistributer.{room}.")
        assert getattr(package, name) is getattr(pistributer, name, getattr(package, name))
    with pytest.raises(AttributeError):
        _ = package.no_such_name


def test_the_testing_kit_offers_these_names_and_needs_no_test_framework() -> None:
    from pistributer import testing

    assert sorted(testing.__all__) == ["Clock", "Pool", "Sent", "Stage", "eager", "memory", "pool"]
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pistributer.testing; print('pytest' in sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout == "False\n"


def loaded_by(statement: str) -> set[str]:
    """Names in sys.modules of a fresh interpreter after `statement`."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    # -S -E: what a site hook or the environment loads is not ours to answer for. Dependencies are not needed here.
    done = subprocess.run([sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_pistributer_is_cheap() -> None:
    extra = loaded_by("import pistributer") - loaded_by("pass")
    assert not extra & set(EXPENSIVE)
    assert {name for name in extra if name.startswith("pistributer")} == {"pistributer"}


def test_an_error_class_costs_only_the_error_module() -> None:
    extra = loaded_by("from pistributer import QueueFull") - loaded_by("pass")
    assert not extra & set(EXPENSIVE)
    assert {name for name in extra if name.startswith("pistributer.")} == {"pistributer.errors"}


@pytest.mark.parametrize(
    ("module", "name"), [("pistributer_txt", "PistributerTxt"), ("pistributer_sqlite", "PistributerSqlite")]
)
def test_the_modules_of_release_0_2_0_still_offer_their_class(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is getattr(pistributer, name)


def test_the_version_is_that_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [line.split("]")[0].removeprefix("## [") for line in changelog.splitlines() if line.startswith("## [")]
    assert pistributer.__version__ in released[:2]

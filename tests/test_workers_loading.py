"""Finding apps: what `pistributer run SOURCE` understands, and what it says when it does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pistributer import errors
from pistributer.workers.app import App
from pistributer.workers.loading import load_app, source_of

ONE = "from pistributer import App\napp = App('one')\n"


@pytest.fixture(autouse=True)
def modules_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - set(before):
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "some_tasks.py").write_text(ONE)
    app = load_app("some_tasks.py")
    assert isinstance(app, App)
    assert load_app(str(tmp_path / "some_tasks.py")) is app
    assert source_of(app) == f"{tmp_path / 'some_tasks.py'}:app"
    assert load_app(source_of(app)) is app


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "neighbour_of_tasks.py").write_text("NAME = 'near'\n")
    (tmp_path / "deep" / "tasks_a.py").write_text(
        "from neighbour_of_tasks import NAME\nfrom pistributer import App\napp = App(NAME)\n"
    )
    assert load_app("deep/tasks_a.py").url == str(tmp_path / "near")


def test_a_module_in_a_package(tmp_path: Path) -> None:
    (tmp_path / "shop_x").mkdir()
    (tmp_path / "shop_x" / "__init__.py").touch()
    (tmp_path / "shop_x" / "work.py").write_text(ONE.replace("app =", "shop ="))
    app = load_app("shop_x.work")
    assert source_of(app) == "shop_x.work:shop"
    assert load_app("shop_x.work:shop") is app


def test_one_of_two_apps_by_name(tmp_path: Path) -> None:
    (tmp_path / "two_apps.py").write_text(ONE + "other = App('other')\n")
    assert load_app("two_apps.py:other").url == str(tmp_path / "other")
    with pytest.raises(errors.BootError, match=r"has 2 apps .say which: two_apps.py:app or two_apps.py:other"):
        load_app("two_apps.py")


def test_an_app_with_two_names_is_one_app(tmp_path: Path) -> None:
    (tmp_path / "aliased.py").write_text(ONE + "alias = app\n")
    assert load_app("aliased.py").url == str(tmp_path / "one")


def test_a_file_called_like_a_standard_module_does_not_replace_it(tmp_path: Path) -> None:
    import queue

    (tmp_path / "queue.py").write_text(ONE)
    app = load_app("./queue.py")
    assert app.url == str(tmp_path / "one")
    assert sys.modules["queue"] is queue
    assert load_app(source_of(app)).url == app.url


FAULTS = {
    "no such file": ("nothing.py", "there is no file"),
    "no such module": ("no_such_module_here", "there is no module 'no_such_module_here' .name a file"),
    "no such module in a package": ("pistributer.no_such", "there is no module"),
    "no app": ("empty_x.py", "has no app .it needs a line such as"),
    "no such name": ("empty_x.py:app", "has no 'app' where an app should be"),
    "another thing": ("empty_x.py:number", "has a int called 'number' where an app should be"),
    "raises": ("raises_x.py", "failed with ZeroDivisionError: division by zero"),
    "wrong syntax": ("syntax_x.py", "failed with SyntaxError"),
    "imports what is not there": ("missing_x.py", "failed with ModuleNotFoundError: No module named 'not_there_x'"),
}


@pytest.mark.parametrize(("source", "words"), [pytest.param(*row, id=name) for name, row in FAULTS.items()])
def test_what_is_wrong_is_said(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "empty_x.py").write_text("number = 5\n")
    (tmp_path / "raises_x.py").write_text("1 / 0\n")
    (tmp_path / "syntax_x.py").write_text("def (:\n")
    (tmp_path / "missing_x.py").write_text("import not_there_x\n")
    with pytest.raises(errors.BootError, match=words):
        load_app(source)


def test_an_app_that_no_module_names_can_not_be_found_again(tmp_path: Path) -> None:
    with pytest.raises(errors.BootError, match="make the app, its tasks and its consumers at the top level"):
        source_of(App(tmp_path / "jobs"))

"""CPython's own tests of mappings, on every dictionary that can be changed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pistributer.dicts import FileDirDict, IODict, LocalDict, MutableDictCached, PersiDict

#: Tests of CPython that ask for something else than a mapping from names to values: why each does not apply.
NOT_OURS = {
    **dict.fromkeys(
        ("test_values", "test_items", "test_clear", "test_update", "test_popitem", "test_copy"),
        "its keys are numbers, and ours are strings; dict_conformance.py asks the same with strings",
    ),
    "test_constructor": "the arguments of the constructor are a place, not items",
    "test_fromkeys": "a class has no place to make a dictionary in",
    "test_setdefault": "it changes the list that setdefault returned; what we return is the caller's own copy",
}

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python came without its tests")


class MappingTests(mapping_tests.TestMappingProtocol):  # type: ignore[misc,name-defined]
    """The protocol test makes empty mappings without arguments, so each class here opens one in a folder of its own."""

    __test__ = False  # it has no dictionary to be tested
    folders: ClassVar[list[tempfile.TemporaryDirectory[str]]] = []

    @classmethod
    def tearDownClass(cls) -> None:
        while cls.folders:
            cls.folders.pop().cleanup()

    @classmethod
    def fresh(cls) -> Path:
        cls.folders.append(tempfile.TemporaryDirectory())
        return Path(cls.folders[-1].name)

    def type2test(self) -> PersiDict[Any]:
        raise NotImplementedError

    def _full_mapping(self, data: dict[Any, Any]) -> PersiDict[Any]:
        made = self.type2test()
        made.update(data)
        return made

    def setUp(self) -> None:
        if self._testMethodName in NOT_OURS:
            self.skipTest(NOT_OURS[self._testMethodName])

    def _reference(self) -> dict[str, Any]:
        return {"1": "2", "key1": "value1", "key2": (1, 2, 3)}


class TestLocalDict(MappingTests):
    __test__ = True

    def type2test(self) -> PersiDict[Any]:
        return LocalDict()


class TestFileDirDict(MappingTests):
    __test__ = True

    def type2test(self) -> PersiDict[Any]:
        return FileDirDict(self.fresh(), sync="none")


class TestFileDirDictJson(MappingTests):
    __test__ = True

    def type2test(self) -> PersiDict[Any]:
        return FileDirDict(self.fresh(), serialization_format="json", digest_len=4, sync="none")


class TestMutableDictCached(MappingTests):
    __test__ = True

    def type2test(self) -> PersiDict[Any]:
        return MutableDictCached(FileDirDict(self.fresh(), sync="none"), LocalDict(), LocalDict())


class TestIODict(mapping_tests.TestMappingProtocol):  # type: ignore[misc,name-defined]
    """Any key, so all of it applies but what is listed."""

    folders: ClassVar[list[tempfile.TemporaryDirectory[str]]] = []
    NOT_OURS: ClassVar[dict[str, str]] = {
        name: NOT_OURS[name] for name in ("test_constructor", "test_fromkeys", "test_setdefault")
    } | {
        "test_popitem": "popitem takes an argument, as OrderedDict's does",
        "test_copy": "a copy is a plain dict, as a copy of the same items at another place would need one",
    }

    def setUp(self) -> None:
        if self._testMethodName in self.NOT_OURS:
            self.skipTest(self.NOT_OURS[self._testMethodName])
        self.addCleanup(lambda: [self.folders.pop().cleanup() for _ in list(self.folders)])

    def type2test(self) -> IODict[Any, Any]:
        self.folders.append(tempfile.TemporaryDirectory())
        return IODict(Path(self.folders[-1].name) / "d", sync="none")

    def _full_mapping(self, data: dict[Any, Any]) -> IODict[Any, Any]:
        made = self.type2test()
        made.update(data)
        return made

"""OverlappingMultiDict: several dictionaries over one place, one for each format."""

from __future__ import annotations

from typing import Any, Generic, NoReturn

from .contract import PersiDict, V


class OverlappingMultiDict(Generic[V]):
    """`multi.json`, `multi.pkl`, `multi.txt`, …: dictionaries of one class in one place, told apart by their format.

    dict_type               a PersiDict class
    shared_subdicts_params  parameters of all of them, such as `base_dir`
    json={}, txt={}, …      the name of each format, with parameters of its own

    The container holds dictionaries, and is none: `multi[key]`, `len(multi)` and pickling are a TypeError.
    """

    def __init__(
        self,
        dict_type: type[PersiDict[V]],
        shared_subdicts_params: dict[str, Any],
        **individual_subdicts_params: dict[str, Any],
    ) -> None:
        if not issubclass(dict_type, PersiDict):
            raise TypeError(f"dict_type must be a PersiDict class, not {dict_type!r}")
        for name, params in {"shared_subdicts_params": shared_subdicts_params, **individual_subdicts_params}.items():
            if not isinstance(params, dict):
                raise TypeError(f"{name} must be a dict of parameters, not {params!r}")
        self.dict_type = dict_type
        self.shared_subdicts_params = shared_subdicts_params
        self.individual_subdicts_params = individual_subdicts_params
        self.subdicts_names = list(individual_subdicts_params)
        for name, params in individual_subdicts_params.items():
            if hasattr(self, name):
                raise ValueError(f"{name!r} can not be a format here: the container has an attribute of that name")
            setattr(self, name, dict_type(**{**shared_subdicts_params, **params, "serialization_format": name}))

    def __getattr__(self, name: str) -> PersiDict[V]:
        # Reached for unknown names only; also tells type checkers what the others are.
        known = ", ".join(self.__dict__.get("subdicts_names", ()))
        raise AttributeError(f"there is no dictionary for the format {name!r} here; there are: {known}")

    def _refuse(self, *_: object) -> NoReturn:
        names = " or ".join(f"multi.{name}" for name in self.subdicts_names)
        raise TypeError(f"an OverlappingMultiDict holds dictionaries and no items; use {names}")

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = _refuse

    def __bool__(self) -> bool:
        return bool(self.subdicts_names)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an OverlappingMultiDict can not be pickled; pickle its dictionaries")

    def __repr__(self) -> str:
        own = "".join(f", {name}={params!r}" for name, params in self.individual_subdicts_params.items())
        shared = f"shared_subdicts_params={self.shared_subdicts_params!r}"
        return f"{type(self).__name__}(dict_type={self.dict_type.__name__}, {shared}{own})"

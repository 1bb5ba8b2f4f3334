"""BasicS3Dict keeps items as objects of a bucket; S3Dict does too, and keeps copies of them in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Generic, Self, cast

from .. import errors
from .cached import MutableDictCached
from .contract import Entry, Mark, PersiDict, Require, V, prefix_of
from .files import FileDirDict
from .flags import ANY_ETAG, ITEM_NOT_AVAILABLE, ETagIfExists
from .keys import NonEmptySafeStrTuple, PersiDictKey, is_safe, trusted_key
from .s3_objects import Bucket

DEFAULT_BUCKET = "my_bucket"
DEFAULT_FOLDER = "__s3_dict__"
#: S3 takes keys up to this length, in bytes.
_MAX_KEY = 1024


class BasicS3Dict(PersiDict[V], Generic[V]):
    """Items as objects: `d["users", "alice"] = …` is `s3://bucket/prefix/users/alice.pkl`. Any number of hosts may use it.

    bucket_name  the bucket; it is made if it is missing and the credentials allow it
    region       its region; None: as the environment says
    root_prefix  where in the bucket the items are, such as `team/data/`
    options      for obstore's S3Store: `endpoint`, `access_key_id`, `secret_access_key`, `retry_config`, …; else the
                 environment (AWS_ACCESS_KEY_ID, …) says
    conditional_deletes
                 False: for servers that ignore If-Match when they delete. `pop`, `discard_if` and the like then look before
                 they delete, and can delete a value that was written in between

    Conditions are the server's: atomic for all hosts. Equal values have equal ETags. Timestamps are the server's clock, in
    whole seconds. A failing server is asked again, with growing pauses; in the end BackendError says what it said.

    Reading a pickle runs code of whoever may write to the bucket. Not to be used in a forked child of a process that has
    used it (obstore refuses); pickled to a spawned one it works. Its parameters hold credentials if `options` does.
    """

    _own_params = ("bucket_name", "conditional_deletes", "options", "region", "root_prefix")

    def __init__(
        self,
        bucket_name: str = DEFAULT_BUCKET,
        region: str | None = None,
        root_prefix: str = "",
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        *args: Any,
        options: dict[str, Any] | None = None,
        conditional_deletes: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(serialization_format, append_only, base_class_for_values)
        self.bucket_name = bucket_name
        self.region = region
        self.root_prefix = root_prefix if not root_prefix or root_prefix.endswith("/") else root_prefix + "/"
        self.options = options
        self.conditional_deletes = conditional_deletes
        self._suffix = f".{serialization_format}"
        self._bucket = Bucket(bucket_name, region, options or {})
        self._bucket.require()

    @property
    def base_url(self) -> str:
        """Where the items are: `s3://bucket/prefix/`."""
        return f"s3://{self.bucket_name}/{self.root_prefix}"

    def __repr__(self) -> str:
        hidden = self.get_params() | {"options": None if self.options is None else dict.fromkeys(self.options, "…")}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in hidden.items())})"

    def _path(self, key: NonEmptySafeStrTuple) -> str:
        return f"{self.root_prefix}{'/'.join(key)}{self._suffix}"

    def _key_of(self, path: str) -> NonEmptySafeStrTuple | None:
        """The key of an object; None if it is none of ours."""
        if not path.endswith(self._suffix):
            return None
        segments = path[len(self.root_prefix) : -len(self._suffix)].split("/")
        return trusted_key(segments) if all(map(is_safe, segments)) else None

    # -- the contract

    def _load(self, key: NonEmptySafeStrTuple) -> Entry | None:
        path = self._path(key)
        found = self._bucket.get(path)
        if found is None:
            return None
        data, meta = found
        try:
            value = self._format.decode(data)
        except (errors.DamagedValue, errors.UnsafeValue) as error:
            error.message = f"s3://{self.bucket_name}/{path}: {error.message}"
            error.__dict__["path"] = path
            raise
        return Entry(self._check_loaded(value, path), *_mark(meta))

    def _stat(self, key: NonEmptySafeStrTuple) -> Mark | None:
        meta = self._bucket.head(self._path(key))
        return None if meta is None else _mark(meta)

    def _put(self, key: NonEmptySafeStrTuple, value: Any, require: Require) -> ETagIfExists | None:
        path, data = self._path(key), self._format.encode(value)
        if len(path) > _MAX_KEY:
            raise errors.BadKey(
                f"{key[-1][:40]!r}… is too long: {len(path)} bytes with prefix and ending, {_MAX_KEY} are the most",
                key=key,
            )
        if require is ANY_ETAG:
            return self._bucket.put(path, data)
        return self._bucket.put_if(path, data, None if require is ITEM_NOT_AVAILABLE else cast(str, require))

    def _remove(self, key: NonEmptySafeStrTuple, require: Require) -> bool:
        path = self._path(key)
        if isinstance(require, str) and self.conditional_deletes:
            return self._bucket.delete_if(path, require)
        meta = self._bucket.head(path)
        if meta is None or (isinstance(require, str) and meta["e_tag"] != require):
            return False
        self._bucket.delete(path)
        return True

    def _keys(self) -> Iterator[NonEmptySafeStrTuple]:
        return (key for _, key in self._dated_keys())

    def _dated_keys(self) -> Iterator[tuple[float, NonEmptySafeStrTuple]]:
        for meta in self._bucket.objects(self.root_prefix):
            if (key := self._key_of(meta["path"])) is not None:
                yield meta["last_modified"].timestamp(), key

    def _first_segments(self) -> set[str]:
        folders, objects = self._bucket.folders(self.root_prefix)
        keys = (self._key_of(self.root_prefix + name) for name in objects)
        found = {key[0] for key in keys if key is not None}
        return found | {name for name in folders if is_safe(name) and self.get_subdict(name)}

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        view = object.__new__(type(self))
        below = "".join(f"{segment}/" for segment in prefix_of(prefix_key))
        view.__dict__.update(self.__dict__, root_prefix=self.root_prefix + below)
        return view


class S3Dict(MutableDictCached[V], Generic[V]):
    """BasicS3Dict with copies of what was read and written in the folder `base_dir`.

    Each read asks the server whether the copy is still good, and fetches the value only if it is not. Parameters are those
    of BasicS3Dict, `base_dir`, and `digest_len` as FileDirDict has it, for the names of the copies. Several processes may
    share the folder, and it may be deleted at any time.
    """

    _own_params = (*BasicS3Dict._own_params, "base_dir", "digest_len")

    def __init__(
        self,
        bucket_name: str = DEFAULT_BUCKET,
        region: str | None = None,
        root_prefix: str = "",
        base_dir: str | os.PathLike[str] = DEFAULT_FOLDER,
        serialization_format: str = "pkl",
        digest_len: int = 8,
        append_only: bool = False,
        base_class_for_values: type | None = None,
        *args: Any,
        options: dict[str, Any] | None = None,
        conditional_deletes: bool = True,
        **kwargs: Any,
    ) -> None:
        main = BasicS3Dict[V](
            bucket_name, region, root_prefix, serialization_format, append_only, base_class_for_values,
            options=options, conditional_deletes=conditional_deletes,
        )  # fmt: skip
        # A power cut may damage a copy, which is then fetched again; so copies need no sync.
        data = FileDirDict[V](base_dir, serialization_format, False, digest_len, base_class_for_values, sync="none")
        etags = FileDirDict[Any](base_dir, f"{serialization_format}_etag", False, digest_len, str, sync="none")
        self._set_parts(main, data, etags)

    @property
    def base_dir(self) -> str:
        """The folder of the copies, as an absolute path."""
        return cast("FileDirDict[V]", self.data_cache).base_dir

    @property
    def digest_len(self) -> int:
        """As in FileDirDict, for the copies."""
        return cast("FileDirDict[V]", self.data_cache).digest_len

    def __getattr__(self, name: str) -> Any:
        # bucket_name, region and what else belongs to the bucket.
        if name in BasicS3Dict._own_params or name == "base_url":
            return getattr(self.main_dict, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_params(self) -> dict[str, Any]:
        return PersiDict.get_params(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, base_dir={self.base_dir!r})"

    def get_subdict(self, prefix_key: PersiDictKey) -> Self:
        view = object.__new__(type(self))
        parts = (part.get_subdict(prefix_key) for part in (self.main_dict, self.data_cache, self.etag_cache))
        view._set_parts(*parts)
        return view


def _mark(meta: Any) -> Mark:
    return Mark(meta["e_tag"], meta["last_modified"].timestamp())

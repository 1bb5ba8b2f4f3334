"""The requests that S3Dict makes, each safe to be made again, and their errors with our names.

obstore sends them, and signs those that it does not know itself: creating a bucket, and deleting with a condition
(`If-Match`, which AWS has since 2025). Decided by test, see docs/decisions.md.

A request may succeed and its answer be lost. Reading, deleting and writing without a condition can simply be made again. A
conditional write can not: its second try would be refused because of the first. So each carries a name of its own in the
object's metadata, and a write whose answer was lost or is refused looks whether the object is the one that it has written.
"""

from __future__ import annotations

import contextlib
import datetime
import random
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

from .. import errors

#: For requests that can be made again, obstore's own tries; for conditional writes, ours.
_TRIES = 8
_RETRY_TIMEOUT = datetime.timedelta(seconds=60)
_BACKOFF = {
    "init_backoff": datetime.timedelta(milliseconds=50),
    "max_backoff": datetime.timedelta(seconds=5),
    "base": 2.0,
}
#: Seconds that a request made through a signed address may take.
_TIMEOUT = 30.0
_SIGNED_FOR = datetime.timedelta(minutes=15)
#: The object's metadata under which a conditional write has its name.
_WRITE = "pistributer-write"
_PAGE = 1000


class Bucket:
    """One bucket. Threads may share it. Not to be used in a forked child of a process that has used it: obstore says so."""

    def __init__(self, name: str, region: str | None, options: dict[str, Any]) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise errors.PackageMissing(
                "S3Dict needs the package obstore", hint="pip install 'pistributer[s3]'"
            ) from error
        self._api: Any = obstore
        self.name = name
        self.region = region
        given = dict(options)
        if region is not None:
            given.setdefault("region", region)
        if str(given.get("endpoint", "")).startswith("http://"):
            given["client_options"] = {"allow_http": True, **given.get("client_options", {})}
        retry: Any = given.pop(
            "retry_config", {"max_retries": _TRIES, "retry_timeout": _RETRY_TIMEOUT, "backoff": _BACKOFF}
        )
        once: Any = {"max_retries": 0, "retry_timeout": _RETRY_TIMEOUT}
        self._tries = retry.get("max_retries", _TRIES) + 1
        with self._typed("open"):
            self._store: Any = S3Store(name, retry_config=retry, **given)
            self._once: Any = S3Store(name, retry_config=once, **given)
        self._deletes_if: bool | None = None

    @contextlib.contextmanager
    def _typed(self, doing: str, path: str = "") -> Iterator[None]:
        where = f"s3://{self.name}/{path}"
        kinds = self._api.exceptions
        try:
            yield
        except (kinds.BaseError, FileNotFoundError, PermissionError) as error:
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise
            text = str(error).partition("\n\nDebug source")[0]
            hint = "check the credentials and the endpoint" if _is_refusal(text) else "try again later"
            raise errors.BackendError(f"could not {doing} {where}: {text[:500]}", hint=hint, path=where) from error

    # -- the bucket

    def require(self) -> None:
        """Make the bucket if it is missing."""
        try:
            with self._typed("list"):
                next(iter(self._api.list(self._store, chunk_size=1)), None)
        except errors.BackendError as error:
            if "NoSuchBucket" not in str(error):
                raise
            self._create()

    def _create(self) -> None:
        body = b""
        if self.region not in (None, "us-east-1"):
            body = (
                '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>'
                f"{self.region}</LocationConstraint></CreateBucketConfiguration>"
            ).encode()
        status = self._signed("PUT", "", data=body)
        if status not in (200, 409):  # 409: somebody else has just made it
            raise errors.BackendError(
                f"could not make the bucket {self.name!r}: the server said {status}", path=self.name
            )

    # -- reading

    def get(self, path: str) -> tuple[bytes, Any] | None:
        """Bytes and metadata of an object; None if there is none."""
        try:
            with self._typed("read", path):
                found = self._api.get(self._store, path)
                return bytes(found.bytes()), found.meta
        except FileNotFoundError:
            return None

    def head(self, path: str) -> Any | None:
        """Metadata of an object; None if there is none."""
        try:
            with self._typed("look at", path):
                return self._api.head(self._store, path)
        except FileNotFoundError:
            return None

    def objects(self, prefix: str) -> Iterator[Any]:
        """Metadata of all objects under `prefix`, page by page."""
        with self._typed("list", prefix):
            for page in self._api.list(self._store, prefix=prefix or None, chunk_size=_PAGE):
                yield from page

    def folders(self, prefix: str) -> tuple[list[str], list[str]]:
        """The names of folders and of objects directly under `prefix`."""
        with self._typed("list", prefix):
            found = self._api.list_with_delimiter(self._store, prefix=prefix or None)
        start = len(prefix)
        names = [found["common_prefixes"], [meta["path"] for meta in found["objects"]]]
        folders, objects = ([path[start:].strip("/") for path in paths] for paths in names)
        return folders, objects

    # -- writing

    def put(self, path: str, data: bytes) -> str:
        """Write an object and return its ETag."""
        with self._typed("write", path):
            return str(self._api.put(self._store, path, data, use_multipart=False)["e_tag"])

    def put_if(self, path: str, data: bytes, etag: str | None) -> str | None:
        """Write an object if its ETag is this one (None: if it is absent); its new ETag, or None if it is not so.

        BackendError with `outcome="unknown"` if an answer was lost and others have written since.
        """
        mode: Any = "create" if etag is None else {"e_tag": etag}
        name = uuid.uuid4().hex
        doubtful = None
        for attempt in range(self._tries):
            try:
                with self._typed("write", path):
                    done = self._api.put(
                        self._once, path, data, mode=mode, use_multipart=False, attributes={_WRITE: name}
                    )
                return str(done["e_tag"])
            except FileNotFoundError:
                refused = True  # to be replaced, and gone
            except errors.BackendError as error:
                refused = _is_precondition(error)
                if not refused:
                    doubtful = error
                    if _is_refusal(str(error)):
                        raise
            if refused and doubtful is None:
                return None
            found, by = self._who_wrote(path)
            if by == name:
                return found
            if found != etag and doubtful is not None and not _was_not_done(doubtful):
                raise errors.BackendError(
                    f"the answer to a write of s3://{self.name}/{path} was lost, and others have written since",
                    hint="read it and decide whether to write again",
                    path=path, outcome="unknown",
                ) from doubtful  # fmt: skip
            if found != etag:
                return None
            time.sleep(random.random() * 0.05 * 2**attempt)
        assert doubtful is not None
        raise doubtful

    def _who_wrote(self, path: str) -> tuple[str | None, str | None]:
        """The ETag of an object, and the name of the conditional write that made it."""
        try:
            with self._typed("look at", path):
                found = self._api.get(self._store, path, options={"head": True})
        except FileNotFoundError:
            return None, None
        return found.meta["e_tag"], found.attributes.get(_WRITE)

    def delete(self, path: str) -> None:
        """Delete an object; no error if there is none."""
        with contextlib.suppress(FileNotFoundError), self._typed("delete", path):
            self._api.delete(self._store, path)

    def delete_if(self, path: str, etag: str) -> bool:
        """Delete an object if its ETag is this one; whether it was so. BackendError if the server can not do that."""
        self._require_conditional_deletes()
        status = self._signed("DELETE", path, headers={"If-Match": etag})
        if status in (404, 409, 412):
            return False
        if status not in (200, 204):
            raise errors.BackendError(
                f"could not delete s3://{self.name}/{path}: the server said {status}", path=path, status=status
            )
        return True

    def _require_conditional_deletes(self) -> None:
        """A server that does not know the condition deletes all the same, so it is asked with an object of no worth."""
        if self._deletes_if is None:
            probe = f"#pistributer-probe-{uuid.uuid4().hex}"
            self.put(probe, b"")
            self._deletes_if = self._signed("DELETE", probe, headers={"If-Match": '"no-such-etag"'}) == 412
            self.delete(probe)
        if not self._deletes_if:
            raise errors.BackendError(
                f"the server of the bucket {self.name!r} deletes objects whatever the condition (If-Match) says",
                hint="open it with conditional_deletes=False if no two programs ever write one key",
            )

    def _signed(self, method: str, path: str, *, data: bytes = b"", headers: dict[str, str] | None = None) -> int:
        """Send a request that obstore does not know, with its signature; the status of the answer. Tried again on 5xx."""
        doubt: Exception | None = None
        for attempt in range(self._tries):
            with self._typed("sign a request for", path):
                url = self._api.sign(self._store, method, path, _SIGNED_FOR)
            request = urllib.request.Request(url, data=data or None, method=method, headers=headers or {})
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500:
                    # After a lost answer, "not there" is what our own success looks like.
                    return 204 if doubt is not None and method == "DELETE" and error.code == 404 else error.code
                doubt = error
            except OSError as error:
                doubt = error
            time.sleep(random.random() * 0.05 * 2**attempt)
        raise errors.BackendError(f"could not {method} s3://{self.name}/{path}: {doubt}", path=path) from doubt


def _is_precondition(error: errors.BackendError) -> bool:
    return type(error.__cause__).__name__ in ("AlreadyExistsError", "PreconditionError")


def _is_refusal(text: str) -> bool:
    """Whether trying again is of no use."""
    return any(f" {status} " in text for status in ("400", "401", "403", "405", "501"))


def _was_not_done(error: errors.BackendError) -> bool:
    """Throttled requests, and those that could not be sent, have changed nothing."""
    return any(sign in str(error) for sign in ("503 Service Unavailable", "SlowDown", "error trying to connect"))

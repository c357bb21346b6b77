"""What the stores of Azure and S3 have in common: small blobs by `obstore`, the rest by each one's SDK."""

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from azure.core.exceptions import ResourceExistsError, ServiceRequestError, ServiceResponseError
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore

from models.blob_facts import HEADERS, BlobFacts
from models.errors import StoreError
from tasks.stores import (
    NO_SEGMENTS,
    STAGING,
    BlobExistsError,
    BlobMissingError,
    Container,
    ForbiddenError,
    ListedBlob,
    NameRefusedError,
    NotHeldError,
    StoreBusyError,
)

if TYPE_CHECKING:
    # In obstore's stubs alone.
    from obstore.store import ClientConfig, RetryConfig

CONNECT_SECONDS_MAX: Final = 5
REQUEST_SECONDS_MAX: Final = 30
RETRIES_MAX: Final = 2
CONNECTIONS_MAX: Final = 64
"""As many requests as `copy_requests_at_once` may have under way."""

RETRY_CONFIG: "Final[RetryConfig]" = {
    "max_retries": RETRIES_MAX,
    "retry_timeout": timedelta(seconds=REQUEST_SECONDS_MAX),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2},
}

_NO_ANSWER: Final = (ServiceRequestError, ServiceResponseError, NoConnectionError, HTTPClientError)
_IS_NO_ANSWER: Final = "HTTP error: "
"""What obstore says where nothing came back, or not all."""
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})

_STATUS: Final = re.compile(r"status code: (\d{3})")
_BEYOND_END: Final = re.compile(r'StartTooLarge|ParseContentRange.*"bytes [^"/]*/0"', re.DOTALL)
"""What obstore says where a piece begins just at the blob's end, which Azure and Azurite do not refuse."""

_RESERVED: Final = frozenset({*(name.lower() for name in HEADERS.values()), "content-disposition"})
_NAME_MAX: Final = 1024

_T = TypeVar("_T")


def client_config(endpoint: str) -> "ClientConfig":
    """Make obstore's limits of time; a server without TLS only where its address says so."""
    return {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS_MAX),
        "timeout": timedelta(seconds=REQUEST_SECONDS_MAX),
        "pool_max_idle_per_host": str(CONNECTIONS_MAX),
        "allow_http": endpoint.startswith("http://"),
    }


@contextmanager
def told_without_names() -> Iterator[None]:
    """Turn every error of a store into one of ours; theirs hold addresses, names and now and then a credential."""
    try:
        yield
    except (StoreError, BlobExistsError):
        raise
    except Exception as error:  # noqa: BLE001  an SDK that is answered nonsense fails in ways of its own
        raise _as_ours(error) from None


def _as_ours(error: Exception) -> Exception:
    is_taken = isinstance(error, ResourceExistsError) and getattr(error, "error_code", None) == "BlobAlreadyExists"
    if is_taken or isinstance(error, AlreadyExistsError | PreconditionError):
        return BlobExistsError()
    if isinstance(error, FileNotFoundError):
        return BlobMissingError("the store has no such blob or container")
    if isinstance(error, ClientError):
        return _refusal(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"), error)
    if isinstance(error, BaseError):
        text = str(error)
        if _BEYOND_END.search(text):
            return _BeyondEndError()
        status = _STATUS.search(text)
        return _refusal(int(status[1]) if status else None, error)
    return _refusal(getattr(error, "status_code", None), error)


def _refusal(status: int | None, error: Exception) -> Exception:
    if status in {401, 403}:
        return ForbiddenError(f"the store does not let us: HTTP status {status}; look at its credentials")
    if status == 404:
        return BlobMissingError("the store has no such blob or container")
    if status == 412:
        return BlobExistsError()
    if status == 416:
        return _BeyondEndError()
    return _failure(status, error)


def _failure(status: int | None, error: Exception) -> StoreError:
    """Tell a store that is busy or away from one that refuses."""
    name = type(error).__name__
    if status is not None:
        kind = StoreBusyError if status in _BUSY else StoreError
        return kind(f"the store refused: {name}, HTTP status {status}")
    is_away = isinstance(error, _NO_ANSWER) or (isinstance(error, BaseError) and _IS_NO_ANSWER in str(error))
    kind = StoreBusyError if is_away else StoreError
    return kind(f"the store did not answer, or its settings are wrong: {name}")


class _BeyondEndError(StoreError):
    """What was to be read begins where the blob ends."""

    def __init__(self) -> None:
        super().__init__("the blob ends before")


class CloudContainer(Container):
    """A container behind HTTP.

    Args:
        name: the container's name.
        prefix: what stands before every blob's name in the store's own container; empty, or ends with a slash.
        store: obstore's, of the store's own container.
        metadata_names: what may be the name of metadata.
        metadata_bytes_max: of names and values together.
    """

    def __init__(
        self, name: str, prefix: str, store: ObjectStore, metadata_names: re.Pattern[str], metadata_bytes_max: int
    ) -> None:
        self.name = name
        self._prefix = prefix
        self._store = store
        self._metadata_names = metadata_names
        self._metadata_bytes_max = metadata_bytes_max

    # -- what each kind does by its SDK ----------------------------------------------------------------

    @abstractmethod
    def _make_container(self) -> None:
        """Make the store's own container; harmless when it is there."""

    @abstractmethod
    def _list_keys(self, prefix: str) -> Iterator[ListedBlob]:
        """List with the whole names that the store has."""

    @abstractmethod
    def _put_by_sdk(self, key: str, data: bytes, facts: BlobFacts, *, overwrite: bool) -> str:
        """Write a blob in one request; tells its ETag."""

    @abstractmethod
    def _delete_key(self, key: str, e_tag: str = "") -> None:
        """Remove a blob; harmless when there is none, or another than the `e_tag` says."""

    # -- what they share -------------------------------------------------------------------------------

    def list(self, prefix: str = "") -> Iterator[ListedBlob]:
        # By the SDK: obstore ends at the first name it would not take itself, and knows only whole segments.
        hidden = f"{STAGING}/"
        found = self._list_keys(self._prefix + prefix)
        while True:
            blob = None
            with suppress(BlobMissingError), told_without_names():
                blob = next(found, None)
            if blob is None:
                return
            name = blob.name.removeprefix(self._prefix)
            if name and not name.startswith(hidden):
                yield ListedBlob(name, blob.length)

    def exists(self, path: str) -> bool:
        key = self._key(path)
        try:
            with told_without_names():
                obstore.head(self._store, key)
        except BlobMissingError:
            return False
        return True

    def read(self, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        key = self._key(path)
        try:
            with told_without_names():
                options: Any = {"range": (offset, offset + length), **({"if_match": e_tag} if e_tag else {})}
                return bytes(obstore.get(self._store, key, options=options).bytes())
        except _BeyondEndError:
            return b""
        except BlobExistsError:
            raise BlobMissingError("the store has another blob of that name by now") from None

    def put(self, path: str, data: bytes, facts: BlobFacts, aside: str, *, overwrite: bool) -> str:
        key = self._key(path)
        facts = self.held(facts)
        attributes = self._attributes(facts)

        def put() -> str:
            if attributes is None:
                return self._put_by_sdk(key, data, facts, overwrite=overwrite)
            mode: Any = "overwrite" if overwrite else "create"
            put = obstore.put(self._store, key, data, attributes=attributes, mode=mode, use_multipart=False)
            return put["e_tag"] or ""

        return self.write_making_container(put)

    def delete(self, path: str, *, e_tag: str = "") -> None:
        with suppress(BlobMissingError, BlobExistsError), told_without_names():
            self._delete_key(self._key(path), e_tag)

    def discard(self, aside: str) -> None:
        laid = f"{self._prefix}{STAGING}/{aside}"
        with suppress(BlobMissingError), told_without_names():
            for blob in self._list_keys(laid):
                if blob.name == laid or blob.name.startswith(f"{laid}/"):
                    self._delete_key(blob.name)

    def probe(self, aside: str, length: int) -> None:
        laid = f"{STAGING}/{aside}"
        self.put(laid, bytes(length), BlobFacts(), aside, overwrite=True)
        self.delete(laid)

    def write_making_container(self, act: Callable[[], _T]) -> _T:
        """Write something; where the container is missing, make it first."""
        try:
            with told_without_names():
                return act()
        except BlobMissingError:
            with told_without_names():
                self._make_container()
                return act()

    def _key(self, path: str) -> str:
        """Make a blob's whole name, which arrives in the store as it is."""
        key = self._prefix + path
        if (
            self._is_too_long(key)
            or any(unicodedata.category(letter) in {"Cc", "Cs"} or letter in "\ufffe\uffff" for letter in path)
            or not NO_SEGMENTS.isdisjoint(key.split("/"))
        ):
            raise NameRefusedError("the store can hold no blob of that name")
        return key

    def _is_too_long(self, key: str) -> bool:
        return len(key.encode(errors="replace")) > _NAME_MAX

    def held(self, facts: BlobFacts) -> BlobFacts:
        """Give back what the store holds just as it is.

        Raises:
            NotHeldError: it cannot hold all of it.
        """
        names = {name.lower() for name in facts.metadata}
        size = sum(len(name) + len(value) for name, value in facts.metadata.items())
        values = [*facts.metadata.values(), *(getattr(facts, each) or "" for each in HEADERS)]
        if (
            size > self._metadata_bytes_max
            or len(names) < len(facts.metadata)
            or not all(map(self._metadata_names.fullmatch, facts.metadata))
            or not all(value.isascii() and value.isprintable() and value == value.strip() for value in values)
        ):
            raise NotHeldError("the store can hold no properties or metadata of this kind or size")
        return facts

    def _attributes(self, facts: BlobFacts) -> Any:
        """Make obstore's attributes; None where it would take metadata for a header, or write a name small."""
        if any(name.lower() in _RESERVED or name != name.lower() for name in facts.metadata):
            return None
        told = {HEADERS[name]: value for name in HEADERS if (value := getattr(facts, name))}
        return {**told, **facts.metadata}

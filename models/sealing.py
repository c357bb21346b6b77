"""Sealing: personal data and secrets reach the disk only encrypted, under a key that the database does not hold.

A sealed value is one byte of format, four of the key's number, twelve of nonce, then what AES-256-GCM made of
the text and of its place (table and column), so that a value moved to another column does not open.
"""

import os
import struct
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.errors import SealedValueError, SealingKeyError

KEY_BYTES: Final = 32
_FORMAT: Final = 1
_HEADER: Final = struct.Struct(">BI")
_NONCE_BYTES: Final = 12
_TOLD_MAX: Final = 2000

_CHECK_PLACE: Final = "sealing_key.proof"
_CHECK_TEXT: Final = "this is the key"

recent: Final[deque[str]] = deque(maxlen=_TOLD_MAX)
"""What this process sealed or opened last, in memory alone: what a log line must not say."""


class KeyRing:
    """Keys by their numbers; one seals, at first the one of the highest number, all of them open.

    Args:
        keys: number, 1 or more -> 32 bytes.

    Attributes:
        proven: the keys that a database was seen to know, number -> proof, each as this very key.
    """

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._ciphers = {number: AESGCM(key) for number, key in keys.items()}
        self.proven: Mapping[int, bytes] = {}
        self.turn_to(max(keys))

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of its keys."""
        return frozenset(self._ciphers)

    def turn_to(self, number: int) -> None:
        """Seal with the key of this number from now on."""
        self._sealing = (header(number), self._ciphers[number])
        self.sealing_number = number

    def learn(self, other: "KeyRing") -> None:
        """Open with the keys of another ring, too; which one seals stays, and what a number of ours means."""
        self._ciphers = {**other._ciphers, **self._ciphers}  # noqa: SLF001  one of its own kind

    def seal(self, place: str, text: str) -> bytes:
        """Seal a text for one place, `table.column`."""
        recent.append(text)
        head, cipher = self._sealing
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + cipher.encrypt(nonce, text.encode(), _bound(head, place))

    def open(self, place: str, sealed: bytes) -> str:
        """Open what was sealed for this place.

        Raises:
            SealingKeyError: its key is not on the ring.
            SealedValueError: it was altered, or sealed for another place or by another key of this number.
        """
        number = number_of(sealed)
        if number is None:
            raise SealedValueError(place)
        head = header(number)
        cipher = self._ciphers.get(number)
        if cipher is None:
            raise SealingKeyError(f"a value in {place} is sealed with key {number}, which is not there; {WAY_OUT}")
        body = _HEADER.size + _NONCE_BYTES
        try:
            text = cipher.decrypt(sealed[_HEADER.size : body], sealed[body:], _bound(head, place)).decode()
        except (InvalidTag, ValueError):
            raise SealedValueError(place) from None
        recent.append(text)
        return text

    def prove(self) -> bytes:
        """Make what tells later whether a key of the sealing number is the same key."""
        return self.seal(_CHECK_PLACE, _CHECK_TEXT)

    def fits(self, number: int, proof: bytes) -> bool:
        """Tell whether the ring has the very key that made a proof."""
        try:
            return number_of(proof) == number and self.open(_CHECK_PLACE, proof) == _CHECK_TEXT
        except (SealingKeyError, SealedValueError):
            return False


WAY_OUT: Final = "put the key file back from its backup; without it the database's personal data is lost"


@lru_cache(maxsize=64)
def header(number: int) -> bytes:
    """Tell how every value that a key sealed begins."""
    return _HEADER.pack(_FORMAT, number)


def number_of(sealed: bytes) -> int | None:
    """Read the number of the key that a value is sealed with; None where it is no sealed value."""
    if len(sealed) < _HEADER.size or sealed[0] != _FORMAT:
        return None
    number: int = _HEADER.unpack(sealed[: _HEADER.size])[1]
    return number


@lru_cache(maxsize=1024)
def _bound(head: bytes, place: str) -> bytes:
    return head + place.encode()

"""Where the sealing keys are kept: in a file outside the database, or in a setting for many machines.

The file has one key a line, `number:64 hexadecimal digits`, and names the one database whose keys these are; only
its owner can read it. Every change writes a new
file beside it and gives it the name, so that a cut leaves the old keys or the new ones and never none; the file
that had the name is overwritten, after a cut by the next change.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

from models.errors import SealingKeyError
from models.sealing import KEY_BYTES, WAY_OUT, KeyRing
from models.settings import Settings

_LINE: Final = re.compile(rf"([1-9][0-9]{{0,8}}):([0-9a-fA-F]{{{KEY_BYTES * 2}}})")
_FILE_BYTES_MAX: Final = 64 * 1024
_HEAD: Final = "# The keys that personal data is sealed with. Keep a copy apart from every copy of the database.\n"
_OWNER: Final = re.compile(r"^database:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$", re.MULTILINE)
# Names that nobody gives a copy: whatever has them is overwritten.
_NEW: Final = ".being-written"
_OLD: Final = ".being-destroyed"
_RING: Final = "ring"

_in_use: Final[dict[str, KeyRing]] = {}
"""The one ring by its name: a dict, because of several threads that find none the first one's stays."""


def ring() -> KeyRing:
    """Give the keys in use, read once per process, or again where `follow` or a value asks for newer ones.

    Raises:
        SealingKeyError: there are none, or they cannot be used.
    """
    return _in_use.get(_RING) or _in_use.setdefault(_RING, read_ring())


def read_ring() -> KeyRing:
    """Read the keys anew.

    Raises:
        SealingKeyError: there are none, or they cannot be used.
    """
    settings = Settings()
    keys = read_keys(settings)
    if keys is None:
        raise SealingKeyError(f"the key file {settings.key_file} is missing; {WAY_OUT}")
    return KeyRing(keys)


def use_ring(held: KeyRing | None) -> None:
    """Let this process use these keys; None lets the next use read them."""
    if held is None:
        _in_use.pop(_RING, None)
    else:
        _in_use[_RING] = held


def open_sealed(place: str, sealed: bytes) -> str:
    """Open a value; one that another process sealed with a newer key, too.

    Raises:
        SealingKeyError: its key is nowhere.
        SealedValueError: it was altered or moved.
    """
    held = ring()
    try:
        return held.open(place, sealed)
    except SealingKeyError:
        # Which key seals is for `follow` alone to say: another thread may have turned meanwhile.
        held.learn(read_ring())
    return held.open(place, sealed)


def read_keys(settings: Settings) -> dict[int, bytes] | None:
    """Read the keys that the settings name, by number; None when the file is not there.

    Raises:
        SealingKeyError: they cannot be read, others could read them, or they are no keys.
    """
    given = settings.sealing_keys.get_secret_value()
    if given:
        return _parse(given.replace(",", "\n"), "DRIVEPOST_SEALING_KEYS")
    path = settings.key_file
    try:
        read = _read_private(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SealingKeyError(f"the key file {path} cannot be read: {error.strerror}") from None
    if len(read) > _FILE_BYTES_MAX:
        raise SealingKeyError(f"the key file {path} is longer than {_FILE_BYTES_MAX:,} bytes; {WAY_OUT}")
    return _parse(read.decode("ascii", "replace"), f"the key file {path}")


def _read_private(path: Path) -> bytes:
    """Read a file that only its owner can read; no more than one byte too many."""
    while True:
        # Before it is opened: to open a pipe would be to wait for whoever writes into it.
        _require_private(path, path.stat())
        with path.open("rb") as file:
            opened = os.fstat(file.fileno())
            _require_private(path, opened)
            read = file.read(_FILE_BYTES_MAX + 1)
        # One that lost its name meanwhile is being overwritten.
        if os.path.samestat(opened, path.stat()):
            return read


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SealingKeyError(f"the key file {path} is no file; name one in DRIVEPOST_SEALING_KEY_FILE")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise SealingKeyError(f"the key file {path} has mode {mode:04o}, so that others may read it; chmod 600 it")
    if status.st_uid not in {0, os.geteuid()}:
        raise SealingKeyError(
            f"the key file {path} belongs to another user; chown it to the one that runs Drivepost"
        )


def _parse(text: str, where: str) -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    for line in text.splitlines():
        written = line.strip()
        if not written or written.startswith("#") or _OWNER.fullmatch(written):
            continue
        found = _LINE.fullmatch(written)
        if found is None or int(found[1]) in keys:
            raise SealingKeyError(
                f"{where} must hold keys alone, each as number:{KEY_BYTES * 2} hexadecimal digits and no number "
                f"twice; {WAY_OUT}"
            )
        keys[int(found[1])] = bytes.fromhex(found[2])
    if not keys:
        raise SealingKeyError(f"{where} holds no key; {WAY_OUT}")
    return keys


def read_owner(settings: Settings) -> UUID | None:
    """Read whose key file it is: the id of its database; None where it is nobody's yet, or where there is none.

    Raises:
        SealingKeyError: it cannot be read.
    """
    if settings.sealing_keys.get_secret_value() or read_keys(settings) is None:
        return None
    return _owner(settings.key_file)


def _owner(path: Path) -> UUID | None:
    found = _OWNER.search(path.read_text("ascii", "replace"))
    return UUID(found[1]) if found else None


def claim_keys(settings: Settings, owner: UUID) -> None:
    """Let the key file be that of one database, because another one's rotation would destroy its keys.

    Raises:
        SealingKeyError: the file cannot be read or written.
    """
    if settings.sealing_keys.get_secret_value() or read_owner(settings) is not None:
        return
    with _changing(settings) as path:
        keys = read_keys(settings)
        if keys is not None and _owner(path) is None:
            _write(path, keys, owner)


def create_keys(settings: Settings) -> dict[int, bytes]:
    """Make the key file with its first key; where another start was first, its keys are taken.

    Raises:
        SealingKeyError: it cannot be written.
    """
    with _changing(settings) as path:
        return read_keys(settings) or _write(path, {1: secrets.token_bytes(KEY_BYTES)})


def add_key(settings: Settings, number: int) -> None:
    """Add a new key under a number; harmless when there is one.

    Raises:
        SealingKeyError: the file is missing, or cannot be read or written.
    """
    with _changing(settings) as path:
        keys = read_keys(settings)
        if keys is None:
            # A file of the new key alone would hide that the others are gone.
            raise SealingKeyError(f"the key file {path} is missing; {WAY_OUT}")
        if number not in keys:
            _write(path, {**keys, number: secrets.token_bytes(KEY_BYTES)})


def destroy_keys(settings: Settings, below: int) -> None:
    """Overwrite and remove every key of a number below one; harmless when there is none.

    Raises:
        SealingKeyError: the file cannot be read or written.
    """
    with _changing(settings) as path:
        keys = read_keys(settings) or {}
        kept = {number: key for number, key in keys.items() if number >= below}
        if kept and len(kept) < len(keys):
            _write(path, kept)


def erase_file(path: Path) -> None:
    """Overwrite a file with zeros and remove it; harmless when it is gone.

    A disk or file system that writes elsewhere may still hold what was there.
    """
    try:
        with path.open("r+b") as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0:
                left -= file.write(bytes(min(left, _FILE_BYTES_MAX)))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)


@contextmanager
def _changing(settings: Settings) -> Iterator[Path]:
    """Let one process at a time change the file; gives its path. What a change before left is ended first."""
    path = settings.key_file
    try:
        # What is replaced must be the file, and not a link to it.
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_name(path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _end_cut_change(path)
            yield path
    except OSError as error:
        raise SealingKeyError(f"the key file {path} cannot be written: {error.strerror}") from None


def _end_cut_change(path: Path) -> None:
    erase_file(path.with_name(path.name + _NEW))
    old = path.with_name(path.name + _OLD)
    if not (old.exists() and path.exists()):
        return
    if old.samefile(path):
        # It was cut before the new file had the name: these are the keys in use.
        old.unlink()
    else:
        erase_file(old)


def _write(path: Path, keys: Mapping[int, bytes], owner: UUID | None = None) -> dict[int, bytes]:
    aside, old = path.with_name(path.name + _NEW), path.with_name(path.name + _OLD)
    owner = owner or (_owner(path) if path.exists() else None)
    lines = f"database:{owner}\n" if owner else ""
    lines += "".join(f"{number}:{key.hex()}\n" for number, key in sorted(keys.items()))
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_HEAD + lines)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        # By this name the next change finds what had the name before, should this one be cut.
        os.link(path, old)
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    erase_file(old)
    return dict(keys)

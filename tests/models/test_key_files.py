"""The key file: made once, kept from others, changed without a moment in which there is none, and overwritten."""

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from stat import S_IMODE
from time import sleep
from typing import Any, BinaryIO, Final

import pytest

from models import key_files
from models.errors import SealedValueError, SealingKeyError
from models.key_files import (
    add_key,
    create_keys,
    destroy_keys,
    erase_file,
    open_sealed,
    read_keys,
    read_ring,
    ring,
    use_ring,
)
from models.sealing import KEY_BYTES, KeyRing, number_of
from models.settings import Settings

PLACE: Final = "drive.bit_locker_key"
TEXT: Final = "238810-662376"
KEYS: Final = {number: bytes([0xA0 + number]) * KEY_BYTES for number in range(1, 10)}
"""Keys whose digits no text of ours has."""


class Cut(BaseException):
    """The process is gone."""


@pytest.fixture(autouse=True)
def no_ring() -> Iterator[None]:
    """No test begins with the keys of another."""
    use_ring(None)
    yield
    use_ring(None)


@pytest.fixture
def path(data_directory: Path) -> Path:
    """Where the settings have the key file; it is not there yet."""
    assert Settings().key_file == data_directory / "keys" / "sealing.keys"
    return Settings().key_file


@pytest.fixture
def key_file(path: Path) -> Path:
    """A key file with the keys 1 and 2."""
    return write(path, written(1, 2))


def written(*numbers: int) -> str:
    """Write keys down as the file has them."""
    return "".join(f"{number}:{KEYS[number].hex()}\n" for number in numbers)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Put a key file there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(act: Callable[[], object], match: str) -> str:
    """Expect a refusal; gives all that it says, which is never anything of a key."""
    with pytest.raises(SealingKeyError, match=match) as error:
        act()
    told = f"{error.value} {error.value!r} {error.value.__cause__!r} {error.value.line}"
    assert not re.search(r"[0-9a-fA-F]{16}", told), told
    return told


def files_of(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder; the lock, which says nothing, aside."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def test_the_first_start_makes_a_key_that_only_its_owner_can_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask; one key of 32 bytes, number 1; no more."""
    assert read_keys(Settings()) is None
    before = os.umask(0)
    try:
        made = create_keys(Settings())
    finally:
        os.umask(before)
    assert S_IMODE(path.stat().st_mode) == 0o600
    assert S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(made) == [1]
    assert len(made[1]) == KEY_BYTES
    assert len(set(made[1])) > 8
    assert read_keys(Settings()) == made
    assert path.stat().st_nlink == 1
    assert list(files_of(path.parent)) == ["sealing.keys"]
    assert re.fullmatch(r"#[^\n]+\n1:[0-9a-f]{64}\n", path.read_text())


def test_a_second_start_takes_the_keys_that_are_there(key_file: Path) -> None:
    """And changes nothing."""
    before = key_file.read_bytes(), key_file.stat()
    assert create_keys(Settings()) == {1: KEYS[1], 2: KEYS[2]}
    assert (key_file.read_bytes(), key_file.stat().st_ino) == (before[0], before[1].st_ino)


def test_no_two_first_starts_make_the_same_key(path: Path) -> None:
    """Each is random."""
    made = set()
    for _ in range(20):
        made.add(create_keys(Settings())[1])
        path.unlink()
    assert len(made) == 20


def test_processes_that_start_at_once_make_one_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them get the same, and it is the one of the file, however long each takes to make its own."""
    random = secrets.token_bytes

    def slow(count: int) -> bytes:
        sleep(0.1)
        return random(count)

    monkeypatch.setattr(secrets, "token_bytes", slow)
    processes = get_context("fork")
    gate, made = processes.Barrier(4), processes.SimpleQueue()

    def start() -> None:
        gate.wait(timeout=30)
        try:
            made.put(create_keys(Settings()))
        except Exception as error:  # noqa: BLE001  it is what the test asks about
            made.put(error)

    started = [processes.Process(target=start) for _ in range(4)]
    for process in started:
        process.start()
    told = [made.get() for _ in started]
    for process in started:
        process.join(timeout=30)
    assert told == [read_keys(Settings())] * 4
    assert list(files_of(path.parent)) == ["sealing.keys"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_only_its_owner_can_read_is_taken(path: Path, mode: int) -> None:
    """Also one that cannot be written."""
    write(path, written(1), mode)
    assert read_keys(Settings()) == {1: KEYS[1]}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o620, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_file_that_others_can_read_write_or_run_is_refused(path: Path, mode: int) -> None:
    """By everyone who reads or changes it; the text says what would have worked, and the file stays."""
    write(path, written(1, 2), mode)
    for act in (
        lambda: read_keys(Settings()),
        read_ring,
        ring,
        lambda: create_keys(Settings()),
        lambda: add_key(Settings(), 3),
        lambda: destroy_keys(Settings(), below=2),
    ):
        told = refused(act, f"has mode {mode:04o}, so that others may read it; chmod 600 it$")
        assert str(path) in told
    assert path.read_text() == written(1, 2)
    assert S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    ("owner", "user", "is_taken"), [(1000, 1000, True), (0, 1000, True), (1001, 1000, False), (1000, 0, False)]
)
def test_a_file_of_another_user_is_refused(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int, is_taken: bool
) -> None:
    """It is ours, or root's, who may read all of them anyway."""
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        return os.stat_result([*found[:4], owner, *found[5:]])

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result([*os.stat(path)[:4], owner, *os.stat(path)[5:]]))  # noqa: PTH116
    if is_taken:
        assert read_keys(Settings()) == {1: KEYS[1], 2: KEYS[2]}
    else:
        refused(lambda: read_keys(Settings()), "belongs to another user; chown it to the one that runs Drivepost$")


def test_what_is_no_file_is_refused_and_not_waited_for(path: Path) -> None:
    """A folder, a pipe that nobody writes into, a socket, a device."""
    path.parent.mkdir(mode=0o700)
    path.mkdir(mode=0o700)
    refused(lambda: read_keys(Settings()), "is no file; name one in DRIVEPOST_SEALING_KEY_FILE$")
    path.rmdir()
    os.mkfifo(path, 0o600)
    refused(lambda: read_keys(Settings()), "is no file; name one in DRIVEPOST_SEALING_KEY_FILE$")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(path.parent, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        path.chmod(0o600)
        refused(lambda: read_keys(Settings()), "is no file; name one in DRIVEPOST_SEALING_KEY_FILE$")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(lambda: read_keys(Settings()), "is no file; name one in DRIVEPOST_SEALING_KEY_FILE$")


def test_a_file_that_cannot_be_reached_is_refused(path: Path, data_directory: Path) -> None:
    """It may be there, so that no other is made in its place."""
    (data_directory / "keys").write_text("a file")
    refused(lambda: read_keys(Settings()), "cannot be read: Not a directory$")
    refused(lambda: create_keys(Settings()), "cannot be written: (Not a directory|File exists)$")
    (data_directory / "keys").unlink()
    path.parent.mkdir()
    path.symlink_to(path)
    refused(lambda: read_keys(Settings()), "cannot be read: Too many levels of symbolic links$")


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "\n\n",
        "# a remark alone\n",
        f"1:{'ab' * 31}\n",
        f"1:{'ab' * 33}\n",
        f"1:{'ab' * 31}ag\n",
        f"1:{'ab' * 16}",
        f"{'ab' * 32}\n",
        f"0:{'ab' * 32}\n",
        f"01:{'ab' * 32}\n",
        f"-1:{'ab' * 32}\n",
        f"1234567890:{'ab' * 32}\n",
        f"one:{'ab' * 32}\n",
        f"1;{'ab' * 32}\n",
        f"1:{'ab' * 32} # mine\n",
        f"1:{'ab' * 32}\n2:\n",
        f"1:{'ab' * 32}\n2:{'cd' * 32}\n1:{'ab' * 32}\n",
        f"1:{'ab' * 32}2:{'cd' * 32}\n",
        f"\ufeff1:{'ab' * 32}\n",
        f"1:{'ab' * 32}\n\0\0\0\0",
        f"\u0661:{'ab' * 32}\n",
        "\0" * 69,
        "Ada Example\n",
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_what_holds_other_than_keys_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, is_file: bool
) -> None:
    """Whole: a damaged file is not half taken, nor written anew. The text shows nothing of what stands there."""
    if is_file:
        write(path, damaged)
    elif not damaged or "\0" in damaged:
        return  # empty gives no keys by the setting, and no environment holds a zero
    else:
        monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", damaged)
    where = "the key file .*/sealing.keys" if is_file else "DRIVEPOST_SEALING_KEYS"
    told = refused(lambda: read_keys(Settings()), rf"^{where} (must hold keys alone, each as|holds no key;)")
    assert "put the key file back from its backup" in told
    assert "Ada" not in told
    if is_file:
        for act in (
            lambda: create_keys(Settings()),
            lambda: add_key(Settings(), 2),
            lambda: destroy_keys(Settings(), below=9),
        ):
            refused(act, "holds? ")
        assert path.read_text() == damaged


def test_a_file_is_taken_as_people_write_it(path: Path) -> None:
    """With remarks, empty lines, spaces around, large digits, in any order, without an end of the last line."""
    write(path, f"# ours\r\n\r\n  2:{KEYS[2].hex().upper()}  \r\n\t1:{KEYS[1].hex()}")
    assert read_keys(Settings()) == {1: KEYS[1], 2: KEYS[2]}


def test_a_file_that_is_too_long_is_refused_whole(path: Path) -> None:
    """Not read up to somewhere: the next change would drop the keys after it."""
    remark = "# " + "x" * 97 + "\n"
    longest = remark * 654 + written(1)
    write(path, longest + "#" * (64 * 1024 - len(longest)))
    assert path.stat().st_size == 64 * 1024
    assert read_keys(Settings()) == {1: KEYS[1]}
    for more in ("#", "\n" + written(2), remark * 100_000):
        write(path, longest + "#" * (64 * 1024 - len(longest)) + more)
        refused(lambda: read_keys(Settings()), "sealing.keys is longer than 65,536 bytes; put the key file back")
        refused(lambda: add_key(Settings(), 3), "is longer than")


def test_the_setting_gives_several_keys_and_the_file_is_not_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest number seals; a file is neither read, nor made, nor changed."""
    write(path, "no keys at all", 0o666)
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", f"7:{KEYS[7].hex()}, 3:{KEYS[3].hex()},\n5:{KEYS[5].hex()}")
    assert read_keys(Settings()) == {7: KEYS[7], 3: KEYS[3], 5: KEYS[5]}
    assert read_ring().sealing_number == ring().sealing_number == 7
    assert read_ring().numbers == {3, 5, 7}
    assert path.read_text() == "no keys at all"
    path.unlink()
    assert read_keys(Settings()) is not None
    assert not path.exists()
    assert KEYS[7].hex() not in repr(Settings())


def test_an_empty_setting_means_the_file(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of spaces alone was meant to hold keys, and is refused."""
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", "")
    assert read_keys(Settings()) == {1: KEYS[1], 2: KEYS[2]}
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", "  ")
    refused(lambda: read_keys(Settings()), "^DRIVEPOST_SEALING_KEYS holds no key")


def test_the_file_may_be_elsewhere(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a setting; the usual place stays empty."""
    monkeypatch.setenv("DRIVEPOST_SEALING_KEY_FILE", str(tmp_path / "deep" / "er" / "mine"))
    made = create_keys(Settings())
    assert read_keys(Settings()) == made
    assert (tmp_path / "deep" / "er" / "mine").exists()
    assert not path.parent.exists()


def test_without_keys_nothing_seals_or_opens(path: Path) -> None:
    """The text names the file and the way out."""
    told = refused(ring, "sealing.keys is missing; put the key file back from its backup")
    assert str(path) in told
    refused(read_ring, "is missing")


def test_keys_are_read_once_and_again_when_asked(key_file: Path) -> None:
    """A process goes on with what it read."""
    held = ring()
    key_file.unlink()
    assert ring() is held
    use_ring(None)
    refused(ring, "is missing")
    given = KeyRing({4: KEYS[4]})
    use_ring(given)
    assert ring() is given


def test_a_value_of_a_newer_key_is_opened(key_file: Path) -> None:
    """By a process that read the keys before; it seals with its own key until it follows."""
    held = ring()
    write(key_file, written(1, 2, 3))
    assert open_sealed(PLACE, KeyRing({3: KEYS[3]}).seal(PLACE, TEXT)) == TEXT
    assert ring() is held
    assert held.numbers == {1, 2, 3}
    assert number_of(ring().seal(PLACE, TEXT)) == 2
    refused(lambda: open_sealed(PLACE, KeyRing({9: KEYS[9]}).seal(PLACE, TEXT)), "sealed with key 9, which is not")
    with pytest.raises(SealedValueError):
        open_sealed(PLACE, b"no sealed value")


def test_a_reader_does_not_undo_what_a_writer_turned_to(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late it comes with the keys that it read before: else this process would seal with a dead key."""
    use_ring(KeyRing({1: KEYS[1]}))
    sealed = KeyRing({2: KEYS[2]}).seal(PLACE, TEXT)
    turned = KeyRing({2: KEYS[2]})

    def turn_meanwhile() -> KeyRing:
        read = KeyRing({1: KEYS[1], 2: KEYS[2]})
        use_ring(turned)
        return read

    monkeypatch.setattr(key_files, "read_ring", turn_meanwhile)
    assert open_sealed(PLACE, sealed) == TEXT
    assert ring() is turned
    assert number_of(ring().seal(PLACE, TEXT)) == 2
    use_ring(None)
    assert ring() is turned, "the first one to read keeps what another one turned to"


def test_a_new_key_comes_beside_the_old_ones(key_file: Path) -> None:
    """Random, as private as before; asked twice there is one."""
    add_key(Settings(), 3)
    keys = read_keys(Settings())
    assert keys is not None
    assert {**keys, 3: b""} == {1: KEYS[1], 2: KEYS[2], 3: b""}
    assert len(keys[3]) == KEY_BYTES
    assert S_IMODE(key_file.stat().st_mode) == 0o600
    before = key_file.read_bytes()
    add_key(Settings(), 3)
    assert key_file.read_bytes() == before
    assert list(files_of(key_file.parent)) == ["sealing.keys"]


def test_no_key_is_added_to_a_file_that_is_gone(path: Path) -> None:
    """A file of the new key alone would hide that the others are lost."""
    refused(lambda: add_key(Settings(), 2), "sealing.keys is missing; put the key file back")
    assert not path.exists()


@pytest.mark.parametrize("below", [0, 1])
def test_keys_from_a_number_on_are_kept(key_file: Path, below: int) -> None:
    """When none is below it, the file stays as it is."""
    before = key_file.stat().st_ino, key_file.read_bytes()
    destroy_keys(Settings(), below=below)
    assert (key_file.stat().st_ino, key_file.read_bytes()) == before


def test_keys_below_a_number_are_destroyed(path: Path) -> None:
    """And those from it on are kept; twice."""
    write(path, written(5, 1, 2, 3))
    for _ in range(2):
        destroy_keys(Settings(), below=3)
        assert read_keys(Settings()) == {3: KEYS[3], 5: KEYS[5]}
        assert S_IMODE(path.stat().st_mode) == 0o600
        assert list(files_of(path.parent)) == ["sealing.keys"]


def test_the_last_key_is_never_destroyed(key_file: Path) -> None:
    """Whatever is asked: a file without a key would be one without data."""
    destroy_keys(Settings(), below=3)
    assert read_keys(Settings()) == {1: KEYS[1], 2: KEYS[2]}


def test_there_may_be_no_file_to_destroy_keys_in(path: Path) -> None:
    """Then none is made."""
    destroy_keys(Settings(), below=3)
    assert not path.exists()


def test_what_had_the_name_is_overwritten(key_file: Path) -> None:
    """Every file that ever held the key, on the disk itself: who has it open still finds zeros."""
    opened = [key_file.open("rb")]
    size = key_file.stat().st_size
    add_key(Settings(), 3)
    opened.append(key_file.open("rb"))
    destroy_keys(Settings(), below=2)
    opened.append(key_file.open("rb"))
    add_key(Settings(), 4)
    first, second, third = (file.read() for file in opened)
    assert first == bytes(size)
    assert set(second) == set(third) == {0}
    for file in opened:
        assert os.fstat(file.fileno()).st_nlink == 0
        file.close()
    assert set(read_keys(Settings()) or ()) == {2, 3, 4}


def test_a_file_is_erased_to_its_end(tmp_path: Path) -> None:
    """Longer ones than a piece too; what is gone is no error."""
    path = tmp_path / "long"
    path.write_bytes(b"x" * 150_001)
    with path.open("rb") as opened:
        erase_file(path)
        assert opened.read() == bytes(150_001)
    assert not path.exists()
    erase_file(path)


def test_a_file_behind_a_link_is_changed_and_the_link_stays(path: Path, tmp_path: Path) -> None:
    """The keys are where the link says, and are overwritten there."""
    real = write(tmp_path / "elsewhere" / "keys", written(1, 2))
    path.parent.mkdir()
    path.symlink_to(real)
    with real.open("rb") as before:
        destroy_keys(Settings(), below=2)
        assert set(before.read()) == {0}
    assert path.is_symlink()
    assert read_keys(Settings()) == {2: KEYS[2]}
    assert "2:" in real.read_text()
    assert list(files_of(real.parent)) == ["keys"]


def test_whoever_reads_while_keys_are_replaced_gets_the_new_ones(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had opened is zeros by the time that it reads."""
    opened: list[Path] = []
    opening = Path.open

    def replaced_meanwhile(path: Path, *args: Any, **kwargs: Any) -> Any:
        file = opening(path, *args, **kwargs)
        if path == key_file and args == ("rb",) and not opened:
            opened.append(path)
            destroy_keys(Settings(), below=2)
        return file

    monkeypatch.setattr(Path, "open", replaced_meanwhile)
    assert read_keys(Settings()) == {2: KEYS[2]}
    assert opened


def test_what_is_opened_is_what_is_checked(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another file got the name right before."""
    opening = Path.open

    def exchanged_before(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == key_file:
            write(path.with_name("other"), written(3), 0o644).replace(path)
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", exchanged_before)
    refused(lambda: read_keys(Settings()), "has mode 0644, so that others may read it")


def test_each_step_of_a_change_is_on_the_disk_before_the_next(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file before it has the name, the name before the old file is overwritten, the zeros last."""
    told: list[str] = []
    fsync, link, replace, unlink = os.fsync, os.link, Path.replace, Path.unlink

    def note_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        told.append(f"sync {name}")
        if name == "sealing.keys.being-written":
            assert written(2) in key_file.with_name(name).read_text()
        if name == "sealing.keys.being-destroyed":
            assert set(key_file.with_name(name).read_bytes()) == {0}
        fsync(descriptor)

    def note_link(first: Path, second: Path) -> None:
        told.append("link")
        link(first, second)

    def note_replace(path: Path, target: Path) -> None:
        told.append("replace")
        replace(path, target)

    def note_unlink(path: Path, *, missing_ok: bool = False) -> None:
        told.append("unlink")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(Path, "replace", note_replace)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    destroy_keys(Settings(), below=2)
    assert told == [
        "sync sealing.keys.being-written",
        "link",
        "replace",
        "sync keys",
        "sync sealing.keys.being-destroyed",
        "unlink",
    ]


STEPS: Final = ("fdopen", "link", "replace", "folder", "erase", "unlink")


def cut_at(step: str, at: str, patch: pytest.MonkeyPatch) -> None:
    """Let the process die right before or right after a step of a change."""
    fsyncs = 0

    def dying(act: Callable[..., Any], is_it: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        def died(*args: Any, **kwargs: Any) -> Any:
            if not is_it(*args):
                return act(*args, **kwargs)
            if at == "after":
                act(*args, **kwargs)
            raise Cut

        return died

    def is_folder(descriptor: int) -> bool:
        nonlocal fsyncs
        fsyncs += 1
        return fsyncs == 2

    holder, name, is_it = {
        "fdopen": (os, "fdopen", lambda *_: True),
        "link": (os, "link", lambda *_: True),
        "replace": (Path, "replace", lambda *_: True),
        "folder": (os, "fsync", is_folder),
        "erase": (key_files, "erase_file", lambda path: path.exists()),
        "unlink": (Path, "unlink", lambda *_: True),
    }[step]
    patch.setattr(holder, name, dying(getattr(holder, name), is_it))


def change(name: str) -> None:
    """Change the keys 1 and 2 to what the table says."""
    if name == "add":
        add_key(Settings(), 3)
    else:
        destroy_keys(Settings(), below=2)


@pytest.mark.parametrize("name", ["add", "destroy"])
@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_change_cut_anywhere_leaves_usable_keys_and_is_ended_by_the_next(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, step: str, at: str, name: str
) -> None:
    """Before and after each step: the old keys or the new ones; then the new ones, and nothing beside them.

    No byte of what had the name stays anywhere, for those who have it open.
    """
    kept = {2: KEYS[2]} if name == "destroy" else {1: KEYS[1], 2: KEYS[2]}
    first = key_file.open("rb")
    with monkeypatch.context() as patch:
        cut_at(step, at, patch)
        with pytest.raises(Cut):
            change(name)
    left = [path.open("rb") for path in key_file.parent.iterdir() if path.suffix != ".lock"]
    found = read_keys(Settings())
    assert found is not None
    assert found.items() >= kept.items()
    assert S_IMODE(key_file.stat().st_mode) == 0o600
    change(name)
    after = read_keys(Settings())
    assert after is not None
    assert {**after, 3: b""} == {**kept, 3: b""}
    assert (3 in after) is (name == "add")
    assert list(files_of(key_file.parent)) == ["sealing.keys"]
    assert key_file.stat().st_nlink == 1
    assert_overwritten([first, *left], key_file)


def assert_overwritten(opened: list[BinaryIO], living: Path) -> None:
    """Look into files that were open before: zeros alone, unless one is the key file itself."""
    for file in opened:
        if os.fstat(file.fileno()).st_ino != living.stat().st_ino:
            assert set(file.read()) <= {0}
        file.close()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_cut_change_is_ended_by_any_other(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, step: str, at: str
) -> None:
    """Also by one that has nothing to change; the keys in use are never taken for what is left of a change."""
    with monkeypatch.context() as patch:
        cut_at(step, at, patch)
        with pytest.raises(Cut):
            destroy_keys(Settings(), below=2)
    found = read_keys(Settings())
    for act in (lambda: destroy_keys(Settings(), below=1), lambda: create_keys(Settings())):
        act()
        assert read_keys(Settings()) == found
        assert list(files_of(key_file.parent)) == ["sealing.keys"]
    add_key(Settings(), 3)
    destroy_keys(Settings(), below=3)
    assert set(read_keys(Settings()) or ()) == {3}
    assert list(files_of(key_file.parent)) == ["sealing.keys"]


def test_a_first_start_that_was_cut_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file by another name is no key file."""
    for step in ("fdopen", "replace"):
        for at in ("before", "after"):
            with monkeypatch.context() as patch:
                cut_at(step, at, patch)
                with pytest.raises(Cut):
                    create_keys(Settings())
            if (step, at) != ("replace", "after"):
                assert read_keys(Settings()) is None
    assert create_keys(Settings()) == read_keys(Settings())
    assert list(files_of(path.parent)) == ["sealing.keys"]


def test_the_old_file_is_not_erased_where_the_key_file_is_gone(key_file: Path) -> None:
    """Somebody took it away, and this may be the last there is of the keys."""
    old = key_file.rename(key_file.with_name("sealing.keys.being-destroyed"))
    destroy_keys(Settings(), below=2)
    refused(lambda: add_key(Settings(), 3), "is missing")
    assert old.read_text() == written(1, 2)


def test_a_folder_that_cannot_be_written_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the system says; there is no file then."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    told = refused(lambda: create_keys(Settings()), "sealing.keys cannot be written: No space left on device$")
    assert str(path) in told
    assert read_keys(Settings()) is None

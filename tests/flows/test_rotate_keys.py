"""rotate-keys: cut before and after each act and run again it ends the same, and the old key is gone."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any, Final

import pytest
from prefect.client.schemas.objects import State
from sqlmodel import col, select

import flows.rotate_keys as module
from flows.rotate_keys import finish_rotation, rotate_keys
from models.database import engine, reading, writing
from models.drives import Drive
from models.key_files import read_keys, use_ring
from models.rotation import Turned, sealed_tables, turn_key
from models.sealing import KEY_BYTES
from models.sealing_keys import SealingKey
from models.settings import Settings
from models.shipping import Package
from tasks import sealing
from tasks.sealing import destroy_retired_keys, find_dropped_rotation
from tests.builders import NOON, at_once
from tests.models.test_rotation import everything, fill, kept, key_numbers, known, save_address
from tests.models.test_sealing_keys import wait_until_waiting

ACTS: Final = ("turn_to_new_key", "tables_to_reseal", "reseal_part", "retire_older_keys", "destroy_retired_keys")


class Cut(BaseException):
    """The run is gone."""


class Cutter:
    """Counts the acts that a run comes to, and cuts it at one; `at` is twice its number, one more after."""

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.acts: list[str] = []

    def point(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Make an act a point."""

        def cuttable(*args: Any) -> Any:
            number = 2 * len(self.acts)
            self.acts.append(name)
            if number == self.at:
                raise Cut
            done = act(*args)
            if number + 1 == self.at:
                raise Cut
            return done

        return cuttable


def run(monkeypatch: pytest.MonkeyPatch, cutter: Cutter) -> State[Any] | None:
    """Run the flow with every act a point; None if it was cut."""
    with monkeypatch.context() as points:
        for name in ACTS:
            points.setattr(module, name, cutter.point(name, getattr(sealing, name).fn))
        try:
            return rotate_keys.fn()
        except Cut:
            return None


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows a transaction, and three an act."""
    monkeypatch.setenv("DRIVEPOST_RESEALING_BATCH_ROWS", "2")
    monkeypatch.setattr(module, "_ROWS_PER_TASK", 3)


def test_everything_is_sealed_anew_and_the_old_key_destroyed(any_database: str, plain_acts: None) -> None:
    """The end says how much, and which key; run again, there is another one."""
    fill("job1")
    save_address()
    before = everything()
    for newest in (2, 3):
        ended = rotate_keys.fn()
        assert ended.is_completed()
        assert ended.message == (
            f"8 rows are sealed anew with key {newest}; key {newest - 1} is destroyed; back up both anew"
        )
        assert key_numbers() == {newest}
        assert known() == kept() == [newest]
        assert everything() == before


def test_an_empty_database_may_be_rotated(any_database: str, plain_acts: None) -> None:
    """What was deleted before may be all there was."""
    ended = rotate_keys.fn()
    assert (ended.name, ended.message) == (
        "Completed",
        "0 rows are sealed anew with key 2; key 1 is destroyed; back up both anew",
    )
    assert known() == kept() == [2]


def test_a_rotation_cut_before_or_after_any_act_ends_the_same(
    any_database: str, small_batches: None, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    """Each cut in turn, then run again: all that lives reads as before, with one key, and no older one is there.

    Where it had turned the run goes on with that key; where it was over but for saying so, there is a new one.
    """
    fill("job1", drives=3)
    save_address()
    before = everything()
    uncut = Cutter()
    assert run(monkeypatch, uncut) is not None
    assert set(uncut.acts) == set(ACTS)
    assert uncut.acts.count("reseal_part") == 7
    newest = 2
    # On PostgreSQL a sample will do; of before and after alike.
    step = 1 if thorough or any_database.startswith("sqlite") else 3
    for at in range(0, 2 * len(uncut.acts), step):
        gone = {number: key for number, key in (read_keys(Settings()) or {}).items() if number <= newest}
        cutter = Cutter(at)
        assert run(monkeypatch, cutter) is None
        where = (at, cutter.acts[-1])
        assert everything() == before, where
        ended = run(monkeypatch, Cutter())
        assert ended is not None
        assert ended.is_completed(), where
        # Where the old key was forgotten before the cut, the rotation was over but for destroying it.
        newest += 2 if at >= 2 * uncut.acts.index("retire_older_keys") + 1 else 1
        assert known() == kept() == [newest], where
        assert key_numbers() == {newest}, where
        assert everything() == before, where
        assert not found_in_key_folder(gone.values()), where


def found_in_key_folder(keys: Any) -> list[str]:
    """Look for keys in all files beside the key file."""
    return [
        path.name
        for path in Settings().key_file.parent.iterdir()
        for key in keys
        if key.hex().encode() in path.read_bytes().lower()
    ]


def test_rows_that_are_always_held_keep_the_key_and_the_run_says_so(
    postgresql: str, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up after some passes, as failed; once they are let go, the next one ends it."""
    slept: list[float] = []
    monkeypatch.setattr(module, "sleep", slept.append)
    fill("job1")
    before = everything()
    with reading() as holder:
        holder.exec(select(Package).with_for_update()).all()
        ended = rotate_keys.fn()
        assert ended.is_failed()
        assert ended.message == (
            "5 rows were sealed anew with key 2, and some are always held by somebody; advance-jobs goes on"
        )
        assert slept == [0, *[1.0] * 9], "it does not ask again at once"
        assert known() == kept() == [1, 2]
        holder.rollback()
    ended = finish_rotation(Turned(2, (1,)), 500)
    assert (ended.name, ended.message) == (
        "Completed",
        "2 rows are sealed anew with key 2; key 1 is destroyed; back up both anew",
    )
    assert known() == kept() == [2]
    assert everything() == before


def test_rows_that_a_write_holds_are_done_once_it_is_over(
    postgresql: str, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for it before it forgets a key, finds them, and goes over the tables once more."""
    fill("job1")
    before = everything()
    with writing() as session:
        turn_key(session, NOON)
    begun = Event()
    monkeypatch.setattr(module, "sleep", lambda _seconds: None)

    def write_slowly() -> None:
        with writing() as session:
            session.exec(select(Package).with_for_update()).all()
            begun.set()
            wait_until_waiting(1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(write_slowly)
        assert begun.wait(30)
        ended = finish_rotation(Turned(2, (1,)), 500)
        slow.result(timeout=30)
    assert ended.is_completed()
    assert str(ended.message).startswith("7 rows are sealed anew with key 2; key 1 is destroyed")
    assert known() == kept() == [2]
    assert everything() == before


def test_whoever_reads_an_old_state_can_read_it_to_its_end(
    sqlite: str, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite a reading sees what was when it began: the key that it needs is not destroyed meanwhile."""
    fill("job1")
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "0.05")
    monkeypatch.setattr(module, "sleep", lambda _seconds: None)
    engine().dispose()
    engine.cache_clear()
    with reading() as session:
        assert session.exec(select(col(Drive.number))).all() == [1, 2]
        ended = rotate_keys.fn()
        assert ended.is_failed()
        assert "advance-jobs goes on" in str(ended.message)
        assert known() == kept() == [1, 2]
        use_ring(None)
        assert session.exec(select(col(Drive.drive_id))).all() == ["job1-serial-1", "job1-last"]
    ended = rotate_keys.fn()
    assert (ended.name, ended.message) == (
        "Completed",
        "0 rows are sealed anew with key 2; key 1 is destroyed; back up both anew",
    )
    assert known() == kept() == [2]


def test_keys_of_a_setting_are_for_somebody_to_take_out(
    any_database: str, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First nothing is newer, then the old one is needed no more; the end says what to do each time."""
    fill("job1")
    before = everything()
    keys = read_keys(Settings())
    assert keys is not None
    first, second = f"1:{keys[1].hex()}", f"4:{'9a' * KEY_BYTES}"
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", first)
    nothing = (
        "nothing to do: DRIVEPOST_SEALING_KEYS has no key newer than {}; put one there on every machine, with a "
        "higher number, and run this again"
    )
    ended = rotate_keys.fn()
    assert (ended.name, ended.message) == ("Completed", nothing.format(1))
    assert key_numbers() == {1}
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", f"{first},{second}")
    ended = rotate_keys.fn()
    assert ended.is_completed()
    assert ended.message == (
        "7 rows are sealed anew with key 4; nothing needs key 1 any more: take it out of DRIVEPOST_SEALING_KEYS "
        "everywhere"
    )
    assert known() == [4]
    assert key_numbers() == {4}
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", second)
    assert everything() == before
    ended = rotate_keys.fn()
    assert (ended.name, ended.message) == ("Completed", nothing.format(4))
    monkeypatch.delenv("DRIVEPOST_SEALING_KEYS")
    assert kept() == [1], "the file is not asked as long as the setting is there"


def test_a_missing_key_file_ends_the_run_with_one_line(any_database: str, plain_acts: None) -> None:
    """And turns nothing."""
    Settings().key_file.unlink()
    use_ring(None)
    ended = rotate_keys.fn()
    assert ended.is_failed()
    assert re.fullmatch(
        "SealingKeyInvalid: the key file .*/sealing.keys is missing; put the key file back .*", str(ended.message)
    )
    assert known() == [1]


def test_retired_keys_are_destroyed_by_themselves_too(any_database: str, plain_acts: None) -> None:
    """As advance-jobs does where a run was cut right before; keys that are known stay, also while one turns."""
    fill("job1")
    destroy_retired_keys.fn()
    assert kept() == [1]
    with writing() as session:
        turn_key(session, NOON)
    assert destroy_retired_keys.fn()
    assert kept() == known() == [1, 2]
    for name in sealed_tables():
        sealing.reseal_part.fn(name, None, 10, 100)
    assert sealing.retire_older_keys.fn()
    assert kept() == [1, 2]
    assert destroy_retired_keys.fn()
    assert kept() == known() == [2]


def test_two_runs_at_once_end_well(any_database: str, plain_acts: None) -> None:
    """Neither waits for the other without end; they turn one key, or one after the other."""
    fill("job1")
    before = everything()
    for ended in at_once(rotate_keys.fn, rotate_keys.fn):
        assert isinstance(ended, State), ended
        assert ended.is_completed(), ended
    assert known() == kept()
    assert len(known()) == 1
    assert key_numbers() == set(known())
    assert everything() == before


def test_a_dropped_run_is_found_and_ended(
    any_database: str, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found is all that its end needs."""
    fill("job1")
    assert run(monkeypatch, Cutter(at=5)) is None
    with writing() as session:
        newest = session.get_one(SealingKey, 2)
        newest.in_use_since = NOON.replace(year=2000)
    dropped = find_dropped_rotation.fn(timedelta(hours=1))
    assert dropped == Turned(2, (1,))
    assert finish_rotation(dropped, 500).is_completed()
    assert find_dropped_rotation.fn(timedelta(hours=1)) is None
    assert known() == kept() == [2]

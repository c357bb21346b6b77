"""Which keys the database's values are sealed with, so that no process seals with one that is to be destroyed."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, LargeBinary, inspect, text
from sqlmodel import Field, Session, SQLModel

from models.columns import UtcDateTime
from models.errors import SealingKeyError
from models.key_files import claim_keys, create_keys, read_keys, read_owner, read_ring, ring, use_ring
from models.personal_data import impersonal
from models.sealing import WAY_OUT, KeyRing
from models.settings import Settings

_TURNING = 7_467_638  # any number that no other user of the database takes


class SealingKey(SQLModel, table=True):
    """A key in use: its number, and a proof by which a wrong key of that number is known; never the key.

    `database_id` is the same in every row: the key file names it.
    """

    __tablename__ = "sealing_key"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    proof: bytes = Field(sa_type=LargeBinary, sa_column_kwargs=impersonal())
    database_id: UUID = Field(sa_column_kwargs=impersonal())
    in_use_since: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


def require_keys(connection: Connection) -> None:
    """Refuse to start without every key that the database's values are sealed with; changes nothing.

    A database that knows no key yet is content with none, and with any that are nobody's.

    Raises:
        SealingKeyError: a key is missing or wrong; the text says which and what to do.
    """
    settings = Settings()
    # First whose file it is: whoever claims it has made itself known to the database before.
    owner = read_owner(settings)
    known = known_keys(connection)
    keys = read_keys(settings)
    if owner is not None and owner != (_database_id(connection) if known else None):
        raise SealingKeyError(
            f"the key file {settings.key_file} belongs to another database, whose keys a rotation would destroy; "
            "name another file in DRIVEPOST_SEALING_KEY_FILE, or remove this one if that database is gone for good"
        )
    if not known:
        return
    if keys is None:
        raise SealingKeyError(f"the key file {settings.key_file} is missing; {WAY_OUT}")
    _require_fit(KeyRing(keys), known)


def claim_key_file(connection: Connection) -> None:
    """Write into the key file that it is this database's; safe to repeat."""
    claim_keys(Settings(), _database_id(connection))


def _database_id(connection: Connection) -> UUID:
    return UUID(str(connection.execute(text("SELECT database_id FROM sealing_key")).scalars().first()))


def known_keys(connection: Connection) -> dict[int, bytes]:
    """Read the keys in use, number -> proof; none where the tables are of before there were any."""
    return _read_known(connection) if inspect(connection).has_table("sealing_key") else {}


def _read_known(connection: Connection) -> dict[int, bytes]:
    rows = connection.execute(text("SELECT number, proof FROM sealing_key"))
    return {number: bytes(proof) for number, proof in rows}


def _require_fit(held: KeyRing, known: Mapping[int, bytes]) -> None:
    if not known:
        raise SealingKeyError("the database knows no sealing key yet; run 'drivepost database upgrade'")
    for number, proof in sorted(known.items()):
        if number not in held.numbers:
            raise SealingKeyError(f"the database is sealed with key {number}, which is not there; {WAY_OUT}")
        if not held.fits(number, proof):
            raise SealingKeyError(f"key {number} is not the one that the database is sealed with; {WAY_OUT}")


def make_keys() -> None:
    """Make the first key, if there is none anywhere yet; `require_keys` was asked before.

    Raises:
        SealingKeyError: it cannot be written.
    """
    if read_keys(Settings()) is None:
        create_keys(Settings())
    use_ring(None)


def first_key() -> tuple[int, bytes]:
    """Tell what a database has to know of the key that seals first: its number and its proof."""
    held = ring()
    return held.sealing_number, held.prove()


def follow(session: Session) -> None:
    """Seal with the key that the database names as newest; first act of every transaction that writes.

    Whoever turns to a new key waits for the transactions that began before, so that none is still sealing with
    the old one when that is destroyed.

    Raises:
        SealingKeyError: a key is missing or wrong, or the database knows none.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:turning)"), {"turning": _TURNING})
    known = _read_known(connection)
    if not known or ring().proven != known:
        held = read_ring()
        _require_fit(held, known)
        held.turn_to(max(known))
        held.proven = known
        use_ring(held)


def exclude_writers(session: Session) -> None:
    """Wait until every transaction that writes is over, and let none begin until this one is.

    On SQLite a transaction that writes is alone from its beginning.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:turning)"), {"turning": _TURNING})

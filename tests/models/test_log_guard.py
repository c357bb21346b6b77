"""No log record says what this process sealed or opened, whoever logs and however; and logging goes on."""

import io
import logging
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any, Final
from uuid import uuid4

import pytest

from models import log_guard
from models.database import reading, writing
from models.key_files import ring
from models.lifecycle import JobState
from models.log_guard import guard_logs
from models.sealing import recent
from models.shipping import ReturnAddress
from tests.builders import job_in

NAME: Final = "Ada Quince"
EMAIL: Final = "ada@quince.example"
INSTEAD: Final = "[personal data]"


@pytest.fixture(autouse=True)
def factory() -> Iterator[None]:
    """Give the factory of log records back as it was, and what was sealed and opened."""
    before, told = logging.getLogRecordFactory(), recent.copy()
    recent.clear()
    # Whatever was imported before may have guarded this process.
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(before)
    recent.clear()
    recent.extend(told)


@pytest.fixture
def log(factory: None) -> io.StringIO:
    """A guarded process that has two texts in hand; gives what its log's one handler writes."""
    recent.extend([NAME, EMAIL])
    guard_logs()
    return handled()


def handled(name: str = "drivepost-tests") -> io.StringIO:
    """Let a logger write into a buffer alone, as a plain formatter does."""
    written = io.StringIO()
    logger = logging.getLogger(name)
    logger.handlers = [logging.StreamHandler(written)]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return written


LOGGER: Final = logging.getLogger("drivepost-tests")


def keep() -> list[logging.LogRecord]:
    """Keep the records that the handler writes."""
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            kept.append(record)
            return True

    LOGGER.handlers[0].addFilter(Keeping())
    return kept


class Shown:
    """Something whose text is personal, in one of its two forms."""

    def __str__(self) -> str:
        """Say a name."""
        return f"<{NAME}>"

    def __repr__(self) -> str:
        """Say an address."""
        return f"<{EMAIL}>"


class Broken:
    """Something that has no text."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError(EMAIL)

    __repr__ = __str__


def test_a_message_is_written_without_what_is_personal(log: io.StringIO) -> None:
    """Every occurrence of every text; the rest of the line stays."""
    LOGGER.info(f"for {NAME} and {NAME}, at {EMAIL}.")  # noqa: G004  as careless as it may be
    assert log.getvalue() == f"for {INSTEAD} and {INSTEAD}, at {INSTEAD}.\n"


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("for %s at 100%%", (NAME,)),
        ("for %r at 100%%", (NAME,)),
        ("%d for %s at %s", (3, Shown(), EMAIL)),
        ("%r and %s", ([NAME, {"at": EMAIL}], "nothing")),
        ("%(who)s at %(where)r", ({"who": NAME, "where": Shown()},)),
        (NAME + " has %s", (3,)),
        ("%s%s", ("Ada Qu", "ince")),
        ("%-20s|", (NAME,)),
    ],
)
def test_arguments_are_written_without_what_is_personal(
    log: io.StringIO, message: str, args: tuple[Any, ...]
) -> None:
    """Whatever the message makes of them, also where only both together say it."""
    LOGGER.warning(message, *args)
    line = log.getvalue()
    assert INSTEAD in line
    assert NAME not in line
    assert EMAIL not in line
    assert "100%%" not in line


def test_what_is_not_personal_is_written_as_it_is(log: io.StringIO) -> None:
    """With its arguments, which a handler may want; a sign of per cent is no argument."""
    kept = keep()
    LOGGER.info("%d of %s, 100%%", 3, "jobs")
    LOGGER.info("100% of %s")
    LOGGER.info(17)
    assert log.getvalue() == "3 of jobs, 100%\n100% of %s\n17\n"
    assert [(record.msg, record.args) for record in kept] == [
        ("%d of %s, 100%%", (3, "jobs")),
        ("100% of %s", ()),
        (17, ()),
    ]


def test_a_cleaned_message_is_not_formatted_again(log: io.StringIO) -> None:
    """A sign of per cent in it would be taken for an argument."""
    LOGGER.info("%s: 100%% of %s, %%s", NAME, "%d")
    assert log.getvalue() == f"{INSTEAD}: 100% of %d, %s\n"


@pytest.mark.parametrize("message", [Shown(), ValueError(f"no {EMAIL}"), [NAME, EMAIL], {"who": NAME}])
def test_a_message_that_is_no_text_is_written_without_what_is_personal(log: io.StringIO, message: object) -> None:
    """An error or a list is logged as its text."""
    LOGGER.error(message)
    line = log.getvalue()
    assert INSTEAD in line
    assert NAME not in line
    assert EMAIL not in line


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%d drives", (EMAIL,)),
        ("%s and %s", (EMAIL,)),
        ("nothing", (EMAIL, NAME)),
        ("%(where)s", ({"who": EMAIL},)),
        ("%(where)s", (EMAIL, 3)),
        ("%z", (EMAIL,)),
        ("100%", (EMAIL,)),
        ("%s and %s", (Broken(), EMAIL)),
        (Broken(), ()),
        (Broken(), (EMAIL,)),
        (f"%d drives of {NAME}", (EMAIL,)),
    ],
)
def test_arguments_that_do_not_fit_are_left_out_and_do_no_harm(
    log: io.StringIO, message: object, args: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler would tell of its fault with all of them; the line is written, and whoever logs goes on."""
    LOGGER.error(message, *args)
    told = log.getvalue() + capsys.readouterr().err
    assert EMAIL not in told
    assert NAME not in told
    assert "Logging error" not in told
    assert len(log.getvalue().splitlines()) == 1


def raise_chained() -> None:
    """Fail with a name in the text, because of another with an address."""
    try:
        dict[str, str]()[EMAIL]
    except KeyError as error:
        raise RuntimeError(f"no {NAME}") from error


def test_a_traceback_is_written_without_what_is_personal(log: io.StringIO) -> None:
    """The error's text and that of its cause; where it happened stays."""
    kept = keep()
    try:
        raise_chained()
    except RuntimeError:
        LOGGER.exception("failed for %s", NAME)
    assert kept[0].exc_info is None, "a handler that shows an error in its own way would show all of it"
    told = log.getvalue()
    assert NAME not in told
    assert EMAIL not in told
    assert told.startswith(f"failed for {INSTEAD}\nTraceback")
    assert f"KeyError: '{INSTEAD}'" in told
    assert f"RuntimeError: no {INSTEAD}" in told
    assert "in raise_chained" in told


def test_an_error_handed_over_is_written_without_what_is_personal(log: io.StringIO) -> None:
    """Though nobody is handling it; a group of errors, too."""
    LOGGER.error("failed", exc_info=ValueError(EMAIL))
    LOGGER.error("failed", exc_info=ExceptionGroup(NAME, [ValueError(EMAIL)]))
    told = log.getvalue()
    assert NAME not in told
    assert EMAIL not in told
    assert told.count(INSTEAD) == 3


def test_a_traceback_without_personal_data_stays_as_it_is(log: io.StringIO) -> None:
    """A handler that shows it in its own way still can; no error is none."""
    kept = keep()
    error = ValueError("harmless")
    LOGGER.error("failed", exc_info=error)
    LOGGER.error("nothing is handled here", exc_info=True)  # noqa: LOG014  so that there is none
    assert kept[0].exc_info
    assert kept[0].exc_info[1] is error
    assert kept[0].exc_text is None or "harmless" in kept[0].exc_text
    assert "ValueError: harmless" in log.getvalue()
    assert "NoneType: None" in log.getvalue()


def test_long_texts_are_found_and_short_ones_left(factory: None) -> None:
    """Five letters are enough; fewer stand in half of all lines by chance, such as a state's two."""
    recent.extend(["", "ST", "1234", "12345", "x" * 100_000, NAME])
    guard_logs()
    log = handled()
    LOGGER.info("ST 1234 12345 %s end", "x" * 100_000)
    assert log.getvalue() == f"ST 1234 {INSTEAD} {INSTEAD} end\n"


def test_of_texts_within_each_other_the_whole_is_taken_out(factory: None) -> None:
    """Nothing is left of the longer one, whichever came first."""
    texts = ["Quince", "Ada Quince", "Dr Ada Quince-Example"]
    for told in (texts, texts[::-1]):
        recent.clear()
        recent.extend(told)
        guard_logs()
        log = handled()
        LOGGER.info("Dr Ada Quince-Example, Ada Quince, Quince")
        assert log.getvalue() == ", ".join([INSTEAD] * 3) + "\n"


def test_loggers_made_before_and_after_are_guarded(factory: None) -> None:
    """Those of libraries, too, and the root."""
    recent.append(EMAIL)
    before = [f"before-{uuid4()}", "sqlalchemy.engine.tests", "prefect.tests"]
    buffers = [handled(name) for name in before]
    logging.getLogger(before[0]).info("unguarded: %s", EMAIL)
    assert EMAIL in buffers[0].getvalue()
    buffers[0].seek(0)
    buffers[0].truncate()
    guard_logs()
    after = f"after-{uuid4()}"
    buffers.append(handled(after))
    for name in (*before, after):
        logging.getLogger(name).info("at %s", EMAIL)
    assert [written.getvalue() for written in buffers] == [f"at {INSTEAD}\n"] * 4


def test_guarding_again_changes_nothing(factory: None) -> None:
    """One guard, however often; what made the records before still makes them."""

    class Marked(logging.LogRecord):
        """A record of a factory that somebody else put there."""

    logging.setLogRecordFactory(Marked)
    guard_logs()
    guard = logging.getLogRecordFactory()
    for _ in range(3):
        guard_logs()
    assert logging.getLogRecordFactory() is guard
    recent.append(NAME)
    record = LOGGER.makeRecord("x", logging.INFO, "file", 7, "for %s", (NAME,), None, "function", None, "stack")
    assert type(record) is Marked
    assert (record.getMessage(), record.funcName, record.stack_info) == (f"for {INSTEAD}", "function", "stack")


def test_it_knows_what_is_sealed_and_opened_from_then_on(any_database: str) -> None:
    """By storing and by reading a job; what nobody has in hand it cannot know."""
    guard_logs()
    log = handled()
    LOGGER.info("%s", EMAIL)
    assert log.getvalue() == f"{EMAIL}\n"
    ring().seal("return_address.email", EMAIL)
    LOGGER.info("%s", EMAIL)
    assert log.getvalue().endswith(f"\n{INSTEAD}\n")
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    LOGGER.info("Ada Example, SERIAL1, TRACK1, ACCOUNT1, 5550100, FedEx")
    assert log.getvalue().endswith(f"\n{INSTEAD}, {INSTEAD}, {INSTEAD}, {INSTEAD}, {INSTEAD}, FedEx\n")
    recent.clear()
    with reading() as session:
        address = session.get_one(ReturnAddress, job_id)
    LOGGER.info("to %s", address)
    LOGGER.info(repr(address))
    assert "Example" not in log.getvalue()
    assert "ada@" not in log.getvalue().split("\n", 1)[1]


def test_a_job_is_named_by_its_id_as_before(any_database: str) -> None:
    """An opaque id is no personal data."""
    guard_logs()
    log = handled()
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    LOGGER.info("job %s is %s", job_id, JobState.CREATING)
    assert log.getvalue() == f"job {job_id} is Creating\n"


def test_threads_that_seal_do_not_disturb_one_that_logs(factory: None) -> None:
    """What they have in hand changes while a line is cleaned."""
    recent.extend(f"text number {number}" for number in range(2000))
    guard_logs()
    log = handled()
    running = True

    def seal() -> None:
        number = 0
        while running:
            number += 1
            recent.append(f"another text {number}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [Thread(target=seal) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            LOGGER.info("a harmless line")
    finally:
        running = False
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert log.getvalue() == "a harmless line\n" * 300


def test_without_anything_in_hand_records_are_left_alone(factory: None) -> None:
    """Not even their message is made."""
    guard_logs()
    record = LOGGER.makeRecord("x", logging.INFO, "file", 7, "%d", ("no number",), None)
    assert (record.msg, record.args) == ("%d", ("no number",))
    recent.append("ST")
    record = LOGGER.makeRecord("x", logging.INFO, "file", 7, "%d", ("no number",), None)
    assert (record.msg, record.args) == ("%d", ("no number",))
    assert log_guard._SHORTEST == 5

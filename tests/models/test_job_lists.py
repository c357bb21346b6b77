"""Lists of jobs in pages: every job of a scope once, in one order on every database, found by the index."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import pytest
from sqlalchemy import delete, event, insert, not_, or_, text
from sqlmodel import Session, col, select

from models.database import engine, reading, writing
from models.job_filters import parse_filter
from models.job_lists import PAGE_MAX, list_jobs
from models.jobs import Job, resource_key
from models.lifecycle import JobState, JobType
from tests.builders import NOON

Names = tuple[str, str, str]

# Subscription, resource group, name. Languages put '-', '_', '.', '(' and upper case elsewhere than codes do.
NAMES: Final[tuple[Names, ...]] = (
    *(("s1", "g1", name) for name in ("a-b", "a_b", "aB", "a1", "a10", "a2", "abc", "ab-c", "Z", "b")),
    *(("s1", "G1", name) for name in ("ABA", "zz", "a-")),
    *(("s1", "g1.x", name) for name in ("a-b", "ab")),
    *(("s1", "g1(x)", name) for name in ("a_b", "AB")),
    *(("s1", "g1-x", name) for name in ("aB", "a_")),
    *(("s1", "g10", name) for name in ("a-b", "ab")),
    *(("s1", "g", name) for name in ("a-b", "ab")),
    *(("s1-a", "g1", name) for name in ("a-b", "ab")),
    *(("s10", "g1", name) for name in ("a-b", "ab")),
    *(("S1", "g2_", name) for name in ("ab", "a-b")),
    *(("s", "1g1", name) for name in ("ab", "a-b")),
    *(("s2", "g1", name) for name in ("ab", "a-b")),
)
KEYS: Final = sorted("/".join(names).lower() for names in NAMES)

# Scopes, and of whose jobs they are, copied by hand: by subscription and group without regard to case.
SCOPES: Final[dict[str, tuple[list[str] | None, list[tuple[str, str | None]]]]] = {
    "everything": (None, [(each, None) for each in ("s", "s1", "s1-a", "s10", "s2")]),
    "nothing": ([], []),
    "a subscription that is a prefix of others": (["s1"], [("s1", None)]),
    "in capitals": (["S1"], [("s1", None)]),
    "one that others are a prefix of": (["s10"], [("s10", None)]),
    "with a line": (["s1-a"], [("s1-a", None)]),
    "a letter": (["s"], [("s", None)]),
    "two": (["s10", "s"], [("s10", None), ("s", None)]),
    "one twice": (["s1", "S1", "s1"], [("s1", None)]),
    "one and a group of it": (["s1", "s1/g1"], [("s1", None)]),
    "a group that is a prefix of others": (["s1/g1"], [("s1", "g1")]),
    "a group in capitals": (["S1/G1"], [("s1", "g1")]),
    "a group with a dot": (["s1/g1.x"], [("s1", "g1.x")]),
    "a group with brackets": (["s1/g1(x)"], [("s1", "g1(x)")]),
    "a group with a line": (["s1/g1-X"], [("s1", "g1-x")]),
    "a shorter one": (["s1/g"], [("s1", "g")]),
    "groups of two subscriptions": (["s2/g1", "s1/g10"], [("s2", "g1"), ("s1", "g10")]),
    "one that is not there": (["s3"], []),
    "a group that is not there": (["s1/g3"], []),
    "an underscore is no sign for any letter": (["s_", "s1/g1_x", "s1/g_"], []),
    "nor is a percent sign": (["s%", "%", "s1/g%"], []),
    "nothing at all": ([""], []),
    "a character that no database keeps": (["s1\0", "s1/g1\0", "\0"], []),
    "that and another": (["\0", "s2"], [("s2", None)]),
}


def row(names: Names, **columns: Any) -> dict[str, Any]:
    """Make a job's row."""
    subscription_id, resource_group, name = names
    return {
        "subscription_id": subscription_id,
        "resource_group": resource_group,
        "name": name,
        "resource_key": resource_key(*names),
        "job_type": JobType.IMPORT,
        "location": "West US",
        "shipping_location": "westus",
        "storage_account_id": "account1",
        "state": JobState.CREATING,
        **dict.fromkeys(("state_since", "created_at", "updated_at"), NOON),
        **columns,
    }


def make_jobs(rows: Sequence[dict[str, Any]]) -> None:
    """Write jobs, in an order that is not theirs."""
    shuffled = random.Random(5).sample(rows, len(rows))  # noqa: S311  no secret
    with writing() as session:
        session.connection().execute(insert(Job), shuffled)


@pytest.fixture
def jobs(any_database: str) -> None:
    """A job of every name."""
    make_jobs([row(names) for names in NAMES])


def pages(scopes: Sequence[str] | None, rows_max: int, **options: Any) -> Iterator[list[str]]:
    """Read a list page by page, each in a transaction of its own: the keys of its jobs."""
    after, is_last = "", False
    for _ in range(10_000):
        if is_last:
            return
        with reading() as session:
            page = list_jobs(session, scopes, after=after, rows_max=rows_max, **options)
            yield [job.resource_key for job in page.jobs]
            after, is_last = page.last_key, page.is_last
    pytest.fail("the list has no end")


def of(wanted: Sequence[tuple[str, str | None]]) -> list[str]:
    """Give the keys of the jobs of some subscriptions and groups, in the order of their letters' codes."""
    return sorted(
        "/".join(names).lower()
        for names in NAMES
        if (names[0].lower(), None) in wanted or (names[0].lower(), names[1].lower()) in wanted
    )


@pytest.mark.parametrize("scope", SCOPES)
def test_a_list_has_every_job_of_its_scopes_once(jobs: None, scope: str) -> None:
    """In the order of their names, and no job of a scope that only begins alike; in pages of any size."""
    scopes, wanted = SCOPES[scope]
    expected = of(wanted)
    assert bool(expected) is bool(wanted)
    for rows_max in (1, 2, 3, len(expected) or 1, PAGE_MAX):
        told = list(pages(scopes, rows_max))
        assert [key for page in told for key in page] == expected
        assert all(len(page) == rows_max for page in told[:-1])
        assert len(told) == max(1, -(-len(expected) // rows_max)), "no empty page at the end"


def test_the_names_of_this_test_would_be_sorted_otherwise_by_a_language() -> None:
    """The control: languages pass over signs at first, and would bring scopes in between each other."""
    assert sorted(KEYS, key=lambda key: (re.sub(r"[^a-z0-9]", "", key), key)) != KEYS
    assert sorted(of([("s1", None)]), key=lambda key: re.sub(r"[^a-z0-9]", "", key)) != of([("s1", None)])
    assert sorted("/".join(names) for names in NAMES) != sorted(
        ("/".join(names) for names in NAMES), key=str.lower
    )


def test_a_page_tells_where_the_next_one_begins(jobs: None) -> None:
    """A key that is no job's is as good; behind the last one there is nothing."""
    with reading() as session:
        first = list_jobs(session, ["s1/g1"], rows_max=4)
        assert (first.last_key, first.is_last) == (of([("s1", "g1")])[3], False)
        assert first.last_key == first.jobs[-1].resource_key
        gone = list_jobs(session, ["s1/g1"], after=f"{first.last_key}!", rows_max=100)
        assert [job.resource_key for job in gone.jobs] == of([("s1", "g1")])[4:]
        over = list_jobs(session, ["s1/g1"], after=KEYS[-1])
        assert (over.jobs, over.is_last, over.last_key) == ([], True, "")
        outside = list_jobs(session, ["s1/g1"], after="s")
        assert [job.resource_key for job in outside.jobs] == of([("s1", "g1")]), "a key before all of the scope"


def test_a_page_that_is_just_full_is_the_last(any_database: str) -> None:
    """One hundred jobs are one page, one more are two."""
    make_jobs([row(("s1", "g1", f"job{number}")) for number in range(PAGE_MAX)])
    assert [len(page) for page in pages(["s1"], PAGE_MAX)] == [100]
    make_jobs([row(("s1", "g1", "one-more"))])
    assert [len(page) for page in pages(["s1"], PAGE_MAX)] == [100, 1]


def test_a_filter_goes_with_the_pages(any_database: str) -> None:
    """What is not asked for takes no place on a page."""
    rows = [
        row(("s1", "g1", f"job{number}"), state=JobState.CLOSED if number % 7 == 0 else JobState.CREATING)
        for number in range(60)
    ]
    make_jobs([*rows, row(("s10", "g1", "job0"), state=JobState.CLOSED)])
    closed = sorted(each["resource_key"] for each in rows if each["state"] is JobState.CLOSED)
    for rows_max in (1, 4, 9, 100):
        told = list(pages(["s1"], rows_max, found_by=parse_filter("state eq 'Closed' or name eq 'nobody'")))
        assert [key for page in told for key in page] == closed
        assert len(told) == -(-len(closed) // rows_max)


@pytest.mark.parametrize("seed", range(6))
def test_jobs_that_live_throughout_are_listed_once_whatever_comes_and_goes(any_database: str, seed: int) -> None:
    """Between any two pages others are created and deleted, before, behind and at the place of the page."""
    dice = random.Random(seed)  # noqa: S311  no secret
    letters = "abAB-_019"
    made: dict[str, Names] = {}
    while len(made) < 60:
        name = "j" + "".join(dice.choices(letters, k=dice.randrange(1, 5)))
        made["s1/g1/" + name.lower()] = ("s1", "g1", name)
    staying, going, coming = (set(sorted(made)[start::3]) for start in range(3))
    make_jobs([row(made[key]) for key in sorted(staying | going)])
    ever, told = set(staying | going), list[str]()
    for page in pages(["s1"], 3):
        told += page
        last = page[-1:]  # where the page ended is what is most easily lost
        gone = {key for key in last if key in going} | set(dice.sample(sorted(going), min(2, len(going))))
        going -= gone
        new = sorted(coming)[:1] + sorted(coming)[-1:]
        coming -= set(new)
        ever |= set(new)
        with writing() as session:
            session.connection().execute(delete(Job).where(col(Job.resource_key).in_(gone)))
        if new:
            make_jobs([row(made[key]) for key in dict.fromkeys(new)])
    assert len(told) == len(set(told))
    assert told == sorted(told)
    assert staying <= set(told) <= ever


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Note what is asked of the database: statements with their parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement != "BEGIN":
            noted.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def plan_of(session: Session, statement: str, parameters: Any) -> str:
    """Tell how the database goes about a statement."""
    explain = "EXPLAIN" if engine().dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    found = session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(" ".join(map(str, line)) for line in found)


# scopes, the key after which the page begins, and the filter
LISTS: Final[dict[str, tuple[list[str] | None, str, str | None]]] = {
    "a subscription": (["s7"], "", None),
    "a later page of it": (["s7"], "s7/g3/job0050", None),
    "a resource group": (["s7/g3"], "", None),
    "a later page of that": (["s7/g3"], "s7/g3/job0050", None),
    "a subscription with a filter": (["s7"], "", "state eq 'Closed'"),
    "a subscription with any of two": (["s7"], "", "state eq 'Closed' or name eq 'job0001'"),
    "three subscriptions": (["s7", "s1", "s12"], "", None),
    "a later page of them": (["s7", "s1", "s12"], "s12/g3/job0050", None),
    "everything": (None, "", None),
    "a later page of everything": (None, "s7/g3/job0050", None),
}


FULL: Final = re.compile(r"\bSCAN job\b|Seq Scan on job\b")
BY_INDEX: Final = re.compile(r"SEARCH job USING INDEX \S+ \(resource_key|Index Scan.*Index Cond", re.DOTALL)
RANGE: Final = re.compile(r"resource_key>\? AND resource_key<\?|Index Cond: [^\n]*>=? [^\n]*<", re.DOTALL)


@pytest.fixture
def many_jobs(any_database: str) -> None:
    """Twenty subscriptions with 200 jobs each, and a database that knows how many they are."""
    make_jobs(
        [
            row((f"s{subscription}", f"g{group}", f"job{number:04}"))
            for subscription in range(20)
            for group in range(4)
            for number in range(50)
        ]
    )
    with writing() as session:
        session.connection().execute(text("ANALYZE"))


def test_a_list_is_found_by_the_index(many_jobs: None) -> None:
    """The database says so itself; the control, which asks for what has no index, reads all there is."""
    with reading() as session:
        for what, (scopes, after, asked) in LISTS.items():
            with statements() as noted:
                list_jobs(session, scopes, after=after, found_by=parse_filter(asked) if asked else None)
            for statement, parameters in noted:
                plan = plan_of(session, statement, parameters)
                assert not FULL.search(plan), (what, plan)
                assert BY_INDEX.search(plan), (what, plan)
                if scopes is not None and asked is None:
                    assert RANGE.search(plan), (what, plan)
        with statements() as noted:
            session.exec(select(Job).where(col(Job.location) == "nowhere")).all()
        assert FULL.search(plan_of(session, *noted[0]))


def work_of(scopes: Sequence[str], after: str) -> int:
    """Tell how much a database does for a page of 20: SQLite in its steps, PostgreSQL in rows it looked at."""
    with reading() as session, statements() as noted:
        if engine().dialect.name == "sqlite":
            steps = count(1)
            raw: Any = session.connection().connection.driver_connection
            raw.set_progress_handler(lambda: next(steps) and None, 1)
            list_jobs(session, scopes, after=after, rows_max=20)
            raw.set_progress_handler(None, 1)
            return next(steps)
        list_jobs(session, scopes, after=after, rows_max=20)
        statement, parameters = noted[0]
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
        (plan,) = session.connection().exec_driver_sql(explain, parameters).scalar_one()
        return rows_read(plan["Plan"])


def rows_read(plan: dict[str, Any]) -> int:
    """Sum up the rows that the scans of tables in a plan of PostgreSQL looked at."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if "Relation Name" in plan else 0
    return int(own * plan["Actual Loops"]) + sum(map(rows_read, plan.get("Plans", [])))


WITHOUT_FILTER: Final = [what for what, (scopes, _, asked) in LISTS.items() if scopes and not asked]


@pytest.mark.parametrize("what", WITHOUT_FILTER)
def test_the_jobs_of_others_make_a_page_no_dearer(many_jobs: None, what: str) -> None:
    """Those that come before it, behind it and between its scopes: it takes as much when they are gone."""
    scopes, after, _ = LISTS[what]
    assert scopes is not None
    among = work_of(scopes, after)
    with writing() as session:
        mine = [col(Job.resource_key).startswith(f"{scope}/") for scope in scopes]
        session.connection().execute(delete(Job).where(not_(or_(*mine))))
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if connection.dialect.name == "postgresql" else "ANALYZE")
    alone = work_of(scopes, after)
    # PostgreSQL may prefer to read a whole scope and sort it; of no other scope it reads a row.
    assert among <= 2 * alone + 200 * len(scopes), f"{among} and not {alone}"


def test_a_page_is_one_statement_per_scope_that_is_looked_at(jobs: None) -> None:
    """However many jobs there are; scopes within another, and those behind a full page, are not looked at."""
    for scopes, looked_at in ((None, 1), (["s1"], 1), (["s1", "s1/g1"], 1), ([f"x{n}" for n in range(50)], 50)):
        with reading() as session, statements() as noted:
            list_jobs(session, scopes)
        assert len(noted) == looked_at
    with reading() as session, statements() as noted:
        list_jobs(session, ["s1", "s2", "s3"], rows_max=1)
    assert len(noted) == 1

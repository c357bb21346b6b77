"""`$filter` of a list: what it can ask for is found, and everything else is refused in our own words."""

from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session, select

from models.database import reading, writing
from models.errors import RequestError
from models.job_filters import FILTER_LETTERS_MAX, parse_filter
from models.jobs import Job
from models.lifecycle import JobState
from tests.builders import job_in

EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}
# name -> state and type of the job, so that every pair of comparisons finds different ones.
JOBS: Final[dict[str, tuple[str, str]]] = {
    "and": ("Creating", "Import"),
    "Or-1": ("Creating", "Export"),
    "my_job": ("Shipping", "Import"),
    "my-job": ("Shipping", "Export"),
    "Creating": ("Completed", "Import"),
    "import": ("Completed", "Export"),
    "state": ("Packaging", "Import"),
    "eq": ("Closed", "Import"),
}
SELECTS: Final[dict[str, set[str]]] = {
    "state eq 'Creating'": {"and", "Or-1"},
    "'Creating' eq state": {"and", "Or-1"},
    "jobType eq 'Export'": {"Or-1", "my-job", "import"},
    "name eq 'my-job'": {"my-job"},
    "name eq 'MY_JOB'": {"my_job"},
    "NAME eq 'or-1'": {"Or-1"},
    "STATE eq 'creating'": {"and", "Or-1"},
    "jobtype eq 'IMPORT' and state eq 'completed'": {"Creating"},
    # Words of the grammar are names like any other between quotes.
    "name eq 'and'": {"and"},
    "name eq 'eq' or name eq 'state'": {"eq", "state"},
    "name eq 'Creating'": {"Creating"},
    # `and` binds more closely than `or`, on either side; brackets say otherwise.
    "name eq 'eq' or state eq 'Shipping' and jobType eq 'Import'": {"eq", "my_job"},
    "jobType eq 'Import' and state eq 'Shipping' or name eq 'eq'": {"eq", "my_job"},
    "(name eq 'eq' or state eq 'Shipping') and jobType eq 'Export'": {"my-job"},
    "jobType eq 'Import' and (state eq 'Shipping' or name eq 'eq')": {"eq", "my_job"},
    "((state eq 'Closed'))": {"eq"},
    "  state \t eq  'Closed' ": {"eq"},
    # Texts that no job can have find none, and are no fault.
    "state eq 'Lost'": set(),
    "jobType eq ''": set(),
    "name eq ''": set(),
    "name eq 'my%'": set(),
    "name eq 'my?job'": set(),
    "name eq 'my-job '": set(),
    "name eq 'O''Brien'": set(),
    "name eq ''''": set(),
    "name eq '\\'": set(),
    "name eq 'größe'": set(),
    "name eq 'a\0b'": set(),
    # U+212A, the sign of Kelvin, which becomes a k by lowering it.
    "name eq '\u212a'": set(),
    "state eq 'Closed' and state eq 'Creating'": set(),
    "state eq 'Creating' or jobType eq 'import' or name eq 'my-job' or name eq 'import'": {*JOBS},
}

REFUSED: Final = (
    *("", "   ", "state", "'Creating'", "true", "eq", "state eq", "eq 'Creating'", "state 'Creating'", "()"),
    # Operators, literals and functions that OData has and we have not.
    *("state ne 'Creating'", "name gt 'a'", "name ge 'a'", "name lt 'a'", "name le 'a'", "name add 'a' eq 'b'"),
    *("not state eq 'Creating'", "not (state eq 'Creating')", "state in ('Creating', 'Closed')"),
    *("state eq null", "state eq true", "name eq 5", "name eq 1.5", "name eq 2026-06-01", "state eq Creating"),
    *("name eq 3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611", "name eq duration'P1D'", "name eq geography'POINT(1 1)'"),
    *("startswith(name, 'a')", "startswith(name, 'a') eq true", "contains(name, 'a')", "tolower(name) eq 'a'"),
    *("name eq tolower('A')", "name eq concat('a', 'b')", "length(name) eq 5", "jobs/any(j: j eq 'a')"),
    # Properties that are not to be asked for: a filter is no way to guess what is in a job.
    *("tags eq 'a'", "location eq 'West US'", "id eq 'a'", "user_id eq 'a'", "properties/state eq 'Creating'"),
    *("job.state eq 'Creating'", "state/x eq 'a'", "returnAddress/city eq 'Town'", "storageAccountId eq 'a'"),
    *("name eq name", "'a' eq 'a'", "state eq name", "name eq 'a' eq 'b'", "name eq 'a' and true"),
    # What is not closed, or goes on where it is over.
    *(
        "state eq 'Creating",
        "state eq 'Creating''",
        "(state eq 'Creating'",
        "state eq 'Creating')",
        'state eq "a"',
    ),
    *("state eq 'a' and", "and state eq 'a'", "state eq 'a' or or name eq 'b'", "state eq 'a' name eq 'b'"),
    *(
        "state eq 'a'; DROP TABLE job",
        "state eq 'a' -- x",
        "state eq 'a' /* x */",
        "state = 'a'",
        "%27",
        "\0",
        "größe",
    ),
)


@pytest.fixture
def jobs(any_database: str) -> None:
    """One job of each kind."""
    make_jobs()


def make_jobs() -> None:
    """Make the jobs that filters are tried on."""
    with writing() as session:
        for name, (state, job_type) in JOBS.items():
            job_in(session, JobState(state), name, **(EXPORT if job_type == "Export" else {}))


def selected(session: Session, text: str) -> set[str]:
    """Find jobs by a filter, by their names."""
    return set(session.exec(select(Job.name).where(parse_filter(text))).all())


def test_a_filter_finds_what_the_grammar_says(jobs: None) -> None:
    """Every kind of expression; what it finds was written down by hand."""
    with reading() as session:
        for text, names in SELECTS.items():
            assert selected(session, text) == names, text


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_filter_is_refused(text: str) -> None:
    """As a fault of `$filter` that tells what would have worked."""
    with pytest.raises(RequestError) as refused:
        parse_filter(text)
    ((place, told),) = refused.value.faults
    assert place == "$filter"
    assert "state" in told


def test_a_refusal_does_not_repeat_what_was_written() -> None:
    """Not in its text, nor in what it was raised from."""
    for text in (
        "name ne 'Zebulon'",
        "name eq 'Zebulon",
        "Zebulon eq 'a'",
        "Zebulon(name)",
        "name eq 'a' Zebulon",
    ):
        with pytest.raises(RequestError) as refused:
            parse_filter(text)
        told = f"{refused.value} {refused.value.faults!r} {refused.value.__cause__!r}"
        assert "Zebulon" not in told, text


def test_a_filter_has_at_most_2000_letters() -> None:
    """At the bound it is read, a letter beyond it is not; however deep its brackets or long its chain."""
    assert FILTER_LETTERS_MAX == 2_000
    text = "name eq '" + "a" * (2_000 - 10) + "'"
    deep = "(" * 990 + "name eq 'a'".ljust(20) + ")" * 990
    chain = " or ".join(["name eq 'a'"] * 133).ljust(2_000)
    for longest in (text, deep, chain):
        assert len(longest) == 2_000
        parse_filter(longest)
        with pytest.raises(RequestError, match="over 2,000 letters"):
            parse_filter(f"{longest} ")
    for broken in ("(" * 2_000, ")" * 2_000, "'" * 1_999, "not " * 500, "name eq " * 250):
        with pytest.raises(RequestError):
            parse_filter(broken)


def test_a_filter_of_the_greatest_length_is_answered(jobs: None) -> None:
    """The database takes it too."""
    with reading() as session:
        assert selected(session, " or ".join([*["state eq 'Closed'"] * 89, "name eq 'and'"])) == {"and", "eq"}
        assert selected(session, "(" * 990 + "name eq 'and'" + ")" * 990) == {"and"}


# An expression is a comparison (name, text, whether the text stands first) or (operator, left, right).
_CASES: Final = st.sampled_from([str, str.lower, str.upper, str.title])
_TEXTS: Final = st.sampled_from(
    [*JOBS, *JobState, "Import", "Export", "", "O'Brien", "no such job", "a' or name eq 'b"]
)
_COMPARISONS: Final = st.tuples(
    st.sampled_from(["state", "jobType", "name"]), _TEXTS, st.booleans(), st.tuples(_CASES, _CASES)
)
_EXPRESSIONS: Final = st.recursive(
    _COMPARISONS, lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner), max_leaves=8
)


def written(expression: Any, *, brackets: bool = False) -> str:
    """Write an expression as a filter, with brackets only where they are needed."""
    match expression:
        case (("and" | "or") as operator, left, right):
            needed = operator == "and"
            text = f"{_side(left, needed)} {operator} {_side(right, needed)}"
        case (name, text, is_turned, (recase, recase_text)):
            quoted = "'" + recase_text(str(text)).replace("'", "''") + "'"
            text = f"{quoted} eq {recase(name)}" if is_turned else f"{recase(name)} eq {quoted}"
    return f"({text})" if brackets else text


def _side(expression: Any, needed: bool) -> str:
    return written(expression, brackets=needed and expression[0] == "or")


def holds(expression: Any, name: str) -> bool:
    """Tell by the expression itself whether it holds for a job."""
    match expression:
        case ("and", left, right):
            return holds(left, name) and holds(right, name)
        case ("or", left, right):
            return holds(left, name) or holds(right, name)
    state, job_type = JOBS[name]
    asked, text = expression[0], str(expression[1])
    return {"state": state, "jobType": job_type, "name": name}[asked].lower() == text.lower()


def test_a_filter_selects_what_its_expression_says(any_database: str, thorough: bool) -> None:
    """Any expression, written with no more brackets than needed, in any case of letters, on both databases."""
    make_jobs()

    @settings(
        max_examples=2_000 if thorough else 150,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(_EXPRESSIONS)
    def selects_the_same(expression: Any) -> None:
        with reading() as session:
            assert selected(session, written(expression)) == {name for name in JOBS if holds(expression, name)}

    selects_the_same()


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("'()eqandorstamjbTyp \0\\%_", max_size=60))
def test_no_text_is_anything_but_a_filter_or_refused(text: str) -> None:
    """Nothing else is ever raised."""
    with suppress(RequestError):
        parse_filter(text)


def test_a_filter_never_becomes_sql() -> None:
    """What is asked for travels as a parameter."""
    asked = parse_filter("name eq 'x'' or 1=1 --' and state eq 'Closed'").compile()
    assert "1=1" not in str(asked)
    assert {"x' or 1=1 --", JobState.CLOSED} == set(asked.params.values())

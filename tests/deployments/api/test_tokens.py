"""Tokens and callers: whose token counts, how often one may ask, and what every answer has in common."""

import base64
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import httpx
import jwt
import limits.aio.storage.memory
import limits.aio.strategies
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.testclient import TestClient

from deployments.api import callers, tokens
from deployments.api.application import make_application
from deployments.api.server import uvicorn_settings
from deployments.api.tokens import LOCAL_USER, Caller, IssuerTokens, LocalToken, Role, read_local_token, tokens_of
from deployments.cli import main
from models.errors import AccessError, IssuerAwayError, SettingsError, TokenError
from models.requests import REQUEST_BYTES_MAX
from models.settings import Settings
from tests.builders import at_once, job_request
from tests.deployments.api.conftest import VERSION, Issuer, Server, serving

ME: Final = "/portal/me"
JOB: Final = (
    f"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.ImportExport/jobs/job1?api-version={VERSION}"
)


# The token of the embedded default.


@pytest.fixture
def token_file(data_directory: Path) -> Path:
    """Tell where the token is kept; there is none yet."""
    assert not Settings().token_file.exists()
    return Settings().token_file


def test_the_token_is_made_once_for_its_owner_alone(token_file: Path) -> None:
    """0600 in a folder of 0700, long enough that nobody guesses it; read again it is the same."""
    token = read_local_token(token_file)
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert token_file.parent.stat().st_mode & 0o777 == 0o700
    assert len(token) >= 43
    assert token.isascii()
    assert read_local_token(token_file) == token == token_file.read_text().strip()
    assert [each.name for each in token_file.parent.iterdir()] == [token_file.name]
    token_file.unlink()
    assert read_local_token(token_file) != token


def _read_each(files: list[Path], gate: Any, told: Any) -> None:
    """Read tokens in a process of its own; the others begin with each at the same moment."""
    found = []
    for file in files:
        gate.wait(30)
        found.append(read_local_token(file))
    told.put(found)


def test_processes_that_start_at_once_have_one_token(tmp_path: Path) -> None:
    """Of three processes that find none, one makes it, and the others take that one."""
    processes = get_context("fork")
    files = [tmp_path / f"{number}" / "api.token" for number in range(100)]
    gate, told = processes.Barrier(3), processes.Queue()
    started = [processes.Process(target=_read_each, args=(files, gate, told)) for _ in range(3)]
    for process in started:
        process.start()
    found = [told.get(timeout=60) for _ in started]
    for process in started:
        process.join(30)
        assert process.exitcode == 0
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(files)
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert [each.name for each in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o601, 0o777])
def test_a_token_that_others_may_read_is_refused(
    token_file: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the server and by the command alike; the text says what to do, and not the token."""
    token = read_local_token(token_file)
    token_file.chmod(mode)
    with pytest.raises(SettingsError, match=r"others may read api\.token; remove it"):
        LocalToken(token_file)
    with pytest.raises(SystemExit, match="1"):
        main(["token"])
    said = capsys.readouterr()
    assert said.out == ""
    assert "others may read" in said.err
    assert token not in said.err
    assert token_file.read_text().strip() == token


@pytest.mark.parametrize(
    "content", [b"", b"\n", b" \n\t", b"short", b"x" * 31 + b"\n", b"\xff" * 43, "ä".encode() * 43]
)
def test_a_file_that_holds_no_token_is_refused(token_file: Path, content: bytes) -> None:
    """An empty one above all, with which everybody's empty token would count; it stays as it is."""
    token_file.parent.mkdir(mode=0o700)
    token_file.touch(0o600)
    token_file.write_bytes(content)
    with pytest.raises(SettingsError, match="DRIVEPOST_DATA_DIRECTORY"):
        read_local_token(token_file)
    assert token_file.read_bytes() == content


def test_a_place_where_no_token_can_be_is_refused(token_file: Path) -> None:
    """A folder in its place, a file in its folder's place, and a link that leads nowhere."""
    token_file.mkdir(parents=True, mode=0o700)
    with pytest.raises(SettingsError, match="the token's file"):
        read_local_token(token_file)
    token_file.rmdir()
    token_file.symlink_to(token_file.with_name("nowhere"))
    with pytest.raises(SettingsError, match="the token's file"):
        read_local_token(token_file)
    token_file.unlink()
    token_file.parent.rmdir()
    token_file.parent.write_text("x")
    with pytest.raises(SettingsError, match="the token's file"):
        read_local_token(token_file)


def test_the_command_prints_the_token_that_the_server_takes(
    sqlite_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that one alone: neither one like it nor an empty one."""
    with pytest.raises(SystemExit, match="0"):
        main(["token"])
    token = capsys.readouterr().out.strip()
    assert token == read_local_token(Settings().token_file)
    with sqlite_server.client(token) as client:
        assert client.get(ME).json()["userId"] == str(LOCAL_USER)
    swapped = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (swapped, token[:-1], f"{token}A", token.swapcase(), f"{token}.{token}", f"{token},{token}", "x"):
        answer = httpx.get(f"{sqlite_server.address}{ME}", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
        assert token not in answer.text
    for letters in (f"{token}é".encode("latin-1"), b"\xff" * 43, b"\x80"):
        answer = httpx.get(f"{sqlite_server.address}{ME}", headers={b"Authorization": b"Bearer " + letters})
        assert answer.status_code == 401
    # The scheme compares without regard to case (RFC 9110, 11.1).
    for scheme in ("bearer", "BEARER"):
        answer = httpx.get(f"{sqlite_server.address}{ME}", headers={"Authorization": f"{scheme} {token}"})
        assert answer.status_code == 200
    assert token not in sqlite_server.log.read_text()


def test_the_command_has_no_token_to_print_where_an_issuer_is_set(
    token_file: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It refuses and makes none; and the API does not take one that lies there from before."""
    token = read_local_token(token_file)
    told_of(monkeypatch, issuer)
    with pytest.raises(SystemExit, match="1"):
        main(["token"])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("SettingsInvalid: DRIVEPOST_API_ISSUER") or "DRIVEPOST_API_ISSUER" in said.err
    assert len(said.err.strip().splitlines()) == 1
    with pytest.raises(TokenError):
        bearer(tokens_of(Settings()), token)
    token_file.unlink()
    with pytest.raises(SystemExit, match="1"):
        main(["token"])
    assert not token_file.exists()


# The issuer's keys.


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the ages of keys go by a clock of the test's."""
    made = Clock()
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=made))
    return made


def told_of(monkeypatch: pytest.MonkeyPatch, issuer: Issuer, **settings: str) -> None:
    """Set what a server is told of an issuer."""
    for name, value in {**issuer.settings, **settings}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def looking(data_directory: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> IssuerTokens:
    """What looks at the tokens of the issuer."""
    told_of(monkeypatch, issuer)
    return IssuerTokens(Settings())


def bearer(looking: tokens.Tokens, token: str) -> Caller:
    """Tell who bears a token, as the door does."""
    if looking.must_ask(token):
        looking.ask(token)
    return looking.caller_of(token)


def new_key(issuer: Issuer, key_id: str) -> None:
    """Let the issuer sign with another key from now on."""
    issuer.key, issuer.key_id = rsa.generate_private_key(65537, 2048), key_id


def show(issuer: Issuer, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let the issuer show this instead of its keys."""
    monkeypatch.setattr(type(issuer), "keys", lambda _: answer)


def test_the_keys_are_read_once_for_many_tokens(looking: IssuerTokens, issuer: Issuer, clock: Clock) -> None:
    """And again after five minutes."""
    for number in range(20):
        assert bearer(looking, issuer.token("customer", sub=f"user-{number}")).roles == {Role.CUSTOMER}
    clock.now += 299
    bearer(looking, issuer.token("customer"))
    assert issuer.asked == 1
    clock.now += 2
    bearer(looking, issuer.token("customer"))
    bearer(looking, issuer.token("customer"))
    assert issuer.asked == 2


def test_callers_who_come_at_once_ask_for_the_keys_once(looking: IssuerTokens, issuer: Issuer) -> None:
    """Sixteen threads with the first tokens there are."""
    token = issuer.token("customer")
    found = at_once(*[lambda: bearer(looking, token)] * 16)
    assert {type(each) for each in found} == {Caller}
    assert issuer.asked == 1


def test_a_new_key_of_the_issuer_is_picked_up(looking: IssuerTokens, issuer: Issuer, clock: Clock) -> None:
    """With the first token that names it, at most half a minute after the keys were read; the old one is over."""
    old = issuer.token("customer")
    bearer(looking, old)
    new_key(issuer, "key-2")
    new = issuer.token("operator")
    with pytest.raises(TokenError, match="a key that its issuer does not name"):
        bearer(looking, new)
    assert bearer(looking, old).roles == {Role.CUSTOMER}
    clock.now += 31
    assert bearer(looking, new).roles == {Role.OPERATOR}
    with pytest.raises(TokenError, match="a key that its issuer does not name"):
        bearer(looking, old)
    assert issuer.asked == 2


def test_a_key_that_the_issuer_withdrew_is_over_after_five_minutes(
    looking: IssuerTokens, issuer: Issuer, clock: Clock
) -> None:
    """Though every token still names the old one."""
    old = issuer.token("customer")
    bearer(looking, old)
    new_key(issuer, "key-2")
    clock.now += 301
    with pytest.raises(TokenError):
        bearer(looking, old)


def test_a_key_that_took_the_place_of_another_under_its_name_is_picked_up(
    looking: IssuerTokens, issuer: Issuer, clock: Clock
) -> None:
    """After five minutes at most; what the old one signed does not count any more."""
    old = issuer.token("customer")
    bearer(looking, old)
    new_key(issuer, issuer.key_id)
    clock.now += 301
    assert bearer(looking, issuer.token("customer"))
    with pytest.raises(TokenError, match="InvalidSignatureError"):
        bearer(looking, old)


def test_unknown_keys_make_us_ask_twice_a_minute_at_most(
    looking: IssuerTokens, issuer: Issuer, clock: Clock
) -> None:
    """However many tokens name one, and whether they name another each time; who has a key is served meanwhile."""
    good = issuer.token("customer")
    bearer(looking, good)
    for second in range(60):
        clock.now += 1
        for _ in range(5):
            unknown = issuer.token("customer", headers={"kid": uuid4().hex})
            with pytest.raises(TokenError, match="a key that its issuer does not name"):
                bearer(looking, unknown)
        assert bearer(looking, good)
        assert issuer.asked <= 1 + (second + 1) // 30
    assert issuer.asked == 3


def test_what_is_no_token_never_makes_us_ask(looking: IssuerTokens, issuer: Issuer) -> None:
    """Garbage is known as such without the issuer."""
    for garbage in ("x", "a.b.c", "..", "", "é", "A" * 16_385, f"{'A' * 20_000}.A.A"):
        assert not looking.must_ask(garbage)
        with pytest.raises(TokenError):
            looking.caller_of(garbage)
    assert issuer.asked == 0


def test_known_keys_go_on_counting_while_the_issuer_is_away(
    looking: IssuerTokens, issuer: Issuer, clock: Clock
) -> None:
    """For as long as it is away, asked twice a minute at most; and its new key counts when it is back."""
    good = issuer.token("customer")
    bearer(looking, good)
    issuer.is_away = True
    for _ in range(5):
        clock.now += 301
        assert bearer(looking, good)
        with pytest.raises(TokenError):
            bearer(looking, issuer.token("customer", headers={"kid": "another"}))
    assert issuer.asked <= 6
    new_key(issuer, "key-2")
    issuer.is_away = False
    clock.now += 31
    assert bearer(looking, issuer.token("customer"))


@pytest.mark.parametrize(
    "answer", [[], {}, "keys", None, 7, {"keys": []}, {"keys": 7}, {"keys": [7]}, {"keys": [{}]}, {"keys": None}]
)
def test_keys_that_are_none_are_read_over(
    looking: IssuerTokens, issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """An issuer that shows anything else is as one that is away: the keys we have go on counting."""
    good = issuer.token("customer")
    bearer(looking, good)
    show(issuer, monkeypatch, answer)
    clock.now += 301
    assert bearer(looking, good)
    assert issuer.asked == 2


def test_without_keys_no_token_is_looked_at_and_who_asks_is_told_so(
    sqlite: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """503 with Retry-After, nobody let in; asked at most once a second; served as soon as the issuer is back."""
    told_of(monkeypatch, issuer)
    issuer.is_away = True
    with TestClient(make_application()) as client:
        header = {"Authorization": f"Bearer {issuer.token('operator')}"}
        for asked in range(1, 4):
            for _ in range(5):
                answer = client.get(ME, headers=header)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "TokenIssuerAway"
                assert int(answer.headers["retry-after"]) >= 1
                see_the_headers(answer)
            assert issuer.asked == asked
            clock.now += 1
        # What is no token at all needs no keys to be refused.
        assert client.get(ME, headers={"Authorization": "Bearer x"}).status_code == 401
        issuer.is_away = False
        assert client.get(ME, headers=header).status_code == 200


def test_an_issuer_that_cannot_be_reached_is_away(looking: IssuerTokens, issuer: Issuer) -> None:
    """Nobody listens at its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = Settings().model_copy(update={"api_jwks_url": f"http://127.0.0.1:{taken.getsockname()[1]}/keys"})
        with pytest.raises(IssuerAwayError):
            bearer(IssuerTokens(gone), issuer.token("customer"))


# Which keys count.


def test_a_shared_secret_among_the_keys_does_not_count(
    looking: IssuerTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the keys could make tokens with it; the others count."""
    secret = b"s" * 64
    keys = issuer.keys()["keys"]
    shared = [
        {"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("="), "kid": f"secret{alg}", **named}
        for alg, named in (("", {}), ("-256", {"alg": "HS256"}), ("-sig", {"use": "sig", "alg": "HS512"}))
    ]
    show(issuer, monkeypatch, {"keys": [*shared, *keys]})
    for each in (*(key["kid"] for key in shared), issuer.key_id):
        for algorithm in ("HS256", "HS512"):
            token = issuer.token("operator", key=secret, algorithm=algorithm, headers={"kid": each})
            with pytest.raises(TokenError):
                bearer(looking, token)
    assert bearer(looking, issuer.token("customer"))


def test_a_key_for_encryption_does_not_count(
    looking: IssuerTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key says what it is for, or nothing of it."""
    [key] = issuer.keys()["keys"]
    plain = {name: value for name, value in key.items() if name not in {"use", "alg"}}
    encryption = [{**key, "kid": "enc", "use": "enc"}, {**plain, "kid": "other", "use": "tls"}]
    show(issuer, monkeypatch, {"keys": [*encryption, {**plain, "kid": "plain"}, key]})
    for name in ("enc", "other"):
        with pytest.raises(TokenError):
            bearer(looking, issuer.token("operator", headers={"kid": name}))
    for name in ("plain", issuer.key_id):
        assert bearer(looking, issuer.token("operator", headers={"kid": name}))


def test_where_no_key_of_the_issuer_counts_nobody_gets_in(
    looking: IssuerTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of secrets and keys for encryption alone."""
    [key] = issuer.keys()["keys"]
    secret = {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "secret"}
    show(issuer, monkeypatch, {"keys": [{**key, "use": "enc"}, secret]})
    for token in (issuer.token("operator"), issuer.token("operator", key=b"secret" * 8, algorithm="HS256")):
        with pytest.raises(AccessError):
            bearer(looking, token)


def test_every_kind_of_key_that_the_issuer_alone_has_counts(
    looking: IssuerTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RSA, elliptic curves and Edwards curves; a key of a kind we do not know is read over."""
    curve, edwards = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
    shown = [
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": "unknown", "pub": "AAAA"},
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(curve.public_key())), "kid": "curve"},
        {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(edwards.public_key())), "kid": "edwards"},
        *issuer.keys()["keys"],
    ]
    show(issuer, monkeypatch, {"keys": shown})
    assert bearer(looking, issuer.token("customer", key=curve, algorithm="ES384", headers={"kid": "curve"}))
    assert bearer(looking, issuer.token("customer", key=edwards, algorithm="EdDSA", headers={"kid": "edwards"}))
    assert bearer(looking, issuer.token("customer"))
    with pytest.raises(TokenError):
        bearer(looking, issuer.token("customer", headers={"kid": "unknown"}))


def test_a_signature_counts_under_the_algorithm_of_its_key_alone(looking: IssuerTokens, issuer: Issuer) -> None:
    """Though the same key could make others: the issuer says which one it makes."""
    for algorithm in ("RS384", "RS512", "PS256"):
        with pytest.raises(TokenError):
            bearer(looking, issuer.token("customer", algorithm=algorithm))
    assert bearer(looking, issuer.token("customer"))


# What a token says.


def of_length(issuer: Issuer, letters: int) -> str:
    """Sign a token of so many letters."""
    for more in range(3):
        headers = {"kid": issuer.key_id, "more": "x" * more}
        low, high = 0, letters
        while low < high:
            middle = (low + high) // 2
            if len(issuer.token("customer", headers=headers, filling="x" * middle)) < letters:
                low = middle + 1
            else:
                high = middle
        token = issuer.token("customer", headers=headers, filling="x" * low)
        if len(token) == letters:
            return token
    raise AssertionError(f"no token has {letters} letters")


def test_a_token_over_16_kib_is_refused(looking: IssuerTokens, issuer: Issuer) -> None:
    """One of 16 KiB counts; one letter more does not, and nobody is asked about it."""
    longest, too_long = of_length(issuer, 16_384), of_length(issuer, 16_385)
    assert not looking.must_ask(too_long)
    with pytest.raises(TokenError, match="too long"):
        looking.caller_of(too_long)
    assert issuer.asked == 0
    assert bearer(looking, longest)


@pytest.mark.parametrize("text", ["ABCDEF00-0000-4000-8000-00000000000A", "abcdef00-0000-4000-8000-00000000000a"])
def test_a_user_that_is_a_uuid_is_that_one(looking: IssuerTokens, issuer: Issuer, text: str) -> None:
    """In any case of its letters."""
    assert bearer(looking, issuer.token("customer", sub=text)).user_id == UUID(text)


def test_a_user_that_is_another_text_has_an_id_of_their_own(looking: IssuerTokens, issuer: Issuer) -> None:
    """The same each time, another for each text, of this issuer alone, and it does not hold the text."""
    texts = ("ada@example.com", "Ada@example.com", "auth0|7", "7", " ", f"{{{LOCAL_USER}}}", LOCAL_USER.hex)
    found = [bearer(looking, issuer.token("customer", sub=text)).user_id for text in texts]
    assert found == [bearer(looking, issuer.token("customer", sub=text)).user_id for text in texts]
    assert found == [uuid5(NAMESPACE_URL, f"{issuer.url}\n{text}") for text in texts]
    assert len({*found, LOCAL_USER}) == len(texts) + 1


@pytest.mark.parametrize("user", [None, "", 7, True, ["ada"], {"name": "ada"}])
def test_a_token_without_a_user_does_not_count(looking: IssuerTokens, issuer: Issuer, user: Any) -> None:
    """Whatever else stands in its place."""
    with pytest.raises(TokenError):
        bearer(looking, issuer.token("customer", sub=user))


BOTH: Final = frozenset(Role)


@pytest.mark.parametrize(
    ("claim", "roles"),
    [
        (["customer"], {Role.CUSTOMER}),
        ("customer", {Role.CUSTOMER}),
        (["operator", "customer"], BOTH),
        ("operator customer", BOTH),
        ("  openid\tcustomer\nprofile ", {Role.CUSTOMER}),
        (["openid", "operator", 7, None, ["customer"], {"customer": True}], {Role.OPERATOR}),
        (["customer operator"], set()),
        ("customer,operator", set()),
        (["Customer", "OPERATOR", "customers", ""], set()),
        ([], set()),
        ("", set()),
        (None, set()),
        (7, set()),
        (True, set()),
        ({"customer": "operator"}, set()),
    ],
)
def test_roles_are_a_list_or_a_text_with_spaces(
    looking: IssuerTokens, issuer: Issuer, claim: Any, roles: set[Role]
) -> None:
    """Roles of others are read over; what is neither list nor text gives none."""
    assert bearer(looking, issuer.token(roles=claim)).roles == roles


@pytest.mark.parametrize(
    ("claim", "subscriptions"),
    [
        (["S1", "s2"], {"s1", "s2"}),
        ("S1 s2", {"s1", "s2"}),
        ("s1", {"s1"}),
        ([7, None, ["s3"], "s1"], {"s1"}),
        ([], set()),
        ("", set()),
        (7, set()),
        ({"s1": True}, set()),
    ],
)
def test_subscriptions_are_a_list_or_a_text_with_spaces(
    looking: IssuerTokens, issuer: Issuer, claim: Any, subscriptions: set[str]
) -> None:
    """In lower case; without any the caller is of none, and never of all."""
    found = bearer(looking, issuer.token("customer", subscriptions=claim)).subscriptions
    assert found == frozenset(subscriptions)


def test_a_token_without_the_claim_of_subscriptions_is_of_none(looking: IssuerTokens, issuer: Issuer) -> None:
    """And never of all, which the embedded default's alone is."""
    claims: dict[str, Any] = {"iss": issuer.url, "aud": issuer.AUDIENCE, "exp": int(time.time()) + 600}
    claims |= {"sub": "ada", "roles": ["customer"]}
    token = jwt.encode(claims, issuer.key, "RS256", headers={"kid": issuer.key_id})
    caller = bearer(looking, token)
    assert caller.subscriptions == frozenset()
    assert caller.scopes == []


def test_claims_go_by_the_names_in_the_settings(
    data_directory: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by those alone: what stands under the usual names is read over, and names no user either."""
    told_of(
        monkeypatch,
        issuer,
        DRIVEPOST_API_USER_CLAIM="oid",
        DRIVEPOST_API_ROLES_CLAIM="https://example.com/roles",
        DRIVEPOST_API_SUBSCRIPTIONS_CLAIM="extension_subs",
    )
    looking = IssuerTokens(Settings())
    named: dict[str, Any] = {
        "oid": str(issuer.USER),
        "https://example.com/roles": "operator",
        "extension_subs": ["S9"],
    }
    caller = bearer(looking, issuer.token("customer", subscriptions=["s1"], **{"sub": "somebody", **named}))
    assert caller == Caller(issuer.USER, frozenset({Role.OPERATOR}), frozenset({"s9"}))
    usual = bearer(looking, issuer.token("customer", "operator", subscriptions=["s1"], oid="x"))
    assert (usual.roles, usual.subscriptions) == (frozenset(), frozenset())
    for user in (None, "", 7):
        with pytest.raises(TokenError):
            bearer(looking, issuer.token("customer", **{**named, "oid": user}))


def test_clocks_may_differ_by_half_a_minute(looking: IssuerTokens, issuer: Issuer) -> None:
    """Ours and the issuer's; not by a minute."""
    now = int(time.time())
    assert bearer(looking, issuer.token("customer", exp=now - 15))
    assert bearer(looking, issuer.token("customer", nbf=now + 15, iat=now + 15))
    with pytest.raises(TokenError, match="has expired"):
        bearer(looking, issuer.token("customer", exp=now - 45))
    for token in (issuer.token("customer", nbf=now + 60), issuer.token("customer", iat=now + 60)):
        with pytest.raises(TokenError, match="ImmatureSignatureError"):
            bearer(looking, token)


# How often one may ask.


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the minutes of callers go by a clock of the test's; it begins with a minute."""
    made = Clock()
    made.now = 60_000_000.0
    for module in (limits.aio.storage.memory, limits.aio.strategies, callers):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made))
    return made


@pytest.fixture
def client(
    sqlite: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, watch: Clock
) -> Iterator[Callable[..., httpx.Response]]:
    """Serve in this process, five requests a minute for each caller; asks for a user, or without a token."""
    told_of(monkeypatch, issuer, DRIVEPOST_API_REQUESTS_PER_MINUTE="5")
    with TestClient(make_application()) as opened:

        def ask(user: str | None, path: str = ME, *roles: str, **headers: str) -> httpx.Response:
            if user is not None:
                headers["Authorization"] = f"Bearer {issuer.token(*(roles or ('customer',)), sub=user)}"
            answer: httpx.Response = opened.get(path, headers=headers)
            return answer

        yield ask


def statuses(ask: Callable[[], httpx.Response], times: int) -> list[int]:
    """Ask some times."""
    return [ask().status_code for _ in range(times)]


def test_a_caller_who_asks_too_often_waits_and_others_do_not(client: Callable[..., httpx.Response]) -> None:
    """429 with Retry-After for the one; whichever token of theirs, whatever they ask, whatever the answer is."""
    assert statuses(lambda: client("ada", JOB), 2) == [403, 403]
    assert statuses(lambda: client("ada", "/portal/settings"), 1) == [404]
    assert statuses(lambda: client("ada"), 2) == [200, 200]
    refused = client("ada")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "TooManyRequests"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert statuses(lambda: client("ada", ME, "operator", "customer"), 1) == [429]
    assert statuses(lambda: client("ada", JOB), 1) == [429]
    assert statuses(lambda: client("ben"), 5) == [200] * 5
    assert statuses(lambda: client(None), 5) == [401] * 5


def test_requests_without_a_token_that_counts_are_limited_too(client: Callable[..., httpx.Response]) -> None:
    """Together, by their address, whatever stands where a token should; who has a token is not held up by them."""
    answers = [client(None, Authorization=each) for each in ("", "Bearer x", "Basic x", "Bearer a.b.c", "x")]
    assert {answer.status_code for answer in answers} == {401}
    for headers in (
        {},
        {"Authorization": "Bearer y"},
        {"X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
    ):
        refused = client(None, ME, **headers)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
    assert statuses(lambda: client("ada"), 5) == [200] * 5


def test_who_has_a_token_without_a_role_is_limited_too(client: Callable[..., httpx.Response]) -> None:
    """403, and then 429."""
    assert statuses(lambda: client("eva", ME, "nothing"), 7) == [403] * 5 + [429] * 2


@pytest.mark.parametrize("second", [0.001, 0.3, 17.0, 42.5, 59.0, 59.9])
def test_who_waits_as_told_is_served(client: Callable[..., httpx.Response], watch: Clock, second: float) -> None:
    """Once more at least, each time, wherever in a minute the requests came."""
    watch.now += second
    assert statuses(lambda: client("ada"), 5) == [200] * 5
    for _ in range(8):
        refused = client("ada")
        assert refused.status_code == 429
        watch.now += int(refused.headers["retry-after"])
        assert client("ada").status_code == 200
        for _ in range(5):
            client("ada")


# Where it listens.

BEYOND: Final = ("0.0.0.0", "::", "192.0.2.1", "api.example.com", "127.0.0.1.example.com", "0")  # noqa: S104
ISSUED: Final = {
    "DRIVEPOST_API_ISSUER": "https://issuer.example.com",
    "DRIVEPOST_API_AUDIENCE": "drivepost",
    "DRIVEPOST_API_JWKS_URL": "https://issuer.example.com/keys",
}
TLS: Final = {"DRIVEPOST_API_TLS_CERTIFICATE_FILE": "/srv/a.pem", "DRIVEPOST_API_TLS_KEY_FILE": "/srv/a.key"}
PROXY: Final = {"DRIVEPOST_API_BEHIND_PROXY": "true"}


@contextmanager
def set_to(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("host", BEYOND)
def test_it_does_not_listen_beyond_this_machine_unprotected(
    data_directory: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither without an issuer nor without TLS or a proxy; the text names what is missing."""
    missing: tuple[tuple[dict[str, str], str], ...] = (
        ({}, "DRIVEPOST_API_ISSUER"),
        (TLS, "DRIVEPOST_API_ISSUER"),
        (PROXY, "DRIVEPOST_API_ISSUER"),
        (ISSUED, "DRIVEPOST_API_BEHIND_PROXY"),
        ({**ISSUED, "DRIVEPOST_API_BEHIND_PROXY": "false"}, "DRIVEPOST_API_TLS_CERTIFICATE_FILE"),
    )
    for values, name in missing:
        with set_to({"DRIVEPOST_API_HOST": host, **values}):
            with pytest.raises(SettingsError, match=name):
                Settings()
            with pytest.raises(SystemExit, match="1"):
                main(["api"])
            said = capsys.readouterr().err.strip()
            assert name in said
            assert len(said.splitlines()) == 1


@pytest.mark.parametrize("host", BEYOND)
def test_it_listens_where_it_is_told_with_an_issuer_and_tls_or_a_proxy(data_directory: Path, host: str) -> None:
    """The settings are taken, and uvicorn is told of the certificate, or whose headers count."""
    with set_to({"DRIVEPOST_API_HOST": host, **ISSUED, **TLS}):
        told = uvicorn_settings(Settings())
        assert told["host"] == host
        assert told["ssl_certfile"] == Path("/srv/a.pem")
        assert told["ssl_keyfile"] == Path("/srv/a.key")
    with set_to({"DRIVEPOST_API_HOST": host, **ISSUED, **PROXY}):
        told = uvicorn_settings(Settings())
        assert told["host"] == host
        assert told["ssl_certfile"] is None


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1", "localhost"])
def test_on_this_machine_it_listens_with_nothing_set(data_directory: Path, host: str | None) -> None:
    """By default nowhere else."""
    with set_to({} if host is None else {"DRIVEPOST_API_HOST": host}):
        assert Settings().api_host == (host or "127.0.0.1")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"DRIVEPOST_API_HOST": ""}, "DRIVEPOST_API_HOST"),
        ({"DRIVEPOST_API_ISSUER": "https://issuer.example.com"}, "DRIVEPOST_API_AUDIENCE"),
        ({**ISSUED, "DRIVEPOST_API_AUDIENCE": ""}, "DRIVEPOST_API_AUDIENCE"),
        ({**ISSUED, "DRIVEPOST_API_ISSUER": ""}, "DRIVEPOST_API_ISSUER"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": ""}, "DRIVEPOST_API_JWKS_URL"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "http://issuer.example.com/keys"}, "https://"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "http://127.0.0.1@issuer.example.com/keys"}, "https://"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "http://127.0.0.1.example.com/keys"}, "https://"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "ftp://issuer.example.com/keys"}, "https://"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "file:///srv/keys"}, "https://"),
        ({**ISSUED, "DRIVEPOST_API_JWKS_URL": "https:///keys"}, "https://"),
        ({"DRIVEPOST_API_TLS_KEY_FILE": "/srv/a.key"}, "DRIVEPOST_API_TLS_CERTIFICATE_FILE"),
        ({"DRIVEPOST_API_TLS_CERTIFICATE_FILE": "/srv/a.pem"}, "DRIVEPOST_API_TLS_KEY_FILE"),
        ({"DRIVEPOST_API_TLS_CERTIFICATE_FILE": "a.pem", "DRIVEPOST_API_TLS_KEY_FILE": "a.key"}, "absolute path"),
        ({**ISSUED, "DRIVEPOST_API_USER_CLAIM": ""}, "DRIVEPOST_API_USER_CLAIM"),
        ({**ISSUED, "DRIVEPOST_API_ROLES_CLAIM": ""}, "DRIVEPOST_API_ROLES_CLAIM"),
        ({**ISSUED, "DRIVEPOST_API_SUBSCRIPTIONS_CLAIM": ""}, "DRIVEPOST_API_SUBSCRIPTIONS_CLAIM"),
        ({"DRIVEPOST_API_REQUESTS_PER_MINUTE": "0"}, "DRIVEPOST_API_REQUESTS_PER_MINUTE"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(
    data_directory: Path, values: dict[str, str], named: str
) -> None:
    """Half an issuer, keys that come in plain text, half a certificate, a claim without a name."""
    with set_to(values), pytest.raises(SettingsError, match=named):
        Settings()


def test_a_proxys_word_on_who_asks_counts_only_where_one_is_said_to_be(
    sqlite: str, issuer: Issuer, tmp_path: Path
) -> None:
    """Else a caller would say so themselves, and be another each time."""
    settings = {**issuer.settings, "DRIVEPOST_API_REQUESTS_PER_MINUTE": "5"}
    with serving(tmp_path, **settings) as served, httpx.Client(base_url=served.address) as alone:
        answers = [alone.get(ME, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(20)]
        assert answers[-1].status_code == 429
    with serving(tmp_path, **settings, **PROXY) as served, httpx.Client(base_url=served.address) as proxy:
        answers = [proxy.get(ME, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(20)]
        assert {answer.status_code for answer in answers} == {401}
        answers = [proxy.get(ME, headers={"X-Forwarded-For": "198.51.100.7"}) for _ in range(20)]
        assert answers[-1].status_code == 429


def test_a_caller_behind_a_proxy_does_not_choose_who_they_are(sqlite: str, issuer: Issuer, tmp_path: Path) -> None:
    """A proxy adds the address it sees to what the caller sent, at the end: that one counts."""
    settings = {**issuer.settings, **PROXY, "DRIVEPOST_API_REQUESTS_PER_MINUTE": "5"}
    with serving(tmp_path, **settings) as served, httpx.Client(base_url=served.address) as proxy:
        answers = [
            proxy.get(ME, headers={"X-Forwarded-For": f"192.0.2.{number}, 198.51.100.7"}) for number in range(20)
        ]
    assert answers[-1].status_code == 429


# What every answer has.


def see_the_headers(answer: httpx.Response) -> None:
    """Every header that each answer has."""
    ids = [answer.headers[name] for name in ("x-ms-request-id", "x-ms-correlation-request-id")]
    assert UUID(ids[0])
    assert ids[1]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    for name in ("x-ms-request-id", "x-ms-correlation-request-id", "cache-control", "x-content-type-options"):
        assert len(answer.headers.get_list(name)) == 1


HARMLESS: Final = ("a", "0f8fad5b-d9cb-469f-a165-70867728950e", "Correlation-7", "x" * 64)
HARMFUL: Final = (
    "",
    "x" * 65,
    "two words",
    "a,b",
    "<script>",
    '"',
    "ada@example.com",
    "a/b",
    "a_b",
    "%0d%0a",
    "ä".encode(),
    b"\xff",
    "a\tb",
)


def test_every_kind_of_answer_has_the_headers(sqlite: str, issuer: Issuer, tmp_path: Path) -> None:
    """Whatever its status; its id is its own, and a correlation id is given back where it is harmless."""
    whole = json.dumps(job_request()["body"]).encode()
    shared = json.dumps({"name": "x"}).encode()
    with serving(tmp_path, **issuer.settings, DRIVEPOST_API_REQUESTS_PER_MINUTE="60") as served:
        good = f"Bearer {issuer.token('customer', subscriptions=['s1'])}"
        asked: list[tuple[int, str, str, str, bytes]] = [
            (200, good, "GET", ME, b""),
            (201, good, "PUT", JOB, whole),
            (200, good, "PUT", JOB, whole),
            (201, good, "POST", "/portal/dashboards", shared),
            (200, good, "DELETE", JOB, b""),
            (404, good, "DELETE", JOB, b""),
            (400, good, "PUT", JOB, b"{"),
            (400, good, "GET", JOB.partition("?")[0], b""),
            (400, good, "GET", "/portal/jobs?$top=0", b""),
            (401, "", "GET", ME, b""),
            (401, "Bearer x", "PUT", JOB, b"{"),
            (403, good, "GET", JOB.replace("/s1/", "/s2/"), b""),
            (403, good, "GET", f"/operator/jobs/{uuid4()}", b""),
            (404, good, "GET", "/nothing", b""),
            (404, "", "GET", "/", b""),
            (405, good, "POST", ME, b""),
            (405, "", "HEAD", ME, b""),
            (200, "", "GET", "/health", b""),
            (200, "", "GET", "/docs", b""),
            (200, "", "GET", "/openapi.json", b""),
            (404, "", "GET", "/docs/assets/nothing", b""),
        ]
        ids = set()
        with httpx.Client(base_url=served.address) as plain:
            for status, authorization, method, path, content in asked:
                headers = {"Authorization": authorization} if authorization else {}
                answer = plain.request(method, path, headers=headers, content=content)
                assert answer.status_code == status, (method, path, answer.text)
                see_the_headers(answer)
                ids.add(answer.headers["x-ms-request-id"])
                if status >= 400 and method != "HEAD" and "assets" not in path:
                    assert answer.headers["content-type"] == "application/json"
                    assert answer.json()["error"]["code"]
            assert len(ids) == len(asked)
            for given in HARMLESS:
                answer = plain.get("/nothing", headers={"x-ms-correlation-request-id": given})
                assert answer.headers["x-ms-correlation-request-id"] == given
                assert answer.headers["x-ms-request-id"] != given
                see_the_headers(answer)
            for harmful in HARMFUL:
                raw = harmful if isinstance(harmful, bytes) else harmful.encode()
                answer = plain.get("/nothing", headers={b"x-ms-correlation-request-id": raw})
                assert answer.headers["x-ms-correlation-request-id"] == answer.headers["x-ms-request-id"]
                see_the_headers(answer)
            for _ in range(130):
                answer = plain.get(ME)
                see_the_headers(answer)
                if answer.status_code == 429:
                    break
            assert answer.status_code == 429
    # The log names each by its id.
    log = served.log.read_text()
    assert [each for each in ids if each not in log] == []


# The log.

SAID: Final = "Quackenbush"
LINE_WORDS: Final = ("drivepost-tests", "Bearer", "eyJ", "skiptoken", "filter", "api-version", "example.com")


def _raw(address: str, request: bytes) -> bytes:
    """Send bytes that are no request."""
    parts = urlsplit(address)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as opened:
        opened.sendall(request)
        return opened.recv(65_536)


def test_the_log_has_no_queries_names_tokens_or_bodies(sqlite: str, issuer: Issuer, tmp_path: Path) -> None:
    """Of answered and of refused requests, and of what is none at all; a line each with id, route and status."""
    token = issuer.token("customer", subscriptions=["s1"], sub=SAID)
    body = job_request(SAID)["body"]
    body["properties"]["returnAddress"] = {**body["properties"]["returnAddress"], "recipientName": SAID}
    url = JOB.replace("job1", SAID).replace("g1", f"{SAID}-group")
    with serving(tmp_path, **issuer.settings) as served:
        with served.client(token) as client:
            client.headers.update({"User-Agent": SAID, "Referer": f"https://{SAID}.example.com", "X-Word": SAID})
            answers = [
                client.put(url, json=body),
                client.get(f"{url}&q={SAID}"),
                client.put(url, content=f'{{"{SAID}": '),
                client.patch(url, json={"properties": {"state": SAID}}),
                client.get(f"/portal/jobs?$filter=name eq '{SAID}'"),
                client.get(f"/portal/jobs?$filter={SAID}"),
                client.get(f"/portal/jobs?$skiptoken={SAID}"),
                client.get(f"/portal/jobs/{SAID}"),
                client.get(f"/{SAID}?{SAID}={SAID}"),
                client.get(url.replace("/s1/", f"/{SAID}/")),
                client.post("/portal/dashboards", json={"name": SAID, "filter": {SAID: SAID}}),
                client.get(url, headers={"Authorization": f"Bearer {SAID}.{SAID}.{SAID}"}),
                client.get(url, headers={"Authorization": f"Basic {SAID}"}),
                client.get(url, headers={"x-ms-correlation-request-id": f"{SAID}"}),
                client.request("POST", f"/docs?{SAID}"),
                client.delete(url),
            ]
        assert {answer.status_code for answer in answers} == {200, 201, 400, 401, 403, 404, 405}
        for nonsense in (
            f"GET /{SAID} {SAID}\r\n\r\n",
            f"{SAID}\r\n\r\n",
            f"GET /{SAID} HTTP/1.1\r\nHost: x\r\n{SAID}\r\n\r\n",
            f"POST /portal/jobs?{SAID} HTTP/1.1\r\nHost: x\r\nContent-Length: {SAID}\r\n\r\n",
            f"GET /{SAID} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ):
            assert SAID.encode() not in _raw(served.address, nonsense.encode())
    log = served.log.read_text()
    assert [word for word in (SAID, token, *LINE_WORDS) if word.lower() in log.lower()] == []
    assert "Traceback" not in log
    for answer in answers:
        [line] = [line for line in log.splitlines() if answer.headers["x-ms-request-id"] in line]
        assert f" {answer.status_code} " in line
    assert "/jobs/{jobName}" in log


def test_a_method_that_is_none_is_not_written_in_the_log(sqlite_server: Server) -> None:
    """Whoever asks chooses its letters, without a token too; its request has a line nevertheless."""
    answer = _raw(sqlite_server.address, f"{SAID.upper()} {ME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    [request_id] = re.findall(rb"x-ms-request-id: (\S+)", answer)
    log, give_up = "", time.monotonic() + 30
    while request_id.decode() not in log:  # its line is written after it was sent
        assert time.monotonic() < give_up
        time.sleep(0.01)
        log = sqlite_server.log.read_text()
    assert SAID.lower() not in log.lower()


def test_a_failed_read_of_the_issuers_keys_is_not_logged_with_its_address(
    looking: IssuerTokens, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """An address may hold a key of its own in its query; no token is written down either."""
    caplog.set_level(logging.INFO)
    issuer.is_away = True
    token = issuer.token("customer")
    secret = Settings().model_copy(update={"api_jwks_url": f"{issuer.url}/keys?code={SAID}"})
    with pytest.raises(IssuerAwayError) as refused:
        bearer(IssuerTokens(secret), token)
    assert issuer.asked == 1
    assert SAID not in str(refused.value)
    assert token not in caplog.text


# Large bodies.


def _chunks(content: bytes) -> Iterator[bytes]:
    """Give a body in pieces, so that nobody knows its length before its end."""
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]


def test_a_body_over_1_mib_is_refused_however_it_comes(sqlite_server: Server) -> None:
    """With its length said or in chunks, by every operation that takes one; one byte less is read."""
    takers = [("PUT", JOB), ("PATCH", JOB), ("POST", "/portal/jobs"), ("PUT", "/portal/settings")]
    takers += [("POST", "/portal/settings/import"), ("POST", "/portal/dashboards")]
    with sqlite_server.client() as client:
        for method, path in takers:
            for size, is_over in ((REQUEST_BYTES_MAX, False), (REQUEST_BYTES_MAX + 1, True)):
                content = b" " * size
                for body in (content, _chunks(content)):
                    answer = client.request(method, path, content=body)
                    assert answer.status_code == 400
                    assert answer.json()["error"]["code"] == "InvalidRequestContent"
                    assert ("over 1 MiB" in answer.json()["error"]["message"]) == is_over
                    see_the_headers(answer)
        assert client.get(ME).status_code == 200


def test_a_body_that_is_far_too_long_is_not_read_to_its_end(sqlite_server: Server) -> None:
    """Nor kept: the answer comes while most of it was not sent; the next request is served."""
    parts = urlsplit(sqlite_server.address)
    head = (
        f"PUT {JOB} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sqlite_server.token}\r\n"
        "Content-Length: 1000000000000\r\n\r\n"
    )
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as opened:
        opened.sendall(head.encode() + b" " * (REQUEST_BYTES_MAX + 1))
        assert opened.recv(65_536).startswith(b"HTTP/1.1 400 ")
    with sqlite_server.client() as client:
        assert client.get(ME).status_code == 200


def test_a_body_is_not_read_of_somebody_who_may_not_send_it(sqlite_server: Server) -> None:
    """401 at once, though the body is still to come."""
    parts = urlsplit(sqlite_server.address)
    head = f"PUT {JOB} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as opened:
        opened.sendall(head.encode())
        assert opened.recv(65_536).startswith(b"HTTP/1.1 401 ")

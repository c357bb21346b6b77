"""Tokens: those of an OIDC issuer, and the one of the embedded default.

Source: issue 4, "Who may"; RFC 6750 (bearer tokens), RFC 7519 (JSON Web Tokens), RFC 7517 (key sets).
"""

import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
import jwt

from models.errors import AccessError, IssuerAwayError, SettingsError, TokenError
from models.lifecycle import Actor
from models.requests import UUID_PATTERN
from models.settings import Settings

LOCAL_USER: Final = uuid5(NAMESPACE_URL, "drivepost:local-user")
"""Whose jobs and settings those are that are made with the token of the embedded default."""

_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that the issuer alone can make: no shared secret, and never none."""

_LEEWAY_SECONDS: Final = 30
_KEYS_FRESH_SECONDS: Final = 300.0
_KEYS_ASKED_AGAIN_SECONDS: Final = 30.0
_NO_KEYS_ASKED_AGAIN_SECONDS: Final = 1.0
_KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})
_FETCH_SECONDS_MAX: Final = 5.0
_TOKEN_BYTES: Final = 32
_SUBSCRIPTIONS_MAX: Final = 500
_TOKEN_LETTERS_MAX: Final = 16_384


class Role(StrEnum):
    """What a caller is."""

    CUSTOMER = "customer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        user_id: the user, by an opaque id.
        roles: one or both.
        subscriptions: those of a customer, in lower case; None is every one.
    """

    user_id: UUID
    roles: frozenset[Role]
    subscriptions: frozenset[str] | None

    @property
    def scopes(self) -> list[str] | None:
        """The subscriptions whose jobs the caller sees; None is every one."""
        if Role.OPERATOR in self.roles or self.subscriptions is None:
            return None
        return sorted(self.subscriptions)

    def acts_in(self, subscription_id: str) -> Actor:
        """Tell as what the caller acts in a subscription.

        Raises:
            AccessError: it is not theirs.
        """
        if Role.CUSTOMER in self.roles and (
            self.subscriptions is None or subscription_id.lower() in self.subscriptions
        ):
            return Actor.CUSTOMER
        if Role.OPERATOR in self.roles:
            return Actor.OPERATOR
        raise AccessError("the role customer and this subscription, or the role operator")

    def owner_as(self, actor: Actor) -> UUID | None:
        """Tell whose a job is that the caller creates: their own; what an operator writes for others is not."""
        return self.user_id if actor is Actor.CUSTOMER else None

    def sees(self, subscription_id: str) -> bool:
        """Tell whether the jobs of a subscription are the caller's to see."""
        return self.scopes is None or subscription_id.lower() in self.scopes

    def require_operator(self) -> Actor:
        """Refuse who is no operator.

        Raises:
            AccessError: the caller is none.
        """
        if Role.OPERATOR not in self.roles:
            raise AccessError("the role operator")
        return Actor.OPERATOR


class Tokens(Protocol):
    """Whatever tells who a token's bearer is."""

    def must_ask(self, token: str) -> bool:
        """Tell whether `ask` has to be called before this token can be looked at."""

    def ask(self, token: str) -> None:
        """Ask elsewhere for what is needed to look at a token; may take seconds."""

    def caller_of(self, token: str) -> Caller:
        """Tell who bears a token, at once.

        Raises:
            TokenError: it does not count.
            IssuerAwayError: it cannot be looked at now.
        """


def tokens_of(settings: Settings) -> Tokens:
    """Make what checks tokens, as the settings say."""
    return IssuerTokens(settings) if settings.api_issuer else LocalToken(settings.token_file)


class LocalToken:
    """The one token of the embedded default: both roles, every subscription."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._token = read_local_token(file).encode()
        self._as_of = _changed_at(file)

    def must_ask(self, token: str) -> bool:  # noqa: ARG002
        """It never has to."""
        return False

    def ask(self, token: str) -> None:
        """Nobody is asked."""

    def caller_of(self, token: str) -> Caller:
        """Tell who bears it: the one user there is. A token whose file is gone or changed counts no more."""
        changed_at = _changed_at(self._file)
        if changed_at != self._as_of:
            self._token = self._file.read_bytes().strip() if changed_at else b""
            self._as_of = changed_at
        if not (self._token and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)):
            raise TokenError("the token is not the one that 'drivepost token' shows")
        return Caller(LOCAL_USER, frozenset(Role), None)


def _changed_at(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def read_local_token(file: Path) -> str:
    """Read the token of the embedded default, made where there is none.

    Raises:
        SettingsError: the file cannot be read or made, or others than its owner may read it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(file)
        if file.stat().st_mode & 0o077:
            raise SettingsError(
                f"DRIVEPOST_DATA_DIRECTORY: others may read {file.name}; remove it, a new one is made at the start"
            )
        token = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"DRIVEPOST_DATA_DIRECTORY: the token's file: {type(error).__name__}") from None
    if len(token) < _TOKEN_BYTES:
        raise SettingsError(f"DRIVEPOST_DATA_DIRECTORY: {file.name} holds no token; remove it, a new one is made")
    return token


def _make(file: Path) -> None:
    """Make the file whole or not at all; of several that start at once, one makes it."""
    if file.exists():
        return
    aside = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    try:
        file.hardlink_to(aside)
    except FileExistsError:
        pass  # somebody else did
    finally:
        aside.unlink()


class IssuerTokens:
    """JSON Web Tokens of one OIDC issuer, for one audience.

    The issuer's keys are kept for five minutes. A token that names a key we do not have makes us ask for them
    anew, twice a minute at most, whoever sends such tokens; if the issuer does not answer, the keys we have go on
    counting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._asked_at = -_KEYS_FRESH_SECONDS
        self._lock = Lock()

    def must_ask(self, token: str) -> bool:
        """Tell whether the issuer's keys are old, or the token's is not among them."""
        try:
            return self._are_keys_old(_key_id(token))
        except TokenError:
            return False

    def ask(self, token: str) -> None:
        """Read the issuer's keys, one caller at a time."""
        # While another asks, who comes is judged by the keys there are; without any they wait.
        if self._lock.acquire(blocking=not self._keys):
            try:
                if self.must_ask(token):
                    self._fetch()
            finally:
                self._lock.release()

    def caller_of(self, token: str) -> Caller:
        """Tell who bears it, by its claims."""
        key = self._key(_key_id(token))
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                issuer=settings.api_issuer,
                audience=settings.api_audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", settings.api_user_claim]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenError("the token has expired") from None
        except jwt.InvalidTokenError as error:
            raise TokenError(f"the token does not count: {type(error).__name__}") from None
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        settings = self._settings
        named = _texts(claims.get(settings.api_roles_claim))
        roles = frozenset(role for role in Role if role in named)
        subscriptions = frozenset(text.lower() for text in _texts(claims.get(settings.api_subscriptions_claim)))
        if len(subscriptions) > _SUBSCRIPTIONS_MAX:
            raise TokenError(f"the token lists over {_SUBSCRIPTIONS_MAX} subscriptions")
        return Caller(_user_id(settings.api_issuer, claims[settings.api_user_claim]), roles, subscriptions)

    def _are_keys_old(self, key_id: str | None) -> bool:
        age = time.monotonic() - self._asked_at
        if not self._keys:
            return age >= _NO_KEYS_ASKED_AGAIN_SECONDS
        return age >= (_KEYS_FRESH_SECONDS if key_id in self._keys else _KEYS_ASKED_AGAIN_SECONDS)

    def _key(self, key_id: str | None) -> jwt.PyJWK:
        keys = self._keys
        if not keys:
            raise IssuerAwayError
        if key_id not in keys:
            raise TokenError("the token is signed with a key that its issuer does not name")
        return keys[key_id]

    def _fetch(self) -> None:
        try:
            answer = httpx.get(self._settings.api_jwks_url, timeout=_FETCH_SECONDS_MAX)
            answer.raise_for_status()
            found = jwt.PyJWKSet.from_dict(answer.json()).keys
        except (httpx.HTTPError, httpx.InvalidURL, jwt.PyJWTError, ValueError, TypeError, AttributeError):
            return  # the keys we have go on counting
        finally:
            self._asked_at = time.monotonic()
        # A shared secret in the set would let whoever reads the set make tokens.
        fit = [key for key in found if key.key_type in _KEY_TYPES and key.public_key_use in {None, "sig"}]
        self._keys = {key.key_id: key for key in fit}


def _key_id(token: str) -> str | None:
    if len(token) > _TOKEN_LETTERS_MAX:
        raise TokenError("the token is too long")
    try:
        named = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        raise TokenError("the token is no JSON Web Token") from None
    return named if isinstance(named, str) else None


def _texts(claim: object) -> list[str]:
    """Read a claim that lists words: as a list, or with spaces between them."""
    listed = claim.split() if isinstance(claim, str) else claim
    words = listed if isinstance(listed, list) else []
    return [each for each in words if isinstance(each, str) and each.isascii()]


def _user_id(issuer: str, claim: object) -> UUID:
    """Bring the issuer's name of a user to an opaque id: a UUID is one, another text becomes one."""
    if not isinstance(claim, str) or not claim or claim != claim.encode(errors="replace").decode():
        raise TokenError("the token names no user")
    return UUID(claim) if re.fullmatch(UUID_PATTERN, claim) else uuid5(NAMESPACE_URL, f"{issuer}\n{claim}")

"""Organizations, their users and keys, and the tokens they were given."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from amigo_async.redact import Secret
from amigo_async.testing.refusals import RefusalError


class Permission(StrEnum):
    """The permissions that the documentation of the endpoints names."""

    CREATE_RUN = "Simulation:CreateSimulationUnitTestSetRun"
    CANCEL_RUN = "Simulation:CancelSimulationUnitTestSetRun"
    GET_RUN = "Simulation:GetSimulationUnitTestSetRun"
    GET_SET = "Simulation:GetSimulationUnitTestSet"
    GET_TEST = "Simulation:GetSimulationUnitTest"
    GET_STATE_MACHINE = "Organization:GetServiceHierarchicalStateMachine"


ALL_PERMISSIONS = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class User:
    """A user of the sandbox.

    Attributes:
        organization_id: The organization that issues the user's tokens.
        user_id: The user's id.
        permissions: What the user may do.
        guest_of: Other organizations in which the user may act, with the same permissions.
    """

    organization_id: str
    user_id: str
    permissions: frozenset[Permission] = ALL_PERMISSIONS
    guest_of: frozenset[str] = frozenset()

    def may(self, permission: Permission) -> bool:
        """Whether the user has `permission`."""
        return permission in self.permissions

    def require(self, *permissions: Permission) -> None:
        """Refuse with a 403 if one of `permissions` is missing."""
        for permission in permissions:
            if permission not in self.permissions:
                raise RefusalError(403, f"Permission {permission.value} is required.")


@dataclass(frozen=True, slots=True)
class _Token:
    user: tuple[str, str]
    expires_at: float


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Accounts:
    """Who may call, and with what.

    Args:
        secret: What tokens are signed with.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._users: dict[str, dict[str, User]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._tokens: dict[str, _Token] = {}
        self._issued = 0

    def add_organization(self, organization_id: str) -> None:
        """Let there be an organization; nothing where it is there."""
        self._users.setdefault(organization_id, {})

    def add_user(self, user: User) -> None:
        """Add or replace a user, and the organization where it is new."""
        self.add_organization(user.organization_id)
        self._users[user.organization_id][user.user_id] = user

    def add_key(self, organization_id: str, key_id: str, key: str) -> None:
        """Add or replace an API key, and the organization where it is new."""
        self.add_organization(organization_id)
        self._keys[organization_id, key_id] = key

    def require_organization(self, organization_id: str) -> None:
        """Refuse with a 404 an organization that is not here."""
        if organization_id not in self._users:
            raise RefusalError(404, f"Organization {organization_id} not found.")

    def user(self, organization_id: str, user_id: str) -> User:
        """One user; `KeyError` where there is none."""
        return self._users[organization_id][user_id]

    def check_key(self, organization_id: str, key_id: str, key: str, user_id: str) -> User:
        """The user to sign in, or a refusal with a 401."""
        known = self._keys.get((organization_id, key_id))
        if known is None or not hmac.compare_digest(known.encode(), key.encode()):
            raise RefusalError(401, "API key not found or incorrect.")
        user = self._users[organization_id].get(user_id)
        if user is None:
            raise RefusalError(401, "User not found.")
        return user

    def issue(self, user: User, now: float, lifetime: float) -> tuple[Secret, float]:
        """A new token in the form of a JWT, and when it expires."""
        for old, held in list(self._tokens.items()):
            if held.expires_at <= now:
                del self._tokens[old]
        self._issued += 1
        expires_at = now + lifetime
        claims = {
            "iss": user.organization_id,
            "sub": user.user_id,
            "jti": str(self._issued),
            "iat": int(now),
            "exp": int(expires_at),
        }
        head = _segment(b'{"alg":"HS256","typ":"JWT"}')
        text = f"{head}.{_segment(msgspec.json.encode(claims))}"
        seal = hmac.new(self._secret, text.encode(), hashlib.sha256).digest()
        token = Secret(f"{text}.{_segment(seal)}")
        self._tokens[token] = _Token((user.organization_id, user.user_id), expires_at)
        return token, expires_at

    def revoke(self, headers: Mapping[str, str]) -> None:
        """Take the token of a request out of use."""
        _, token = _credentials(headers)
        self._tokens.pop(token, None)

    def revoke_all(self) -> None:
        """Take all tokens out of use."""
        self._tokens.clear()

    def authorize(self, organization_id: str, headers: Mapping[str, str], now: float) -> User:
        """Who a request comes from, or a refusal with a 401 or 403."""
        name, token = _credentials(headers)
        held = self._tokens.get(token)
        if held is None or now >= held.expires_at:
            raise unauthorized()
        user = self._users[held.user[0]].get(held.user[1])
        issuer = headers.get("X-ORG-ID", organization_id)
        if user is None or user.organization_id != issuer:
            raise unauthorized()
        if name is not None and name != f"{user.organization_id}_{user.user_id}":
            raise unauthorized()
        if organization_id not in {user.organization_id, *user.guest_of}:
            raise RefusalError(403, f"No access to organization {organization_id}.")
        return user


def unauthorized() -> RefusalError:
    """The refusal of a token that is not good."""
    return RefusalError(401, "Invalid authorization credentials.", {"WWW-Authenticate": "Bearer"})


def _credentials(headers: Mapping[str, str]) -> tuple[str | None, str]:
    """The user name (of Basic) and the token of a request."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return None, Secret(value.strip())
    if scheme.lower() != "basic":
        raise unauthorized()
    try:
        name, colon, token = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized() from None
    if not colon:
        raise unauthorized()
    return name, Secret(token)


def permissions_of(names: Iterable[str] | None) -> frozenset[Permission]:
    """Permissions by name; None for all of them."""
    return ALL_PERMISSIONS if names is None else frozenset(map(Permission, names))

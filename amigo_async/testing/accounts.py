"""Organizations, their users and API keys, and the tokens that were issued to them."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from secrets import token_urlsafe

from amigo_async.redact import Secret
from amigo_async.testing.server import RefusalError


class Permission(StrEnum):
    """The permissions that the documentation of the endpoints names."""

    CREATE_RUN = "Simulation:CreateSimulationUnitTestSetRun"
    CANCEL_RUN = "Simulation:CancelSimulationUnitTestSetRun"
    GET_RUN = "Simulation:GetSimulationUnitTestSetRun"
    GET_SET = "Simulation:GetSimulationUnitTestSet"
    GET_TEST = "Simulation:GetSimulationUnitTest"
    GET_STATE_MACHINE = "Organization:GetServiceHierarchicalStateMachine"


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
    permissions: frozenset[Permission]
    guest_of: frozenset[str]

    def require(self, *permissions: Permission) -> None:
        """Refuse with a 403 if one of `permissions` is missing."""
        for permission in permissions:
            if permission not in self.permissions:
                raise RefusalError(403, f"Permission {permission.value} is required.")


class Accounts:
    """Who may call, and with what."""

    def __init__(self) -> None:
        self._users: dict[str, dict[str, User]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._tokens: dict[str, tuple[User, float]] = {}  # each with its expiry

    def add_organization(self, organization_id: str) -> None:
        """Add an organization, unless there is one."""
        self._users.setdefault(organization_id, {})

    def add_user(
        self,
        organization_id: str,
        user_id: str,
        permissions: Iterable[str] | None,
        guest_of: Iterable[str],
    ) -> User:
        """Add or replace a user, and the organization where it is new."""
        may = Permission if permissions is None else map(Permission, permissions)
        user = User(organization_id, user_id, frozenset(may), frozenset(guest_of))
        self.add_organization(organization_id)
        self._users[organization_id][user_id] = user
        return user

    def add_key(self, organization_id: str, key_id: str, key: str) -> None:
        """Add or replace an API key, and the organization where it is new."""
        self.add_organization(organization_id)
        self._keys[organization_id, key_id] = key

    def require_organization(self, organization_id: str) -> None:
        """Refuse an organization that is not here with a 404."""
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
        """A new token, and when it expires.

        It is random text that looks like a JWT, so that what hides tokens is tried on its like.
        """
        for token, (_, expires_at) in list(self._tokens.items()):
            if expires_at <= now:
                self._tokens.pop(token, None)
        token = Secret(f"eyJ{token_urlsafe(16)}.{token_urlsafe(40)}.{token_urlsafe(32)}")
        self._tokens[token] = user, now + lifetime
        return token, now + lifetime

    def revoke(self, headers: Mapping[str, str]) -> None:
        """Let the token of a request expire."""
        self._tokens.pop(_credentials(headers)[1], None)

    def revoke_all(self) -> None:
        """Let all tokens expire."""
        self._tokens.clear()

    def authorize(self, organization_id: str, headers: Mapping[str, str], now: float) -> User:
        """Who a request comes from, or a refusal with a 401 or 403."""
        name, token = _credentials(headers)
        issued_to, expires_at = self._tokens.get(token, (None, 0.0))
        if issued_to is None or now >= expires_at:
            raise unauthorized()
        # The user as they are now: permissions may have changed since.
        user = self._users[issued_to.organization_id][issued_to.user_id]
        if user.organization_id != headers.get("x-org-id", organization_id):
            raise unauthorized()
        if name is not None and name != f"{user.organization_id}_{user.user_id}":
            raise unauthorized()
        if organization_id not in {user.organization_id, *user.guest_of}:
            raise RefusalError(403, f"No access to organization {organization_id}.")
        return user


def unauthorized() -> RefusalError:
    """The refusal of a token that is not valid."""
    return RefusalError(401, "Invalid authorization credentials.", {"WWW-Authenticate": "Bearer"})


def _credentials(headers: Mapping[str, str]) -> tuple[str | None, str]:
    """The user name (None for Bearer) and the token of a request."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
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

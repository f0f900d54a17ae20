"""Organizations, users, API keys and tokens of the sandbox."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from secrets import token_urlsafe

from amigo_async.checks import check_names, check_text
from amigo_async.redact import Secret
from amigo_async.testing.server import RefusalError


class Permission(StrEnum):
    """A permission of the API."""

    CREATE_RUN = "Simulation:CreateSimulationUnitTestSetRun"
    CANCEL_RUN = "Simulation:CancelSimulationUnitTestSetRun"
    GET_RUN = "Simulation:GetSimulationUnitTestSetRun"
    GET_SET = "Simulation:GetSimulationUnitTestSet"
    GET_TEST = "Simulation:GetSimulationUnitTest"
    GET_METRIC = "Metric:GetMetric"
    GET_EVALUATION = "Metric:GetMetricEvaluationResult"
    GET_STATE_MACHINE = "Organization:GetServiceHierarchicalStateMachine"


@dataclass(frozen=True, slots=True)
class User:
    """A user of the sandbox.

    Attributes:
        organization_id: The organization that issues the user's tokens.
        user_id: The user's id.
        permissions: The permissions of the user.
        guest_of: Other organizations in which the user may act, with the same permissions.
    """

    organization_id: str
    user_id: str
    permissions: frozenset[Permission]
    guest_of: frozenset[str]

    def require(self, *permissions: Permission) -> None:
        """Require `permissions`.

        Raises:
            RefusalError: With a 403, if one is missing.
        """
        for permission in permissions:
            if permission not in self.permissions:
                raise RefusalError(403, f"Permission {permission.value} is required.")


class Accounts:
    """Authenticates and authorizes requests."""

    def __init__(self) -> None:
        self._users: dict[str, dict[str, User]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._tokens: dict[str, tuple[User, float]] = {}  # each with its expiry

    def add_organization(self, organization_id: str) -> None:
        """Add an organization, unless it exists."""
        self._users.setdefault(organization_id, {})

    def add_user(
        self,
        organization_id: str,
        user_id: str,
        permissions: Iterable[str] | None,
        guest_of: Iterable[str],
    ) -> User:
        """Add or replace a user; adds the organization if it does not exist."""
        check_text("organization_id", organization_id)
        check_text("user_id", user_id)
        if permissions is not None:
            check_names("permissions", permissions, Permission)
        may = Permission if permissions is None else map(Permission, permissions)
        user = User(organization_id, user_id, frozenset(may), frozenset(guest_of))
        self.add_organization(organization_id)
        self._users[organization_id][user_id] = user
        return user

    def add_key(self, organization_id: str, key_id: str, key: str) -> None:
        """Add or replace an API key; adds the organization if it does not exist."""
        self.add_organization(organization_id)
        self._keys[organization_id, key_id] = key

    def require_organization(self, organization_id: str) -> None:
        """Require that an organization exists.

        Raises:
            RefusalError: With a 404, if it does not.
        """
        if organization_id not in self._users:
            raise RefusalError(404, f"Organization {organization_id} not found.")

    def user(self, organization_id: str, user_id: str) -> User:
        """Return a user; `KeyError` if there is none."""
        return self._users[organization_id][user_id]

    def check_key(self, organization_id: str, key_id: str, key: str, user_id: str) -> User:
        """Return the user that signs in with an API key.

        Raises:
            RefusalError: With a 401, if the key or the user is wrong.
        """
        known = self._keys.get((organization_id, key_id))
        if known is None or not hmac.compare_digest(known.encode(), key.encode()):
            raise RefusalError(401, "API key not found or incorrect.")
        user = self._users[organization_id].get(user_id)
        if user is None:
            raise RefusalError(401, "User not found.")
        return user

    def issue(self, user: User, now: float, lifetime: float) -> tuple[Secret, float]:
        """Issue a token, and return it with its expiry.

        The token is random text in the shape of a JWT, as code that redacts tokens looks for it.
        """
        for token, (_, expires_at) in list(self._tokens.items()):
            if expires_at <= now:
                self._tokens.pop(token, None)
        token = Secret(f"eyJ{token_urlsafe(16)}.{token_urlsafe(40)}.{token_urlsafe(32)}")
        self._tokens[token] = user, now + lifetime
        return token, now + lifetime

    def revoke(self, headers: Mapping[str, str]) -> None:
        """Revoke the token of a request."""
        self._tokens.pop(_credentials(headers)[1], None)

    def revoke_all(self) -> None:
        """Revoke all tokens."""
        self._tokens.clear()

    def authorize(self, organization_id: str, headers: Mapping[str, str], now: float) -> User:
        """Return the user that sent a request.

        Raises:
            RefusalError: With a 401 without a valid token, or a 403 for a foreign organization.
        """
        name, token = _credentials(headers)
        issued_to, expires_at = self._tokens.get(token, (None, 0.0))
        if issued_to is None or now >= expires_at:
            raise unauthorized()
        # Looked up again, as the permissions may have changed since.
        user = self._users[issued_to.organization_id][issued_to.user_id]
        if user.organization_id != headers.get("x-org-id", organization_id):
            raise unauthorized()
        if name is not None and name != f"{user.organization_id}_{user.user_id}":
            raise unauthorized()
        if organization_id not in {user.organization_id, *user.guest_of}:
            raise RefusalError(403, f"No access to organization {organization_id}.")
        return user


def unauthorized() -> RefusalError:
    """Return the refusal of an invalid token."""
    return RefusalError(401, "Invalid authorization credentials.", {"WWW-Authenticate": "Bearer"})


def _credentials(headers: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the user name (None for Bearer) and the token of a request."""
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

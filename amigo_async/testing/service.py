"""The API: its five endpoints as the contract has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, get_args
from urllib.parse import unquote

import msgspec

from amigo_async.testing import queries
from amigo_async.testing.accounts import Accounts, Permission, User, unauthorized
from amigo_async.testing.contents import Held
from amigo_async.testing.epoch import Epoch, iso
from amigo_async.testing.faults import Fault
from amigo_async.testing.front import Asked, Reply
from amigo_async.testing.limits import Endpoint, HeaderStyle, Limits, Standing
from amigo_async.testing.record import Route
from amigo_async.testing.refusals import RefusalError, invalid
from amigo_async.testing.store import Store
from amigo_async.testing.world import Run, World

_RUNS = r"/v1/(?P<organization>[^/]+)/simulation/unit_test_set_run/"
_ONE = _RUNS + r"(?P<run>[^/]+)/"
_ROUTES: tuple[tuple[re.Pattern[str], dict[str, Endpoint]], ...] = (
    (re.compile(_RUNS), {"GET": "list", "POST": "create"}),
    (re.compile(_ONE), {"DELETE": "cancel"}),
    (re.compile(_ONE + "artifacts/"), {"GET": "artifacts"}),
    (re.compile(r"/v1/(?P<organization>[^/]+)/user/signin_with_api_key"), {"POST": "sign_in"}),
)
_ENDPOINTS = frozenset(get_args(Endpoint))
_KEY_HEADERS = ("x-api-key", "x-api-key-id", "x-user-id")


@dataclass(slots=True)
class Rules:
    """What can be set about the API.

    Attributes:
        token_lifetime: Seconds for which a token is good.
        link_lifetime: Seconds for which a link is good.
        rate_limit_headers: How the numbers of ``X-RateLimit-*`` are written; None for no such
            headers.
        retry_after: How ``Retry-After`` is written; None for no such header.
    """

    token_lifetime: float
    link_lifetime: int
    rate_limit_headers: HeaderStyle | None
    retry_after: HeaderStyle | None


class Service:
    """What the API answers.

    A request is judged in this order: is the organization here (404), who asks (401, 403), is
    there budget (429), is the request well formed (422), may the user do this (403), is the thing
    there (404), can it be done now (400, 409). Of sign-ins, the budget is judged before the key.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        world: World,
        limits: Limits,
        store: Store,
        epoch: Epoch,
        rules: Rules,
    ) -> None:
        self._accounts = accounts
        self._world = world
        self._limits = limits
        self._store = store
        self._epoch = epoch
        self._rules = rules
        self._handlers: dict[str, Callable[[Asked, str, User], Reply]] = {
            "create": self._create,
            "list": self._list,
            "cancel": self._cancel,
            "artifacts": self._artifacts,
        }

    def identify(self, method: str, path: str) -> tuple[Route, str | None]:
        """The endpoint of a request, ``"unknown"`` for none, and the organization in its path."""
        for pattern, methods in _ROUTES:
            found = pattern.fullmatch(path)
            if found is not None:
                return methods.get(method, "unknown"), unquote(found["organization"])
        return "unknown", None

    def failure(self, asked: Asked, status: int) -> Reply:  # noqa: ARG002  # a Backend
        """An answer with `status` in the form of the API's errors."""
        return self._reply(status, {"detail": _phrase(status)})

    async def answer(self, asked: Asked, fault: Fault | None) -> Reply:
        """Do what is asked, or refuse."""
        standing: list[Standing] = []
        try:
            if fault is not None and fault.kind == "expired_token":
                self._accounts.revoke(asked.raw.headers)
                raise unauthorized()
            reply = self._work(asked, standing)
        except RefusalError as refusal:
            reply = self._reply(refusal.status, {"detail": refusal.detail}, refusal.headers)
        rules = self._rules
        for one in standing:
            told = one.headers(rules.rate_limit_headers, rules.retry_after)
            reply = replace(reply, headers={**reply.headers, **told})
        return reply

    def _work(self, asked: Asked, standing: list[Standing]) -> Reply:
        route, organization_id = asked.route, asked.organization_id
        if organization_id is None:
            raise RefusalError(404, "Not Found")
        if route == "unknown" or route == "store":  # noqa: PLR1714  # mypy narrows this
            raise RefusalError(405, "Method Not Allowed", {"Allow": _allowed(asked.path)})
        self._accounts.require_organization(organization_id)
        if route == "sign_in":
            self._spend(organization_id, route, standing)
            return self._sign_in(asked, organization_id)
        now = self._epoch.now()
        user = self._accounts.authorize(organization_id, asked.raw.headers, now)
        self._spend(organization_id, route, standing)
        return self._handlers[route](asked, organization_id, user)

    def _spend(self, organization_id: str, route: Endpoint, standing: list[Standing]) -> None:
        found = self._limits.admit(organization_id, route, self._epoch.now())
        if found is None:
            return
        standing.append(found)
        if not found.admitted:
            raise RefusalError(429, f"Rate limit exceeded: {found.limit} requests a window.")

    def _sign_in(self, asked: Asked, organization_id: str) -> Reply:
        headers = asked.raw.headers
        missing = [name for name in _KEY_HEADERS if name not in headers]
        if missing:
            wrong = [invalid("missing", ("header", name), "Field required") for name in missing]
            raise RefusalError(422, wrong)
        user = self._accounts.check_key(
            organization_id, headers["x-api-key-id"], headers["x-api-key"], headers["x-user-id"]
        )
        now = self._epoch.now()
        token, expires_at = self._accounts.issue(user, now, self._rules.token_lifetime)
        return self._reply(200, {"id_token": str(token), "expires_at": iso(expires_at)})

    def _create(self, asked: Asked, organization_id: str, user: User) -> Reply:
        set_id = _set_id(asked.raw.content_type, asked.body)
        user.require(Permission.CREATE_RUN)
        unit_test_set = self._world.find_set(organization_id, set_id)
        if unit_test_set is None:
            raise RefusalError(404, f"Simulation unit test set {set_id} not found.")
        creator, now = (user.organization_id, user.user_id), self._epoch.now()
        if self._world.unfinished(creator, set_id, now) is not None:
            raise RefusalError(409, "There is an unfinished run of this user and set.")
        run = self._world.start(unit_test_set, creator, now)
        return self._reply(201, {"simulation_unit_test_set_run_id": run.id})

    def _list(self, asked: Asked, organization_id: str, user: User) -> Reply:
        query = queries.read(asked.pairs)
        now = self._epoch.now()
        found = _matching(self._world.of(organization_id, query.ids), query, now)
        if query.newest_first:
            found = found[::-1]
        values = None if query.offset else _filter_values(found)
        if not user.may(Permission.GET_RUN):
            found = []
        page = found[query.offset : query.offset + query.limit]
        end = query.offset + len(page)
        more = end < len(found)
        body = {
            "simulation_unit_test_set_runs": [self._world.encoded(run, user, now) for run in page],
            "has_more": more,
            "continuation_token": end if more else None,
            "filter_values": values,
        }
        return self._reply(200, body)

    def _cancel(self, asked: Asked, organization_id: str, user: User) -> Reply:
        run_id = _run_id(asked.path)
        user.require(Permission.CANCEL_RUN)
        run = self._run(organization_id, run_id)
        now = self._epoch.now()
        if run.state(now).is_completed:
            raise RefusalError(409, "The simulation unit test set run is not in progress.")
        run.cancel(now)
        return Reply(204, {"Server": "amigo-sandbox"})

    def _artifacts(self, asked: Asked, organization_id: str, user: User) -> Reply:
        run_id = _run_id(asked.path)
        user.require(Permission.GET_RUN, Permission.GET_STATE_MACHINE)
        run = self._run(organization_id, run_id)
        if not run.state(self._epoch.now()).artifacts_generated:
            raise RefusalError(400, "The artifacts of this run are not available yet.")
        url, expires_at = self._store.presign(run, "GET", self._rules.link_lifetime)
        return self._reply(200, {"presigned_url": str(url), "url_expires_at": iso(expires_at)})

    def _run(self, organization_id: str, run_id: str) -> Run:
        run = self._world.find_run(organization_id, run_id)
        if run is None:
            raise RefusalError(404, f"Simulation unit test set run {run_id} not found.")
        return run

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
        return Reply(
            status,
            {
                "Content-Type": "application/json",
                "Server": "amigo-sandbox",
                "X-Request-Id": self._world.new_id(),
                **(headers or {}),
            },
            Held(msgspec.json.encode(body)),
        )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _allowed(path: str) -> str:
    return ", ".join(
        method for pattern, methods in _ROUTES if pattern.fullmatch(path) for method in methods
    )


def _run_id(path: str) -> str:
    text = unquote(path.split("/")[5])
    try:
        return queries.object_id(text)
    except ValueError as error:
        kind, message = error.args
        loc = ("path", "simulation_unit_test_set_run_id")
        raise RefusalError(422, [invalid(kind, loc, message, text)]) from None


def _set_id(content_type: str, body: bytes) -> str:
    """The set that the body of a create names; a refusal with a 422 if it names none."""
    if not body:
        raise RefusalError(422, [invalid("missing", ("body",), "Field required")])
    try:
        found = msgspec.json.decode(body) if _is_json(content_type) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusalError(
            422, [invalid("json_invalid", ("body", 0), "JSON decode error")]
        ) from None
    loc = ("body", "simulation_unit_test_set_id")
    if not isinstance(found, dict):
        kind, message = "model_attributes_type", "Input should be a valid dictionary"
        raise RefusalError(422, [invalid(kind, ("body",), message)])
    if "simulation_unit_test_set_id" not in found:
        raise RefusalError(422, [invalid("missing", loc, "Field required", found)])
    set_id = found["simulation_unit_test_set_id"]
    if not isinstance(set_id, str):
        message = "Input should be a valid string"
        raise RefusalError(422, [invalid("string_type", loc, message, set_id)])
    try:
        return queries.object_id(set_id)
    except ValueError as error:
        kind, message = error.args
        raise RefusalError(422, [invalid(kind, loc, message, set_id)]) from None


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _matching(runs: Iterable[Run], query: queries.ListQuery, now: float) -> list[Run]:
    return [run for run in runs if _matches(run, query) and _stands(run, query, now)]


def _matches(run: Run, query: queries.ListQuery) -> bool:
    """Whether what never changes of a run passes the filters."""
    after, before = query.created_after, query.created_before
    return (
        (not query.set_ids or run.set_id in query.set_ids)
        and (not query.creators or run.creator in query.creators)
        and (after is None or run.created_at >= after)
        and (before is None or run.created_at <= before)
    )


def _stands(run: Run, query: queries.ListQuery, now: float) -> bool:
    """Whether what changes of a run passes the filters."""
    wanted = (query.is_completed, query.failed_metrics, query.errored)
    if wanted == (None, None, None):
        return True
    current = run.state(now)
    actual = (current.is_completed, current.failed_metrics, current.errored)
    return all(want is None or want == is_ for want, is_ in zip(wanted, actual, strict=True))


def _filter_values(runs: list[Run]) -> dict[str, Any]:
    creators = dict.fromkeys(run.creator for run in runs)
    return {
        "creators": [{"org_id": one, "user_id": user_id} for one, user_id in creators],
        "simulation_unit_test_set_ids": list(dict.fromkeys(run.set_id for run in runs)),
        "tags": [],
    }

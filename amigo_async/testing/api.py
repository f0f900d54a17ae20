"""The API of the sandbox: its endpoints, as the contract describes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar, get_args, get_type_hints
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Struct

from amigo_async.checks import check_choice, check_names, check_number, check_type
from amigo_async.protocol.endpoints import ENDPOINTS, EndpointName
from amigo_async.testing.accounts import Accounts, Permission, User, unauthorized
from amigo_async.testing.artifact_store import ArtifactStore
from amigo_async.testing.documents import (
    evaluation_documents,
    metric_document,
    metric_ids,
    numbered_unit_tests,
    run_document,
    set_document,
    unit_test_document,
)
from amigo_async.testing.faults import Fault
from amigo_async.testing.queries import (
    CatalogQuery,
    EvaluationQuery,
    MetricQuery,
    ObjectId,
    PageQuery,
    RunQuery,
    SearchQuery,
    UnitTestQuery,
    UnitTestSetQuery,
    catalog_matches,
    evaluation_matches,
    invalid,
    parse_query,
)
from amigo_async.testing.quota import HeaderStyle, Quotas
from amigo_async.testing.server import (
    RecordedRequest,
    RefusalError,
    Reply,
    Route,
    ServiceClock,
)
from amigo_async.testing.simulation import (
    RunInfo,
    SimulatedRun,
    Simulation,
    remember,
    rfc3339,
    to_datetime,
)

RecordT = TypeVar("RecordT")

_PATHS: Final = [
    (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", endpoint.path)), endpoint)
    for endpoint in ENDPOINTS
]
_KEY_HEADERS: Final = ("x-api-key", "x-api-key-id", "x-user-id")
_CACHED: Final = 2_000


class CreateBody(Struct):
    """The body of a request that starts a run."""

    simulation_unit_test_set_id: ObjectId


@dataclass(slots=True)
class Rules:
    """Settings of the API that can be changed while the sandbox serves.

    Attributes:
        token_lifetime: Seconds for which a new token is valid.
        link_lifetime: Whole seconds for which a new link is valid.
        rate_limit_headers: Number format of the ``X-RateLimit-*`` headers; None for no such
            headers.
        retry_after: Number format of ``Retry-After``; None for no such header.
    """

    token_lifetime: float
    link_lifetime: int
    rate_limit_headers: HeaderStyle | None
    retry_after: HeaderStyle | None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a rule.

        Raises:
            ArgumentError: If there is no such rule, or the value is invalid.
        """
        check_names("rules", [name], get_type_hints(Rules))
        if name == "token_lifetime":
            check_number(name, value, above=-math.inf)
        elif name == "link_lifetime":
            check_type(name, value, int)
        elif value is not None:
            check_choice(name, value, get_args(HeaderStyle))
        object.__setattr__(self, name, value)


class Api:
    """Responds to requests to the API.

    The checks are made in this order: the organization exists (404), the user is known (401,
    403), there is quota left (429), the request is well formed (422), the user has the permission
    (403), the object exists (404), the operation is possible now (400, 409). For sign-ins, the
    quota is checked before the key.
    """

    def __init__(  # noqa: PLR0917  # its parts
        self,
        accounts: Accounts,
        simulation: Simulation,
        quotas: Quotas,
        store: ArtifactStore,
        clock: ServiceClock,
        rules: Rules,
    ) -> None:
        self._accounts = accounts
        self._simulation = simulation
        self._quotas = quotas
        self._store = store
        self._clock = clock
        self._rules = rules
        self._handlers: dict[str, Callable[[RecordedRequest, str, User], Reply]] = {
            "create": self._create,
            "list": self._list_runs,
            "cancel": self._cancel,
            "artifacts": self._artifacts,
            "unit_test_sets": self._list_sets,
            "search_unit_test_sets": self._search_sets,
            "unit_tests": self._list_unit_tests,
            "metrics": self._list_metrics,
            "evaluations": self._list_evaluations,
        }
        self._encoded: dict[tuple[str, bool, bool], tuple[RunInfo, msgspec.Raw]] = {}

    def route(self, method: str, path: str) -> tuple[Route, str | None]:
        """Return the endpoint of a request, or ``"unknown"``, and the organization in its path."""
        organization_id = None
        for pattern, endpoint in _PATHS:
            if found := pattern.fullmatch(path):
                organization_id = unquote(found["organization"])
                if endpoint.method == method:
                    return endpoint.name, organization_id
        return "unknown", organization_id

    def refuse(self, request: RecordedRequest, refusal: RefusalError) -> Reply:  # noqa: ARG002
        """Return the error response of the API for a refusal."""
        return self._reply(refusal.status, {"detail": refusal.detail}, refusal.headers)

    async def answer(self, request: RecordedRequest, fault: Fault) -> Reply:
        """Perform the request, or refuse it."""
        quota: dict[str, str] = {}
        try:
            if fault.kind == "expired_token":
                self._accounts.revoke(request.headers)
                raise unauthorized()
            reply = self._answer(request, quota)
        except RefusalError as refusal:
            reply = self.refuse(request, refusal)
        return replace(reply, headers={**reply.headers, **quota})

    def _answer(self, request: RecordedRequest, quota: dict[str, str]) -> Reply:
        """Perform the request, and set the rate limit headers in `quota`."""
        route, organization_id = request.route, request.organization_id
        if organization_id is None:
            raise RefusalError(404, "Not Found")
        if route == "unknown" or route == "store":  # noqa: PLR1714  # mypy narrows this
            raise RefusalError(405, "Method Not Allowed", {"Allow": _allowed(request.path)})
        self._accounts.require_organization(organization_id)
        if route == "sign_in":
            self._spend(organization_id, route, quota)
            return self._sign_in(request, organization_id)
        handler = self._handlers.get(route)
        if handler is None:
            raise RefusalError(404, "Not Found")
        user = self._accounts.authorize(organization_id, request.headers, self._clock.now())
        self._spend(organization_id, route, quota)
        return handler(request, organization_id, user)

    def _spend(self, organization_id: str, endpoint: EndpointName, quota: dict[str, str]) -> None:
        state = self._quotas.admit(organization_id, endpoint, self._clock.now())
        if state is None:
            return
        quota |= state.headers(self._rules.rate_limit_headers, self._rules.retry_after)
        if not state.admitted:
            raise RefusalError(429, f"Rate limit exceeded: {state.limit} requests a window.")

    def _sign_in(self, request: RecordedRequest, organization_id: str) -> Reply:
        headers = request.headers
        missing = [name for name in _KEY_HEADERS if name not in headers]
        if missing:
            raise RefusalError(422, [invalid("header", name) for name in missing])
        key, key_id, user_id = (headers[name] for name in _KEY_HEADERS)
        user = self._accounts.check_key(organization_id, key_id, key, user_id)
        lifetime = self._rules.token_lifetime
        token, expires_at = self._accounts.issue(user, self._clock.now(), lifetime)
        body = {"id_token": str(token), "expires_at": rfc3339(to_datetime(expires_at))}
        return self._reply(200, body)

    # --- runs ---

    def _create(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        set_id = _set_id(request)
        user.require(Permission.CREATE_RUN)
        unit_test_set = self._simulation.find_set(organization_id, set_id)
        if unit_test_set is None:
            raise RefusalError(404, f"Simulation unit test set {set_id} not found.")
        creator, now = (user.organization_id, user.user_id), self._clock.now()
        if self._simulation.is_busy(creator, set_id, now):
            raise RefusalError(409, "There is an unfinished run of this user and set.")
        run = self._simulation.start(unit_test_set, creator, now)
        return self._reply(201, {"simulation_unit_test_set_run_id": run.id})

    def _list_runs(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        query, now = parse_query(request, RunQuery), self._clock.now()
        runs = self._simulation.listed(organization_id, query.id, now)
        found = [run for run in runs if _matches(run, query) and _state_matches(run, query, now)]
        if query.sort_by[:1] == ("-created_at",):
            found.reverse()
        return self._page(
            "simulation_unit_test_set_runs",
            found if Permission.GET_RUN in user.permissions else [],
            query,
            partial(self._encode_run, user=user, now=now),
            filter_values=_filter_values(found),
        )

    def _encode_run(self, run: SimulatedRun, *, user: User, now: float) -> msgspec.Raw:
        """Encode a run as `user` may see it; cached, as a large one takes milliseconds."""
        tests = Permission.GET_SET in user.permissions
        full = Permission.GET_TEST in user.permissions
        key, info = (run.id, tests, full), run.info(now)
        known, raw = self._encoded.get(key, (None, msgspec.Raw()))
        if known != info:
            document = run_document(run, info, tests=tests, full=full)
            raw = msgspec.Raw(msgspec.json.encode(document))
            remember(self._encoded, key, (info, raw), _CACHED)
        return raw

    def _cancel(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        run_id = _run_id(request)
        user.require(Permission.CANCEL_RUN)
        run, now = self._run(organization_id, run_id), self._clock.now()
        if run.is_completed(now):
            raise RefusalError(409, "The simulation unit test set run is not in progress.")
        run.cancel(now)
        return Reply(204, {"Server": "amigo-sandbox"})

    def _artifacts(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        run_id = _run_id(request)
        user.require(Permission.GET_RUN, Permission.GET_STATE_MACHINE)
        run = self._run(organization_id, run_id)
        if not run.has_artifacts(self._clock.now()):
            raise RefusalError(400, "The artifacts of this run are not available yet.")
        url, expires_at = self._store.presign(run, "GET", self._rules.link_lifetime)
        body = {"presigned_url": str(url), "url_expires_at": rfc3339(to_datetime(expires_at))}
        return self._reply(200, body)

    def _run(self, organization_id: str, run_id: str) -> SimulatedRun:
        run = self._simulation.find_run(organization_id, run_id)
        if run is None:
            raise RefusalError(404, f"Simulation unit test set run {run_id} not found.")
        return run

    # --- what runs are made of ---

    def _list_sets(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        query = parse_query(request, UnitTestSetQuery)
        found = self._sets(organization_id, query)
        values = {
            "unit_test_ids": _distinct(
                one["unit_test_id"] for each in found for one in each["unit_test_runs"]
            ),
            **_common_values(found),
        }
        seen = found if Permission.GET_SET in user.permissions else []
        return self._page("simulation_unit_test_sets", seen, query, _as_is, filter_values=values)

    def _search_sets(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        query = parse_query(request, SearchQuery)
        terms = query.query.casefold()
        found = [
            {"_id" if key == "id" else key: value for key, value in one.items()}
            for one in self._sets(organization_id, query)
            if terms in f"{one['name']}\n{one['description']}".casefold()
        ]
        seen = found if Permission.GET_SET in user.permissions else []
        return self._reply(200, {"simulation_unit_test_sets": seen})

    def _sets(self, organization_id: str, query: UnitTestSetQuery) -> list[dict[str, Any]]:
        deleted = self._simulation.deleted
        return _select(
            (
                set_document(
                    one,
                    is_deleted=one.id in deleted,
                    last_run_id=self._simulation.last_run_id(one.id),
                )
                for one in self._simulation.sets_of(organization_id)
            ),
            query,
        )

    def _list_unit_tests(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        query = parse_query(request, UnitTestQuery)
        deleted = self._simulation.deleted
        documents = {
            test_id: unit_test_document(one, test_id, number, is_deleted=test_id in deleted)
            for one in self._simulation.sets_of(organization_id)
            for test_id, number in numbered_unit_tests(one.id, one.plan)
        }
        found = _select(documents.values(), query)
        metrics = (one["metric_id"] for each in found for one in each["success_criterions"])
        values = {
            **_common_values(found),
            **{
                f"{part}s": _distinct(one[part] for one in found)
                for part in ("service_id", "persona_id", "scenario_id")
            },
            "metric_ids": _distinct(metrics),
        }
        seen = found if Permission.GET_TEST in user.permissions else []
        return self._page("simulation_unit_tests", seen, query, _as_is, filter_values=values)

    def _list_metrics(self, request: RecordedRequest, organization_id: str, user: User) -> Reply:
        query = parse_query(request, MetricQuery)
        sets = self._simulation.sets_of(organization_id)
        ids = metric_ids(max((one.plan.metrics for one in sets), default=0))
        deleted = self._simulation.deleted
        found = _select(
            (
                metric_document(organization_id, number, is_deleted=metric_id in deleted)
                for number, metric_id in enumerate(ids)
            ),
            query,
        )
        values = {
            "applied_to_services_ids": [],
            **_common_values(found),
            "types": _distinct(one["metric_value_type"] for one in found),
        }
        seen = found if Permission.GET_METRIC in user.permissions else []
        return self._page("metrics", seen, query, _as_is, filter_values=values)

    def _list_evaluations(
        self, request: RecordedRequest, organization_id: str, user: User
    ) -> Reply:
        query, now = parse_query(request, EvaluationQuery), self._clock.now()
        ids = query.simulation_unit_test_set_run_id
        found = [
            document
            for run in self._simulation.listed(organization_id, ids, now)
            for document in evaluation_documents(run, run.info(now))
            if evaluation_matches(document, query)
        ]
        if query.sort_by[:1] == ("-created_at",):
            found.reverse()
        values = {"metric_ids": _distinct(one["metric_id"] for one in found)}
        seen = found if Permission.GET_EVALUATION in user.permissions else []
        return self._page("metric_evaluation_results", seen, query, _as_is, filter_values=values)

    # --- responses ---

    def _page(
        self,
        key: str,
        records: Sequence[RecordT],
        query: PageQuery,
        encode: Callable[[RecordT], Any],
        *,
        filter_values: dict[str, Any],
    ) -> Reply:
        """Respond with one page of a list.

        Args:
            key: Name of the list in the response.
            records: All records that match and that the user may see, in order.
            query: The parameters of the request.
            encode: Converts a record of the page to what msgspec can encode.
            filter_values: The values to filter by, which only the first page has.
        """
        start, end = query.continuation_token, query.continuation_token + query.limit
        more = end < len(records)
        body = {
            key: [encode(record) for record in records[start:end]],
            "has_more": more,
            "continuation_token": end if more else None,
            "filter_values": None if start else filter_values,
        }
        return self._reply(200, body)

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
        return Reply(
            status,
            {
                "Content-Type": "application/json",
                "Server": "amigo-sandbox",
                "X-Request-Id": self._simulation.new_id(),
                **(headers or {}),
            },
            _encode(body),
        )


def _encode(body: Any) -> bytes:
    """Encode a body as JSON; half of a surrogate pair, which UTF-8 does not have, as an escape."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(body)).encode()


def _select(documents: Iterable[dict[str, Any]], query: CatalogQuery) -> list[dict[str, Any]]:
    """Return the documents that match, in the order asked for."""
    found = [document for document in documents if catalog_matches(document, query)]
    if query.sort_by[:1] == ("-updated_at",):
        found.reverse()
    return found


def _common_values(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the values of the filters that sets, unit tests and metrics have in common."""
    every = list(found)
    creators = {one["creator"]["user_id"]: one["creator"] for one in every}
    return {
        "creators": list(creators.values()),
        "tags": _distinct(tag["key"] for one in every for tag in one["tags"]),
    }


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _as_is(document: dict[str, Any]) -> dict[str, Any]:
    return document


def _allowed(path: str) -> str:
    return ", ".join(endpoint.method for pattern, endpoint in _PATHS if pattern.fullmatch(path))


# --- validation ---


def _run_id(request: RecordedRequest) -> str:
    text = unquote(request.path.split("/")[5])
    try:
        return msgspec.convert(text, ObjectId)
    except msgspec.ValidationError as error:
        loc = ("path", "simulation_unit_test_set_run_id")
        raise RefusalError(422, [invalid(*loc, message=str(error), value=text)]) from None


def _set_id(request: RecordedRequest) -> str:
    """Return the set named in the body of a create; a 422 if there is none."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or content_type.endswith("+json")
    loc: list[str | int] = ["body"]
    try:
        body = request.body if is_json and request.body else b"null"
        return msgspec.json.decode(body, type=CreateBody).simulation_unit_test_set_id
    except msgspec.ValidationError as error:
        message = str(error)
        loc += [name for name in CreateBody.__struct_fields__ if name in message]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = str(error)
        loc.append(0)
    raise RefusalError(422, [invalid(*loc, message=message, value="")])


# --- filters of runs ---


def _matches(run: SimulatedRun, query: RunQuery) -> bool:
    """Return whether the unchanging attributes of a run match the filters."""
    sets, after, before = (
        query.simulation_unit_test_set_id,
        query.created_after,
        query.created_before,
    )
    return (
        (not sets or run.set.id in sets)
        and (not query.creator or ",".join(run.creator) in query.creator)
        and (after is UNSET or run.created_at >= after)
        and (before is UNSET or run.created_at <= before)
    )


def _state_matches(run: SimulatedRun, query: RunQuery, now: float) -> bool:
    """Return whether the current state of a run matches the filters."""
    wanted = (query.is_completed, query.failed_metrics, query.errored)
    if wanted == (UNSET, UNSET, UNSET):
        return True
    info = run.info(now)
    actual = (info.is_completed, info.failed_metrics, info.errored)
    return all(want is UNSET or want == is_ for want, is_ in zip(wanted, actual, strict=True))


def _filter_values(runs: Iterable[SimulatedRun]) -> dict[str, Any]:
    creators = dict.fromkeys(run.creator for run in runs)
    return {
        "creators": [{"org_id": one, "user_id": user_id} for one, user_id in creators],
        "simulation_unit_test_set_ids": list(dict.fromkeys(run.set.id for run in runs)),
        "tags": [],
    }

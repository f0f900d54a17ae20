"""Who may call the sandbox, and what each permission is for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from amigo_sdk.generated import model as official

from amigo_async.testing import Permission, SetPlan
from tests.support.sandbox_kit import NOWHERE, RUNS, Caller, serving, sleep

pytestmark = pytest.mark.anyio

ALL = frozenset(Permission)


def basic(name: str, token: str) -> dict[str, str]:
    pair = base64.b64encode(f"{name}:{token}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


async def test_a_token_is_valid_until_it_expires() -> None:
    async with serving(token_lifetime=100.0) as caller:
        answer = await caller.sign_in()
        assert answer.status == 200
        told = official.UserSignInWithApiKeyResponse.model_validate_json(answer.body)
        left = told.expires_at - datetime.fromtimestamp(caller.now(), UTC)
        assert 99 < left.total_seconds() <= 100

        assert await caller.ids(token=told.id_token) == []
        await sleep(100)
        late = await caller.call("GET", token=told.id_token)
        assert (late.status, late.detail) == (401, "Invalid authorization credentials.")


@pytest.mark.parametrize(
    "headers", [{"x_api_key": "wrong"}, {"x_api_key_id": "wrong"}, {"x_user_id": "wrong"}]
)
async def test_sign_in_with_a_wrong_key_is_401(headers: dict[str, str]) -> None:
    async with serving() as caller:
        answer = await caller.sign_in(**headers)
        assert answer.status == 401
        assert isinstance(answer.detail, str)


async def test_sign_in_without_headers_is_422() -> None:
    async with serving() as caller:
        answer = await caller.call("POST", "user/signin_with_api_key", token="")
        assert answer.status == 422
        assert [entry["loc"] for entry in answer.detail] == [
            ["header", "x-api-key"],
            ["header", "x-api-key-id"],
            ["header", "x-user-id"],
        ]
        assert all({"loc", "msg", "type"} <= entry.keys() for entry in answer.detail)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer x", "Digest x", "Basic ?", "Basic eA=="]
)
async def test_invalid_authorization_is_401(authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with serving() as caller:
        answer = await caller.call("GET", token="", headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_basic_authorization() -> None:
    async with serving() as caller:
        name = f"{caller.sandbox.organization_id}_{caller.sandbox.user_id}"
        good = await caller.call("GET", token="", headers=basic(name, caller.token))
        assert good.status == 200
        for headers in (basic("else_where", caller.token), basic(name, "no token")):
            assert (await caller.call("GET", token="", headers=headers)).status == 401


async def test_guests_name_their_issuer() -> None:
    async with serving() as caller:
        caller.sandbox.add_user("guest", organization_id="issuer", guest_of=["sandbox"])
        token = caller.sandbox.issue_token("guest", organization_id="issuer")
        issued = {"X-ORG-ID": "issuer"}
        assert (await caller.call("GET", token=token)).status == 401
        assert (await caller.call("GET", token=token, headers=issued)).status == 200
        named = {**basic("issuer_guest", token), **issued}
        assert (await caller.call("GET", token="", headers=named)).status == 200

        run_id = await caller.start(caller.sandbox.add_set(), token=token, headers=issued)
        run = await caller.get(run_id)
        assert (run["org_id"], run["creator"]) == (
            "sandbox",
            {"org_id": "issuer", "user_id": "guest"},
        )


async def test_keys_belong_to_an_organization() -> None:
    async with serving() as caller:
        caller.sandbox.add_user("boss", organization_id="other")
        caller.sandbox.add_api_key("id", "key", organization_id="other")
        headers = {"x-api-key": "key", "x-api-key-id": "id", "x-user-id": "boss"}
        path = "user/signin_with_api_key"
        for organization, status in (("other", 200), ("sandbox", 401)):
            answer = await caller.call(
                "POST", path, token="", headers=headers, organization=organization
            )
            assert answer.status == status
        caller.sandbox.add_organization("empty")
        assert (await caller.call("GET", organization="empty")).status == 401


async def test_strangers_are_403() -> None:
    async with serving() as caller:
        caller.sandbox.add_user("stranger", organization_id="issuer")
        token = caller.sandbox.issue_token("stranger", organization_id="issuer")
        answer = await caller.call("GET", token=token, headers={"X-ORG-ID": "issuer"})
        assert answer.status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "user/signin_with_api_key"),
        ("GET", RUNS),
        ("POST", RUNS),
        ("DELETE", f"{RUNS}{NOWHERE}/"),
        ("GET", f"{RUNS}{NOWHERE}/artifacts/"),
    ],
)
async def test_unknown_organization_is_404(method: str, path: str) -> None:
    async with serving() as caller:
        answer = await caller.call(method, path, organization="elsewhere", token="bad")
        assert answer.status == 404
        assert "elsewhere" in answer.detail


async def test_expire_tokens() -> None:
    async with serving() as caller:
        caller.sandbox.expire_tokens()
        assert (await caller.call("GET")).status == 401
        fresh = (await caller.sign_in()).json()["id_token"]
        assert (await caller.call("GET", token=fresh)).status == 200


async def completed(caller: Caller) -> str:
    run_id = await caller.start(caller.sandbox.add_set(SetPlan(outcome="failed")))
    await sleep(5)
    return run_id


@pytest.mark.parametrize(
    ("missing", "method", "path"),
    [
        (Permission.CREATE_RUN, "POST", RUNS),
        (Permission.CANCEL_RUN, "DELETE", RUNS + "{run}/"),
        (Permission.GET_RUN, "GET", RUNS + "{run}/artifacts/"),
        (Permission.GET_STATE_MACHINE, "GET", RUNS + "{run}/artifacts/"),
    ],
)
async def test_missing_permission_is_403(missing: Permission, method: str, path: str) -> None:
    async with serving() as caller:
        run_id = await completed(caller)
        token = await caller.as_user(sorted(ALL - {missing}))
        body = {"simulation_unit_test_set_id": NOWHERE}
        answer = await caller.call(method, path.format(run=run_id), token=token, json=body)
        assert (answer.status, missing.value in answer.detail) == (403, True)


async def test_list_is_empty_without_permission() -> None:
    async with serving() as caller:
        run_id = await completed(caller)
        token = await caller.as_user(sorted(ALL - {Permission.GET_RUN}))
        page = await caller.page(token=token)
        assert (page["simulation_unit_test_set_runs"], page["has_more"]) == ([], False)
        assert await caller.ids() == [run_id]
        # Counted as if the user had access to all runs, says the contract.
        assert len(page["filter_values"]["simulation_unit_test_set_ids"]) == 1


async def test_no_specs_without_permission() -> None:
    async with serving() as caller:
        run_id = await completed(caller)
        token = await caller.as_user(sorted(ALL - {Permission.GET_SET}))
        hidden, shown = await caller.get(run_id, token=token), await caller.get(run_id)
        assert (hidden["unit_test_run_specs"], hidden["unit_test_run_results"]) == ([], [])
        assert hidden["failed_metrics"] is True
        assert len(shown["unit_test_run_specs"]) == len(shown["unit_test_run_results"]) == 3


async def test_blank_fields_without_permission() -> None:
    async with serving() as caller:
        run_id = await completed(caller)
        token = await caller.as_user(sorted(ALL - {Permission.GET_TEST}))
        blanked, shown = await caller.get(run_id, token=token), await caller.get(run_id)
        blank = {"scenario_version_info": None, "persona_version_info": None}
        for hidden, spec in zip(
            blanked["unit_test_run_specs"], shown["unit_test_run_specs"], strict=True
        ):
            assert hidden == {**spec, **blank, "metrics_to_evaluate": []}
            assert spec["scenario_version_info"]
            assert spec["persona_version_info"]
            assert spec["metrics_to_evaluate"]
        for hidden, result in zip(
            blanked["unit_test_run_results"], shown["unit_test_run_results"], strict=True
        ):
            assert hidden == {**result, "metric_evaluation_results": []}
            assert result["metric_evaluation_results"]

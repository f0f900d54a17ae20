"""Settings from arguments and the environment, complete and checked."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from amigo_async import AmigoClient, ApiKeyAuth, BasicAuth, BearerAuth, ConfigurationError
from amigo_async.config import Configuration, configure

ENVIRONMENT = {
    "AMIGO_API_KEY": "env-key",
    "AMIGO_API_KEY_ID": "env-key-id",
    "AMIGO_USER_ID": "env-user",
    "AMIGO_ORGANIZATION_ID": "env-org",
    "AMIGO_BASE_URL": "https://api-eu-central-1.amigo.ai",
}
ARGUMENTS = {
    "api_key": "AMIGO_API_KEY",
    "api_key_id": "AMIGO_API_KEY_ID",
    "user_id": "AMIGO_USER_ID",
    "organization_id": "AMIGO_ORGANIZATION_ID",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


async def listen_slowly(event: object) -> None:
    """A listener that nobody would await."""


def configured(**given: Any) -> Configuration:
    names = ("api_key", "api_key_id", "user_id", "organization_id", "base_url", "auth")
    arguments: dict[str, Any] = dict.fromkeys((*names, "mongo_cluster_name", "headers"))
    return configure(**arguments | given)


def test_settings_from_the_environment() -> None:
    assert configured() == Configuration(
        ApiKeyAuth("env-key", "env-key-id", "env-user"),
        "env-org",
        "https://api-eu-central-1.amigo.ai",
        {},
    )


def test_argument_beats_environment() -> None:
    config = configured(
        api_key="k",
        api_key_id="i",
        user_id="u",
        organization_id="o",
        base_url="http://localhost:8000/",
        mongo_cluster_name="c",
        headers={"X-Mine": "1"},
    )
    assert config == Configuration(
        ApiKeyAuth("k", "i", "u"),
        "o",
        "http://localhost:8000",
        {"X-Mine": "1", "x-mongo-cluster-name": "c"},
    )


def test_default_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMIGO_BASE_URL")
    assert configured().base_url == "https://api.amigo.ai"
    monkeypatch.setenv("AMIGO_BASE_URL", "")
    assert configured().base_url == "https://api.amigo.ai"


@pytest.mark.parametrize(("argument", "variable"), ARGUMENTS.items())
@pytest.mark.parametrize("value", [None, ""])
def test_missing_setting_names_remedies(
    monkeypatch: pytest.MonkeyPatch, argument: str, variable: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{argument} is missing: .*{variable}$"):
        configured()


@pytest.mark.parametrize(("argument", "variable"), ARGUMENTS.items())
@pytest.mark.parametrize("blank", ["\n", "\r\n", " \t"])
def test_blank_ends_are_cut(
    monkeypatch: pytest.MonkeyPatch, argument: str, variable: str, blank: str
) -> None:
    wanted = configured(**{argument: "x"})
    assert configured(**{argument: f"{blank}x{blank}"}) == wanted
    monkeypatch.setenv(variable, f"{blank}x{blank}")
    assert configured() == wanted
    monkeypatch.setenv(variable, blank)
    with pytest.raises(ConfigurationError, match=f"^{argument} is missing"):
        configured()


def test_url_and_cluster_are_stripped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(base_url=" https://h.example\n", mongo_cluster_name="c\n")
    assert (config.base_url, config.headers) == (
        "https://h.example",
        {"x-mongo-cluster-name": "c"},
    )
    monkeypatch.setenv("AMIGO_BASE_URL", "https://h.example\n")
    assert configured().base_url == "https://h.example"
    monkeypatch.setenv("AMIGO_BASE_URL", "\n")
    assert configured().base_url == "https://api.amigo.ai"


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_empty_argument_is_an_error(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{argument} is missing"):
        configured(**{argument: ""})


def test_empty_base_url_is_an_error() -> None:
    """A variable that was forgotten must not lead to production."""
    with pytest.raises(ConfigurationError, match="base_url"):
        configured(base_url="")


@pytest.mark.parametrize(
    "auth", [ApiKeyAuth("k", "i", "u"), BearerAuth("t"), BasicAuth("t", "u", "issuer")]
)
def test_credentials_need_no_variables(
    monkeypatch: pytest.MonkeyPatch, auth: ApiKeyAuth | BearerAuth | BasicAuth
) -> None:
    for variable in ("AMIGO_API_KEY", "AMIGO_API_KEY_ID", "AMIGO_USER_ID"):
        monkeypatch.delenv(variable)
    assert configured(auth=auth).auth is auth


@pytest.mark.parametrize("argument", ["api_key", "api_key_id", "user_id"])
def test_credentials_given_one_way(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        configured(auth=BearerAuth("t"), **{argument: "x"})


@pytest.mark.parametrize("auth", ["token", ("key", "id", "user"), 5, object, {}])
def test_foreign_credentials_are_refused(auth: Any) -> None:
    with pytest.raises(ConfigurationError, match="auth must be ApiKeyAuth, BearerAuth or Basic"):
        configured(auth=auth)


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("https://api.amigo.ai", "https://api.amigo.ai"),
        ("https://api.amigo.ai/", "https://api.amigo.ai"),
        ("https://api.amigo.ai//", "https://api.amigo.ai"),
        ("HTTPS://API.amigo.ai", "https://api.amigo.ai"),
        ("https://proxy.example/amigo/", "https://proxy.example/amigo"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://h/a b", "https://h/a%20b"),
        ("https://h?", "https://h"),
    ],
)
def test_base_urls(given: str, base_url: str) -> None:
    assert configured(base_url=given).base_url == base_url


@pytest.mark.parametrize(
    "base_url",
    [
        *("api.amigo.ai", "ftp://h", "https://", "https:///v1", "//h", "/v1", " ", "https"),
        *("https://[::1", "https://h:99999", "https://h:port", "file:///etc", b"https://h", 5),
        *("http://api.amigo.ai", "http://API-eu-central-1.Amigo.AI."),
        *("https://user:hunter2@h", "https://user@h", "https://h?key=hunter2", "https://h#hunter2"),
    ],
)
def test_base_urls_that_cannot_be_right(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        configured(base_url=base_url)
    assert "hunter2" not in str(caught.value)
    assert "give a URL like https://api.amigo.ai" in str(caught.value)


@pytest.mark.parametrize("organization", ["..", "../x", "."])
def test_the_organization_is_checked(organization: str) -> None:
    with pytest.raises(ConfigurationError, match="organization_id"):
        configured(organization_id=organization)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("api_key", "a\nb"),
        ("api_key_id", "a\r\nX-Evil: 1"),
        ("user_id", "\0"),
        ("mongo_cluster_name", "a\nb"),
        ("mongo_cluster_name", 5),
        ("headers", {"X-Mine": "a\nb"}),
        ("headers", {"Authorization": "Bearer x"}),
        ("headers", {"x-mongo-cluster-name": "c"}),
    ],
)
def test_no_setting_can_smuggle_a_header(argument: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        configured(**{argument: value})


def test_given_headers_stay_unchanged() -> None:
    headers = {"X-Mine": "1"}
    configured(headers=headers, mongo_cluster_name="c")
    assert headers == {"X-Mine": "1"}


def test_no_secret_is_shown() -> None:
    config = configured(api_key="hunter2")
    assert config.auth == ApiKeyAuth("hunter2", "env-key-id", "env-user")
    assert "hunter2" not in repr(config)


def test_client_repr_has_no_secret() -> None:
    client = AmigoClient(api_key="hunter2")
    assert repr(client) == "<AmigoClient env-org at https://api-eu-central-1.amigo.ai>"
    assert "hunter2" not in repr(vars(client))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("request_timeout", bad) for bad in (0, -1, math.nan, math.inf, "30", None, True)),
        *(("poll_interval", bad) for bad in (0, 0.0, -1, math.nan, math.inf, "5", False)),
        *(("max_attempts", bad) for bad in (0, -1, 1.0, "4", None, True)),
        *(("max_response_bytes", bad) for bad in (0, -1, 1.0, "4", None, True)),
        ("on_event", listen_slowly),
    ],
)
def test_invalid_settings(argument: str, value: Any) -> None:
    arguments: dict[str, Any] = {argument: value}
    with pytest.raises(ConfigurationError, match=f"^{argument} must be"):
        AmigoClient(**arguments)


def test_valid_settings() -> None:
    AmigoClient(request_timeout=1, max_attempts=1, poll_interval=0.5, on_event=print)
    AmigoClient(request_timeout=0.1, poll_interval=None, on_event=None)


@pytest.mark.parametrize(
    ("module", "extra", "missing"),
    [
        ("amigo_async.dask", "dask", "distributed"),
        ("amigo_async.otel", "otel", "opentelemetry"),
        ("amigo_async.redis", "redis", "redis"),
        ("amigo_async.redis", "redis", "cryptography"),
    ],
)
def test_import_without_its_extra_says_what_to_install(
    module: str, extra: str, missing: str
) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
try:
    import {module}
except Exception as error:
    print(type(error).__name__, error, error.__cause__)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    said = f'needs its extra: install amigo-async[{extra}] (in a clone: pip install ".[{extra}]")'
    assert ended.stdout.strip() == f"ConfigurationError {module} {said} None"

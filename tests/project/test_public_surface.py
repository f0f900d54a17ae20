"""The names that users build on, written out: a change here is a change for them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packaging.version import Version

import amigo_async
from amigo_async import (
    AmigoClient,
    Artifacts,
    Evaluations,
    Metrics,
    Runs,
    UnitTests,
    UnitTestSets,
    errors,
    events,
    models,
)

PUBLIC = [
    "APIError",
    "AmbiguousStartError",
    "AmigoClient",
    "AmigoError",
    "ApiKeyAuth",
    "ArgumentError",
    "ArtifactChangedError",
    "ArtifactError",
    "ArtifactStream",
    "ArtifactTimeoutError",
    "ArtifactTruncatedError",
    "Artifacts",
    "ArtifactsLink",
    "ArtifactsNotReadyError",
    "AuthenticationError",
    "BadRequestError",
    "BasicAuth",
    "Batch",
    "BatchComparison",
    "BatchOptions",
    "BatchResult",
    "BearerAuth",
    "BudgetState",
    "Cancellation",
    "Change",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "CreatedRun",
    "DeadlineError",
    "DecodeError",
    "Evaluations",
    "Explanations",
    "ForbiddenError",
    "Gate",
    "JournalError",
    "Judgement",
    "MetricComparison",
    "Metrics",
    "Names",
    "NotFoundError",
    "PassRate",
    "RateCounts",
    "RateLimitError",
    "RequestTimeoutError",
    "Run",
    "RunOutcome",
    "RunPage",
    "Runs",
    "ServerError",
    "ServiceUnavailableError",
    "TransportError",
    "UnitTestComparison",
    "UnitTestSet",
    "UnitTestSets",
    "UnitTests",
    "UserInfo",
    "ValidationError",
    "WaitTimeoutError",
    "__version__",
    "compare",
    "compare_sets",
]
# What follows `self`: "*" begins the keywords, "=" gives the default.
BATCH = "unit_test_set_ids, **options"
CLIENT = (
    "*, api_key=None, api_key_id=None, user_id=None, organization_id=None, base_url=None, "
    "auth=None, mongo_cluster_name=None, headers=None, request_timeout=30.0, max_attempts=4, "
    "max_response_bytes=67108864, poll_interval=None, on_event=None, http=None, shared=None"
)
LIST = (
    "*, id=(), simulation_unit_test_set_id=(), creator=(), is_completed=None, "
    "failed_metrics=None, errored=None, created_after=None, created_before=None, sort_by=(), "
    "limit=None, continuation_token=None"
)
SIGNATURES: dict[str, tuple[Any, str]] = {
    "AmigoClient": (AmigoClient.__init__, CLIENT),
    "wait_for_completion": (
        AmigoClient.wait_for_completion,
        "run_id, *, timeout=None, poll_interval=None, require_artifacts=False, on_progress=None",
    ),
    "as_completed": (
        AmigoClient.as_completed,
        "run_ids, *, timeout=None, poll_interval=None, require_artifacts=False",
    ),
    "cancel_and_wait": (AmigoClient.cancel_and_wait, "run_id, *, timeout=None"),
    "run_many": (AmigoClient.run_many, BATCH),
    "open_batch": (AmigoClient.open_batch, BATCH),
    "select_sets": (AmigoClient.select_sets, "*selectors, tags=()"),
    "describe": (AmigoClient.describe, "runs, *, known=None, timeout=30.0"),
    "explain": (
        AmigoClient.explain,
        "runs, *, failed_only=True, known=None, timeout=30.0",
    ),
    "compare": (amigo_async.compare, "baseline, candidate, *, alpha=0.05, known_failing=()"),
    "compare_sets": (amigo_async.compare_sets, "comparisons"),
    "history": (AmigoClient.history, "unit_test_set_id, *, limit=50"),
    "budgets": (AmigoClient.budgets, ""),
    "aclose": (AmigoClient.aclose, ""),
    "runs.create": (Runs.create, "unit_test_set_id, *, on_conflict='raise'"),
    "runs.list": (Runs.list, LIST),
    "runs.iterate": (Runs.iterate, "**filters"),
    "runs.get": (Runs.get, "run_id"),
    "runs.cancel": (Runs.cancel, "run_id"),
    "runs.artifacts": (Runs.artifacts, "run_id"),
    "unit_test_sets.list": (
        UnitTestSets.list,
        (
            "*, id=(), tag=(), unit_test_id=(), creator=(), is_deleted=None, sort_by=(), "
            "limit=None, continuation_token=None"
        ),
    ),
    "unit_test_sets.iterate": (UnitTestSets.iterate, "**filters"),
    "unit_test_sets.search": (
        UnitTestSets.search,
        "query, *, tag=(), creator=(), unit_test_id=()",
    ),
    "unit_tests.list": (
        UnitTests.list,
        (
            "*, id=(), tag=(), service_id=(), persona_id=(), scenario_id=(), metric_id=(), "
            "creator=(), is_deleted=None, sort_by=(), limit=None, continuation_token=None"
        ),
    ),
    "unit_tests.iterate": (UnitTests.iterate, "**filters"),
    "metrics.list": (
        Metrics.list,
        (
            "*, id=(), tag=(), applied_to_service=(), type=(), creator=(), is_deleted=None, "
            "sort_by=(), limit=None, continuation_token=None"
        ),
    ),
    "metrics.iterate": (Metrics.iterate, "**filters"),
    "evaluations.list": (
        Evaluations.list,
        (
            "*, simulation_unit_test_set_run_id=(), metric_id_and_version=(), metric_id=(), "
            "conversation_id=(), source_type=(), timestamp_after=None, timestamp_before=None, "
            "sort_by=(), limit=None, continuation_token=None"
        ),
    ),
    "evaluations.iterate": (Evaluations.iterate, "**filters"),
    "artifacts.stream": (Artifacts.stream, "run_id"),
    "artifacts.download": (Artifacts.download, "run_id, destination, *, connections=1"),
    "ApiKeyAuth": (amigo_async.ApiKeyAuth, "api_key, api_key_id, user_id"),
    "BearerAuth": (amigo_async.BearerAuth, "token, user_id=None, organization_id=None"),
    "BasicAuth": (amigo_async.BasicAuth, "token, user_id, organization_id=None"),
    "UserInfo": (amigo_async.UserInfo, "org_id, user_id"),
}


def test_all_is_pinned() -> None:
    assert amigo_async.__all__ == PUBLIC
    for name in PUBLIC:
        assert hasattr(amigo_async, name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_pinned(name: str) -> None:
    function, expected = SIGNATURES[name]
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    assert str(inspect.Signature(parameters)) == f"({expected})"


LISTS = (Runs, UnitTestSets, UnitTests, Metrics, Evaluations)


@pytest.mark.parametrize("cls", [AmigoClient, Artifacts, *LISTS])
def test_every_public_method_is_pinned(cls: type) -> None:
    pinned = {function for function, _ in SIGNATURES.values() if inspect.isfunction(function)}
    methods = {n: f for n, f in vars(cls).items() if not n.startswith("_") and callable(f)}
    assert methods
    assert set(methods.values()) <= pinned


def unpacked(function: Any, name: str) -> list[str]:
    """The keywords that ``**name`` of a function stands for."""
    [options] = typing.get_args(typing.get_type_hints(function)[name])
    return list(typing.get_type_hints(options))


@pytest.mark.parametrize("cls", LISTS)
def test_iterate_has_the_filters_of_list(cls: Any) -> None:
    listed = [n for n in inspect.signature(cls.list).parameters if n != "self"]
    assert unpacked(cls.iterate, "filters") == listed


OPTIONS = [
    *("artifacts_dir", "timeout", "poll_interval", "on_conflict", "on_failure", "on_exit"),
    *("journal", "on_event", "gate", "known_failing", "describe", "explain", "explain_timeout"),
    *("baseline", "order", "lengths_from"),
]


@pytest.mark.parametrize("function", [AmigoClient.run_many, AmigoClient.open_batch])
def test_batch_options_are_documented(function: Any) -> None:
    assert unpacked(function, "options") == OPTIONS
    doc = inspect.getdoc(function) or ""
    assert [name for name in OPTIONS if f"{name}:" not in doc and f"`{name}`" not in doc] == []


FIELDS: dict[type[msgspec.Struct], list[str]] = {
    models.CreatedRun: ["simulation_unit_test_set_run_id", "attached"],
    models.ArtifactsLink: ["presigned_url", "url_expires_at"],
    models.RunPage: [
        *("simulation_unit_test_set_runs", "has_more", "continuation_token", "filter_values"),
        "unreadable",
    ],
    models.Run: [
        *("org_id", "id", "is_completed", "simulation_unit_test_set_id", "failed_metrics"),
        *("errored", "artifacts_generated", "unit_test_run_specs", "unit_test_run_results"),
        *("created_at", "creator"),
    ],
}


@pytest.mark.parametrize("cls", FIELDS)
def test_fields_of_structs(cls: type[msgspec.Struct]) -> None:
    assert list(cls.__struct_fields__) == FIELDS[cls]


def test_the_fields_of_an_outcome() -> None:
    settled = {
        *("unit_test_set_id", "run_id", "verdict", "run", "error", "artifacts", "attached"),
        *("started_at", "finished_at"),
    }
    assert settled <= set(inspect.signature(amigo_async.RunOutcome).parameters)
    assert {"outcomes", "passed", "counts"} <= set(dir(amigo_async.BatchResult))
    assert {"passed", "progress", "metrics_that_failed", "runs_that_errored"} <= set(
        dir(models.Run)
    )


def documented(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and name[0] != "_"
    ]


@pytest.mark.parametrize("module", [errors, models, events], ids=lambda m: m.__name__)
def test_public_classes_have_docstrings(module: Any) -> None:
    names = documented(module)
    assert len(names) > 5
    for name in names:
        doc = vars(getattr(module, name)).get("__doc__")
        assert doc, name
        assert doc.strip(), name


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_argument_is_documented(name: str) -> None:
    function, _ = SIGNATURES[name]
    owner = {"AmigoClient": AmigoClient}.get(name, function)
    doc = inspect.getdoc(owner) or ""
    assert doc, name
    arguments = [
        n for n in inspect.signature(function).parameters if n not in ("self", "filters", "options")
    ]
    missing = [argument for argument in arguments if f"{argument}:" not in doc]
    if name != "UserInfo":  # a struct of the wire, whose field names say it
        assert not missing


def test_the_version_is_the_packages() -> None:
    assert str(Version(amigo_async.__version__)) == amigo_async.__version__


def in_a_fresh_process(code: str) -> str:
    """What `code` writes, in a process that has only the standard library loaded."""
    done = subprocess.run(
        [sys.executable, "-B", "-X", "utf8", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(amigo_async.__file__).parents[1]), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_has_no_effect() -> None:
    """No network, no file but modules, no thread, no child, no logging, no loop, no output."""
    code = """
import sys
import aiohttp, anyio, backoff, msgspec  # what they do is theirs
seen = []
def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.fork", "os.mkdir", "os.remove",
                         "os.rename", "os.putenv", "os.unsetenv", "shutil.", "tempfile.", "urllib.",
                         "asyncio.", "_thread.start", "signal.")):
        seen.append((event, args))
    if event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".pyi")):
        seen.append((event, args))
import logging, threading, signal, warnings, asyncio
handlers = {s: signal.getsignal(s) for s in signal.valid_signals()}
filters = list(warnings.filters)
root = (logging.root.level, list(logging.root.handlers), threading.active_count())
sys.addaudithook(hook)
import amigo_async
log = logging.getLogger("amigo_async")
print(seen)
print(root == (logging.root.level, list(logging.root.handlers), threading.active_count()))
shown = [h for h in log.handlers if type(h) is not logging.NullHandler]
print(log.level, shown, log.propagate, log.disabled)
print(handlers == {s: signal.getsignal(s) for s in signal.valid_signals()})
print(filters == list(warnings.filters))
"""
    assert in_a_fresh_process(code).splitlines() == [
        "[]",
        "True",
        "0 [] True False",
        "True",
        "True",
    ]


def test_package_is_loaded_with_its_first_use() -> None:
    code = """
import sys, amigo_async
print(*sorted(m for m in sys.modules if m.startswith("amigo_async")))
print(amigo_async.errors.APIError is amigo_async.APIError, hasattr(amigo_async, "nothing"))
print(set(amigo_async.__all__) <= set(dir(amigo_async)))
from amigo_async import *
print(AmigoClient.__name__)
"""
    said = in_a_fresh_process(code).splitlines()
    assert said == ["amigo_async", "True False", "True", "AmigoClient"]


def test_importing_loads_little() -> None:
    """Beyond its own modules, next to nothing that the four dependencies do not load already."""
    code = """
import sys
import aiohttp, anyio, backoff, msgspec
before = set(sys.modules)
from amigo_async import AmigoClient
print(*sorted(m for m in set(sys.modules) - before))
"""
    loaded = in_a_fresh_process(code).split()
    ours = {name for name in loaded if name.split(".")[0] == "amigo_async"}
    assert "amigo_async.client" in ours
    rooms = ("cli", "dask", "fleet", "otel", "redis", "report", "testing")
    assert not {name for name in ours if name.split(".")[1:2] and name.split(".")[1] in rooms}
    others = set(loaded) - ours
    packages = {name.split(".")[0] for name in others}
    assert packages <= set(sys.stdlib_module_names) | {"aiohttp", "anyio", "backoff", "msgspec"}
    assert len(others) <= 15, others
    unwanted = ("aiohttp.web_app", "aiohttp.test_utils", "rich", "click", "jinja2", "pytest")
    assert not set(unwanted) & set(loaded)


# From bottom to top; a room knows those below it, and its own.
ROOMS = [
    ["version", "redact", "cancellation"],
    ["escaping"],
    ["errors", "models", "events", "server_clock", "threads"],
    ["checks", "decoding", "files"],
    ["protocol"],
    ["auth"],
    ["config", "ratelimit"],
    ["transport"],
    ["verdicts", "polling", "artifacts"],
    ["starting"],
    ["resources"],
    ["names", "selection"],
    ["batch"],
    ["client"],
    ["fleet"],
    ["dask"],
]


def imports_of(path: Path) -> set[str]:
    """The rooms of ours that a module imports, at whatever depth; not those for types alone."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    rooms = [name.split(".")[1:2] for name in modules if name.split(".")[0] == "amigo_async"]
    return {room[0] if room else "the package itself" for room in rooms}


def test_imports_run_downward_only() -> None:
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    package = Path(amigo_async.__file__).parent
    upward = [
        (path.name, imported)
        for room in floor
        for path in [*package.glob(f"{room}.py"), *package.glob(f"{room}/**/*.py")]
        for imported in imports_of(path) - {room}
        if floor.get(imported, len(ROOMS)) >= floor[room]
    ]
    assert upward == []


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in Path(amigo_async.__file__).parent.rglob("*.py"))
    given_by_python = {"__init__.py", "__main__.py"}
    assert {name for name, count in names.items() if count > 1} == given_by_python


def test_one_room_alone_talks_http() -> None:
    package = Path(amigo_async.__file__).parent
    talking = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"^\s*(from|import) aiohttp", path.read_text(), re.MULTILINE)
    }
    # The client has it in signatures; the sandbox is the other end of the line.
    assert talking == {"transport", "client.py", "testing"}


# The modules that a user imports; all others are private, whatever they are called.
MODULES = {
    "amigo_async",
    *(
        f"amigo_async.{name}"
        for name in ("cli", "dask", "errors", "events", "fleet", "models", "otel", "redis")
    ),
    *("amigo_async.report", "amigo_async.testing"),
}
TESTS = Path(__file__).parents[1]
# Foreign stores, proxies and Redis meet parts of the package in real time, without the rest of it;
# other statistics meet ours as functions.
SEAMS = {
    f"interop/test_{name}.py"
    for name in ("artifact_servers", "artifacts_killed", "dask", "proxy", "sharing", "statistics")
}


def private_names(path: Path) -> list[str]:
    """The private modules that a test imports, and the private attributes that it touches."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [n for n in names if n.split(".")[0] == "amigo_async" and n not in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module.split(".")[0] == "amigo_async"
            try:
                public = importlib.import_module(node.module) if node.module in MODULES else None
            except errors.ConfigurationError:  # its extra is not installed
                continue
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                module = inspect.ismodule(getattr(public, alias.name, None))
                if inside and (public is None or alias.name[0] == "_" or module):
                    found += [name] if name not in MODULES else []
            found += [node.module] if node.module.startswith("tests.unit") else []
        elif isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            own = ast.unparse(node.value) in ("self", "cls", "super()", "os")
            found += [] if own else [ast.unparse(node)]
    return found


def test_only_units_look_inside() -> None:
    """So that a rename of a private part breaks `tests/unit` alone."""
    paths = {p.relative_to(TESTS).as_posix(): p for p in TESTS.rglob("*.py")}
    outside = {name: p for name, p in paths.items() if not name.startswith("unit/")}
    looking = {name: found for name, p in outside.items() if (found := private_names(p))}
    assert set(looking) <= SEAMS, {n: f for n, f in looking.items() if n not in SEAMS}
    assert private_names(paths["unit/test_starts.py"])

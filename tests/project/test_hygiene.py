"""What importing and using the package does not do behind anybody's back."""

from __future__ import annotations

import tomllib

from packaging.requirements import Requirement

from tests.support.processes import ROOT, in_a_process

# The extras whose lowest versions are tested.
CONSTRAINED = ("cli", "otel", "report")

IMPORTED = """
import contextlib, importlib, logging, pkgutil, signal, sys, threading
import amigo_async

def import_all():
    names = [m.name for m in pkgutil.walk_packages(amigo_async.__path__, "amigo_async.")]
    for name in names:
        if not name.endswith("__main__"):
            # An extra that is not installed says so; what it needs is imported nowhere else.
            with contextlib.suppress(amigo_async.errors.ConfigurationError):
                importlib.import_module(name)
    return len(names)

def state():
    return (
        threading.active_count(),
        [(log.level, list(log.handlers)) for log in (logging.root, logging.getLogger("asyncio"))],
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        {name: id(module) for name, module in sys.modules.items() if "amigo" not in name},
    )

import_all()  # what the other packages do when they are imported is theirs
ours = [name for name in sys.modules if name.split(".")[0] == "amigo_async"]
for name in ours:
    del sys.modules[name]
before = state()

NOISY = ("socket.", "subprocess.", "os.exec", "os.fork", "os.mkdir", "os.remove", "os.rename",
         "os.putenv", "os.unsetenv", "shutil.", "tempfile.", "urllib.", "asyncio.", "_thread.start",
         "signal.", "webbrowser.")

def hook(event, args):
    code = event == "open" and str(args[0]).endswith((".py", ".pyc", ".so"))
    if event.startswith(NOISY) or (event == "open" and not code):
        seen.append((event, str(args)[:200]))

seen = []
sys.dont_write_bytecode = True
sys.addaudithook(hook)
import amigo_async
count = import_all()
found = tuple(seen)
assert before == state(), (before, state())
assert count > 80, count
print(*found, sep="\\n")
"""


def test_importing_touches_nothing() -> None:
    assert in_a_process(IMPORTED).strip() == ""


def test_importing_warns_of_nothing() -> None:
    modules = [f"amigo_async{room}" for room in ("", ".cli", ".otel", ".report", ".testing")]
    in_a_process(f"import {', '.join(modules)}", "-X", "dev", "-W", "error")


USED = """
import asyncio, sys, tempfile
from amigo_async.testing import Sandbox, SetPlan
from urllib.parse import urlsplit

asked = []

def hook(event, args):
    if event in ("socket.connect", "socket.sendto"):
        asked.append(args[1][:2])
    elif event == "socket.getaddrinfo":
        asked.append(args[:2])

async def main(folder):
    plan = SetPlan(seconds=0.0, artifacts_after=0.0)
    async with Sandbox(plan=plan) as sandbox, sandbox.client() as client:
        known = {(urlsplit(url).hostname, urlsplit(url).port)
                 for url in (sandbox.base_url, sandbox.store_url)}
        sys.addaudithook(hook)
        assert (await client.run_many(sandbox.add_sets(2), artifacts_dir=folder)).passed
        assert set(asked) == known, (asked, known)

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
"""


def test_batch_talks_to_two_hosts() -> None:
    in_a_process(USED)


def lowest(requirement: Requirement) -> str:
    (version,) = [spec.version for spec in requirement.specifier if spec.operator == ">="]
    return f"{requirement.name}=={version}"


def test_minimum_versions_are_tested() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, envs = settings["project"], settings["tool"]["hatch"]["envs"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(r for e in CONSTRAINED for r in extras[e])]
    named = [Requirement(text) for text in wanted]
    asked = {lowest(one) for one in named if one.name != "amigo-async"}
    assert set(envs["oldest"]["extra-dependencies"]) == asked

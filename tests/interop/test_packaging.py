"""The package as it is installed: built from the source distribution, into an empty environment."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from packaging.requirements import Requirement

import amigo_async
from tests.support.needs import needs_modules

needs_modules("build", "hatchling", "twine")

ROOT = Path(amigo_async.__file__).parents[1]
CORE = {"aiohttp", "anyio", "backoff", "msgspec"}

# Other programs work here, over the network: there is no virtual time to skip.
pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from the repository, so that nothing is found by chance."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def done(*command: str | Path, folder: Path) -> str:
    result = run(*command, folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Built:
    """The distributions, and an environment that has nothing but the wheel and what it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Without a choice of its own, build makes the wheel from the source distribution.
        done(
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--outdir",
            folder / "dist",
            ROOT,
            folder=folder,
        )
        [self.wheel] = (folder / "dist").glob("*.whl")
        [self.sdist] = (folder / "dist").glob("*.tar.gz")
        venv.create(folder / "env", with_pip=True)
        self.bin = folder / "env" / "bin"
        self.run("pip", "install", "--quiet", "--disable-pip-version-check", self.wheel)

    def run(self, program: str, *arguments: str | Path) -> str:
        return done(self.bin / program, *arguments, folder=self.folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("packaging"))


def test_wheel_has_only_the_package(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names}
    info = f"amigo_async-{amigo_async.__version__}.dist-info"
    assert tops == {"amigo_async", info}
    assert {"amigo_async/py.typed", "amigo_async/__init__.py"} <= names
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "amigo_async").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_sdist_has_the_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "amigo_async/py.typed"),
        *("tests/conftest.py", "tests/interop/openapi.json"),
    } <= names


def test_four_dependencies(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        name = f"amigo_async-{amigo_async.__version__}.dist-info/METADATA"
        metadata = email.message_from_bytes(wheel.read(name))
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert {r.name for r in requirements if r.marker is None} == CORE
    assert set(metadata.get_all("Provides-Extra", [])) == {"cli", "dask", "otel", "redis", "report"}


def test_description_stands_alone(built: Built) -> None:
    """An index renders it, and has no files of the repository that it could link to."""
    files = (built.wheel, built.sdist)
    said = done(sys.executable, "-m", "twine", "check", "--strict", *files, folder=built.folder)
    assert said.count("PASSED") == 2
    with zipfile.ZipFile(built.wheel) as wheel:
        name = f"amigo_async-{amigo_async.__version__}.dist-info/METADATA"
        description = email.message_from_bytes(wheel.read(name)).get_payload()
    assert isinstance(description, str)
    assert description.startswith("# amigo_async\n")
    links = [str(token.attrGet("href") or token.attrGet("src")) for token in _links(description)]
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def _links(text: str) -> list[Token]:
    inline = [token.children or [] for token in MarkdownIt().enable("table").parse(text)]
    return [t for tokens in inline for t in tokens if t.type in ("link_open", "image")]


def test_works_in_an_empty_environment(built: Built) -> None:
    code = """
import importlib.metadata, sys
import amigo_async
client = amigo_async.AmigoClient(auth=amigo_async.BearerAuth("t"), organization_id="o")
print(client, amigo_async.__version__ == importlib.metadata.version("amigo-async"))
print(amigo_async.__file__.startswith(sys.prefix))
print(*sorted({"rich", "click", "jinja2", "pytest"} & set(sys.modules)))
"""
    said = built.run("python", "-W", "error", "-c", code).splitlines()
    assert said == ["<AmigoClient o at https://api.amigo.ai> True", "True", ""]
    listed = built.run("pip", "list", "--format", "freeze", "--disable-pip-version-check")
    installed = {line.split("==")[0].lower() for line in listed.splitlines()}
    assert installed >= CORE
    assert not installed & {"rich", "click", "jinja2", "pytest", "amigo-sdk"}


@pytest.mark.parametrize("module", ["errors", "events", "models", "testing"])
def test_imports_without_extras(built: Built, module: str) -> None:
    built.run("python", "-W", "error", "-c", f"import amigo_async.{module}")


@pytest.mark.parametrize(
    "command", [["amigo-async"], ["amigo-async", "demo"], ["python", "-m", "amigo_async.cli"]]
)
def test_command_without_its_extra(built: Built, command: list[str]) -> None:
    result = run(built.bin / command[0], *command[1:], folder=built.folder)
    assert result.returncode == 3
    assert result.stdout == ""
    assert "amigo-async[cli]" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("extra", ["dask", "redis"])
def test_missing_extra_is_named(built: Built, extra: str) -> None:
    result = run(built.bin / "python", "-c", f"import amigo_async.{extra}", folder=built.folder)
    assert result.returncode == 1
    assert f"needs its extra: install amigo-async[{extra}] " in result.stderr.splitlines()[-1]

"""What figures were measured on: the machine, its load, and the versions of what took part."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from amigo_async.version import __version__

BUILT_ON = ("aiohttp", "msgspec", "anyio")


def facts() -> dict[str, str]:
    """The machine, its load, and the versions of the package and of what it is built on."""
    return {
        "processor": f"{_processor()}, {_cores()} cores",
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} over the last minute",
        "Python": platform.python_version(),
        "amigo_async": __version__,
        **versions(BUILT_ON),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of distributions."""
    return {name: _version(name) for name in packages}


def _processor() -> str:
    """The processor's name as the kernel has it; what Python knows where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    """How many cores this process may use, which can be fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

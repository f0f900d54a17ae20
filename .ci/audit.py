"""Audits an environment for known weaknesses; fails for each, and says what it could not ask."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any


def audited(folder: str, service: str) -> list[dict[str, Any]]:
    """What `service` says of the packages in `folder`; none where it cannot be reached."""
    # Not the exit status, which is that of success too where nothing was found on the service.
    command = [sys.executable, "-m", "pip_audit", "--path", folder, "--vulnerability-service"]
    options = ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    ended = subprocess.run(
        [*command, service, *options], capture_output=True, text=True, check=False
    )
    try:
        found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return found


def report(packages: Iterable[dict[str, Any]]) -> int:
    """Say what is wrong with them; the exit status."""
    status = 0
    for package in packages:
        if "skip_reason" in package:
            print(f"not audited: {package['name']}: {package['skip_reason']}")
        for weakness in package.get("vulns", ()):
            fixed = ", ".join(weakness["fix_versions"]) or "no version"
            print(f"{package['name']} {package['version']}: {weakness['id']}, fixed in {fixed}")
            status = 1
    return status


def main(folder: str) -> int:
    """Audit with the first service that knows any of the packages; the exit status."""
    for service in ("pypi", "osv"):
        packages = audited(folder, service)
        asked = [package for package in packages if "vulns" in package]
        if asked:
            print(f"{len(asked)} of {len(packages)} packages audited with the service {service}")
            return report(packages)
    print("NOT AUDITED: no service that knows of weaknesses can be reached from here")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

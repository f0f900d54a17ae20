"""Links from the names of a report to where people look further, such as the console."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from amigo_async.errors import ArgumentError

_PLACEHOLDER: Final = re.compile(r"\{(run_id|set_id|unit_test_id)\}")
# What a URL may consist of, except what ends or begins something in Markdown.
_SAFE: Final = ":/?#[]@!&'+,;=%~-._"


class Links:
    """Makes URLs from a template.

    Args:
        template: A URL with ``{run_id}``, ``{set_id}`` or ``{unit_test_id}`` after the host; None
            for no links.

    Raises:
        ArgumentError: If the template is not such a URL.
    """

    def __init__(self, template: str | None) -> None:
        self._template = template
        if template is not None:
            _check(template)

    def of_set(self, set_id: str, run_id: str | None) -> str | None:
        """Return the URL for a set; None if it is for unit tests, or needs a run that is not."""
        return self._filled(set_id=set_id, run_id=run_id, unit_test_id=None)

    def of_unit_test(self, set_id: str, run_id: str | None, unit_test_id: str) -> str | None:
        """Return the URL for a unit test; None if it would be that of the whole set."""
        if self._template is None or "{unit_test_id}" not in self._template:
            return None
        return self._filled(set_id=set_id, run_id=run_id, unit_test_id=unit_test_id)

    def _filled(self, **ids: str | None) -> str | None:
        if self._template is None:
            return None
        wanted = _PLACEHOLDER.findall(self._template)
        if any(not ids[name] for name in wanted):
            return None
        filled = _PLACEHOLDER.sub(
            lambda match: quote(ids[match[1]] or "", safe="", errors="replace"), self._template
        )
        return quote(filled, safe=_SAFE, errors="replace")


def _check(template: str) -> None:
    example = "'https://console.example/runs/{run_id}'"
    rest = _PLACEHOLDER.sub("", template) if isinstance(template, str) else ""
    if not rest or rest == template or "{" in rest or "}" in rest:
        raise ArgumentError(
            "link must be a URL with {run_id}, {set_id} or {unit_test_id} and no other "
            f"placeholder, such as {example}, not {template!r}"
        )
    try:
        url = urlsplit(template)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in url.netloc or "{" in url.netloc or not template.isprintable():
        raise ArgumentError(
            "link must begin with http:// or https:// and a host, without a password or a "
            f"placeholder, such as {example}, not {template!r}"
        )

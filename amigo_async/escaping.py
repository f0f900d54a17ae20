"""Escape text of the service for the place where it is written: one function for each place.

========================================================================== ====================
place                                                                      function
========================================================================== ====================
terminal, log file, log of a CI system, `logging`, OpenTelemetry, messages `log_line`
annotation of GitHub Actions                                               `workflow_command`
JSON: report, journal, JSON lines                                          `encode_json`
Markdown                                                                   `escape_markdown`
HTML                                                                       `escape_html`
XML                                                                        `encode_xml`
========================================================================== ====================

Each of them redacts, accepts any string (lone surrogates and control characters too) and gives
text that encodes to UTF-8. JSON, HTML and XML can go to stdout as well, where a CI system reads
along, so nothing in them looks like a command to it. There the text is the same once it is parsed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from amigo_async.redact import HTML_ESCAPES, redact

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element  # only needed for reports

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# Line breaks, tabs and the like; not the plain space, since paths may have several in a row.
_BLANKS = r"[^\S ]+"

# GitHub Actions obeys `::name ...::` at the beginning of a line, after blanks too, and `##[name]`
# anywhere; Azure Pipelines `##vso[...]` and TeamCity `##teamcity[...]` anywhere. What precedes a
# text in its line is not known here, so `::` is taken apart at the beginning of a text and
# wherever a command may begin, but not in `Module::name` and `[::1]`.
_LOG_COMMANDS = r"\A:(?=:)|(?<![\w\[]):(?=:[A-Za-z])|#(?=#)"

# In documents character references and escapes keep the text as it is.
_DOCUMENT_COMMANDS = r"(?<=#)#|(?<=:):"
_JSON_COMMANDS = r"(?<=#)#"  # a line of JSON never begins with a colon

# What neither XML nor HTML can carry: control characters, lone surrogates, non-characters.
_UNSPEAKABLE = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
_SURROGATES = "[\ud800-\udfff]"
# Sets the direction of the text behind it: what is shown is then not what is written.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BIDI = f"[{_DIRECTIONS}]"
# These, further line breaks and C1 control characters, which some terminals obey.
_INVISIBLE = f"[\x7f-\x9f{_DIRECTIONS}\u2028\u2029\ufeff]"

# Punctuation that has a meaning in the Markdown of GitHub or GitLab; `www.` begins a link.
_MARKDOWN = r"[\\`*_{}\[\]()<>#!~:&@$]|(?<=[wW])\."
# GitHub looks for mentions and issues in the rendered text, where a backslash is gone.
_MENTION = r"@(?=\w)|#(?=\d)"

# Runs, sets and organizations are found again by these, so they are written as they are.
_IDS: Final = frozenset(
    {"id", "run_id", "unit_test_set_id", "simulation_unit_test_set_id", "organization_id"}
)


def log_line(text: str) -> str:
    """`text` as part of one line on a terminal, in a log, a log record or an error's message.

    No character moves the cursor, changes colours or the direction of the text, and no CI system
    takes the line for a command.
    """
    line = re.sub(_BLANKS, " ", redact(text)).strip()
    if not line.isprintable():
        line = "".join(char if char.isprintable() else _REPLACEMENT for char in line)
    return re.sub(_LOG_COMMANDS, r"\g<0> ", line) if "::" in line or "##" in line else line


def workflow_command(name: str, message: Iterable[str], *, title: str | None = None) -> str:
    """A line by which GitHub Actions shows an annotation.

    Args:
        name: ``error``, ``warning`` or ``notice``.
        message: Its lines.
        title: Its title; None for GitHub's own.
    """
    heading = ""
    if title is not None:
        escaped = _workflow_data(title).replace(":", "%3A").replace(",", "%2C")
        heading = f" title={escaped}"
    return f"::{name}{heading}::{'%0A'.join(map(_workflow_data, message))}"


def _workflow_data(text: str) -> str:
    return log_line(text).replace("%", "%25")


def encode_json(
    value: Any, *, indent: int = 0, enc_hook: Callable[[Any], Any] | None = None
) -> str:
    """`value` as JSON; ids by which things are found again are kept as they are.

    Numbers that JSON does not have (NaN, infinity) become null.

    Args:
        value: Whatever msgspec can encode.
        indent: Spaces for each level; 0 for everything on one line.
        enc_hook: Converts what msgspec does not know.

    Raises:
        NotImplementedError: If a value has no form in JSON.
        RecursionError: If it is nested too deeply.
    """
    document = msgspec.json.encode(_redacted(msgspec.to_builtins(value, enc_hook=enc_hook)))
    if indent:
        document = msgspec.json.format(document, indent=indent)
    text = re.sub(_INVISIBLE, _json_escape, document.decode())
    return re.sub(_JSON_COMMANDS, _json_escape, text)


def _redacted(value: Any, *, is_id: bool = False) -> Any:
    if isinstance(value, str):
        return re.sub(_SURROGATES, _REPLACEMENT, value if is_id else redact(value))
    if isinstance(value, dict):
        inner = {_redacted(k): _redacted(v, is_id=k in _IDS) for k, v in value.items()}
        if inner.get("type") == "numerical" and inner.get("threshold", 0) is None:
            return {"type": "?", "data": inner}  # a criterion without a number cannot be read back
        return inner
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def escape_markdown(text: str) -> str:
    """`text` as part of a line of Markdown, or of a cell: no markup, link or mention."""
    line = re.sub(_BIDI, _REPLACEMENT, " ".join(document_text(text).split()))
    marked = re.sub(_MENTION, "\\g<0>\N{ZERO WIDTH SPACE}", line)
    escaped = re.sub(_MARKDOWN, r"\\\g<0>", marked)
    # As references: a bar ends a cell even where it is escaped, for some parsers.
    return escaped.replace("|", "&#124;").replace("\N{ZERO WIDTH SPACE}", "&#8203;")


def escape_html(text: str) -> str:
    """`text` for HTML, between tags and in quoted attributes."""
    return _referenced(document_text(text).translate(HTML_ESCAPES))


def encode_xml(root: Element) -> str:
    """`root` and what is in it as an XML document.

    Args:
        root: The elements, with any text in them; it is changed to what can be encoded.
    """
    from xml.etree import ElementTree as ET  # noqa: PLC0415  # only needed for reports

    for element in root.iter():
        if element.text:
            element.text = document_text(element.text)
        for name, value in element.items():
            element.set(name, document_text(value))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return _referenced(document.decode())


def document_text(text: str) -> str:
    """`text` without secrets, and U+FFFD in the place of what a document cannot carry."""
    lines = redact(text).replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(_UNSPEAKABLE, _REPLACEMENT, lines)


def _referenced(markup: str) -> str:
    """Markup whose text looks like a command to nobody, by references to characters."""
    markup = re.sub(_INVISIBLE, _reference, markup)
    return re.sub(_DOCUMENT_COMMANDS, _reference, markup)


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"

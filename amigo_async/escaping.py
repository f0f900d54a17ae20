"""Escape text of the service for where it is written: one function for each destination.

========================================================================== ====================
destination                                                                function
========================================================================== ====================
terminal, log file, log of a CI system, `logging`, OpenTelemetry, messages `log_line`
annotation of GitHub Actions                                               `workflow_command`
JSON: report, journal, JSON lines                                          `encode_json`
Markdown                                                                   `escape_markdown`
HTML                                                                       `escape_html`
XML                                                                        `encode_xml`
========================================================================== ====================

Each function redacts, accepts any string (including lone surrogates and control characters) and
returns text that can be encoded to UTF-8. JSON, HTML and XML may also be written to stdout, which
CI systems scan for commands, so anything that looks like a command is escaped there; parsing
restores the text, of which HTML loses what forces a direction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from amigo_async.redact import HTML_ESCAPES, may_hold_secrets, redact

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element  # only needed for reports

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# White space except the plain space, as paths may have several of those in a row.
_BLANKS = r"[^\S ]+"

# GitHub Actions executes `::name ...::` at the beginning of a line, even after blanks, and
# `##[name]` anywhere; Azure Pipelines executes `##vso[...]` anywhere, and TeamCity
# `##teamcity[...]`. What precedes a text on its line is unknown here, so `::` is split at the
# beginning of a text and wherever a command may begin, but not in `Module::name` and `[::1]`.
_LOG_COMMANDS = r"\A:(?=:)|(?<![\w\[]):(?=:[A-Za-z])|#(?=#)"

# In documents, character references and escapes preserve the text.
_DOCUMENT_COMMANDS = r"(?<=#)#|(?<=:):"
_JSON_COMMANDS = r"(?<=#)#"  # no line of JSON begins with a colon

# Not allowed in XML and HTML: control characters, lone surrogates, non-characters.
_FORBIDDEN = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
_SURROGATES = "[\ud800-\udfff]"
# Characters that change the direction of text, so that it is displayed in another order.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BIDI = f"[{_DIRECTIONS}]"
_FORCED = "[\u202a-\u202e\u2066-\u2069]"
# The same, other line breaks, and C1 control characters, which some terminals execute.
_INVISIBLE = f"[\x7f-\x9f{_DIRECTIONS}\u2028\u2029\ufeff]"

# Punctuation with a meaning in the Markdown of GitHub or GitLab; `www.` begins a link.
_MARKDOWN = r"[\\`*_{}\[\]()<>#!~:&@$]|(?<=[wW])\."
# GitHub finds mentions and issues in the rendered text, after backslashes are removed.
_MENTION = r"@(?=\w)|#(?=\d)"

# Fields with ids, by which objects are found again: they are not redacted.
_IDS: Final = frozenset(
    {"id", "run_id", "unit_test_set_id", "simulation_unit_test_set_id", "organization_id"}
)


def log_line(text: str) -> str:
    """Escape `text` for a line on a terminal, in a log, a log record or an error message.

    The result has no character that moves the cursor or changes colours or text direction, and
    nothing that a CI system executes as a command.
    """
    line = re.sub(_BLANKS, " ", redact(text)).strip()
    if not line.isprintable():
        line = "".join(char if char.isprintable() else _REPLACEMENT for char in line)
    return re.sub(_LOG_COMMANDS, r"\g<0> ", line) if "::" in line or "##" in line else line


def workflow_command(name: str, message: Iterable[str], *, title: str | None = None) -> str:
    """Return a command that makes GitHub Actions show an annotation.

    Args:
        name: ``error``, ``warning`` or ``notice``.
        message: Lines of the message.
        title: Title of the annotation; None for GitHub's default.
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
    """Encode `value` as JSON, redacted except for ids.

    Numbers that JSON does not have (NaN, infinity) become null.

    Args:
        value: Anything msgspec can encode.
        indent: Spaces for each level; 0 writes everything on one line.
        enc_hook: Converts types that msgspec does not know; None for none.

    Raises:
        NotImplementedError: If a value cannot be converted to JSON.
        RecursionError: If `value` is nested too deeply.
    """
    document = _encoded(value, enc_hook)
    if indent:
        document = msgspec.json.format(document, indent=indent)
    text = re.sub(_INVISIBLE, _json_escape, document.decode())
    return re.sub(_JSON_COMMANDS, _json_escape, text)


def _encoded(value: Any, enc_hook: Callable[[Any], Any] | None) -> bytes:
    """Encode `value` as JSON, redacted; ten times as fast if there is nothing to redact."""
    with suppress(UnicodeError):  # lone surrogates
        document = msgspec.json.encode(value, enc_hook=enc_hook)
        text = document.decode()
        # No escape of JSON is within what hints at a secret.
        if not may_hold_secrets(text) and '"threshold":null' not in text:
            return document
    return msgspec.json.encode(_redacted(msgspec.to_builtins(value, enc_hook=enc_hook)))


def _redacted(value: Any, *, is_id: bool = False) -> Any:
    if isinstance(value, str):
        return re.sub(_SURROGATES, _REPLACEMENT, value if is_id else redact(value))
    if isinstance(value, dict):
        inner = {_redacted(k): _redacted(v, is_id=k in _IDS) for k, v in value.items()}
        if inner.get("type") == "numerical" and inner.get("threshold", 0) is None:
            return {"type": "?", "data": inner}  # such a criterion could not be decoded again
        return inner
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def escape_markdown(text: str) -> str:
    """Escape `text` for a line or table cell of Markdown: no markup, link or mention."""
    line = re.sub(_BIDI, _REPLACEMENT, " ".join(document_text(text).split()))
    marked = re.sub(_MENTION, "\\g<0>\N{ZERO WIDTH SPACE}", line)
    escaped = re.sub(_MARKDOWN, r"\\\g<0>", marked)
    # As character references: for some parsers even an escaped bar ends a cell.
    return escaped.replace("|", "&#124;").replace("\N{ZERO WIDTH SPACE}", "&#8203;")


def escape_html(text: str) -> str:
    """Escape `text` for HTML, between tags and in quoted attributes.

    What forces a direction is replaced: within a sentence it would turn around the words of the
    report that follow. Marks, which names in Arabic or Hebrew may need, stay.
    """
    return _referenced(re.sub(_FORCED, _REPLACEMENT, document_text(text)).translate(HTML_ESCAPES))


class XmlText(str):
    """Text for `encode_xml` that is redacted already, or not to be: a link that the user made."""

    __slots__ = ()


def encode_xml(root: Element, children: Iterable[Element]) -> str:
    """Encode an XML document.

    Each child is encoded before the next one is made: a large tree would take much memory, and
    functions in C that work on all of it would not let other threads run for seconds.

    Args:
        root: Root element, without children; it is encoded last, so `children` may change it.
        children: Its children. Text and attributes that XML does not allow are replaced in place.
    """
    markup = [f"\n  {_xml_markup(child, level=1)}" for child in children]
    start, end, name = _xml_markup(root, level=0).rpartition("</")
    return "".join(["<?xml version='1.0' encoding='utf-8'?>\n", start, *markup, "\n", end, name])


def _xml_markup(tree: Element, *, level: int) -> str:
    from xml.etree import ElementTree as ET  # noqa: PLC0415  # only needed for reports

    for element in tree.iter():
        if element.text and not isinstance(element.text, XmlText):
            element.text = document_text(element.text)
        for name, value in element.items():
            if not isinstance(value, XmlText):
                element.set(name, document_text(value))
    ET.indent(tree, level=level)
    return _referenced(ET.tostring(tree, encoding="unicode", short_empty_elements=level > 0))


def document_text(text: str) -> str:
    """Redact `text`, and replace characters that documents do not allow by U+FFFD."""
    lines = redact(text).replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(_FORBIDDEN, _REPLACEMENT, lines)


def _referenced(markup: str) -> str:
    """Replace commands of CI systems and invisible characters by character references."""
    markup = re.sub(_INVISIBLE, _reference, markup)
    return re.sub(_DOCUMENT_COMMANDS, _reference, markup)


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"

"""The templates, filled in so that every value is escaped without being asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from amigo_async.errors import ConfigurationError
from amigo_async.escaping import escape_html, escape_markdown
from amigo_async.redact import redact

if TYPE_CHECKING:
    from jinja2 import Environment, Template


_LONGEST: Final = 1000


class _Escaped(str):
    """HTML, which jinja leaves as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def page_template(name: str) -> Template:
    """A template of HTML.

    Args:
        name: Its file name.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    return _environment(lambda text: _Escaped(escape_html(text)), autoescape=True).get_template(
        name
    )


def markdown_template(name: str) -> Template:
    """A template of Markdown, which shows no more of a value than its first 1,000 characters.

    Args:
        name: Its file name.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    return _environment(_short_markdown, autoescape=False).get_template(name)


def _short_markdown(text: str) -> str:
    if len(text) > _LONGEST:
        # Redacted first: half of a secret may not look like one.
        text = f"{redact(text)[:_LONGEST]} ..."
    return escape_markdown(text)


def _environment(escape: Callable[[str], str], *, autoescape: bool) -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # an extra
    except ImportError:
        raise ConfigurationError(
            "this report needs jinja2; install it with: pip install 'amigo-async[report]'"
        ) from None
    return Environment(
        loader=PackageLoader("amigo_async.report"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701  # Markdown is escaped below
        # Strings of other types are markup that jinja has put together itself.
        finalize=lambda value: escape(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

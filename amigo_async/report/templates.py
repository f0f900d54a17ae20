"""Loads the templates, in which every value is escaped automatically."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from amigo_async.errors import missing_extra
from amigo_async.escaping import escape_html, escape_markdown
from amigo_async.report.wording import cut_text

if TYPE_CHECKING:
    from jinja2 import Environment, Template


# Characters of a value that a Markdown report shows.
_MAX_CHARACTERS: Final = 1000


class Markup(str):
    """Escaped HTML or Markdown, which is not escaped again."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def page_template(name: str) -> Template:
    """Load an HTML template.

    Args:
        name: Its file name.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    return _environment(_html_text, autoescape=True).get_template(name)


def markdown_template(name: str) -> Template:
    """Load a Markdown template; it shows the first 1,000 characters of each value.

    Args:
        name: Its file name.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    return _environment(markdown_text, autoescape=False).get_template(name)


def markdown_text(text: str) -> Markup:
    """Escape `text` for Markdown; only its first 1,000 characters are shown."""
    return Markup(escape_markdown(cut_text(text, _MAX_CHARACTERS)))


def _html_text(text: str) -> Markup:
    return Markup(escape_html(text))


def _environment(escape: Callable[[str], str], *, autoescape: bool) -> Environment:
    try:
        import jinja2  # noqa: F401, PLC0415  # an extra
    except ImportError:
        raise missing_extra("this report", "report") from None
    return _cached_environment(escape, autoescape=autoescape)


@cache  # with its templates: compiling them takes longer than most reports
def _cached_environment(escape: Callable[[str], str], *, autoescape: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # an extra

    return Environment(
        loader=PackageLoader("amigo_async.report"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701  # Markdown is escaped below
        # Subclasses of str are markup that jinja has rendered itself.
        finalize=lambda value: escape(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

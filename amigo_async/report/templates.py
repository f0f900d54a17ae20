"""The templates, filled in so that every value is escaped without being asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from amigo_async.errors import ConfigurationError
from amigo_async.report.words import clean

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#!|~:&@$])")


def render_page(template: str, **values: Any) -> str:
    """Fill in a template of HTML.

    Args:
        template: Its file name.
        values: What it shows.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    environment = _environment(autoescape=True, finalize=_clean)
    return environment.get_template(template).render(values)


def render_markdown(template: str, **values: Any) -> str:
    """Fill in a template of Markdown.

    Args:
        template: Its file name.
        values: What it shows.

    Raises:
        ConfigurationError: If jinja2 is not installed.
    """
    environment = _environment(autoescape=False, finalize=escape_markdown)
    return environment.get_template(template).render(values)


def _environment(**options: Any) -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # an extra
    except ImportError:
        raise ConfigurationError(
            "this report needs jinja2; install it with: pip install 'amigo-async[report]'"
        ) from None
    return Environment(  # noqa: S701  # Markdown has an escape of its own, HTML has it on
        loader=PackageLoader("amigo_async.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def _clean(value: Any) -> Any:
    return clean(value) if type(value) is str else value


def escape_markdown(value: Any) -> Any:
    """`value` so that Markdown shows it as it is, on one line."""
    if not isinstance(value, str):
        return value
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(value).split()))

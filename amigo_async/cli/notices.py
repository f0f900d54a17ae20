"""What the command says on stderr while no progress is shown: delays, and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from amigo_async.cli.reasons import clock, endpoint_name, retry_in_words
from amigo_async.cli.streams import note
from amigo_async.escaping import log_line
from amigo_async.events import Event, LimitHeld, RequestRetried
from amigo_async.report.wording import duration

# Shorter delays, in seconds, are not mentioned.
NOTABLE: Final = 1.0


def print_delay(event: Event) -> None:
    """Print until when a request is held by its rate limit, or that it failed and is retried."""
    text = None
    if isinstance(event, LimitHeld) and event.delay >= NOTABLE:
        text = (
            f"{endpoint_name(event.endpoint)}: waiting for the rate limit of the organization, "
            f"until {clock(event.delay)} (in {duration(event.delay)})"
        )
    elif isinstance(event, RequestRetried) and event.delay >= NOTABLE:
        text = retry_in_words(event)
    if text is not None:
        note(text)


class _StderrHandler(logging.Handler):
    """Writes records to whatever stderr is; one that cannot be written costs nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record in one line."""
        note(log_line(self.format(record)))


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write everything that the package logs to stderr inside this context."""
    logger, handler = logging.getLogger("amigo_async"), _StderrHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    )
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)

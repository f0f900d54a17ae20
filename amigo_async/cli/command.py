"""What all subcommands share: how a coroutine becomes one, their options and their output."""

from __future__ import annotations

import codecs
import functools
import io
import math
import re
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import IO, Any, Final, NamedTuple, TypeVar, cast, get_args

import click

from amigo_async.cli.exit_codes import ExitCode, exit_code_of_error
from amigo_async.cli.notices import logging_to_stderr, print_delay
from amigo_async.cli.reasons import explain
from amigo_async.cli.settings import EnvFile, parse_env_file, read_settings
from amigo_async.cli.signals import Interrupts
from amigo_async.cli.streams import note
from amigo_async.cli.token_cache import TokenCache
from amigo_async.client import AmigoClient
from amigo_async.errors import AmigoError, ArgumentError
from amigo_async.escaping import log_line
from amigo_async.events import Listener
from amigo_async.protocol.requests import check_run_id, is_id
from amigo_async.report.model import FailOn
from amigo_async.transport import environment_session
from amigo_async.verdicts.gate import Errored, Gate, Per

F = TypeVar("F", bound=Callable[..., Any])

# In a name, a "#" begins a comment only at the beginning of a word.
_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


# --- running a subcommand ---


def async_command(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Turn a coroutine function into a callback for click, and add the option --debug.

    The callback runs the coroutine in an event loop of its own, handles signals, prints an
    error in one line and returns the exit code.
    """

    @functools.wraps(command)
    @click.pass_context
    def run_command(
        ctx: click.Context,
        /,
        *args: Any,
        debug: bool,
        env_file: IO[Any] | None = None,
        no_token_cache: bool = False,
        verbose: bool = False,
        **options: Any,
    ) -> int:
        given = None
        if env_file is not None:
            given = parse_env_file(name_of(env_file), read_text(env_file))
        ctx.obj = state = _CommandState(Interrupts(), debug, given, no_token_cache, verbose)
        try:
            with logging_to_stderr() if verbose else nullcontext():
                return state.interrupts.run(command(*args, **options))
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            note("Interrupted.")
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            return ExitCode.PASSED  # the reader of stdout has closed it, and needs no more
        except Exception as error:  # noqa: BLE001  # whatever it is, it is printed in one line
            print_error(error)
            return exit_code_of_error(error)

    option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    return option(run_command)


def service_command(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Turn a coroutine function that calls the service into a callback for click.

    As `async_command`, with the options that `open_client` obeys.
    """
    options = (
        click.option(
            "--env-file",
            type=click.File("rb"),
            metavar="FILE",
            help="Read AMIGO_* settings from this file, unless the environment has them.",
        ),
        click.option(
            "--no-token-cache",
            is_flag=True,
            envvar="AMIGO_NO_TOKEN_CACHE",
            help="Sign in for this command alone, and keep no token for the next one.",
        ),
        click.option("--verbose", is_flag=True, help="Write the log to stderr too."),
    )
    function = async_command(command)
    for option in reversed(options):
        function = option(function)
    return function


class _CommandState(NamedTuple):
    """State of one call of the command, kept in click's context.

    Attributes:
        interrupts: Handles the signals.
        debug: Whether to print tracebacks of errors.
        env_file: A file with settings; None for none.
        no_token_cache: Whether to keep the token out of the user's cache folder.
        verbose: Whether the log goes to stderr.
    """

    interrupts: Interrupts
    debug: bool
    env_file: EnvFile | None
    no_token_cache: bool
    verbose: bool


def interrupts() -> Interrupts:
    """Return the signal handling of the command that is running."""
    state: _CommandState = click.get_current_context().obj
    return state.interrupts


def is_verbose() -> bool:
    """Return whether the log of the command that is running goes to stderr."""
    state: _CommandState = click.get_current_context().obj
    return state.verbose


def settings() -> dict[str, Any]:
    """Return the settings of the command that is running, as arguments of `AmigoClient`.

    Raises:
        click.ClickException: If settings are missing; the message names all of them.
    """
    state: _CommandState = click.get_current_context().obj
    return read_settings(state.env_file)


@asynccontextmanager
async def open_client(
    on_event: Listener = print_delay, *, fresh_token: bool = False, base_url: str | None = None
) -> AsyncIterator[AmigoClient]:
    """Open a client configured by the environment and --env-file, proxies included.

    Args:
        on_event: Called with each event. By default, what is held or retried is printed.
        fresh_token: Whether to sign in even if a valid token is cached.
        base_url: Where to connect instead of where the settings say; None for there.

    Raises:
        click.ClickException: If settings are missing; the message names all of them.
        ConfigurationError: If a setting is invalid.
    """
    state: _CommandState = click.get_current_context().obj
    given = settings() | ({} if base_url is None else {"base_url": base_url})
    tokens = None if state.no_token_cache else TokenCache(fresh=fresh_token)
    async with AsyncExitStack() as stack:
        http = environment_session()
        if http is not None:
            await stack.enter_async_context(http)
        client = AmigoClient(**given, on_event=on_event, http=http, shared=tokens)
        yield await stack.enter_async_context(client)


# --- errors and output ---


def print_error(error: Exception, context: str | None = None) -> bool:
    """Print an error to stderr in one line; return False if stderr cannot be written.

    Args:
        error: The error.
        context: What failed, e.g. ``r.xml was not written``; None if the error says it.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is not None and isinstance(ctx.obj, _CommandState) and ctx.obj.debug:
        _print_traceback(error)
    if isinstance(error, AmigoError):
        message = explain(error)
    elif isinstance(error, OSError):
        message = log_line(error.strerror or str(error))
        if not context:
            message = f"{log_line(str(error.filename or 'cannot continue'))}: {message}"
    else:
        message = (
            f"unexpected {type(error).__name__}: {log_line(str(error))}; --debug shows where. "
            "Please report it"
        )
    return note(f"Error: {log_line(context)}: {message}" if context else f"Error: {message}")


def _print_traceback(error: Exception) -> None:
    """Print a traceback to stderr, escaped: messages in it may be from the service."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        margin = line[: len(line) - len(line.lstrip(" "))]
        note(f"{margin}{log_line(line)}")


def print_notes(notes: Iterable[str]) -> None:
    """Print to stderr what could not be read of names and reasons, each once."""
    for text in dict.fromkeys(map(log_line, notes)):
        note(f"Note: {text}")


class Outputs:
    """Writes results to several outputs, and goes on with the others if one fails."""

    def __init__(self) -> None:
        self._failures: list[tuple[str, Exception]] = []
        self._lost = False

    @contextmanager
    def to(self, output: str, *, extra: bool = False) -> Iterator[None]:
        """Write to `output` inside this context; an error is kept for `print_failures`.

        Args:
            output: What is written, for a message.
            extra: Whether nobody asked for it, and the exit code says what matters of it.
        """
        try:
            yield
        except BrokenPipeError:
            pass  # the reader has closed it, and needs no more
        except Exception as error:  # noqa: BLE001  # whatever it is, the others are written
            self._failures.append((output, error))
            self._lost |= not extra

    def print_failures(self, code: ExitCode) -> ExitCode:
        """Print to stderr which outputs could not be written.

        Args:
            code: The exit code of the command so far.

        Returns:
            `code`; but `ExitCode.ERRORED` instead of 0 if what was asked for could not be written,
            or stderr cannot be written either, as only the exit code can tell then.
        """
        printed = [print_error(error, f"{name} was not written") for name, error in self._failures]
        lost = self._lost or not all(printed)
        return ExitCode.ERRORED if code is ExitCode.PASSED and lost else code


# --- types of arguments ---


def parse_duration(text: str) -> float:
    """Parse a duration, e.g. ``90``, ``30m`` or ``2h``, into seconds."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0.0 if match is None else float(match[1]) * _SECONDS[match[2] or "s"]
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"{text!r} is not a duration above 0, like 90, 30m or 2h")
    return seconds


def parse_share(text: str) -> float:
    """Parse a share, e.g. ``90%`` or ``0.9``."""
    digits, percent, rest = text.strip().partition("%")
    try:
        # Divided as decimals, so that 99.9% is the same number as 0.999.
        number = Decimal(digits.strip()) / (100 if percent else 1)
    except InvalidOperation:
        number = Decimal(-1)
    if rest or not number.is_finite() or not 0 <= number <= 1:
        raise click.BadParameter(f"{text!r} is not a share from 0% to 100%, like 90% or 0.9")
    return float(number)


def parse_instant(text: str) -> datetime:
    """Parse a time in ISO 8601 (local without a zone), or how long ago, e.g. ``2h``."""
    match = _DURATION.fullmatch(text.strip())
    try:
        if match is not None and match[2] is not None:
            ago = timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
            return datetime.now(UTC) - ago
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time like 2026-05-04T12:30, or how long ago, like 2h"
        ) from None


def checked_run_id(text: str) -> str:
    """Check the id of a run.

    Raises:
        click.UsageError: If `text` cannot be one.
    """
    try:
        return check_run_id("RUN_ID", text)
    except ArgumentError:
        raise click.UsageError(
            f"{text!r} is not the id of a run; amigo-async list --ids shows the ids of runs."
        ) from None


def read_run_ids(arguments: Iterable[str], file: IO[Any] | None) -> list[str]:
    """Read and check the ids of runs given as arguments and in a file.

    Args:
        arguments: The arguments; ``-`` stands for ids from stdin.
        file: A file with ids separated by white space, and comments after ``#``; None for none.

    Raises:
        click.UsageError: If there are none, or one is invalid. What wrote to stdin may have failed,
            so that none is no success.
    """
    given = tuple(arguments)
    ids = _read(given, file, _ids_in)
    if not ids:
        check_not_empty(given, file, "no id of a run")
        raise click.UsageError("Give at least one RUN_ID, or --from FILE with some.")
    return [checked_run_id(text) for text in ids]


def check_not_empty(arguments: Iterable[str], file: IO[Any] | None, what: str) -> None:
    """Name stdin and the file, if they were given, as what has nothing.

    Args:
        arguments: The arguments; ``-`` stands for stdin.
        file: The file; None for none.
        what: What they lack.

    Raises:
        click.UsageError: If either was given.
    """
    sources = ["stdin"] if "-" in arguments else []
    if file is not None:
        sources.append(name_of(file))
    if sources:
        have = "has" if len(sources) == 1 else "have"
        raise click.UsageError(f"{' and '.join(sources)} {have} {what}: there is nothing to do.")


def read_selectors(arguments: Iterable[str], file: IO[Any] | None) -> list[str]:
    """Read the ids and names of sets given as arguments and in a file.

    Args:
        arguments: The arguments; ``-`` stands for lines from stdin.
        file: A file with a name, or ids separated by white space, on each line, and comments
            after ``#``; None for none.

    Raises:
        click.UsageError: If the file is not text.
    """
    return _read(arguments, file, _selectors_in)


def _read(
    arguments: Iterable[str], file: IO[Any] | None, parse: Callable[[str], list[str]]
) -> list[str]:
    given: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = _lines_in(getattr(sys.stdin, "buffer", sys.stdin))
            given += [text for line in lines for text in parse(line)]
        else:
            # The ids in a variable are one argument where the shell does not split it, as in zsh.
            ids = argument.split()
            given += ids if all(map(is_id, ids)) and ids else [argument]
    if file is not None:
        given += [text for line in _lines_in(file) for text in parse(line)]
    return given


def _lines_in(file: IO[Any]) -> Iterable[str]:
    return io.StringIO(read_text(file), newline=None)


def read_text(file: IO[Any]) -> str:
    """Read the text of a file, as UTF-8 or marked as UTF-16.

    Raises:
        click.UsageError: If the file is not text.
        click.FileError: If it cannot be read.
    """
    try:
        content = file.read()
    except OSError as error:
        raise click.FileError(name_of(file), error.strerror) from error
    if isinstance(content, bytes):
        # PowerShell's > writes UTF-16 with a byte order mark.
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            content = content.decode("utf-16" if marked else "utf-8")
        except UnicodeDecodeError:
            raise click.UsageError(f"{name_of(file)} is not text.") from None
    # Concatenated files may have byte order marks in the middle too.
    text: str = content.replace("\ufeff", " ")
    return text


def name_of(file: IO[Any]) -> str:
    """Return the name of a file for a message; a stdin that was closed has a number for one."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "<stdin>"


def _ids_in(line: str) -> list[str]:
    return line.partition("#")[0].split()


def _selectors_in(line: str) -> list[str]:
    """Return the ids on a line, or else the name: one that has a ``#`` within a word keeps it."""
    ids = _ids_in(line)
    if all(map(is_id, ids)):
        return ids
    name = _COMMENT.sub("", line).strip()
    return [name] if name else []


# --- options that several subcommands have ---


def ids_argument(metavar: str, *, what: str = "ids") -> Callable[[F], F]:
    """Add ids as arguments, from a file or from stdin.

    Args:
        metavar: What the help calls them.
        what: What else the help says that a file has.
    """
    argument = click.argument("ids", nargs=-1, metavar=f"[{metavar}]...")
    option = click.option(
        "--from",
        "file",
        type=click.File("rb"),
        metavar="FILE",
        help=f"Read more {what} from this file, - for stdin; # begins a comment.",
    )
    return lambda function: argument(option(function))


def quiet_option(function: F) -> F:
    """Add the option --quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress, but the result.")(
        function
    )


def timeout_option(then: str) -> Callable[[F], F]:
    """Add the option --timeout; `then` says what happens when the time is up."""
    return click.option(
        "--timeout",
        type=parse_duration,
        metavar="DURATION",
        help=f"Give up after this time, e.g. 90 (seconds), 30m or 2h; {then}.",
    )


def names_option(function: F) -> F:
    """Add the option --no-names."""
    option = click.option(
        "--names/--no-names",
        default=True,
        help="Read and show names, as by default, or show ids only.",
    )
    return option(function)


def details_options(function: F) -> F:
    """Add the options --no-names and --no-reasons."""
    option = click.option(
        "--reasons/--no-reasons",
        default=True,
        help="Read and show why runs failed, as by default, or only that they did.",
    )
    return names_option(option(function))


def fail_on_option(function: F) -> F:
    """Add the option --fail-on."""
    option = click.option(
        "--fail-on",
        type=click.Choice(get_args(FailOn)),
        default="failure",
        show_default=True,
        help="What exit status 1 is for: a metric that failed, or a regression.",
    )
    return option(function)


def gate_options(function: F) -> F:
    """Add the options of a gate, passed on as a `Gate`, and --known-failing."""

    @functools.wraps(function)
    def with_gate(
        *args: Any,
        min_pass_rate: float | None,
        per: Per | None,
        errored: Errored | None,
        confidence: float | None,
        known_failing: IO[Any] | None,
        **options: Any,
    ) -> Any:
        given = {
            "min_pass_rate": min_pass_rate,
            "per": per,
            "errored": errored,
            "confidence": confidence,
        }
        if confidence is not None and (min_pass_rate is None or min_pass_rate == 1):
            raise click.UsageError(
                "--confidence needs a --min-pass-rate below 100%, e.g. 90%: no number of repeats "
                "shows that every repeat passes."
            )
        try:
            some = {name: value for name, value in given.items() if value is not None}
            gate = Gate(**some) if some else None  # type: ignore[arg-type]
        except ArgumentError as error:
            raise click.UsageError(explain(error)) from None
        known = read_selectors((), known_failing)
        return function(*args, gate=gate, known_failing=known, **options)

    for option in reversed(_GATE_OPTIONS):
        with_gate = option(with_gate)
    return cast("F", with_gate)


_GATE_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--min-pass-rate",
        type=parse_share,
        metavar="RATE",
        help="The share of repeats that must pass, e.g. 90% or 0.9.",
    ),
    click.option(
        "--per",
        type=click.Choice(get_args(Per)),
        help="What must reach it: each unit test (the default), each of its metrics, or the run.",
    ),
    click.option(
        "--errored",
        type=click.Choice(get_args(Errored)),
        help="Repeats with an error make the set errored (the default), fail, or do not count.",
    ),
    click.option(
        "--confidence",
        type=parse_share,
        metavar="SHARE",
        help="With --min-pass-rate: pass or fail only if this sure, e.g. 95%; else undecided.",
    ),
    click.option(
        "--known-failing",
        type=click.File("rb"),
        metavar="FILE",
        help="Unit tests, by id or name, that are shown but do not decide; # begins a comment.",
    ),
)

"""`AmigoClient`: what users call, and what each of its arguments means."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from os import PathLike
from types import TracebackType
from typing import Self

import aiohttp

from amigo_async.auth import Auth
from amigo_async.batch import (
    Batch,
    BatchResult,
    OnEvent,
    OnExit,
    OnFailure,
    Options,
    check_options,
    check_sets,
)
from amigo_async.config import configure
from amigo_async.events import Listener
from amigo_async.models import Run
from amigo_async.polling import (
    Cancellation,
    OnProgress,
    as_completed,
    cancel_and_wait,
    wait_for_completion,
)
from amigo_async.ratelimit import BudgetState
from amigo_async.ratelimit.backend import Sharing
from amigo_async.redact import SecretUrl, masked
from amigo_async.resources.runs import Runs
from amigo_async.starting import OnConflict
from amigo_async.transport.body import MAX_RESPONSE_BYTES
from amigo_async.transport.retry import ATTEMPTS
from amigo_async.verdicts.gate import Gate
from amigo_async.wiring import Settings, Wiring


class AmigoClient:
    """A client of the Amigo API for one organization.

    Use it as an async context manager, or call `aclose` when done. It belongs to the event loop
    in which it is first used.

    Args:
        api_key: The API key's secret; None for ``AMIGO_API_KEY``.
        api_key_id: The API key's id; None for ``AMIGO_API_KEY_ID``.
        user_id: The user to act as; None for ``AMIGO_USER_ID``.
        organization_id: The organization; None for ``AMIGO_ORGANIZATION_ID``.
        base_url: Where the API is, with the region; None for ``AMIGO_BASE_URL`` or, where that
            is not set, ``https://api.amigo.ai``.
        auth: Credentials instead of `api_key`, `api_key_id` and `user_id`; None for those.
        mongo_cluster_name: The cluster of a dedicated deployment; None for the usual one.
        headers: Headers to send with every request to the API; None for none. Those that the
            client sets itself cannot be among them.
        request_timeout: Seconds for one attempt of one request, from connecting to the end of
            the body.
        max_attempts: How often a request that failed in passing is sent in all.
        max_response_bytes: How many bytes the body of one response may have, decompressed; one
            with more is a `DecodeError`. 64 MiB by default. Artifacts have no such limit.
        poll_interval: Seconds between two polls of a wait; None adapts to what is happening.
        on_event: Called with each event, at once; must be quick and a plain function. None for
            no one.
        http: An aiohttp session of the caller's, who closes it; None for one of the client's.
            Its connector, with the TLS settings, and its proxy serve for the artifact store too.
        shared: Where budgets, and tokens if wished, are shared with other processes of the
            organization: ``amigo_async.redis.RedisSharing(...)``. None for the headers alone.

    Raises:
        ConfigurationError: If something is missing or cannot be right; the message names it.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        api_key_id: str | None = None,
        user_id: str | None = None,
        organization_id: str | None = None,
        base_url: str | None = None,
        auth: Auth | None = None,
        mongo_cluster_name: str | None = None,
        headers: Mapping[str, str] | None = None,
        request_timeout: float = 30.0,
        max_attempts: int = ATTEMPTS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        poll_interval: float | None = None,
        on_event: Listener | None = None,
        http: aiohttp.ClientSession | None = None,
        shared: Sharing | None = None,
    ) -> None:
        # Whatever is wrong with them, the traceback of an error shows none of these.
        api_key, auth, headers = masked(api_key), masked(auth), masked(headers)
        base_url = SecretUrl(base_url) if isinstance(base_url, str) else base_url
        config = configure(
            api_key=api_key,
            api_key_id=api_key_id,
            user_id=user_id,
            organization_id=organization_id,
            base_url=base_url,
            auth=auth,
            mongo_cluster_name=mongo_cluster_name,
            headers=headers,
        )
        settings = Settings(
            request_timeout,
            max_attempts,
            max_response_bytes,
            poll_interval,
            on_event,
            http,
            shared,
        )
        self._wiring = Wiring(config, settings)
        self.runs = Runs(self._wiring.calls, self._wiring.starts)
        self.artifacts = self._wiring.artifacts

    async def wait_for_completion(
        self,
        run_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        require_artifacts: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Run:
        """Wait until a run is completed.

        All waits of a client share their requests: sixty runs cost two list calls a look.
        Failures that may pass are borne until the deadline, or until five minutes have brought
        no answer at all; a run that alone makes lists fail spoils no other wait. Leaving does not
        stop the run.

        Args:
            run_id: The run.
            timeout: Seconds for the whole wait; None for as long as it takes.
            poll_interval: Seconds between two looks; None for the client's `poll_interval` or,
                without one, to adapt: a second after news, growing to a fiftieth of what was
                waited and at most to twenty, and never more than half of the list budget.
            require_artifacts: Whether to wait until the artifacts can be fetched too.
            on_progress: Called with each new state of the run before it is completed; may be a
                coroutine function. What it raises ends the wait.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            WaitTimeoutError: If the deadline passed, with the last state seen, and the last
                failure in `last_error` if that is why nothing newer was. The run goes on.
            NotFoundError: If there is no such run, or the user may not see it: no list has shown
                it for 15 seconds or, where this client has created or seen it, for a minute.
            DecodeError: If the run cannot be read; as much of it as can is in its `run`.
            APIError: If the service says no for another reason, or has failed for five minutes;
                for a minute where it answers all lists but those with this run.
            TransportError: If the service could not be reached for as long.
        """
        run = await wait_for_completion(
            self._wiring.poller,
            run_id,
            timeout=timeout,
            poll_interval=poll_interval,
            require_artifacts=require_artifacts,
            on_progress=on_progress,
        )
        await self._wiring.starts.report_second_run(run_id)
        return run

    def as_completed(
        self,
        run_ids: Iterable[str],
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        require_artifacts: bool = False,
    ) -> AsyncGenerator[Run, None]:
        """Iterate over runs in the order in which they are completed.

        An error that concerns one run alone is raised after all others were given.

        Args:
            run_ids: The runs.
            timeout: Seconds for all of it, from the first step; None for as long as it takes.
            poll_interval: As for `wait_for_completion`.
            require_artifacts: As for `wait_for_completion`.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            WaitTimeoutError: If the deadline passed, with the ids that are left.
            NotFoundError: If there is no such run, as for `wait_for_completion`.
            DecodeError: If a run cannot be read; as much of it as can is in its `run`.
            APIError: If the service says no for another reason, or fails for too long.
            TransportError: If the service could not be reached for five minutes.
        """
        return as_completed(
            self._wiring.poller,
            run_ids,
            timeout=timeout,
            poll_interval=poll_interval,
            require_artifacts=require_artifacts,
        )

    async def cancel_and_wait(self, run_id: str, *, timeout: float | None = None) -> Cancellation:
        """Cancel a run and wait for its end.

        Args:
            run_id: The run.
            timeout: Seconds for all of it; None for as long as it takes.

        Returns:
            Whether it was cancelled, was over before, or still runs, and its last state.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            NotFoundError: If there is no such run.
            APIError: If the service says no for another reason.
            TransportError: If no answer came.
        """
        return await cancel_and_wait(
            self._wiring.poller, self._wiring.calls.cancel, run_id, timeout=timeout
        )

    async def run_many(
        self,
        unit_test_set_ids: Iterable[str],
        *,
        artifacts_dir: str | PathLike[str] | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        on_conflict: OnConflict = "raise",
        on_failure: OnFailure = "continue",
        on_exit: OnExit = "leave",
        journal: str | PathLike[str] | None = None,
        on_event: OnEvent | None = None,
        gate: Gate | None = None,
    ) -> BatchResult:
        """Start, wait for and collect any number of sets.

        It is a pipeline: a set is waited for as soon as it is started and its artifacts are
        fetched as soon as they are there, while others wait for room in the budget. What goes
        wrong with one set is in its outcome and does not concern the others.

        Args:
            unit_test_set_ids: The sets; one named twice is run once and reported twice.
            artifacts_dir: The folder for the artifacts, made where there is none; those of a
                run are in a folder with its id. None not to fetch any.
            timeout: Seconds for all of it; runs that go on then are ``"timed_out"``. None for as
                long as it takes.
            poll_interval: As for `wait_for_completion`.
            on_conflict: As for `Runs.create`.
            on_failure: What to do when a set fails, or is seen to be failing: ``"continue"``,
                ``"stop"`` (start no more) or ``"cancel_rest"`` (and cancel what runs).
            on_exit: What becomes of runs in progress when the call is cancelled or out of time:
                ``"leave"`` or ``"cancel"``. A run that was found and not started here (its outcome
                is `attached`) may be another's and is never cancelled, nor by `on_failure`.
            journal: A file in which each step is noted, so that the same call with the same
                file carries on wherever it was stopped, be it by a kill. None for none.
            on_event: Called with each event of this batch; may be a coroutine function. What it
                raises, and how long it takes, does not concern the batch. None for no one.
            gate: What counts as passing; None for the runs' own flags.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            JournalError: If the journal cannot be used.
        """
        async with self.open_batch(
            unit_test_set_ids,
            artifacts_dir=artifacts_dir,
            timeout=timeout,
            poll_interval=poll_interval,
            on_conflict=on_conflict,
            on_failure=on_failure,
            on_exit=on_exit,
            journal=journal,
            on_event=on_event,
            gate=gate,
        ) as batch:
            async for _ in batch:
                pass
        return batch.result()

    def open_batch(
        self,
        unit_test_set_ids: Iterable[str],
        *,
        artifacts_dir: str | PathLike[str] | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        on_conflict: OnConflict = "raise",
        on_failure: OnFailure = "continue",
        on_exit: OnExit = "leave",
        journal: str | PathLike[str] | None = None,
        on_event: OnEvent | None = None,
        gate: Gate | None = None,
    ) -> AbstractAsyncContextManager[Batch]:
        """Do as `run_many` does, and give each outcome as it comes.

        ``async with client.open_batch(...) as batch:`` gives a `Batch` to iterate over with
        ``async for outcome in batch``; its `result` has all outcomes in the order asked for.
        Leaving the context early leaves the batch.

        Args:
            unit_test_set_ids: As for `run_many`, like all that follow.
            artifacts_dir: As for `run_many`.
            timeout: As for `run_many`.
            poll_interval: As for `run_many`.
            on_conflict: As for `run_many`.
            on_failure: As for `run_many`.
            on_exit: As for `run_many`.
            journal: As for `run_many`.
            on_event: As for `run_many`.
            gate: As for `run_many`.

        Raises:
            ArgumentError: If an argument cannot be right; nothing was sent.
            JournalError: If the journal cannot be used; raised on entering.
        """
        options = Options(
            artifacts_dir=artifacts_dir,
            timeout=timeout,
            poll_interval=poll_interval,
            on_conflict=on_conflict,
            on_failure=on_failure,
            on_exit=on_exit,
            journal=journal,
            on_event=on_event,
            gate=gate,
        )
        sets, rooms = check_sets(unit_test_set_ids), self._wiring.rooms()
        return Batch(sets, check_options(options), rooms).open()

    def budgets(self) -> dict[str, BudgetState]:
        """A snapshot of the organization's budgets that were used so far, by endpoint."""
        return self._wiring.session.budgets()

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first call."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client's own connections; a session that was given stays open."""
        await self._wiring.aclose()

    def __repr__(self) -> str:
        """Name the organization and the base URL, and no secret."""
        if not hasattr(self, "_wiring"):  # its settings were refused; a traceback shows it
            return "<AmigoClient without settings>"
        config = self._wiring.config
        return f"<AmigoClient {config.organization_id} at {config.base_url}>"

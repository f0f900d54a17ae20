"""`AmigoClient`, the entry point of the package."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, Unpack

import aiohttp
from yarl import URL

from amigo_async.artifacts import Artifacts
from amigo_async.auth import Auth, creator_of
from amigo_async.batch import (
    Batch,
    BatchOptions,
    BatchResult,
    BatchSettings,
    JournalHeader,
    check_baselines,
    check_sets,
)
from amigo_async.checks import check_count
from amigo_async.config import check_settings, configure
from amigo_async.events import Event, Events, Listener, RunStarted
from amigo_async.models import Run, UnitTestSet
from amigo_async.names import EXPLAIN_TIMEOUT, Directory, Explanations, Names, explain
from amigo_async.polling import (
    Cancellation,
    OnProgress,
    Poller,
    as_completed,
    cancel_and_wait,
    wait_for_completion,
)
from amigo_async.protocol.requests import check_id
from amigo_async.ratelimit import BudgetState
from amigo_async.ratelimit.backend import SharingBackend
from amigo_async.redact import SecretUrl, masked
from amigo_async.resources.evaluations import Evaluations
from amigo_async.resources.metrics import Metrics
from amigo_async.resources.runs import RunCalls, Runs
from amigo_async.resources.unit_test_sets import UnitTestSets
from amigo_async.resources.unit_tests import UnitTests
from amigo_async.selection import select_sets
from amigo_async.starting import Starts, returned_runs
from amigo_async.transport import Connections, Sender, Session, Store, running_loop
from amigo_async.transport.body import MAX_RESPONSE_BYTES
from amigo_async.transport.retry import ATTEMPTS


class AmigoClient:
    """A client of the Amigo API for one organization.

    Use it as an async context manager, or call `aclose` when done. A client belongs to the event
    loop in which it is first used.

    Example::

        async with AmigoClient() as client:
            result = await client.run_many(set_ids, artifacts_dir="results", timeout=3600)
            print("passed" if result.passed else result.summary())

    Attributes:
        runs: Start, list, get and cancel runs, and get the links to their artifacts; see `Runs`.
        artifacts: Download or stream the artifacts of a run; see `Artifacts`.
        unit_test_sets: List and search unit test sets; see `UnitTestSets`.
        unit_tests: List unit tests; see `UnitTests`.
        metrics: List metrics; see `Metrics`.
        evaluations: List the evaluations of runs, with their justifications; see `Evaluations`.

    Args:
        api_key: Secret of the API key; None reads ``AMIGO_API_KEY``.
        api_key_id: Id of the API key; None reads ``AMIGO_API_KEY_ID``.
        user_id: Id of the user to act as; None reads ``AMIGO_USER_ID``.
        organization_id: Id of the organization; None reads ``AMIGO_ORGANIZATION_ID``.
        base_url: URL of the API, including the region; None reads ``AMIGO_BASE_URL``, and uses
            ``https://api.amigo.ai`` if that is not set either.
        auth: Credentials to use in place of `api_key`, `api_key_id` and `user_id`; None uses those
            three.
        mongo_cluster_name: Cluster of a dedicated deployment; None for the shared one.
        headers: Headers to send with every request to the API; None for none. Headers that the
            client sets itself are rejected.
        request_timeout: Seconds for one attempt of a request, from connecting to the end of the
            response body.
        max_attempts: How many times a request is sent in all if it fails with a transient error.
        max_response_bytes: Largest response body in bytes, decompressed, 64 MiB by default; a
            larger one raises `DecodeError`. Artifacts are not limited.
        poll_interval: Seconds between two polls of a wait; None adapts to how long runs take.
        on_event: Plain function called with each event as it happens, in the event loop, so it
            must return quickly. The first exception from it is logged with its traceback, further
            ones are counted. None for none.
        http: aiohttp session to send requests with; the caller closes it. Its connector, TLS
            settings and proxy are used for the artifact store too. None creates a session.
        shared: Shares rate limits, and optionally the token, with other processes of the
            organization, as in ``amigo_async.redis.RedisSharing(...)``. None relies on the rate
            limit headers of the API alone.

    Raises:
        ConfigurationError: If a setting is missing or invalid; the message names it.
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
        shared: SharingBackend | None = None,
    ) -> None:
        # Mask them first: the traceback of any error below shows the local variables.
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
        check_settings(
            request_timeout=request_timeout,
            max_attempts=max_attempts,
            max_response_bytes=max_response_bytes,
            poll_interval=poll_interval,
            on_event=on_event,
            shared=shared,
        )
        self._config = config
        self._events = events = Events(on_event, config.organization_id)
        self._connections = connections = Connections(http, URL(config.base_url).host or "")
        self._session = session = Session(
            sender=Sender(
                http=connections.api,
                config=config,
                request_timeout=request_timeout,
                max_response_bytes=max_response_bytes,
            ),
            check=connections.check,
            config=config,
            request_timeout=request_timeout,
            max_attempts=max_attempts,
            events=events,
            shared=None if shared is None else shared.connect(events.emit),
        )
        self._calls = calls = RunCalls(session)
        self._creator = creator_of(config.auth, config.organization_id)
        self._poller = poller = Poller(
            calls.poll,
            lambda: session.budgets().get("list"),
            poll_interval,
            creator=self._creator,
            check=connections.check,
            emit=events.emit,
        )
        self._starts = Starts(
            calls,
            ended=lambda run_id: wait_for_completion(poller, run_id),
            creator=self._creator,
            clock=session.clock,
            emit=self._emit_start,
            returned=returned_runs(config.base_url, config.organization_id),
        )
        self.runs = Runs(calls, self._starts)
        self.unit_test_sets = UnitTestSets(session)
        self.unit_tests = UnitTests(session)
        self.metrics = Metrics(session)
        self.evaluations = Evaluations(session)
        self._directory = Directory(self.unit_test_sets, self.unit_tests, self.metrics)
        store = Store(
            connections.store,
            allow_http=config.base_url.startswith("http:"),
            proxy=connections.store_proxy,
            connection=connections.store_connection,
        )
        self.artifacts = Artifacts(
            open=store.open,
            link=calls.artifacts,
            server_now=session.clock.utcnow,
            emit=events.emit,
        )

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

        All waits of a client share their requests: sixty runs take two list requests a poll.
        Transient failures are retried until the deadline, or for five minutes without any answer
        of the service. A run that makes list requests fail does not affect other waits. Leaving
        the wait does not stop the run.

        Example::

            created = await client.runs.create(set_id)
            run_id = created.simulation_unit_test_set_run_id
            run = await client.wait_for_completion(run_id, timeout=1800)
            print(run.passed, run.metrics_that_failed)

        Args:
            run_id: Id of the run.
            timeout: Seconds for the whole wait; None for no limit.
            poll_interval: Seconds between two polls; None uses the `poll_interval` of the client.
                If that is None too, the interval adapts: one second after a change, growing to a
                fiftieth of the time waited and at most to twenty seconds. Polling never uses more
                than half of the rate limit for lists.
            require_artifacts: Whether to wait until the artifacts are generated as well.
            on_progress: Function or coroutine function called with each new state of the run
                before it is completed; an exception from it ends the wait. None for none.

        Returns:
            The completed run.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            WaitTimeoutError: If the timeout passed. The run goes on; the error has the last state
                seen, and in `last_error` why there is no newer one.
            NotFoundError: If the run does not exist or is not visible to the user: no list showed
                it for 15 seconds, or for a minute if this client has created or seen it before.
            DecodeError: If the run cannot be decoded; the readable part is in the `run` attribute.
            APIError: If the service answers with another error, or with server errors for five
                minutes (one minute if only requests for this run fail).
            TransportError: If the service cannot be reached for five minutes.
        """
        run = await wait_for_completion(
            self._poller,
            run_id,
            timeout=timeout,
            poll_interval=poll_interval,
            require_artifacts=require_artifacts,
            on_progress=on_progress,
        )
        await self._starts.report_second_run(run_id)
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

        An error that concerns a single run is raised after all other runs were yielded.

        Example::

            async for run in client.as_completed(run_ids, timeout=3600):
                print(run.id, run.passed)

        Args:
            run_ids: Ids of the runs.
            timeout: Seconds for the whole iteration, from its first step; None for no limit.
            poll_interval: Seconds between two polls; None uses the `poll_interval` of the client,
                or adapts to how long the runs take.
            require_artifacts: Whether to wait until the artifacts of a run are generated as well.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            WaitTimeoutError: If the timeout passed; `run_ids` has the runs that are left.
            NotFoundError: If a run does not exist or is not visible to the user: no list showed
                it for 15 seconds, or for a minute if this client has created or seen it before.
            DecodeError: If a run cannot be decoded; the readable part is in the `run` attribute.
            APIError: If the service answers with another error, or with server errors for five
                minutes (one minute if only requests for one run fail).
            TransportError: If the service cannot be reached for five minutes.
        """
        return as_completed(
            self._poller,
            run_ids,
            timeout=timeout,
            poll_interval=poll_interval,
            require_artifacts=require_artifacts,
        )

    async def cancel_and_wait(self, run_id: str, *, timeout: float | None = None) -> Cancellation:
        """Cancel a run and wait until it has ended.

        Example::

            created = await client.runs.create(set_id)
            run_id = created.simulation_unit_test_set_run_id
            state, run = await client.cancel_and_wait(run_id, timeout=60)

        Args:
            run_id: Id of the run.
            timeout: Seconds for the request and the wait; None for no limit.

        Returns:
            Whether the run was cancelled, had finished before, or is still running when the
            timeout has passed; and its last state.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            NotFoundError: If the run does not exist.
            APIError: If the service answers with another error.
            TransportError: If the service cannot be reached.
        """
        return await cancel_and_wait(self._poller, self._calls.cancel, run_id, timeout=timeout)

    async def run_many(
        self, unit_test_set_ids: Iterable[str], **options: Unpack[BatchOptions]
    ) -> BatchResult:
        """Start any number of sets, wait for them and download their artifacts.

        The steps of different sets overlap: each run is waited for as soon as it is started, and
        its artifacts are downloaded as soon as they are generated, while further sets wait for
        their turn within the rate limits. A set that fails does not affect the others; what went
        wrong is in its outcome.

        Example::

            result = await client.run_many(
                set_ids, artifacts_dir="results", journal="nightly.jsonl", timeout=3600
            )
            for outcome in result.outcomes:
                print(outcome.unit_test_set_id, outcome.verdict, outcome.artifacts)

        Args:
            unit_test_set_ids: Ids of the sets; a set named twice is run once and reported twice.
            **options: Any of these:

                artifacts_dir: Folder to download artifacts into, created if it is missing. Each
                run gets a subfolder named by its id. None, the default, downloads nothing.

                timeout: Seconds for the whole batch; runs that are not completed by then are
                ``"timed_out"``. None, the default, for no limit.

                poll_interval: Seconds between two polls. None, the default, uses the
                `poll_interval` of the client, or adapts to how long the runs take.

                on_conflict: What to do if the user has an unfinished run of a set: ``"raise"`` (the
                default: the outcome is ``"not_started"`` with a `ConflictError`), ``"attach"``
                (take that run), ``"wait"`` (let it finish, then start) or ``"restart"`` (cancel
                it, wait until it has ended, then start).

                on_failure: What to do when a set has failed, or is certain to fail:
                ``"continue"`` (the default), ``"stop"`` (start no more sets) or ``"cancel_rest"``
                (start no more sets and cancel the unfinished runs).

                on_exit: What to do with unfinished runs when the call is cancelled or times out:
                ``"leave"`` them running (the default) or ``"cancel"`` them. Runs that were found
                rather than started here (`attached` in their outcome) may belong to someone else
                and are never cancelled, by `on_failure` neither.

                journal: File that records each step, so that the same call with the same file
                resumes wherever the process stopped, even if it was killed. None, the default,
                keeps no journal.

                on_event: Function or coroutine function called with each event of this batch: one
                `SetFinished` for each set, whatever became of it, and a `BatchFinished` last. The
                first exception from it is logged with its traceback, further ones are counted, and
                a slow function does not delay the batch. None, the default, for none.

                gate: What counts as passing, as a `Gate`. None, the default, uses the flags
                of each run. With a confidence, sets that have too few repeats to pass are named
                before the first run is started: by a `TooFewRepeats` event, in `notes` of the
                result, and if no set of the batch could pass, by an `ArgumentError`. The start
                waits at most 2 seconds for that.

                known_failing: Ids of unit tests that are known to fail; or, with `describe`, their
                names, compared as a whole, ignoring case. They are shown and decide neither the
                verdict nor the comparison with a `baseline`, and those that passed every repeat are
                in `passing_again` of the outcome. The flags of a run cover all of its unit tests,
                so verdicts come from the results of the repeats; where these are hidden by a
                missing permission, the flags decide after all, and `reason` of the outcome says so.
                Empty by default.

                describe: Whether to read the names of the sets, unit tests and metrics: into
                `names` of the result and `name` of each outcome. They are read while the runs go
                on. False by default.

                explain: Whether to read what was seen in the conversations of runs that failed,
                and why they were judged so: into `explanations` of the result. Outcomes do not
                wait for it. False by default.

                explain_timeout: Seconds, 30 by default, that reading names and reasons may take
                after the last outcome, and so beyond `timeout`; None for no limit. What could not
                be read is named in the `notes` of the names and explanations, and is no error of
                the batch.

                baseline: Which past runs of each set its run is compared with: ``"last"`` (the
                last one), a number (so many of the last, taken together) or ids of runs by set id.
                Only completed runs that were not cut short, are older than the run, not of this
                batch and comparable with it count. They are read while the runs go on, for at most
                `explain_timeout` after the last outcome; `comparison` of an outcome and of the
                result says what came of it. None, the default, compares nothing.

                order: Which sets to start first: ``"auto"`` (the default: the longest, as far as
                lengths or sizes are known and `on_failure` is ``"continue"``) or ``"given"``. As
                only so many runs may be started a minute, a batch of several minutes is over
                sooner with the longest first, but its first outcome comes later. Outcomes of the
                result are always in the order asked for. Lengths are known of runs that this
                process has seen end and from `lengths_from`; sizes, repeats times interactions,
                of sets that were selected or described by this client or whose latest runs are
                listed before the first start anyway. Where nothing is known within two seconds,
                for which the first start does not wait, the order is the given one.

                lengths_from: An earlier `BatchResult`, or the path of its JSON report or of a
                journal, that shows how long runs take. None, the default, for none.

        Returns:
            The outcome of each set, in the order asked for.

        Raises:
            TypeError: If an option is unknown; no request was sent.
            ArgumentError: If an argument is invalid; no request was sent. Also if no set has
                enough repeats to pass the gate; nothing was started.
            JournalError: If the journal cannot be used; no request was sent.
            ConfigurationError: If the client is closed, or in use in another event loop.
        """
        async with self.open_batch(unit_test_set_ids, **options) as batch:
            async for _ in batch:
                pass
        return batch.result()

    def open_batch(
        self, unit_test_set_ids: Iterable[str], **options: Unpack[BatchOptions]
    ) -> AbstractAsyncContextManager[Batch]:
        """Run sets as `run_many` does, and yield each outcome as soon as it is known.

        Leaving the context early leaves the batch: no more sets are started, and `on_exit` says
        whether unfinished runs are cancelled.

        Example::

            async with client.open_batch(set_ids, on_exit="cancel") as batch:
                async for outcome in batch:
                    print(outcome.unit_test_set_id, outcome.verdict)
            result = batch.result()

        Args:
            unit_test_set_ids: Ids of the sets; a set named twice is run once and yielded twice.
            **options: The options of `run_many`, with the same meaning and defaults: where
                artifacts are downloaded to (`artifacts_dir`), limits in seconds (`timeout` for
                the whole batch, `poll_interval` between two polls), what to do about unfinished
                runs of a set (`on_conflict`), after a failure (`on_failure`) and on leaving
                (`on_exit`), which sets start first (`order`, `lengths_from`), the file to resume
                from (`journal`), the listener (`on_event`), what counts as passing (`gate`) and
                which unit tests do not (`known_failing`), whether names and reasons are read
                (`describe`, `explain`), for how many seconds after the last outcome
                (`explain_timeout`), and which past runs they are compared with (`baseline`).

        Returns:
            A context manager whose value, a `Batch`, is iterated over with ``async for``; its
            method `result` returns all outcomes in the order asked for.

        Raises:
            TypeError: If an option is unknown; no request was sent.
            ArgumentError: If an argument is invalid; no request was sent. Also, when the context
                is entered, if no set has enough repeats to pass the gate; nothing was started.
            JournalError: If the journal cannot be used; raised when the context is entered.
            ConfigurationError: If the client is closed, or in use in another event loop; raised
                when the context is entered.
        """
        config, creator = self._config, self._creator
        user_id = None if creator is None else creator.user_id
        set_ids, settings = check_sets(unit_test_set_ids), BatchSettings.from_options(options)
        check_baselines(settings, set_ids)
        return Batch(
            set_ids,
            settings,
            header=JournalHeader(config.base_url, config.organization_id, user_id),
            starts=self._starts,
            poller=self._poller,
            calls=self._calls,
            artifacts=self.artifacts,
            directory=self._directory,
            evaluations=self.evaluations,
            clock=self._session.clock,
            events=self._events,
            check=self._connections.check,
        ).open()

    async def select_sets(
        self, *selectors: str, tags: str | Sequence[str] = ()
    ) -> list[UnitTestSet]:
        """Find unit test sets by name, id or tag.

        Example::

            sets = await client.select_sets("Refund policy", tags=["suite:nightly"])
            result = await client.run_many([unit_test_set.id for unit_test_set in sets])

        Args:
            *selectors: Ids or names of sets. A name is compared as a whole, ignoring case.
            tags: Tags that a set must all have, each as ``"key:value"``, ``"key:*"`` for any
                value, or ``"key:"`` for a tag without value. Empty for none.

        Returns:
            The sets of the selectors, in their order, followed by the sets that have the tags;
            each set once.

        Raises:
            ArgumentError: If nothing is selected, if a selector fits no set or several, or if no
                set has the tags; the message lists the nearest names with their ids.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
        """
        sets = await select_sets(self.unit_test_sets, selectors, tags)
        self._directory.learn_sets(sets)
        return sets

    async def history(self, unit_test_set_id: str, *, limit: int = 50) -> list[Run]:
        """List the last completed runs of a set with their results, newest first.

        Up to 50 runs take one request. Runs that were cut short are among them
        (`Run.was_cut_short`); a run that cannot be decoded is left out, and one whose results
        cannot be decoded has none.

        Example::

            for run in await client.history(set_id, limit=5):
                print(run.created_at, run.passed)

        Args:
            unit_test_set_id: Id of the set.
            limit: Number of runs, at least 1.

        Returns:
            The runs; fewer than `limit` if the set has fewer that are visible to the user.

        Raises:
            ArgumentError: If an argument is invalid; no request was sent.
            APIError: If the service answers with an error.
            TransportError: If the service cannot be reached.
            DecodeError: If the response is not a page of runs.
        """
        check_id("unit_test_set_id", unit_test_set_id)
        check_count("limit", limit, least=1)
        return await self._calls.history(unit_test_set_id, limit)

    async def describe(
        self,
        runs: Iterable[Run],
        *,
        known: Names | None = None,
        timeout: float | None = EXPLAIN_TIMEOUT,
    ) -> Names:
        """Read the names of the sets, unit tests and metrics of runs, deleted ones included.

        Takes a few requests for a whole batch, and none for names that this client has read
        before. What cannot be read is missing from the result, and a note says why: the errors of
        the service are not raised.

        Example::

            names = await client.describe(runs)
            print(names.unit_test_set(runs[0].simulation_unit_test_set_id))

        Args:
            runs: Runs, with their results.
            known: Names that were read earlier, such as those of a saved result; they are not read
                again. None for none.
            timeout: Seconds for all of it; None for no limit.

        Returns:
            The names, by id.

        Raises:
            ConfigurationError: If the client is closed, or in use in another event loop.
        """
        self._connections.check()
        if known is not None:
            self._directory.learn(known)
        return await self._directory.describe(runs, timeout=timeout)

    async def explain(
        self,
        runs: Iterable[Run],
        *,
        failed_only: bool = True,
        known: Explanations | None = None,
        timeout: float | None = EXPLAIN_TIMEOUT,
    ) -> Explanations:
        """Read what was seen in the conversations of runs, and why they were judged so.

        Takes a few requests for a whole batch, of which the service answers ten a minute. What
        cannot be read is missing from the result, and a note says why: the errors of the service
        are not raised.

        Example::

            explanations = await client.explain(runs)
            for evaluation in explanations.evaluations.values():
                print(evaluation.result, evaluation.justification)

        Args:
            runs: Runs, with their results.
            failed_only: Whether to read only the evaluations that failed.
            known: Evaluations that were read earlier, such as those of a saved result; they are
                not read again. None for none.
            timeout: Seconds for all of it; None for no limit.

        Returns:
            The evaluations, by the id that the results of a run have of them.

        Raises:
            ConfigurationError: If the client is closed, or in use in another event loop.
        """
        self._connections.check()
        return await explain(
            self.evaluations,
            runs,
            failed_only=failed_only,
            timeout=timeout,
            known=None if known is None else known.evaluations,
        )

    def budgets(self) -> dict[str, BudgetState]:
        """Return a snapshot of the rate limits, by endpoint; call it in the client's event loop.

        Example::

            await client.runs.list()
            print(client.budgets()["list"].remaining)

        Returns:
            The state of each endpoint that this client has used, such as ``"list"``.

        Raises:
            ConfigurationError: If no event loop is running: the limits are on its clock.
        """
        running_loop()
        return self._session.budgets()

    async def __aenter__(self) -> Self:
        """Return the client; connections are opened by the first request.

        Raises:
            ConfigurationError: If the client is closed, or in use in another event loop.
        """
        self._connections.check()
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
        """Close the client's connections; a session given as `http` stays open."""
        try:
            await self._session.aclose()
        finally:
            self._events.close()
            await self._connections.aclose()

    def __repr__(self) -> str:
        """Name the organization and the base URL; show no secret."""
        config = getattr(self, "_config", None)
        if config is None:  # its settings were refused, and a traceback shows it
            return "<AmigoClient without settings>"
        return f"<AmigoClient {config.organization_id} at {config.base_url}>"

    def _emit_start(self, event: Event) -> None:
        """Announce a run to the poller before anybody can ask it to wait for that run."""
        if isinstance(event, RunStarted):
            self._poller.expect(event.run_id, event.unit_test_set_id)
        self._events.emit(event)

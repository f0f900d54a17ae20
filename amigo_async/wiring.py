"""Wires the rooms of one client together, and holds no logic of its own."""

from __future__ import annotations

import aiohttp
from msgspec import Struct
from yarl import URL

from amigo_async.artifacts import Artifacts
from amigo_async.auth import creator_of
from amigo_async.batch import Rooms
from amigo_async.config import Configuration, check_settings
from amigo_async.events import Event, Events, Listener, RunStarted
from amigo_async.polling import Poller, wait_for_completion
from amigo_async.ratelimit.backend import Sharing
from amigo_async.resources.calls import Calls
from amigo_async.starting import Starts, given_by
from amigo_async.transport import Connections, Sender, Session, Store


class Settings(Struct, frozen=True):
    """How a client works; see `AmigoClient`."""

    request_timeout: float
    max_attempts: int
    max_response_bytes: int
    poll_interval: float | None
    on_event: Listener | None
    http: aiohttp.ClientSession | None
    shared: Sharing | None


class Wiring:
    """The rooms of one client, as they know of each other.

    Args:
        config: The organization, where the API is, and the credentials.
        settings: How to work.

    Raises:
        ConfigurationError: If a setting cannot be right; the message names it.
    """

    def __init__(self, config: Configuration, settings: Settings) -> None:
        check_settings(
            request_timeout=settings.request_timeout,
            max_attempts=settings.max_attempts,
            max_response_bytes=settings.max_response_bytes,
            poll_interval=settings.poll_interval,
            on_event=settings.on_event,
            shared=settings.shared,
        )
        self.config = config
        self.events = Events(settings.on_event)
        self.connections = Connections(settings.http, URL(config.base_url).host or "")
        self.session = self._wire_session(settings)
        self.calls = Calls(self.session)
        self.creator = creator_of(config.auth, config.organization_id)
        self.poller = Poller(
            self.calls.look,
            lambda: self.session.budgets().get("list"),
            settings.poll_interval,
            creator=self.creator,
            check=self.connections.check,
            emit=self.events.emit,
        )
        self.starts = Starts(
            self.calls,
            ended=lambda run_id: wait_for_completion(self.poller, run_id),
            creator=self.creator,
            clock=self.session.clock,
            emit=self._emit_start,
            given=given_by(config.base_url, config.organization_id),
        )
        self.artifacts = self._wire_artifacts()

    def rooms(self) -> Rooms:
        """What a batch works with."""
        return Rooms(
            self.config.base_url,
            self.config.organization_id,
            None if self.creator is None else self.creator.user_id,
            self.starts,
            self.poller,
            self.calls.cancel,
            self.artifacts,
            self.session.clock,
            self.events,
        )

    async def aclose(self) -> None:
        """Close what was opened here; a session that was given stays open."""
        try:
            await self.session.aclose()
        finally:
            await self.connections.aclose()

    def _emit_start(self, event: Event) -> None:
        """Let the poller know of a run before anybody can ask it to wait for it."""
        if isinstance(event, RunStarted):
            self.poller.expect(event.run_id, event.unit_test_set_id)
        self.events.emit(event)

    def _wire_session(self, settings: Settings) -> Session:
        shared = settings.shared
        sender = Sender(
            http=self.connections.api,
            config=self.config,
            request_timeout=settings.request_timeout,
            max_response_bytes=settings.max_response_bytes,
        )
        return Session(
            sender=sender,
            check=self.connections.check,
            config=self.config,
            request_timeout=settings.request_timeout,
            max_attempts=settings.max_attempts,
            events=self.events,
            shared=None if shared is None else shared.connect(self.events.emit),
        )

    def _wire_artifacts(self) -> Artifacts:
        store = Store(
            self.connections.store,
            allow_http=self.config.base_url.startswith("http:"),
            proxy=self.connections.store_proxy,
            connection=self.connections.store_connection,
        )
        return Artifacts(
            open=store.open,
            link=self.calls.link,
            server_now=self.session.clock.utcnow,
            emit=self.events.emit,
        )

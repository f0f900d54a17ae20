"""HTTP: sends requests, enforces timeouts, retries, and maps foreign exceptions."""

from amigo_async.transport.pools import Connections, environment_session, running_loop
from amigo_async.transport.sender import Sender
from amigo_async.transport.session import Guard, Session
from amigo_async.transport.store import Store

__all__ = [
    "Connections",
    "Guard",
    "Sender",
    "Session",
    "Store",
    "environment_session",
    "running_loop",
]

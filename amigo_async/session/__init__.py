"""The only room that talks HTTP: it sends, times out, retries and maps foreign exceptions."""

from amigo_async.session.connections import Connections
from amigo_async.session.proxies import environment_session
from amigo_async.session.sending import Sender
from amigo_async.session.session import Guard, Session
from amigo_async.session.store import Store

__all__ = ["Connections", "Guard", "Sender", "Session", "Store", "environment_session"]

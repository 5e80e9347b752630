"""The application on a port.

It has a bound address, patience with slow clients, and an end in order.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from fer.config.errors import FerError, Interrupted
from fer.serving.limits import Limits
from fer.system import signals

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_IN_USE = (errno.EADDRINUSE,)


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: name or address of this machine.
        port: 0 for any free one.

    Raises:
        FerError: the port is in use or not allowed, or the host is not this machine's.
    """
    opened: socket.socket | None = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        opened.bind(address)
        opened.listen(128)
    except (OSError, UnicodeError) as error:
        if opened is not None:
            opened.close()
        raise FerError(_why_not(host, port, error)) from error
    return opened


def _why_not(host: str, port: int, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"--port {port}: this user may not open it; choose one from 1024"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"--host {host}: no such host; expected 127.0.0.1, or an address of this machine"
    if getattr(error, "errno", None) in _IN_USE:
        return f"--port {port}: in use by another program; choose another, or 0 for any free one"
    return f"--host {host} --port {port}: cannot be opened ({getattr(error, 'strerror', None) or error})"


def address(listening: socket.socket, host: str) -> str:
    """Return the address of the page."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"


class Patient(H11Protocol):
    """A connection that is closed where the client is too slow; uvicorn itself waits for ever."""

    limits = Limits()
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        self._within(self.limits.head_s)

    def handle_events(self) -> None:
        """Answer requests that have arrived; a new one has its own time."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._within(self.limits.request_s)

    def on_response_complete(self) -> None:
        """Begin to wait for the head of the next request; what is left of the body is passed over meanwhile."""
        self._within(self.limits.head_s)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def _within(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's server, which a second Ctrl-C ends: from Python 3.12.1 on it waits for all connections even then."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal, and cancel the requests at a second Ctrl-C."""
        super().handle_exit(sig, frame)
        if self.force_exit:
            for task in list(self.server_state.tasks):
                task.get_loop().call_soon_threadsafe(task.cancel)


def server(app: Starlette, limits: Limits) -> Server:
    """Return uvicorn's server with these limits; it writes no access log and trusts no proxy's headers."""
    protocol = type("Bounded", (Patient,), {"limits": limits})
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="on", log_config=None, log_level="critical", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=limits.connections,
        timeout_graceful_shutdown=limits.ending_s,
    )  # fmt: skip
    return Server(config)


def run(app: Starlette, listening: socket.socket, limits: Limits | None = None) -> None:
    """Serve until a signal ends it; Ctrl-C is the usual end.

    Where a picture is still being predicted, after ``Limits.ending_s`` or at a second signal, the process ends here.

    Raises:
        Interrupted: by another signal.
    """
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    with signals.handled(receive), listening:  # uvicorn stops at a signal, then raises it again, for this handler
        server(app, limits or Limits()).run(sockets=[listening])
    by = next((number for number in received if number != signal.SIGINT), None)
    app.state.worker.close()  # uvicorn has done so, but not where it had to hurry
    if app.state.worker.running:
        log.warning("%sa picture was still being predicted", f"stopped by {signals.name(by)}; " if by else "")
        _leave(signals.exit_code(by) if by else 0)
    if by is not None:
        raise Interrupted(f"stopped by {signals.name(by)}", signals.exit_code(by))


def _leave(code: int) -> None:
    """End the process at once: torch may abort where the interpreter ends during its work."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)

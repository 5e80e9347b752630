"""The check of who asks, and the policy that every answer has.

Requests by a foreign name or from a foreign page are refused. A page of another site can send requests to a server on
this machine. Its ``Origin`` gives it away. By DNS rebinding it can even name itself like this server; then its ``Host``
is a name that is not this machine's (https://owasp.org/www-community/attacks/DNS_Rebinding). An address of digits
cannot be rebound.
"""

import asyncio
import ipaddress
import logging
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }
)
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")  # of a Host header, the whole of it
STOPPING = "the server is stopping"
FOREIGN = ("cross-site", "same-site")  # values of Sec-Fetch-Site; same-site: another port of this machine


class Guard:
    """ASGI middleware that refuses foreign requests, adds headers, and turns a failure into one line and status 500.

    Args:
        app: what answers.
        names: of this machine, beside ``localhost`` and addresses of digits.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app, self.names = app, {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            refused = self._refused(scope["method"], Headers(scope=scope))
            await (refused or self.app)(scope, receive, with_headers)
        except asyncio.CancelledError:  # the server has no more time for it
            if not begun:
                await problem(503, STOPPING)(scope, receive, with_headers)
            raise
        except Exception as error:  # of our own making; the server goes on
            log.error("a request failed: %s: %s", type(error).__name__, error)
            if not begun:
                await problem(500, "the server failed; its terminal says why")(scope, receive, with_headers)

    def _refused(self, method: str, headers: Headers) -> JSONResponse | None:
        """Return the refusal of a foreign request."""
        host = headers.get("host", "")
        if not is_own(host, self.names):
            name = host.rpartition(":")[0] or host
            return problem(421, f"Host {name!r} is no name of this server; fer serve --name NAME adds one")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"{kind}://{host.lower()}" for kind in ("http", "https")}:
            return problem(403, f"Origin {origin!r}: pages of other sites get no answers")
        if method == "POST" and headers.get("sec-fetch-site") in FOREIGN:
            return problem(403, "pages of other sites get no answers")
        return None


def is_own(host: str, names: Collection[str]) -> bool:
    """Return whether the value of a Host header is an address of digits or one of the names, whatever its port."""
    match = HOST.fullmatch(host)
    if match is None:
        return False
    address, name = match.groups()
    if name is not None and name.lower() in names:
        return True
    try:
        return ipaddress.ip_address(address or name).version == (4 if address is None else 6)
    except ValueError:
        return False


def problem(status: int, words: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that fails: ``{"error": words}``."""
    return JSONResponse({"error": words}, status, headers)

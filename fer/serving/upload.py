"""The picture in the body of a request, kept in memory: as bytes, within limits of size and time.

Starlette spools a part of more than 1 MB to a temporary file. Here no part ever leaves memory.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fer.serving.limits import Limits

FIELD = "picture"  # of the form
EXPECTED = f"expected multipart/form-data with the file in the field {FIELD!r}"


class Upload(NamedTuple):
    """A picture that was sent: its name, and the contents of its file."""

    name: str
    contents: bytes


@dataclass
class Memory:
    """How many bytes of requests are in memory.

    Args:
        most: bytes, beyond which clients are asked to wait.
    """

    most: int
    taken: int = field(default=0, init=False)

    def take(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            HTTPException: there are too many.
        """
        if self.taken + size > self.most:
            raise busy(1)
        self.taken += size

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Count the bytes of one request, until it is answered."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken -= share.taken


@dataclass
class Share:
    """How many bytes of one request are in memory."""

    memory: Memory
    taken: int = field(default=0, init=False)

    def take(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            HTTPException: there are too many of all requests together.
        """
        self.memory.take(size)
        self.taken += size


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # `_bounded` has the limit that holds


async def read(request: Request, limits: Limits, share: Share) -> Upload:
    """Return the picture that a request sends.

    Raises:
        HTTPException: the body is no form with one picture, too large, or too slow.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, EXPECTED)
    if int(request.headers.get("content-length", 0)) > limits.body:  # h11 lets digits through alone
        raise _too_large(limits)
    parser = _InMemory(request.headers, _bounded(request, limits, share), max_files=1, max_fields=8)
    try:
        async with asyncio.timeout(limits.body_s):
            form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"{error.message} {EXPECTED}") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the picture did not arrive within {limits.body_s:g} s") from error
    sent = form.get(FIELD)
    if not isinstance(sent, UploadFile):
        raise HTTPException(400, EXPECTED)
    with sent.file as stream:
        return Upload(sent.filename or FIELD, stream.read())


async def _bounded(request: Request, limits: Limits, share: Share) -> AsyncGenerator[bytes, None]:
    """Give the parts of a body as they arrive, as far as the limits go."""
    async for part in request.stream():
        if share.taken + len(part) > limits.body:
            raise _too_large(limits)
        share.take(len(part))
        yield part


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the request is larger than {limits.body // 2**20} MB")


def busy(seconds: int) -> HTTPException:
    """Return the answer that asks a client to come back later."""
    return HTTPException(503, f"busy; try again in {seconds} s", {"Retry-After": str(seconds)})

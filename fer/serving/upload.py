"""The picture in the body of a request.

It is kept in memory as bytes, within limits of size and time. Starlette spools a part of more than 1 MB to a temporary
file. Here no part ever leaves memory.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fer.serving.limits import Limits

logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)  # it warns of each wrong request in the terminal

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

    @property
    def _charset(self) -> str:
        """How names are decoded: byte by byte, for ``_text``; the parser itself takes a codec from the client."""
        return "latin-1"

    @_charset.setter
    def _charset(self, _: str) -> None: ...


def _text(name: str | None) -> str:
    """Return a name, which is UTF-8, as text; what is not UTF-8 in it is replaced."""
    return (name or "").encode("latin-1", errors="replace").decode(errors="replace")


def shown(text: str) -> str:
    """Return what a client wrote, short enough for a message."""
    return text if len(text) <= 80 else text[:80] + "…"


async def read(request: Request, limits: Limits, share: Share) -> Upload:
    """Return the picture that a request sends.

    Raises:
        HTTPException: the body is no form with one picture, too large, or too slow.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, EXPECTED)
    if int(request.headers.get("content-length", 0)) > limits.body:  # h11 lets digits through alone
        raise _too_large(limits)
    parser = _InMemory(request.headers, _bounded(request, limits, share), max_files=1, max_fields=8)
    try:
        async with asyncio.timeout(limits.body_s):
            form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"{error.message.rstrip('.')}; {EXPECTED}") from error
    except (ValueError, LookupError, AssertionError) as error:  # of odd headers
        raise HTTPException(400, f"the form cannot be read; {EXPECTED}") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the picture did not arrive within {limits.body_s:g} s") from error
    return _picture_of(form)


def _picture_of(form: FormData) -> Upload:
    """Return the picture of a form, whose only field it is.

    Raises:
        HTTPException: there is none, or another field.
    """
    for name in form:
        if name != FIELD:
            raise HTTPException(400, f"{shown(_text(name))!r} is no field of the form; {EXPECTED}")
    sent = form.getlist(FIELD)
    if len(sent) != 1 or not isinstance(sent[0], UploadFile):
        raise HTTPException(400, EXPECTED)
    with sent[0].file as stream:
        return Upload(_text(sent[0].filename) or FIELD, stream.read())


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

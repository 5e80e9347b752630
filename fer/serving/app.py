"""The application behind ``fer serve``: the page, the model card, and ``POST /predict``."""

import asyncio
import functools
import json
import logging
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import fer
from fer.data.readers.images import PictureError, TooManyPixels
from fer.inference.network import UNNAMED
from fer.inference.predictor import SMALL_SIDE, Predictor
from fer.serving import answers, page, upload
from fer.serving.guard import Guard, problem
from fer.serving.limits import Limits
from fer.serving.worker import Full, Worker

log = logging.getLogger(__name__)

DESCRIPTION = Path(__file__).with_name("openapi.json")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PRIVACY = "Pictures are predicted in the memory of the computer that runs fer serve. They are never written or logged."
GONE = 499  # nobody reads it: the client has left


def build(
    predictor: Predictor, network: str, card: str, *, names: Collection[str] = (), limits: Limits | None = None
) -> Starlette:
    """Return the application.

    Args:
        predictor: what predicts.
        network: its name on the page.
        card: the page of its model card.
        names: of this machine, under which the page may be opened, beside ``localhost`` and addresses of digits.
        limits: on requests.
    """
    server = _Server(predictor, network, limits or Limits())
    contents = dict(page.files()) | {"openapi.json": description(), "card": card.encode(errors="replace")}
    contents[""] = contents["index.html"]
    routes = [
        Route(f"/{name}", functools.partial(_static, kind_of(name), content)) for name, content in contents.items()
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            server.worker.close()

    app = Starlette(
        routes=[*routes, Route("/about", server.about), Route("/predict", server.predict, methods=["POST"])],
        middleware=[Middleware(Guard, names)],
        exception_handlers={HTTPException: _refusal},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # /predict/ is 404 with its reason, not an empty answer
    app.state.worker = server.worker
    return app


async def _static(kind: str, contents: bytes, _: Request) -> Response:
    return Response(contents, media_type=kind)


def kind_of(name: str) -> str:
    """Return the media type of one of the page's files."""
    return "application/json" if name.endswith(".json") else KINDS.get(Path(name).suffix, "text/html")


def description() -> bytes:
    """Return the OpenAPI description of the interface, with this version of the package."""
    described = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    described["info"]["version"] = fer.__version__
    return json.dumps(described).encode()


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = error.detail
    if error.status_code == 404:
        words = f"{request.url.path[:80]}: nothing is here; the page is /, and /openapi.json describes the interface"
    elif error.status_code == 405:
        words = f"{request.method} {request.url.path}: expected {(error.headers or {}).get('Allow', 'another method')}"
    return problem(error.status_code, words, error.headers)


@dataclass
class _Server:
    """The endpoints that know the network."""

    predictor: Predictor
    network: str
    limits: Limits

    def __post_init__(self) -> None:
        self.worker = Worker(self.limits.slots)
        self.memory = upload.Memory(self.limits.bodies)

    async def about(self, _: Request) -> Response:
        """Return what the page has to know of the network and the limits."""
        made = self.predictor.about()
        trained_on = made["trained_on"] or UNNAMED
        return JSONResponse(
            {
                "network": self.network,
                "classes": list(self.predictor.emotions),
                "card": "card",
                "coverage": self.predictor.coverage,
                "coverage_by": self.predictor.coverage_by,
                "unpromised": list(self.predictor.unpromised),
                "limits": {"bytes": self.limits.body, "pixels": self.limits.pixels, "small_side": SMALL_SIDE},
                "privacy": PRIVACY,
                "made": f"Network {self.network} ({made['architecture']}, trained on {trained_on}), detector "
                f"{made['detector']}, fer {fer.__version__}.",
            }
        )

    async def predict(self, request: Request) -> Response:
        """Return the record of a picture.

        Raises:
            HTTPException: the request is wrong, the picture cannot be read, or the client has to wait.
        """
        maps = _maps_of(request)
        try:
            with self.memory.share() as share:
                sent = await upload.read(request, self.limits, share)
                return JSONResponse(await self._answered(request, sent, maps=maps))
        except ClientDisconnect:
            return Response(status_code=GONE)
        except TooManyPixels as error:
            raise HTTPException(413, str(error)) from error
        except PictureError as error:
            raise HTTPException(422, str(error)) from error
        except Full as error:
            raise upload.busy(error.seconds) from error

    async def _answered(self, request: Request, sent: upload.Upload, *, maps: bool) -> Mapping[str, object]:
        """Return the answer to a picture; one whose client has left, or waits too long, loses its slot.

        A thread cannot be stopped: where the picture's turn has come, its work ends before its next part.
        """
        given_up = threading.Event()
        work = functools.partial(answers.answer, self.predictor, sent, self.limits, maps=maps, given_up=given_up)
        job = asyncio.ensure_future(self.worker.run(work))
        leaving = asyncio.ensure_future(_left(request))
        try:
            within = self.limits.job_s
            done, _ = await asyncio.wait({job, leaving}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise HTTPException(503, f"the prediction took longer than {within:g} s; send a smaller picture")
            if not job.done():
                raise ClientDisconnect
            return await job
        finally:
            given_up.set()
            job.cancel()
            leaving.cancel()


async def _left(request: Request) -> None:
    """Wait until the client of a request has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _maps_of(request: Request) -> bool:
    """Return whether a request asks for maps.

    Raises:
        HTTPException: it asks for something else.
    """
    options = request.query_params.multi_items()
    for name, value in options:
        if name != "maps":
            raise HTTPException(400, f"{upload.shown(name)}: no such option; expected maps=true or maps=false")
        if value not in ("true", "false"):
            raise HTTPException(400, f"maps={upload.shown(value)}: expected true or false")
    if len(options) > 1:
        raise HTTPException(400, "maps is given several times; expected it once")
    return options == [("maps", "true")]

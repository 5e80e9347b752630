"""The application over the package's network, and pictures to send."""

import pytest
from PIL import Image

from serving import sendable
from serving.sendable import saved


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """Eileen Collins, a NASA photograph."""
    return saved(sendable.astronaut(), quality=95)


@pytest.fixture(scope="session")
def two_faces() -> bytes:
    """The astronaut twice, once smaller."""
    ground = Image.new("RGB", (350, 200), (90, 90, 90))
    ground.paste(sendable.astronaut(), (0, 0))
    ground.paste(sendable.astronaut().resize((150, 150)), (200, 25))
    return saved(ground, quality=95)


@pytest.fixture(scope="session")
def large() -> bytes:
    """A picture of more than 1 MB, which starlette would write to a temporary file."""
    return saved(Image.new("RGB", (700, 700), (90, 90, 90)), "BMP")


@pytest.fixture(scope="session")
def predictor():
    from fer import Predictor

    return Predictor("tiny")


@pytest.fixture
def app(predictor):
    from fer.serving.app import build

    return build(predictor, "tiny", "<!doctype html><title>card</title>")


@pytest.fixture
def client(app):
    from starlette.testclient import TestClient

    with TestClient(app, base_url="http://localhost:8000") as client:
        yield client


@pytest.fixture
def send(client):
    """Return a function that sends a picture."""

    def send(contents, name="a.jpg", query="", **options):
        return client.post(f"/predict{query}", files={"picture": (name, contents)}, **options)

    return send

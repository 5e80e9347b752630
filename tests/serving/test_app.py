"""``POST /predict`` and the page's files, through the application itself."""

import asyncio
import base64
import io
import json
import logging
import re
import tempfile
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from inference.test_exported import network_of
from PIL import Image

from fer.inference import detect
from fer.inference.predictor import Predictor
from fer.inference.records import record
from fer.models import create
from fer.serving import answers
from fer.serving.app import build, description
from fer.serving.limits import Limits
from serving.sendable import header_of_png, saved

GREY = Image.new("L", (60, 40), 90)


def test_the_record_is_that_of_predict(send, astronaut, predictor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(astronaut)
    answer = send(astronaut)
    assert answer.status_code == 200
    assert answer.json() == record(Path("a.jpg"), predictor.answer(tmp_path / "a.jpg")) | {"notes": []}
    assert answer.json()["faces"][0]["emotion"] == "happy"


def test_a_turned_photograph_is_upright(send, astronaut):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise
    picture = Image.open(io.BytesIO(astronaut)).crop((0, 0, 200, 180)).rotate(90, expand=True)
    turned = send(saved(picture, quality=95, exif=exif.tobytes())).json()
    assert (turned["width"], turned["height"]) == (200, 180)
    assert [face["emotion"] for face in turned["faces"]] == ["happy"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_seven_formats_are_taken_whatever_their_name(send, kind):
    answer = send(saved(GREY, kind), name="x.exe").json()
    assert (answer["width"], answer["height"], answer["faces"], answer["file"]) == (60, 40, [], "x.exe")


def test_maps_are_pictures_of_the_largest_faces(predictor, two_faces):
    from starlette.testclient import TestClient

    app = build(predictor, "tiny", "", limits=Limits(maps=1))
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/predict?maps=true", files={"picture": two_faces}).json()
        plain = client.post("/predict?maps=false", files={"picture": two_faces}).json()
    largest, other = answer["faces"]
    kind, data = largest.pop("map").split(",")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (kind, drawn.shape) == ("data:image/png;base64", (96, 96, 3))
    assert np.ptp(drawn.astype(int), axis=2).max() > 40  # tinted
    assert other.pop("map") is None
    assert answer["notes"] == ["The 1 largest of 2 faces have a map."]
    assert answer["faces"] == plain["faces"]


def test_faces_that_are_too_small_are_counted_in_words(send, astronaut, monkeypatch):
    monkeypatch.setattr("fer.inference.predictor.LEAST_SIDE", 500)
    answer = send(astronaut).json()
    assert (answer["faces"], answer["too_small"]) == ([], 1)
    assert answer["notes"] == ["1 face below 24 pixels left out."]


def damaged(contents):
    return contents[: len(contents) // 2]


@pytest.mark.parametrize(
    ("contents", "status", "words"),
    [
        (lambda astronaut: b"no picture", 422, "expected JPEG, PNG, BMP, GIF, WebP, TIFF or PNM"),
        (lambda astronaut: b"", 422, "empty"),
        (damaged, 422, "a damaged or cut short JPEG"),
        (lambda astronaut: b"P5 12345678901 3 255\n", 422, "a damaged or cut short PPM"),
        (lambda astronaut: astronaut[:3], 422, "a damaged or cut short JPEG"),
        (lambda astronaut: saved(GREY, "WEBP")[:40], 422, "a damaged or cut short WEBP"),
        (lambda astronaut: b"\0\0\0\x18ftypheic" + bytes(50), 422, "convert it to JPEG"),
        (lambda astronaut: b"%!PS-Adobe-3.0 EPSF-3.0", 422, "not a readable picture"),
        (lambda astronaut: b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not a readable picture"),
        (lambda astronaut: saved(Image.new("F", (9, 9)), "TIFF"), 422, "floating-point"),
        (lambda astronaut: header_of_png(20_000, 10_000), 413, "20000x10000 pixels; the limit is 64,000,000"),
        (lambda astronaut: header_of_png(2**31 - 1, 2**31 - 1), 413, "pixels; the limit"),
    ],
)
def test_what_is_no_picture_gets_a_reason(send, astronaut, contents, status, words):
    answer = send(contents(astronaut))
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert send(saved(GREY)).status_code == 200  # the server goes on


FORM = {"content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"data": {"a": "1"}}, 415, "multipart/form-data"),
        ({"content": b"abc"}, 415, "multipart/form-data"),
        ({"files": {"other": b"abc"}}, 400, "the field 'picture'"),
        ({"files": {"no": (None, b"abc")}}, 400, "the field 'picture'"),
        ({"files": {"picture": (None, b"abc")}}, 400, "the field 'picture'"),
        ({"files": [("picture", b"abc"), ("picture", b"abc")]}, 400, "is 1; expected multipart"),
        ({"content": b"junk", "headers": FORM}, 400, "multipart"),
        ({"content": b"junk", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": PART % b"abc", "headers": FORM}, 400, "picture"),  # cut off
        ({"files": {"picture": b"abc"}, "params": {"maps": "yes"}}, 400, "maps=yes: expected true or false"),
        ({"files": {"picture": b"abc"}, "params": {"Maps": "true"}}, 400, "Maps: no such option; expected maps=true"),
        ({"files": {"picture": b"abc"}, "params": {"junk": ""}}, 400, "junk: no such option"),
        ({"files": {"picture": b"abc"}, "params": {"maps": ["true", "true"]}}, 400, "maps is given several times"),
        ({"files": {"picture": b"abc"}, "data": {"maps": "true"}}, 400, "'maps' is no field of the form"),
        ({"files": [("picture", b"abc"), ("picture", (None, b"abc"))]}, 400, "the field 'picture'"),
        ({"content": PART % b"abc", "headers": {"content-type": "multipart/form-datax; boundary=x"}}, 415, "multipart"),
        ({"content": PART % b"abc", "headers": {"content-type": "multipart/form-data; boundary="}}, 400, "multipart"),
    ],
)
def test_a_wrong_form_gets_a_reason(client, options, status, words):
    answer = client.post("/predict", **options)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


@pytest.mark.parametrize("kind", ["Multipart/Form-Data", "multipart/form-data ; charset=unicode_escape"])
@pytest.mark.parametrize("codec", ["utf-7", "punycode", "undefined", "utf-16-le", "no-such-codec"])
def test_names_are_utf8_whatever_codec_the_client_names(client, kind, codec):
    name = "\\ud800+2AA-é".encode() + b"\xff"
    body = PART.replace(b'"a"', b'"%b"') % (name, saved(GREY, "PNG")) + b"--x--\r\n"
    answer = client.post("/predict", content=body, headers={"content-type": f"{kind}; boundary=x; charset={codec}"})
    assert (answer.status_code, answer.json()["file"]) == (200, "\\ud800+2AA-é\ufffd")


def test_addresses_and_methods(client):
    assert client.get("/predict").status_code == 405
    assert client.get("/predict").headers["allow"] == "POST"
    assert client.post("/").status_code == 405
    assert client.get("/../app.py").status_code == 404
    slash = client.post("/predict/", content=b"", follow_redirects=False)
    assert (slash.status_code, "/predict/: nothing is here" in slash.json()["error"]) == (404, True)
    error = client.get("/nothing").json()["error"]
    assert "/nothing" in error
    assert "/openapi.json" in error
    assert client.get("/predict").json() == {"error": "GET /predict: expected POST"}
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_large_picture_stays_in_memory(send, large, monkeypatch):
    assert len(large) > 2**20

    def rollover(self):
        raise AssertionError("written to a temporary file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    assert send(large).json()["width"] == 700


@pytest.fixture
def narrow(predictor):
    """Return a client of a server with limits of a few kilobytes."""
    from starlette.testclient import TestClient

    app = build(predictor, "tiny", "", limits=Limits(body=20_000, bodies=30_000))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def parts_of(contents, size=4096):
    for start in range(0, len(contents), size):
        yield contents[start : start + size]


def test_a_large_body_is_refused_before_and_while_it_arrives(narrow):
    answer = narrow.post("/predict", files={"picture": bytes(20_001)})
    assert (answer.status_code, answer.json()["error"][:22]) == (413, "the request is larger ")
    streamed = narrow.post("/predict", content=parts_of(PART % bytes(40_000) + b"--x--\r\n"), headers=FORM)
    assert streamed.status_code == 413
    assert narrow.post("/predict", files={"picture": saved(GREY)}).status_code == 200


class Held:
    """A predictor whose answers wait until ``go`` is set."""

    def __init__(self, predictor):
        self.predictor, self.go, self.calls = predictor, threading.Event(), 0

    def __getattr__(self, name):
        return getattr(self.predictor, name)

    def answer(self, picture):
        self.calls += 1
        assert self.go.wait(10)
        return self.predictor.answer(picture)


def at_once(app, waiting, count, contents, gone=()):
    """Return the answers to requests sent together; those in ``gone`` are given up before the network goes on."""

    async def all_of():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            files = {"picture": contents}
            tasks = [asyncio.create_task(client.post("/predict", files=files)) for _ in range(count)]
            while not waiting.calls:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            for number in gone:
                tasks[number].cancel()
            await asyncio.sleep(0.05)  # until the slots are given up
            waiting.go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(all_of())


def test_who_finds_no_free_slot_is_asked_to_wait(predictor):
    waiting = Held(predictor)
    app = build(waiting, "tiny", "", limits=Limits(slots=3))
    answers = at_once(app, waiting, 8, saved(GREY))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert "try again in" in refused.json()["error"]
    assert {answer.status_code for answer in at_once(app, waiting, 3, saved(GREY))} == {200}  # the slots are free again


def test_requests_share_the_memory(predictor):
    waiting = Held(predictor)
    contents = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 90), np.uint8)), "PNG")
    app = build(waiting, "tiny", "", limits=Limits(bodies=25_000))
    assert len(contents) > 8_400
    answers = at_once(app, waiting, 5, contents)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
    assert {answer.status_code for answer in at_once(app, waiting, 2, contents)} == {200}


def test_who_gives_up_loses_the_slot(predictor):
    waiting = Held(predictor)
    answers = at_once(build(waiting, "tiny", "", limits=Limits(slots=3)), waiting, 3, saved(GREY), gone=[1, 2])
    assert answers[0].status_code == 200
    assert waiting.calls == 1


def test_who_gives_up_ends_the_work_before_the_next_map(predictor, two_faces, monkeypatch):
    waiting, drawn, make = Held(predictor), [], answers.map_of
    waiting.go.set()
    app = build(waiting, "tiny", "", limits=Limits(slots=1))

    async def left():
        begun, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(*given):
            drawn.append(given)
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(10)
            return make(*given)

        monkeypatch.setattr("fer.serving.answers.map_of", slow)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            asking = asyncio.create_task(client.post("/predict?maps=true", files={"picture": two_faces}))
            await asyncio.wait_for(begun.wait(), 10)
            asking.cancel()
            await asyncio.wait({asking})
            go.set()
            while app.state.worker.running:
                await asyncio.sleep(0.01)
            return await client.post("/predict", files={"picture": saved(GREY)})

    assert asyncio.run(left()).status_code == 200  # the only slot is free
    assert len(drawn) == 1  # of two faces


def test_who_gives_up_ends_the_search_for_faces(predictor, monkeypatch):
    given_up, searched, turn = threading.Event(), [], detect.upright

    def turned(*given):
        searched.append(given)
        given_up.set()  # during the first search for tilted faces
        return turn(*given)

    monkeypatch.setattr(detect, "upright", turned)
    sent = answers.Upload("grey.jpg", saved(GREY))
    with pytest.raises(answers.GivenUp):
        answers.answer(predictor, sent, Limits(), maps=False, given_up=given_up)
    assert len(searched) == 1  # of two
    predictor.answer(GREY)  # nobody else is bound by it
    assert len(searched) == 3


def test_the_page_knows_which_promise_is_kept():
    from starlette.testclient import TestClient

    served = build(Predictor("tiny", coverage=0.98, coverage_by="class"), "tiny", "")
    with TestClient(served, base_url="http://localhost") as client:
        about = client.get("/about").json()
    assert (about["coverage"], about["coverage_by"], about["unpromised"]) == (0.98, "class", ["disgust"])


def test_an_exported_network_has_maps(two_faces, tmp_path):
    from starlette.testclient import TestClient

    with TestClient(
        build(Predictor(network_of(tmp_path / "small.onnx")), "small", ""), base_url="http://localhost"
    ) as client:
        faces = client.post("/predict?maps=true", files={"picture": two_faces}).json()["faces"]
    assert [face["map"][:22] for face in faces] == ["data:image/png;base64,"] * 2


def test_a_network_of_colours_sees_them_and_has_maps(two_faces, tmp_path):
    from starlette.testclient import TestClient

    predictor = Predictor(create({"name": "mlp", "hidden": []}, image_size=48, in_channels=3))
    (tmp_path / "a.png").write_bytes(two_faces)
    expected = record(Path("a.jpg"), predictor.answer(tmp_path / "a.png"))
    with TestClient(build(predictor, "colour", ""), base_url="http://localhost") as client:
        answer = client.post("/predict?maps=true", files={"picture": ("a.jpg", two_faces)}).json()
    assert [face.pop("map")[:22] for face in answer["faces"]] == ["data:image/png;base64,"] * 2
    assert answer == expected | {"notes": []}
    grey = predictor.answer(Image.open(io.BytesIO(two_faces)).convert("L"))
    assert record(Path("a.jpg"), grey)["faces"][0]["probabilities"] != expected["faces"][0]["probabilities"]


def test_a_prediction_that_takes_too_long_is_answered(predictor):
    from starlette.testclient import TestClient

    waiting = Held(predictor)
    with TestClient(build(waiting, "tiny", "", limits=Limits(job_s=0.2)), base_url="http://localhost") as client:
        answer = client.post("/predict", files={"picture": saved(GREY)})
    waiting.go.set()
    assert answer.status_code == 503
    assert "longer than 0.2 s" in answer.json()["error"]


def test_a_failing_network_is_one_line_and_the_server_goes_on(send, monkeypatch, caplog):
    with monkeypatch.context() as patched:
        patched.setattr("fer.serving.answers.record", lambda *_: 1 / 0)
        answer = send(saved(GREY), name="private-name.jpg")
    assert answer.status_code == 500
    assert "terminal" in answer.json()["error"]
    assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR] == [
        "a request failed: ZeroDivisionError: division by zero"
    ]
    assert send(saved(GREY)).status_code == 200


def test_names_are_never_logged(send, caplog):
    caplog.set_level(logging.DEBUG)
    send(saved(GREY), name="private-name.jpg")
    send(b"junk", name="private-name.jpg")
    ours = [entry for entry in caplog.records if not entry.name.startswith(("httpx", "httpcore"))]
    assert not [entry for entry in ours if "private-name" in entry.getMessage()]


def test_a_wrong_form_writes_nothing_to_the_terminal(client, caplog):
    for headers in (FORM, {"content-type": "multipart/form-data; boundary=xyz"}):
        assert client.post("/predict", content=PART + b"junk", headers=headers).status_code == 400
    assert [entry for entry in caplog.records if entry.name.startswith("python_multipart")] == []


# --- who asks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("192.168.1.7", 200),
        ("lab.example:8000", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.x", 421),
        ("evil@localhost.x", 421), ("", 421), ("[::1", 421), ("127.0.0.1/evil", 421), ("a@127.0.0.1", 421),
        ("127.0.0.1:abc", 421), ("localhost?", 421), ("localhost#x", 421), ("[127.0.0.1]", 421), ("[localhost]", 421),
    ],
)  # fmt: skip
def test_foreign_names_are_refused(predictor, host, status):
    from starlette.testclient import TestClient

    client = TestClient(build(predictor, "tiny", "", names=["Lab.example"]), base_url="http://localhost")
    assert client.get("/about", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8001"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://localhost:8000/"}, 403),
        ({"origin": "ftp://localhost:8000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_pages_of_others_get_no_answers(send, headers, status):
    assert send(saved(GREY), headers=headers).status_code == status


def test_every_answer_has_its_policy(client, send, monkeypatch):
    answers = [client.get("/"), client.get("/nothing"), client.get("/", headers={"host": "a.b"}), send(b"junk")]
    answers.append(client.get("/", headers={"origin": "http://["}))
    monkeypatch.setattr("fer.serving.guard.is_own", lambda *_: 1 / 0)  # a fault of the guard itself
    answers.append(client.get("/"))
    assert answers[-1].status_code == 500
    for answer in answers:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'",) * 3
        assert "http" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline(client):
    page = client.get("/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", page) == []
    names = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert {"theme.css", "page.css", "theme.js", "page.js", "card"} <= set(names)
    for name in {*names, "backend.js", "orientation.js"} - {"data:,"}:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        kinds = {".js": "text/javascript", ".css": "text/css"}
        assert answer.headers["content-type"].startswith(kinds.get(Path(name).suffix, "text/html"))
        addresses = set(re.findall(r"https?://[\w.]+", answer.text))
        assert addresses <= {"http://www.w3.org", "http://127.0.0.1"}, name  # SVG's name; a hint in words


def test_the_colours_are_those_of_the_reports(client):
    from fer.reports.html import stylesheet

    assert client.get("/theme.css").text == stylesheet()
    assert not re.search(r"#[0-9a-f]{6}\b", client.get("/page.css").text)


def test_the_description_is_that_of_the_answers(client, send, astronaut):
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    answer, about = send(astronaut, query="?maps=true").json(), client.get("/about").json()
    assert set(answer) == set(schemas["Record"]["properties"]) == set(schemas["Record"]["required"])
    assert set(answer["faces"][0]) == set(schemas["Face"]["properties"]) == {*schemas["Face"]["required"], "map"}
    assert set(about) == set(schemas["About"]["properties"])
    assert set(about["limits"]) == set(schemas["About"]["properties"]["limits"]["properties"])
    assert set(send(b"junk").json()) == set(schemas["Problem"]["properties"])
    for path, methods in described["paths"].items():
        for method in methods:
            assert client.request(method.upper(), path).status_code not in (404, 405)
    assert json.loads(description())["info"]["version"]

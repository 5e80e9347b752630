"""The exported folder in Chromium: what it predicts, and that nothing leaves the tab."""

import base64
import functools
import gzip
import io
import json
import shutil
import socket
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import skimage.data
import torch
from exports.web.test_web_build import SIZE, write
from inference.portraits import astronaut, hopper, scene
from PIL import Image
from serving.browser import INSTALL, PROGRAM, Browser, Tab
from serving.sendable import header_of_png, headers_of_webp, saved, webp_lying

import fer
from fer.config.errors import FerError
from fer.data.crop import Crop
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.data.readers.images import to_grey
from fer.export import main
from fer.exports.web import build, runtime
from fer.inference.exported import FORMAT, IN_COLOUR, About, ExportedNetwork, SourceNetwork
from fer.inference.records import record

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=INSTALL)]

STATUS = "document.getElementById('status').textContent"
PROBLEM = "document.getElementById('problem').textContent"
BYTES = "Uint8Array.from(atob('{}'), (letter) => letter.charCodeAt(0))"
MOST_FIRST_LOAD = 6_000_000  # bytes, compressed, beside the network
MOST_DIFFERENCE = 1e-4  # of a probability
MOST_MS = 50  # a face


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of the package's network, with the runtime that npm fetches."""
    folder = tmp_path_factory.mktemp("web")
    try:
        fetched = runtime.files()
    except FerError as error:
        pytest.skip(str(error))
    (folder / "runtime").mkdir()
    for name, contents in fetched.items():
        (folder / "runtime" / name).write_bytes(contents)
    assert main(["tiny", f"{folder / 'page'}/", "--runtime", str(folder / "runtime")]) == 0
    return folder / "page"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def served(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="module")
def host(folder):
    """What ``python -m http.server`` runs, and its address."""
    server, address = served(functools.partial(Quiet, directory=folder))
    yield server, address
    server.shutdown()


class Watched(Tab):
    """A tab whose worker's requests are logged too, from the first."""

    def __init__(self, socket, url, **options):
        super().__init__(socket, "about:blank", **options)
        self.attended, self.worker = 0, None
        self.do("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.do("Page.navigate", url=url)

    def do(self, method, **parameters):
        result = super().do(method, **parameters)
        while hasattr(self, "attended") and self.attended < len(self.log):
            message = self.log[self.attended]
            self.attended += 1
            if message.get("method") == "Target.attachedToTarget":
                self.worker = message["params"]["sessionId"]
                for name in ("Network.enable", "Log.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                    self.to_worker(name)
        return result

    def to_worker(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, "sessionId": self.worker}
        self.socket.send(json.dumps(message))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera sees the astronaut, and a picture of it in its folder."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "astronaut.png").write_bytes(saved(astronaut(), "PNG"))
    picture = astronaut().convert("L").resize((640, 640)).crop((0, 0, 640, 480))
    frame = b"FRAME\n" + picture.tobytes() + bytes([128]) * (640 * 480 // 2)
    (folder / "camera.y4m").write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + 3 * frame)
    browser = Browser(folder, f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}")
    browser.folder = folder
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def tab(browser, host):
    tab = browser.tab(host[1], kind=Watched)
    tab.until("document.documentElement?.dataset.ready")
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def predictor():
    return fer.Predictor("tiny")


def encoded(contents):
    return BYTES.format(base64.b64encode(contents).decode())


def predicted(tab, contents, name="picture"):
    """Return what the page's own backend answers to a file."""
    file = f"new File([{encoded(contents)}], {json.dumps(name)})"
    return tab.run(f"import('./backend.js').then(({{predict}}) => predict({file}, {{}}))")


def turned_by_exif(picture):
    """Return a picture that lies on its side, with the note that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def transparent(picture):
    picture = picture.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size).point(lambda value: 255 - value // 2))
    return saved(picture, "PNG")


def pictures():
    """Files, and how far a probability may lie from that of ``fer predict``."""
    return {
        "png": (saved(astronaut(), "PNG"), 2e-4),  # records have four digits
        "exif": (turned_by_exif(hopper()), 0.02),  # JPEGs are decoded by another program
        "transparent": (transparent(astronaut()), 0.02),
        "tilted": (saved(scene("astronaut", 80, 30)[0], "PNG"), 2e-3),
        "none": (saved(Image.fromarray(skimage.data.cat()), "PNG"), 0),
    }


def test_the_tab_answers_what_fer_predict_answers(tab, predictor):
    for name, (contents, most) in pictures().items():
        page_faces = predicted(tab, contents)
        expected = record("picture", predictor.answer(Image.open(io.BytesIO(contents))))
        assert [page_faces[key] for key in ("width", "height", "too_small")] == [
            expected[key] for key in ("width", "height", "too_small")
        ], name
        assert len(page_faces["faces"]) == len(expected["faces"]), name
        for ours, theirs in zip(page_faces["faces"], expected["faces"], strict=True):
            assert ours.keys() == theirs.keys()
            same = ("emotion", "emotions", "uncertain", "tilt")
            assert [ours[key] for key in same] == [theirs[key] for key in same], name
            assert ours["box"] == pytest.approx(theirs["box"], abs=0.02 if most < 0.01 else 3), name
            assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=most), name


def test_probabilities_are_those_of_torch_at_50_ms_a_face(tab, predictor):
    faces, _ = draw_faces(512, seed=5, image_size=48)
    script = """Promise.all([import("./network.js"), fetch("network.json").then((answer) => answer.json())])
      .then(async ([{Network}, about]) => {
        const network = await Network.loaded(about);
        const pixels = GIVEN;
        const [count, each] = [pixels.length / 2304, (_, index) => pixels.slice(2304 * index, 2304 * (index + 1))];
        const crops = Array.from({length: count}, each);
        const rows = await network.probabilities(crops);
        const times = [];
        for (let index = 0; index < 20; index++) {
          const began = performance.now();
          await network.probabilities([crops[index]]);
          times.push(performance.now() - began);
        }
        return { rows: rows.map((row) => [...row]), ms: times.sort((one, other) => one - other)[10] };
      })"""
    actual = tab.run(script.replace("GIVEN", encoded(faces.tobytes())))
    expected = predictor.network.model.probabilities(torch.from_numpy(faces[:, None])).numpy()
    assert np.abs(np.array(actual["rows"]) - expected).max() <= MOST_DIFFERENCE
    assert (np.array(actual["rows"]).argmax(1) == expected.argmax(1)).all()
    assert actual["ms"] <= MOST_MS


@pytest.fixture(scope="module")
def colour(tmp_path_factory, folder):
    """The page of a network that takes faces in colour, and that network."""
    made = SourceNetwork("drawn.ckpt", "0" * 64, "1" * 64, "mlp", 1.0, 1.0, {"name": "drawn"})
    root = tmp_path_factory.mktemp("colour")
    about = About(FORMAT, "float32", tuple(EMOTIONS), SIZE, Crop(1.0).contract(SIZE), "mlp", 12096, (made,))
    write(root / "colour.onnx", replace(about, channels=3, faces=IN_COLOUR), channels=3)
    network = ExportedNetwork(root / "colour.onnx")
    build.write(network, "colour", root / "page", given=folder.parent / "runtime")
    return root / "page", fer.Predictor(network)


def test_faces_in_colour_have_the_answers_of_fer_predict(browser, colour):
    folder, predictor = colour
    server, address = served(functools.partial(Quiet, directory=folder))
    tab = browser.tab(address, kind=Watched)
    tab.until("document.documentElement?.dataset.ready")
    (ours,) = predicted(tab, saved(astronaut(), "PNG"))["faces"]
    tab.close()
    server.shutdown()
    (theirs,) = record("picture", predictor.answer(astronaut()))["faces"]
    assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=2e-3)
    (grey,) = record("picture", predictor.answer(astronaut().convert("L")))["faces"]
    assert max(abs(grey["probabilities"][name] - chance) for name, chance in ours["probabilities"].items()) > 0.02


def test_a_chosen_picture_is_described_and_mapped(tab, browser):
    tab.choose(browser.folder / "astronaut.png")
    tab.until(f"{STATUS}.includes('found')")
    assert tab.run("document.querySelector('#faces h3').textContent") == "Face 1: happy"
    tab.run("document.getElementById('maps').click()")
    assert tab.until("document.querySelector('img.map')?.src").startswith("data:image/png;base64,")


def with_camera(tab):
    """Open the camera, and wait for a frame of it; the first may be black."""
    tab.run("document.getElementById('camera').click()")
    tab.until("document.activeElement.id === 'shoot' && document.getElementById('video').currentTime > 0.3")


def test_the_camera_takes_a_picture(tab):
    with_camera(tab)
    tab.run("document.getElementById('status').textContent = ''")  # of the picture before
    tab.run("document.getElementById('shoot').click()")
    tab.until(f"{STATUS}.includes('found')")
    assert tab.run("document.querySelector('#faces h3').textContent") == "Face 1: happy"


LIVE = "document.getElementById('live')"
FRAMES = "window.frames_seen"


def counted(tab):
    """Count the live answers that reach the page."""
    tab.run(f"""{FRAMES} = 0; new MutationObserver(() => {FRAMES}++).observe(
        document.getElementById('live-boxes'), {{childList: true}})""")


def test_the_camera_is_predicted_live_until_it_is_stopped(tab):
    with_camera(tab)
    tab.run("document.getElementById('shoot').click()")  # a picture whose answer comes during the live predictions
    tab.until("document.getElementById('choose').hasAttribute('aria-busy')")
    with_camera(tab)
    counted(tab)
    tab.do("Page.bringToFront")
    tab.run(f"{LIVE}.focus()")
    tab.key("Enter", 13, text="\r")  # by the keyboard
    tab.until(f"{FRAMES} >= 3")
    assert tab.run(f"{LIVE}.getAttribute('aria-pressed')") == "true"
    assert tab.run("document.querySelector('#live-faces h3').textContent") == "Face 1: happy"
    assert tab.run("document.querySelectorAll('#live-faces .track').length") == 7
    assert "pictures per second" in tab.run("document.getElementById('rate').textContent")
    assert tab.run(STATUS) == "1 face: happy."  # once, not with every frame
    assert tab.run("document.getElementById('result').hidden")  # of the picture before
    tab.do("HeapProfiler.enable")
    measured = []
    for _ in range(2):
        before = tab.run(FRAMES)
        tab.until(f"{FRAMES} >= {before + 8}")
        tab.do("HeapProfiler.collectGarbage")
        measured.append((tab.do("Runtime.getHeapUsage")["usedSize"], tab.run("document.querySelectorAll('*').length")))
    (first, parts), (second, later) = measured
    assert parts == later
    assert second - first < 300_000, "bytes after 8 more frames"
    tab.run(f"{LIVE}.click()")
    assert tab.run(f"[{LIVE}.getAttribute('aria-pressed'), document.getElementById('live-faces').children.length]") == [
        "false", 0,
    ]  # fmt: skip
    stopped = tab.run(FRAMES)
    tab.run("new Promise((resolve) => setTimeout(resolve, 500))")
    assert tab.run(FRAMES) == stopped


HIDE = """Object.defineProperty(document, 'hidden', {value: true, configurable: true});
    document.dispatchEvent(new Event('visibilitychange')); delete document.hidden;"""
TAKEN = """window.streams = []; window.asked ??= navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (what) => asked(what).then((one) => { streams.push(one); return one; });"""
ENDED = "streams.map((one) => one.getTracks()[0].readyState)"


def test_a_camera_is_opened_once_and_never_stays_open_unseen(tab):
    tab.run("document.getElementById('stop').click()")  # of the test before
    tab.run(f"{TAKEN} camera.click(); camera.click()")  # ids of elements are names in scripts
    tab.until("document.activeElement.id === 'shoot'")
    tab.run("camera.click(); camera.focus()")
    tab.run("document.getElementById('stop').click()")
    assert tab.run(ENDED) == ["ended"]
    tab.run(f"camera.click(); {HIDE}")  # while the browser still asks
    tab.until("streams.length === 2")
    assert tab.until(f"{ENDED}.every((state) => state === 'ended')")
    assert tab.run("viewfinder.hidden")
    with_camera(tab)
    tab.run(HIDE)  # not live
    assert tab.run("[viewfinder.hidden, document.activeElement.id]") == [True, "camera"]
    assert "hidden" in tab.run(STATUS)
    with_camera(tab)
    assert tab.run(STATUS) == ""  # it is open again


def test_a_camera_that_is_lost_is_reported(tab):
    with_camera(tab)
    counted(tab)
    tab.run(f"{LIVE}.click()")
    tab.until(f"{FRAMES} >= 1")
    tab.run("video.srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")  # as when it is unplugged
    assert "lost" in tab.until(PROBLEM)
    assert tab.run(f"[viewfinder.hidden, {LIVE}.getAttribute('aria-pressed'), document.activeElement.id]") == [
        True, "false", "camera",
    ]  # fmt: skip
    with_camera(tab)
    tab.run("document.getElementById('status').textContent = 'of a moment ago'")
    tab.run("video.srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")  # not live
    assert "lost" in tab.until(PROBLEM)
    assert tab.run(STATUS) == ""


def test_live_predictions_wait_for_the_first_picture(tab):
    tab.run("camera.click()")
    tab.until("!!video.srcObject")
    counted(tab)
    tab.run(f"{LIVE}.click()")
    tab.until(f"{FRAMES} >= 1 || {PROBLEM}")
    assert tab.run(PROBLEM) == ""
    tab.run("document.getElementById('stop').click()")


def test_greys_and_colours_of_a_frame_are_those_of_a_picture(tab):
    assert tab.run("""import("./picture.js").then(async ({read}) => {
      const canvas = Object.assign(document.createElement("canvas"), {width: 70, height: 50});
      const context = canvas.getContext("2d");
      for (let index = 0; index < 3500; index++) {
        context.fillStyle = `rgb(${(7 * index) % 256} ${(11 * index) % 256} ${(13 * index) % 256})`;
        context.fillRect(index % 70, Math.floor(index / 70), 1, 1);
      }
      const file = await new Promise((done) => canvas.toBlob(done));
      const limits = {pixels: 1e6};
      const frame = await read(await createImageBitmap(canvas), limits, true);
      const picture = await read(file, limits, true);
      const [first, second] = [frame, picture].map(({pixels, bands}) => [pixels, ...bands]);
      const same = first.map((plane, number) => plane.every((value, index) => value === second[number][index]));
      return [frame.width, frame.height, ...same, frame.bands[0].join() === frame.bands[1].join()];
    })""") == [70, 50, True, True, True, True, False]


def test_webp_is_upright_whatever_its_exif_says(tab):
    """Chromium does not turn WebP."""
    picture = hopper().crop((20, 10, 90, 60))
    files = {str(way): webp_lying(picture, way) for way in range(2, 9)}
    files["marked"] = webp_lying(picture, 6, b"Exif\0\0")
    files["damaged"] = files["6"].replace(b"MM\0*\0\0\0", b"MM\0*\0\0\1")  # its tags would lie behind its end
    for name, contents in files.items():
        script = f"""import("./picture.js").then(async ({{read}}) => {{
          const {{pixels, width, height}} = await read(new Blob([{encoded(contents)}]), {{pixels: 1e6}});
          return [[...pixels], width, height];
        }})"""
        pixels, width, height = tab.run(script)
        expected = to_grey(picture.transpose(Image.Transpose.ROTATE_90) if name == "damaged" else picture)
        assert (width, height) == expected.size, name
        assert np.abs(np.array(pixels) - np.asarray(expected, int).ravel()).max() <= 1, name
    (face,) = predicted(tab, webp_lying(astronaut(), 6))["faces"]
    assert face["emotion"] == "happy"


def test_the_visitor_chooses_the_promise(tab, browser):
    (browser.folder / "hopper.png").write_bytes(saved(hopper(), "PNG"))
    (browser.folder / "heavy.png").write_bytes(bytes(65 * 2**20))
    tab.choose(browser.folder / "hopper.png")
    tab.until(f"{STATUS}.includes('found')")
    assert "over all faces together" in tab.run("notes.textContent")
    for way, words in (("class", "100 cases of each emotion"), ("all", "over all faces together")):
        tab.run("each.click()")
        tab.until(f"notes.textContent.includes({words!r})")
        bold = tab.run("[...document.querySelectorAll('#faces .in-set th')].map((cell) => cell.textContent)")
        predictor = fer.Predictor("tiny", coverage_by=way)
        assert bold == list(predictor(hopper())[0][0].emotions)
    tab.choose(browser.folder / "hopper.png")
    tab.choose(browser.folder / "heavy.png")  # while the answer to the picture before is on its way
    assert "limit is 64 MB" in tab.until(PROBLEM)
    tab.run("new Promise((resolve) => setTimeout(resolve, 1500))")
    assert tab.run(f"[result.hidden, {STATUS}, choose.hasAttribute('aria-busy')]") == [True, "", False]


def test_live_predictions_and_the_camera_stop_in_a_hidden_tab(tab):
    with_camera(tab)
    tab.run("window.track = document.getElementById('video').srcObject.getTracks()[0]")
    counted(tab)
    tab.run(f"{LIVE}.click()")
    tab.until(f"{FRAMES} >= 2")
    tab.run(HIDE)
    assert tab.run("[track.readyState, document.getElementById('viewfinder').hidden]") == ["ended", True]
    assert "hidden" in tab.run(STATUS)


def test_what_is_no_picture_is_said_and_the_next_one_works(tab, browser):
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    files = {"junk.jpg": b"no picture", "huge.png": header_of_png(20_000, 10_000), "a.heic": heic, "empty.png": b""}
    words = ["Expected JPEG", "20000x10000", "HEIC", "empty"]
    for name, contents in headers_of_webp(16_000, 16_001).items():
        files[f"{name.strip()}.webp"] = contents
        words.append("16000x16001")
    for (name, contents), expected in zip(files.items(), words, strict=True):
        (browser.folder / name).write_bytes(contents)
        tab.choose(browser.folder / name)
        tab.until(f"{PROBLEM}.includes('{expected}')")
        assert tab.run("document.getElementById('result').hidden"), name
    tab.choose(browser.folder / "astronaut.png")
    tab.until(f"{STATUS}.includes('found')")


def test_the_page_asks_its_host_alone_and_cannot_ask_another(tab, host):
    requested = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
    assert any(url.endswith("onnxruntime.wasm.gz") for url in requested)  # asked by the worker: it is watched
    assert not [url for url in requested if not url.startswith((host[1], "blob:", "data:"))]
    reached = []

    class Foreign(Quiet):
        def do_GET(self):
            reached.append(self.path)
            self.send_error(404)

    server, foreign = served(Foreign)
    for where in ("page", "worker"):
        script = f"fetch('{foreign}{where}').catch(() => 'refused')"
        if where == "page":
            assert tab.run(script) == "refused"
        else:
            tab.to_worker("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
            number = tab.number
            tab.until("new Promise((resolve) => setTimeout(() => resolve(true), 300))")
            (answer,) = [message for message in tab.log if message.get("id") == number]
            assert answer["result"]["result"]["value"] == "refused"
    assert reached == []
    server.shutdown()


def test_the_page_works_on_when_its_host_has_gone(tab, host, browser):
    assert predicted(tab, saved(astronaut(), "PNG"))["faces"]  # which needs every file
    host[0].shutdown()
    host[0].server_close()
    tab.choose(browser.folder / "astronaut.png")
    tab.until(f"{STATUS}.includes('found')")
    assert tab.events("Runtime.exceptionThrown") == []


def test_opened_from_the_disk_it_says_what_to_do(browser, folder):
    tab = browser.tab((folder / "index.html").as_uri())
    assert "http.server" in tab.until("document.getElementById('problem')?.textContent")
    tab.close()


def test_a_folder_that_lacks_a_script_says_so(browser, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "page")
    (tmp_path / "page" / "faces.js").unlink()
    server, address = served(functools.partial(Quiet, directory=tmp_path / "page"))
    tab = browser.tab(address)
    tab.until("document.documentElement?.dataset.ready")
    tab.run("new Promise((resolve) => setTimeout(resolve, 500))")  # the worker has failed before there is a picture
    tab.choose(browser.folder / "astronaut.png")
    assert "folder complete" in tab.until(PROBLEM)
    tab.close()
    server.shutdown()


@pytest.mark.parametrize("name", ["network.json", "network.onnx", "onnxruntime.wasm.gz", "faces.js"])
def test_a_file_that_did_not_come_is_loaded_with_the_next_picture(browser, folder, name):
    gone = threading.Event()
    gone.set()

    class Failing(Quiet):
        def do_GET(self):
            if gone.is_set() and self.path == f"/{name}":
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                super().do_GET()

    server, address = served(functools.partial(Failing, directory=folder))
    tab = browser.tab(address)
    if name == "network.json":
        assert name in tab.until("document.getElementById('problem')?.textContent")
    else:
        tab.until("document.documentElement?.dataset.ready")
    tab.choose(browser.folder / "astronaut.png")
    problem = tab.until(PROBLEM)
    assert "connection" in problem
    assert name in problem or name == "faces.js"  # the browser does not say which script
    gone.clear()
    tab.choose(browser.folder / "astronaut.png")
    tab.until(f"{STATUS}.includes('found')")
    assert tab.run(PROBLEM) == ""
    tab.close()
    server.shutdown()


def test_the_first_load_is_small(folder):
    compressed = {file.name: len(gzip.compress(file.read_bytes())) for file in folder.iterdir()}
    assert sum(compressed.values()) - compressed["network.onnx"] <= MOST_FIRST_LOAD

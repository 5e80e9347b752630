"""A headless Chromium, driven over the DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
)  # fmt: skip


@contextmanager
def chromium(profile: Path, *options: str):
    """Yield a browser with a profile of its own; skip the test where there is none."""
    connect = pytest.importorskip("websockets.sync.client").connect
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    process = subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", *options, "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port, path = _port(profile / "DevToolsActivePort", process)
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=2**28) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(20)


def _port(file: Path, process: subprocess.Popen) -> tuple[str, str]:
    for _ in range(600):
        if file.is_file() and len(lines := file.read_text().split()) == 2:
            return lines[0], lines[1]
        assert process.poll() is None, "Chromium did not start"
        time.sleep(0.05)
    raise AssertionError("Chromium did not open its port in 30 s")


class Browser:
    """A browser; its pages and their workers report what they request and what goes wrong."""

    def __init__(self, socket) -> None:
        self.socket, self.numbers = socket, itertools.count(1)
        self.requested: list[str] = []
        self.problems: list[str] = []

    def send(self, method: str, session: str | None = None, **parameters):
        """Return the result of a command."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({} if session is None else {"sessionId": session})))
        while True:
            answer = json.loads(self.socket.recv(timeout=120))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])
        elif method == "Target.attachedToTarget":
            self._listen(parameters["sessionId"])

    def _listen(self, session: str) -> None:
        """Have the events of a page or a worker sent, its workers' too."""
        for method in ("Network.enable", "Runtime.enable", "Log.enable", "Runtime.runIfWaitingForDebugger"):
            message = {"id": next(self.numbers), "method": method, "params": {}, "sessionId": session}
            self.socket.send(json.dumps(message))

    def page(self, address: str, width: int = 1280, height: int = 900) -> "Page":
        """Open a page."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        self._listen(page.session)
        page.send("Page.enable")
        page.send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        page.resize(width, height)
        page.send("Page.navigate", url=address)
        return page

    def hosts(self) -> set[str]:
        """Return the hosts of all requests; data and blob addresses have none."""
        return {urlsplit(url).netloc for url in self.requested if urlsplit(url).scheme not in ("data", "blob")}


class Page:
    """A page of the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **parameters):
        """Return the result of a command to this page."""
        return self.browser.send(method, self.session, **parameters)

    def run(self, script: str):
        """Return the value of an expression, waited for where it is a promise."""
        ended = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in ended, ended["exceptionDetails"]
        return ended["result"].get("value")

    def until(self, condition: str, seconds: float = 60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, (condition, self.browser.problems, self.run("document.body.innerText"))
            time.sleep(0.05)

    def give(self, selector: str, *files: Path) -> None:
        """Choose files in an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=list(map(str, files)))

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on: bool) -> None:
        """Ask for dark or light colours."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def shot(self, file: Path) -> None:
        """Write a picture of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

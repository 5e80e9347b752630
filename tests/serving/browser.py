"""Debian's Chromium over the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
INSTALL = "needs Chromium: apt-get install chromium"
FLAGS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "about:blank",
)  # fmt: skip
WAIT_S = 60.0  # a busy machine takes that long to start a browser


class Browser:
    """A browser without a window; its tabs are their own connections."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, f"--user-data-dir={folder}", *flags, *FLAGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = folder / "DevToolsActivePort"
        until(lambda: port.is_file() and port.read_text().count("\n"))
        self.address = f"127.0.0.1:{port.read_text().split()[0]}"

    def tab(self, url: str, kind: "type[Tab] | None" = None, **options) -> "Tab":
        request = urllib.request.Request(f"http://{self.address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request) as answer:
            return (kind or Tab)(json.load(answer)["webSocketDebuggerUrl"], url, **options)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class Tab:
    """A tab: ``run`` evaluates JavaScript, ``do`` calls a method of the protocol; ``log`` has what it reported."""

    def __init__(self, socket: str, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.open = contextlib.ExitStack()
        self.socket, self.number, self.log = self.open.enter_context(connect(socket, max_size=None)), 0, []
        self.do("Emulation.setScrollbarsHidden", hidden=True)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.do(f"{domain}.enable")
        self.look(width, height, dark=dark)
        self.do("Page.navigate", url=url)

    def look(self, width: int, height: int, *, dark: bool) -> None:
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def do(self, method: str, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(WAIT_S))
            if message.get("id") == self.number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.log.append(message)

    def run(self, script: str):
        answer = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str):
        """Return a script's value as soon as it is true."""
        return until(lambda: self.run(script), script)

    def choose(self, file: Path) -> None:
        """Choose a picture."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def key(self, name: str, code: int, text: str = "", modifiers: int = 0, **more) -> None:
        parameters = {"key": name, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.do("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **parameters, **more)
        self.do("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def screenshot(self, file: Path) -> None:
        data = self.do("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def events(self, method: str) -> list[dict]:
        """Return the parameters of all events of a kind so far."""
        self.run("0")  # collects what waits
        return [message["params"] for message in self.log if message.get("method") == method]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.do("Page.close")
        self.open.close()


def until(condition, what: str = "") -> object:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {WAIT_S:g} s: {what}")

"""The application on a port: slow clients, a port in use, the end."""

import os
import signal
import socket
import threading
import time
import urllib.request

import pytest
from conftest import runner

from fer.config.errors import FerError
from fer.serve import main
from fer.serving import server
from fer.serving.app import build
from fer.serving.limits import Limits

SHORT = Limits(head_s=0.4, body_s=0.4, request_s=1.2, connections=6)
GET = b"GET /about HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 5000\r\n\r\n--x\r\n"
)


@pytest.fixture(scope="module")
def port(predictor):
    """Return the port of a server that has little patience."""
    listening = server.bound("127.0.0.1", 0)
    running = server.server(build(predictor, "tiny", "", limits=SHORT), SHORT)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    running.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
    listening.close()


def read(port, *parts, pause=0.0):
    """Return all that a connection answers to parts with pauses between them, and how long that took."""
    began, answer = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=8) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while more := connection.recv(65536):
                answer += more
        except OSError:
            pass
    return answer, time.monotonic() - began


@pytest.mark.parametrize(
    ("parts", "pause", "answer"),
    [
        ([GET[:20]], 0, b""),  # never ends its head
        ([GET[at : at + 1] for at in range(20)], 0.1, b""),  # letter by letter
        ([GET], 0, b"HTTP/1.1 200"),  # stays without another request
        ([GET, GET[:20]], 0.2, b"HTTP/1.1 200"),  # or begins one
        ([POST], 0, b"HTTP/1.1 408"),  # never ends its body
        ([POST, *[b"a"] * 6], 0.1, b"HTTP/1.1 408"),  # byte by byte
    ],
)
def test_a_slow_client_is_sent_away_and_the_server_goes_on(port, parts, pause, answer):
    found, took = read(port, *parts, pause=pause)
    assert found[:12] == answer
    assert took < 6  # uvicorn alone waits for ever, or 5 s between requests
    assert read(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))[0].startswith(b"HTTP/1.1 200")


def test_junk_on_the_line_is_refused(port):
    assert read(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03junk\r\n\r\n")[0].startswith(b"HTTP/1.1 400")
    assert read(port, b"GET /" + b"a" * 200_000)[0].startswith(b"HTTP/1.1 400")
    assert read(port, GET.replace(b"Host", b"Upgrade: websocket\r\nConnection: Upgrade\r\nHost"))[0].startswith(
        b"HTTP/1.1 200"
    )


def test_connections_are_bounded(port):
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(SHORT.connections)]
    answer, _ = read(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    for connection in connections:
        connection.close()
    assert answer.startswith(b"HTTP/1.1 503")


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def serve(capfd):
    return runner(main, capfd)


def test_a_port_in_use_is_one_line(serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        ended = serve("--port", str(number))
    assert ended.code == 1
    assert ended.line == f"fer.serve: --port {number}: in use by another program; choose another, or 0 for any free one"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port 70000: expected 0 to 65535"),
        (["--port", "x"], "--port: invalid int value"),
        (["--port", "0", "--host", "nowhere.invalid"], "--host nowhere.invalid: no such host"),
        (["--port", "0", "--host", "203.0.113.1"], "--host 203.0.113.1 --port 0: cannot be opened"),
        (["--port", "0", "--network", "nowhere"], "nowhere: no such checkpoint"),
        (["--port", "0", "--coverage", "2"], "coverage"),
        (["--port", "0", "--detector", "yunet"], "--detector-model"),
        (["--port", "0", "--name", "https://lab.example:8000/"], "such as lab.example"),
    ],
)
def test_a_wrong_option_is_one_line(serve, arguments, words):
    ended = serve(*arguments)
    assert ended.code == 1
    assert words in ended.line


def test_a_missing_package_is_named(serve, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert serve("--port", "0").line == "fer.serve: uvicorn is missing; pip install 'fer-lightning[serve,faces]'"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(serve, monkeypatch, predictor, number, code):
    opened = server.bound("127.0.0.1", 0)
    monkeypatch.setattr(server, "bound", lambda host, port: opened)
    monkeypatch.setattr("fer.inference.predictor.Predictor", lambda *_, **__: predictor)
    address = server.address(opened, "127.0.0.1")
    statuses = []

    def stop():
        with urllib.request.urlopen(f"{address}about", timeout=20) as answer:
            statuses.append(answer.status)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    ended = serve("--port", "0")
    thread.join(10)
    assert (statuses, ended.code) == ([200], code)
    assert ended.out == f"{address}   Ctrl-C stops it\n"
    assert ended.err == ("" if code == 0 else "fer.serve: stopped by SIGTERM\n")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_it_during_a_prediction(monkeypatch, predictor, caplog, times):
    begun, go, left, answers = threading.Event(), threading.Event(), [], []
    monkeypatch.setattr(server, "_leave", left.append)
    monkeypatch.setattr("fer.serving.answers.answer", lambda *_, **__: (begun.set(), go.wait(8)))
    limits = Limits(ending_s=1 if times == 1 else 15)
    listening = server.bound("127.0.0.1", 0)
    sent = (
        POST.replace(b"5000", b"78")
        + b'Content-Disposition: form-data; name="picture"; filename="a"\r\n\r\n\r\n--x--\r\n'
    )

    def stop():
        begun.wait(8)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    port = listening.getsockname()[1]
    threads = [threading.Thread(target=stop), threading.Thread(target=lambda: answers.append(read(port, sent)[0]))]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    server.run(build(predictor, "tiny", "", limits=limits), listening, limits)
    took = time.monotonic() - began
    go.set()
    for thread in threads:
        thread.join(10)
    assert left == [0]
    assert took < 8
    assert answers[0].startswith(b"HTTP/1.1 503")
    assert b"the server is stopping" in answers[0]
    assert "still being predicted" in caplog.text


def test_an_open_address_is_warned_of(serve, monkeypatch, predictor):
    monkeypatch.setattr("fer.inference.predictor.Predictor", lambda *_, **__: predictor)
    monkeypatch.setattr(server, "run", lambda *_: None)
    assert "no password" in serve("--port", "0", "--host", "0.0.0.0").out
    assert "no password" not in serve("--port", "0").out


def test_addresses():
    with server.bound("::1", 0) as opened:
        assert server.address(opened, "::1") == f"http://[::1]:{opened.getsockname()[1]}/"
    with pytest.raises(FerError, match="from 1024"):
        raise FerError(server._why_not("127.0.0.1", 80, PermissionError()))

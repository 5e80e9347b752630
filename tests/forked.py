"""Python processes that are forked from a template, which has imported the libraries once.

A test that starts ``python -m fer.train`` would wait longer for the imports of torch and Lightning than for the rest.
``Popen`` takes the place of ``subprocess.Popen``, in tests and in the processes that they start. It asks the template
for a copy of itself, which runs the module with the given arguments, variables, folder and streams. Any other command
is started as usual. Linux alone has what this needs.
"""

import fcntl
import os
import pickle
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fer.system.imports import first_of
from fer.system.parent import LAUNCHER

# variables that libraries read as they are imported; a process with other values is started as usual
AT_IMPORT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LANG", "LC_ALL", "PYTHONHASHSEED")
ABOVE = 500  # descriptors of a request while it is heeded, out of the way of those that the process is to have
MOST = 16  # descriptors of a request


@dataclass(frozen=True)
class Request:
    """A process to fork.

    Args:
        module: the module to run.
        arguments: its arguments.
        variables: all variables of the environment.
        folder: to run in.
        streams: the process's own numbers of the descriptors that are sent, standard input, output and errors first.
        own_session: whether it leads a session of its own.
        group: its group of processes; 0 is one of its own, -1 that of the template.
        parent: the process that it ends with; 0 is none.
    """

    module: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    streams: tuple[int, ...]
    own_session: bool
    group: int
    parent: int


class Popen(subprocess.Popen):
    """``subprocess.Popen`` that has modules forked from the template.

    It overrides the methods by which ``subprocess.Popen`` starts a process and asks for its end.
    """

    address = ""  # of the template's socket, in Linux's abstract namespace
    imported_with: Sequence[str | None] = ()  # the template's values of ``AT_IMPORT``
    _channel: socket.socket | None = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        module = _module(args)
        variables = dict(os.environ if env is None else env)
        if module is None or preexec_fn or [*map(variables.get, AT_IMPORT)] != self.imported_with:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
            return
        pipes, (own_session, group) = rest[3:9], rest[-2:]
        ours = [end if end >= 0 else stream for stream, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        parent = os.getpid() if LAUNCHER in args else 0
        request = Request(*module, variables, str(cwd or os.getcwd()), (0, 1, 2, *pass_fds), own_session, group, parent)
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.connect(f"\0{self.address}")
        file = os.memfd_create("request")
        os.write(file, pickle.dumps(vars(request)))
        socket.send_fds(self._channel, [b"start"], [file, *ours, *pass_fds])
        os.close(file)
        self.pid = int(self._channel.recv(64))
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        if self._channel is None:
            return super()._try_wait(wait_flags)
        if wait_flags and not select.select([self._channel], [], [], 0)[0]:
            return 0, 0
        with suppress(ConnectionError):
            if said := self._channel.recv(64):
                return self.pid, int(said)
        return self.pid, signal.SIGKILL  # the template has ended

    def _internal_poll(self, *arguments, **named):
        if self._channel is None:
            return super()._internal_poll(*arguments, **named)
        if self.returncode is None:
            process, status = self._try_wait(os.WNOHANG)
            if process:
                self._handle_exitstatus(status)
        return self.returncode


def _module(command: object) -> tuple[str, tuple[str, ...]] | None:
    """Return the module that a command line of Python runs, and its arguments; None if it is another command."""
    if not isinstance(command, list | tuple):
        return None
    words = [os.fsdecode(word) for word in command]
    if LAUNCHER in words:
        words = words[words.index(LAUNCHER) + 2 :]
    if len(words) < 3 or words[:2] != [sys.executable, "-m"]:
        return None
    return words[2], tuple(words[3:])


class Template:
    """The template as a test process sees it.

    Args:
        log: file for its output.
    """

    def __init__(self, log: Path) -> None:
        Popen.address, Popen.imported_with = f"fer-tests-{os.getpid()}", [*map(os.environ.get, AT_IMPORT)]
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(f"\0{Popen.address}")
        self._listening.listen(64)  # requests wait for the imports
        self._alive, theirs = socket.socketpair()
        given = [self._listening.fileno(), theirs.fileno()]
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, Popen.address, *map(str, given)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=given,
            )  # fmt: skip
        theirs.close()

    def close(self) -> None:
        """End it."""
        self._alive.close()
        self._listening.close()
        self._process.wait()


# --- the template's process -----------------------------------------------------------------------------------------


class Server:
    """The template's loop.

    Args:
        listening: socket for requests.
        alive: socket whose end is the end of the test process.
    """

    def __init__(self, listening: socket.socket, alive: socket.socket) -> None:
        self._listening, self._alive = listening, alive
        self._selector = selectors.DefaultSelector()
        for each in (listening, alive):
            self._selector.register(each, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Fork what is requested, and report the ends.

        Returns:
            In a forked process its request; in the template None, after the end of the test process.
        """
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._alive:
                    return None
                if key.fileobj is not self._listening:
                    self._heed_end(key)
                elif request := self._fork():
                    return request

    def _fork(self) -> Request | None:
        channel, _ = self._listening.accept()
        request, descriptors = _received(channel)
        if request is None:
            return None
        process = os.fork()
        if process == 0:
            for key in list(self._selector.get_map().values()):
                for each in (key.fileobj, key.data):
                    _close(each)
            self._selector.close()
            channel.close()
            _become(request, descriptors)
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(OSError):
            channel.send(str(process).encode())
        self._selector.register(os.pidfd_open(process), selectors.EVENT_READ, channel)
        if request.parent:
            with suppress(OSError):
                self._selector.register(os.pidfd_open(request.parent), selectors.EVENT_READ, os.pidfd_open(process))
        return None

    def _heed_end(self, key: selectors.SelectorKey) -> None:
        """Report the end of a process, or end one whose parent has ended."""
        self._selector.unregister(key.fileobj)
        if isinstance(key.data, int):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(key.data, signal.SIGTERM)
        else:
            ended = os.waitid(os.P_PIDFD, key.fd, os.WEXITED)
            with suppress(OSError):
                key.data.send(str(_wait_status(ended)).encode())
        for each in (key.fileobj, key.data):
            _close(each)


def _close(file: "socket.socket | int | None") -> None:
    if isinstance(file, int):
        os.close(file)
    elif file is not None:
        file.close()


def _wait_status(ended: os.waitid_result) -> int:
    """Return the end of a process as ``os.waitpid`` would."""
    return ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status


def _received(channel: socket.socket) -> tuple[Request | None, list[int]]:
    """Return a request and its descriptors, moved out of the way."""
    _, descriptors, _, _ = socket.recv_fds(channel, 64, MOST)
    if not descriptors:  # whoever asked has ended
        return None, []
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, ABOVE) for each in descriptors]
    for each in descriptors:
        os.close(each)
    with open(moved[0], "rb") as stream:
        stream.seek(0)
        return Request(**pickle.load(stream)), moved[1:]


def _become(request: Request, descriptors: Sequence[int]) -> None:
    """Take over streams, folder, variables and paths of a request."""
    for descriptor, stream in zip(descriptors, request.streams, strict=True):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    if request.own_session:
        os.setsid()
    elif request.group >= 0:
        os.setpgid(0, request.group)
    os.chdir(request.folder)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    now = request.variables.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [request.folder, *filter(None, now), *(path for path in sys.path[1:] if path not in before)]
    os.environ.clear()
    os.environ.update(request.variables)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = open(0, encoding=encoding, closefd=False)
    sys.stdout = open(1, "w", encoding=encoding, errors=errors or "strict", closefd=False)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    sys.stderr = open(2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)


def main() -> None:
    """Import the libraries, fork processes, and run the requested module in each."""
    Popen.address, *given = sys.argv[1:]
    Popen.imported_with = [*map(os.environ.get, AT_IMPORT)]
    listening, alive = (socket.socket(fileno=int(number)) for number in given)
    with first_of("torch"):
        import matplotlib.figure  # noqa: F401
        import numpy as np

        import fer.config.hydra
        import fer.training.run  # noqa: F401
    request = Server(listening, alive).serve()
    if request is None:
        return
    np.random.seed()
    subprocess.Popen = Popen
    sys.argv[1:] = request.arguments
    sys.orig_argv = [sys.executable, "-m", request.module, *request.arguments]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

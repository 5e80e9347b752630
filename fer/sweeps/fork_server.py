"""A fork server: a process that has imported torch and Lightning, from which jobs on a CPU are forked.

The imports take seconds of a core, often longer than a short training. A forked job begins without them, in the state
of ``python -m fer.train`` after them: the server has run nothing else, and its environment is that of its jobs, since
libraries read variables as they are imported. Jobs on a GPU are not forked. Python's own fork server would run the main
module of the sweep's process in each job.

The sweep's process sends jobs to start, and signals for them, through a socket; the server sends the ID of each
process and its exit code. Messages are JSON objects.
"""

import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self

from fer.system.imports import first_of
from fer.system.parent import end_with_parent, with_parent
from fer.system.slots import Slots

LARGEST = 1 << 10  # bytes of a message
ENDED = 128 + signal.SIGTERM  # exit code of a process that ends with its server, whose own code nobody reads


@dataclass(eq=False)
class Forked:
    """A job's process, with the part of ``subprocess.Popen`` that jobs use.

    Args:
        server: its server.
        number: its number among the server's.
        request: file with the arguments and variables.
        output: descriptor for standard output and errors.
    """

    server: "ForkServer"
    number: int
    request: int
    output: int
    process: int = field(default=-1, init=False)  # descriptor of the process, from its start on
    code: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """Return the exit code after the end, or -n if signal n ended the process; None while it runs."""
        self.server.receive()
        return self.code

    def send_signal(self, number: int) -> None:
        """Send the process a signal."""
        self.server.send_signal(self, number)

    def end(self, code: int) -> None:
        """Note the exit code, and close all descriptors."""
        self.code = code
        self.close_request()
        if self.process >= 0:
            os.close(self.process)

    def close_request(self) -> None:
        """Close the descriptors that the server has, or will never get."""
        for descriptor in (self.request, self.output):
            if descriptor >= 0:
                os.close(descriptor)
        self.request = self.output = -1


class ForkServer:
    """The server as its parent sees it.

    Args:
        environment: all variables of the server, and of its jobs.
        module: the module that forked processes run.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, environment: Mapping[str, str], module: str = "fer.train") -> None:
        self.environment, self.folder = dict(environment), os.getcwd()
        self._started = 0
        self._ready = False  # whether the imports are done
        self._gone = False
        self._waiting: list[Forked] = []  # for the imports
        self._running: dict[int, Forked] = {}
        self._printed = tempfile.TemporaryFile()  # by the imports
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                with_parent([sys.executable, "-m", __name__, str(theirs.fileno()), module]),
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                env=self.environment,
                process_group=0,
                pass_fds=[theirs.fileno()],
            )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> Forked:
        """Fork a process that runs the module, as soon as the imports are done.

        Args:
            arguments: of the module.
            environment: variables to add.
            output: file for standard output and errors.

        Raises:
            OSError: too many files are open.
        """
        request = os.memfd_create("request")  # a message would be too short for long command lines
        os.write(request, json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode())
        forked = Forked(self, self._started, request, os.dup(output.fileno()))
        self._started += 1
        self._waiting.append(forked)
        self.receive()
        return forked

    def send_signal(self, forked: Forked, number: int) -> None:
        """Send a process a signal; one that waits for the imports has nothing to save, and ends at once."""
        self.receive()
        if forked in self._waiting:
            self._waiting.remove(forked)
            forked.end(-number)
        elif forked.code is None:
            with suppress(OSError):  # the server has ended, and its processes do
                self._channel.send(json.dumps({"number": forked.number, "signal": number}).encode())

    def receive(self) -> None:
        """Read what the server has sent, and start what waited for the imports."""
        while not self._gone:
            try:
                message = self._channel.recv(LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                message = b""
            if message:
                self._heed(json.loads(message))
            else:
                self._gone = True
        if self._gone:
            self._end()
        elif self._ready:
            self._start_waiting()

    def _heed(self, message: Mapping[str, int]) -> None:
        if not message:
            self._ready = True
            for forked in self._waiting[:1]:
                self._print_to(forked)
            return
        forked = self._running[message["number"]]
        if "code" in message:
            del self._running[forked.number]
            forked.end(message["code"])
        else:
            with suppress(ProcessLookupError):  # ended and forgotten: its code follows
                forked.process = os.pidfd_open(message["process"])

    def _start_waiting(self) -> None:
        while self._waiting:
            forked = self._waiting.pop(0)
            message = json.dumps({"number": forked.number}).encode()
            self._running[forked.number] = forked
            with suppress(OSError):  # the server has ended, which is noticed next time
                socket.send_fds(self._channel, [message], [forked.request, forked.output])
            forked.close_request()

    def _end(self) -> None:
        """Note the ends of the processes of a server that has ended: those that wait end with it, others save first."""
        if not (self._waiting or self._running):
            return
        code = self._process.wait() or 1
        for forked in self._waiting:
            self._print_to(forked)
            forked.end(code)
        self._waiting.clear()
        for number, forked in list(self._running.items()):
            if forked.process < 0 or select.select([forked.process], [], [], 0)[0]:
                del self._running[number]
                forked.end(ENDED)

    def _print_to(self, forked: Forked) -> None:
        """Copy what the imports have printed to a job's output."""
        self._printed.seek(0)
        with suppress(OSError):  # a full disk must not end the other jobs
            os.write(forked.output, self._printed.read())

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Return whether the server runs, and forks jobs with this environment in the current folder."""
        fits = self.environment == environment and self.folder == os.getcwd()
        return fits and self._process.poll() is None

    @property
    def idle(self) -> bool:
        """Whether no process of the server runs."""
        self.receive()
        return not (self._waiting or self._running)

    def close(self) -> None:
        """End the server, and by SIGTERM the processes that run."""
        self._channel.close()
        self._process.terminate()
        self._process.wait()
        self._printed.close()


class ForkServers:
    """Starts a server for each environment of jobs when the first of them begins; a ``with`` block ends them."""

    def __init__(self) -> None:
        self._servers: list[ForkServer] = []

    def start(
        self, arguments: Sequence[str], variables: Mapping[str, str], environment: Mapping[str, str], output: IO[bytes]
    ) -> Forked:
        """Fork a process that runs ``fer.train``.

        Args:
            arguments: of ``fer.train``.
            variables: environment of the imports.
            environment: variables to add to that.
            output: file for standard output and errors.

        Raises:
            OSError: no process can be started.
        """
        for server in self._servers:
            if server.takes(variables):
                return server.start(arguments, environment, output)
        for server in [each for each in self._servers if each.idle]:
            server.close()
            self._servers.remove(server)
        server = ForkServer(variables)
        self._servers.append(server)
        return server.start(arguments, environment, output)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()


def servers_for(slots: Slots) -> AbstractContextManager[ForkServers | None]:
    """Return the servers for jobs in these slots, to be entered; None where a job needs an interpreter of its own.

    That is on a GPU, and on a system without process descriptors: all but Linux from 5.3 on.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return nullcontext()
    return ForkServers() if slots.without_gpu else nullcontext()


# --- the server's process -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A process to fork.

    Args:
        number: its number among the server's.
        arguments: of the module.
        environment: variables to add.
        output: descriptor for standard output and errors.
    """

    number: int
    arguments: Sequence[str]
    environment: Mapping[str, str]
    output: int


def main(descriptor: int, module: str) -> int:
    """Import the libraries, fork what the parent requests until it closes the socket, and return the exit code.

    In a forked process this runs the module, and exits as that does.

    Args:
        descriptor: of the socket.
        module: its name.
    """
    channel = socket.socket(fileno=descriptor)
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import
    with first_of("torch"):  # whose objects a collection in a job would copy into its own memory otherwise
        import numpy as np

        import fer.training.run  # noqa: F401
    server = os.getpid()
    request = Server(channel).serve()
    if request is None:
        return 0
    end_with_parent()
    if os.getppid() != server:
        return ENDED
    signal.signal(signal.SIGINT, interrupt)
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(request.output, stream)
    os.close(request.output)
    os.environ.update(request.environment)
    np.random.seed()  # each process has numbers of its own, as Python's module has after a fork
    sys.argv[1:] = request.arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)  # which exits
    return 0


class Server:
    """The server itself.

    Args:
        channel: socket to its parent.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._processes: dict[int, int] = {}  # number -> process ID
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Say that the imports are done; fork processes and report their ends until the parent closes the socket.

        Returns:
            In a forked process its request; in the server None.
        """
        self._answer()
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self.channel:
                    self._report_end(key)
                    continue
                try:
                    message, descriptors, _, _ = socket.recv_fds(self.channel, LARGEST, 2)
                except ConnectionError:
                    message = b""
                if not message:
                    return None
                given = json.loads(message)
                if "signal" in given:
                    self._send_signal(**given)
                elif self._fork(request := _request(given["number"], *descriptors)):
                    return request

    def _report_end(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        os.close(key.fd)
        _, status = os.waitpid(self._processes.pop(key.data), 0)
        self._answer(number=key.data, code=os.waitstatus_to_exitcode(status))

    def _send_signal(self, number: int, signal: int) -> None:
        if number in self._processes:
            os.kill(self._processes[number], signal)

    def _fork(self, request: Request) -> bool:
        """Fork a process, and return whether this is the forked one."""
        try:
            process = os.fork()
        except OSError as error:  # no memory, or too many processes
            os.write(request.output, f"no process can be started: {error.strerror}\n".encode())
            os.close(request.output)
            self._answer(number=request.number, code=1)
            return False
        if process == 0:
            for key in list(self._selector.get_map().values()):
                os.close(key.fd)
            self.channel.detach()
            self._selector.close()
            return True
        os.close(request.output)
        self._processes[request.number] = process
        self._selector.register(os.pidfd_open(process), selectors.EVENT_READ, request.number)
        self._answer(number=request.number, process=process)
        return False

    def _answer(self, **message: int) -> None:
        with suppress(OSError):  # the parent has ended; the next message says so
            self.channel.send(json.dumps(message).encode())


def _request(number: int, request: int, output: int) -> Request:
    """Return a request that a file states, and close the file."""
    with open(request, "rb") as stream:
        stream.seek(0)
        return Request(number, **json.load(stream), output=output)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))

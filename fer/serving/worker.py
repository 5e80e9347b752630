"""One thread for the network, and a bound on what waits for it."""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")
Task = Callable[[], None]

EARLIER = 0.9  # weight of the earlier mean duration beside a new one
FIRST_S = 0.2  # seconds of a job, assumed before the first


class Full(Exception):
    """All slots are taken; ``seconds`` is when half of them should be free."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"full for about {seconds} s")
        self.seconds = seconds


class Worker:
    """Runs jobs one after the other in a thread of its own, in the order in which they came.

    A job cannot be stopped from outside once it runs, so the thread is a daemon: the process may end during a job. A
    pool's threads, in contrast, are waited for.

    Args:
        slots: jobs that wait or run at a time.
    """

    def __init__(self, slots: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._waiting: set[Future[object]] = set()
        self._slots, self._free = slots, threading.BoundedSemaphore(slots)
        self._mean = FIRST_S
        self._running = threading.Event()
        self._closed = False
        threading.Thread(target=_work, args=(self._tasks,), name="network", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether a job runs at this moment."""
        return self._running.is_set()

    async def run(self, job: Callable[[], Result]) -> Result:
        """Return a job's result; one that is cancelled before its turn never runs.

        Raises:
            Full: all slots are taken.
            CancelledError: the worker is closed.
        """
        if self._closed:
            raise asyncio.CancelledError
        if not self._free.acquire(blocking=False):
            raise Full(max(1, math.ceil(self._slots / 2 * self._mean)))
        future: Future[Result] = Future()
        task = [(job, future)]  # emptied when the job is done or given up, so that the queue holds no picture of it
        self._waiting.add(future)  # type: ignore[arg-type]  # it is only cancelled there
        future.add_done_callback(lambda _: task.clear())
        future.add_done_callback(lambda _: self._free.release())
        future.add_done_callback(self._waiting.discard)
        self._tasks.put(lambda: self._do(task))
        return await asyncio.wrap_future(future)

    def _do(self, task: list[tuple[Callable[[], Result], "Future[Result]"]]) -> None:
        """Do a job, unless it was given up."""
        try:
            ((job, future),) = task
        except ValueError:
            return
        if not future.set_running_or_notify_cancel():
            return
        self._running.set()
        began = time.monotonic()
        try:
            result = job()
        except BaseException as error:
            self._note(began)
            future.set_exception(error)
        else:
            self._note(began)
            future.set_result(result)

    def _note(self, began: float) -> None:
        self._mean = EARLIER * self._mean + (1 - EARLIER) * (time.monotonic() - began)
        self._running.clear()

    def close(self) -> None:
        """Drop the jobs that wait, and take no more; the one in hand runs on, and is not waited for."""
        self._closed = True
        for future in list(self._waiting):
            future.cancel()  # of no effect on the one in hand
        self._tasks.put(None)


def _work(tasks: "queue.SimpleQueue[Task | None]") -> None:
    """Do tasks until there is a None among them."""
    while (task := tasks.get()) is not None:
        task()
        del task  # with its picture

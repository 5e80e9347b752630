"""One thread for the network, and a bound on what waits for it."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

EARLIER = 0.9  # weight of the earlier mean duration beside a new one
FIRST_S = 0.2  # seconds of a job, assumed before the first


class Full(Exception):
    """All places are taken; ``seconds`` is when half of them should be free."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"full for about {seconds} s")
        self.seconds = seconds


class Worker:
    """Runs jobs one after the other in a thread of its own, in the order in which they came.

    Args:
        places: jobs that wait or run at a time.
    """

    def __init__(self, places: int) -> None:
        self._thread = ThreadPoolExecutor(1, "network")
        self._places, self._free = places, threading.BoundedSemaphore(places)
        self._mean = FIRST_S

    async def run(self, job: Callable[[], Result]) -> Result:
        """Return a job's result; one that is cancelled before its turn never runs.

        Raises:
            Full: all places are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Full(max(1, math.ceil(self._places / 2 * self._mean)))
        future = self._thread.submit(self._timed, job)
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.wrap_future(future)

    def _timed(self, job: Callable[[], Result]) -> Result:
        began = time.monotonic()
        try:
            return job()
        finally:
            self._mean = EARLIER * self._mean + (1 - EARLIER) * (time.monotonic() - began)

    def close(self) -> None:
        """Let the job in hand end and drop the others."""
        self._thread.shutdown(wait=True, cancel_futures=True)

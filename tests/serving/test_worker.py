"""One thread for the network: order, bound, and what is given up."""

import asyncio
import gc
import threading
import weakref
from functools import partial
from types import SimpleNamespace

import pytest

from fer.serving.worker import Full, Worker


def test_jobs_run_one_after_the_other_and_the_slots_are_bounded():
    worker, go, ran = Worker(2), threading.Event(), []

    async def jobs():
        first = asyncio.create_task(worker.run(lambda: (go.wait(10), ran.append(1))))
        second = asyncio.create_task(worker.run(lambda: ran.append(2)))
        await asyncio.sleep(0.01)
        with pytest.raises(Full) as full:
            await worker.run(lambda: ran.append(3))
        go.set()
        await asyncio.gather(first, second)
        await worker.run(lambda: ran.append(4))
        return full.value.seconds

    assert asyncio.run(jobs()) >= 1
    assert ran == [1, 2, 4]


def test_a_job_that_is_given_up_never_runs_and_an_error_frees_its_slot():
    worker, go, ran = Worker(2), threading.Event(), []

    async def jobs():
        first = asyncio.create_task(worker.run(lambda: go.wait(10)))
        second = asyncio.create_task(worker.run(lambda: ran.append(2)))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        third = asyncio.create_task(worker.run(lambda: 1 / 0))
        await asyncio.sleep(0.01)
        go.set()
        assert await first is True
        with pytest.raises(ZeroDivisionError):
            await third
        await asyncio.gather(worker.run(lambda: None), worker.run(lambda: None))  # both slots are free

    asyncio.run(jobs())
    assert ran == []


def test_what_a_job_holds_is_freed_when_it_is_given_up_though_its_turn_has_not_come():
    class Picture:
        """Something that a weak reference can name."""

    worker, go = Worker(2), threading.Event()

    async def jobs():
        first = asyncio.create_task(worker.run(lambda: go.wait(10)))
        picture = Picture()
        held = weakref.ref(picture)
        second = asyncio.create_task(worker.run(partial(id, picture)))
        del picture
        await asyncio.sleep(0.01)
        assert held() is not None
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        del second
        await asyncio.sleep(0.01)  # for the callbacks of the cancelled future
        gc.collect()
        assert held() is None
        go.set()
        assert await first is True

    asyncio.run(jobs())


def test_waiting_takes_longer_where_jobs_do(monkeypatch):
    worker, clock, go = Worker(20), [0.0], threading.Event()
    monkeypatch.setattr("fer.serving.worker.time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def jobs():
        for _ in range(40):
            await worker.run(lambda: clock.__setitem__(0, clock[0] + 3))
        waiting = [asyncio.create_task(worker.run(lambda: go.wait(10))) for _ in range(20)]
        await asyncio.sleep(0.01)
        with pytest.raises(Full) as full:
            await worker.run(lambda: None)
        go.set()
        await asyncio.gather(*waiting)
        return full.value.seconds

    assert 25 <= asyncio.run(jobs()) <= 30  # half of 20 jobs of 3 s


def test_closing_drops_what_waits():
    worker, go, ran = Worker(2), threading.Event(), []

    async def jobs():
        first = asyncio.create_task(worker.run(lambda: go.wait(10)))
        second = asyncio.create_task(worker.run(lambda: ran.append(2)))
        await asyncio.sleep(0.01)
        worker.close()  # waits for nothing
        assert worker.running
        with pytest.raises(asyncio.CancelledError):
            await worker.run(lambda: ran.append(3))
        go.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    first, second = asyncio.run(jobs())
    assert not worker.running
    assert first is True
    assert isinstance(second, asyncio.CancelledError)
    assert ran == []

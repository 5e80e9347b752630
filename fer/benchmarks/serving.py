"""``python -m fer.benchmarks.serving``: the load that one ``fer serve`` bears.

Clients send the same picture again and again, each its next one as soon as it has an answer. One that is asked to wait
does so. Server and clients share the machine.
"""

import argparse
import asyncio
import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Load:
    """What happened, as it happens.

    Args:
        clients: at a time.
        seconds: of the load.
        answered: seconds of each answered request, from its sending to the end of its answer.
        asked_to_wait: requests with status 503.
        failed: requests with any other status, or none.
        memory_mb: of the server, resident, every second.
        cpu_s: seconds of processor time that the server has taken.
    """

    clients: int
    seconds: float
    answered: list[float] = field(default_factory=list)
    asked_to_wait: int = 0
    failed: int = 0
    memory_mb: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the answered requests was answered."""
        ordered = sorted(self.answered)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def summary(self) -> dict[str, float]:
        """Return the values that are published."""
        return {
            "clients": self.clients,
            "seconds": self.seconds,
            "answered": len(self.answered),
            "asked_to_wait": self.asked_to_wait,
            "failed": self.failed,
            "p50_s": round(self.quantile(0.5), 3),
            "p95_s": round(self.quantile(0.95), 3),
            "longest_s": round(max(self.answered), 3),
            "cpu_s_per_answer": round(self.cpu_s / len(self.answered), 3),
            "memory_mb_begin": round(self.memory_mb[0], 1),
            "memory_mb_after_10_s": round(self.memory_mb[min(10, len(self.memory_mb) - 1)], 1),
            "memory_mb_end": round(self.memory_mb[-1], 1),
            "memory_mb_peak": round(max(self.memory_mb), 1),
        }


def memory_mb(process: int) -> float:
    """Return the resident memory of a process, in megabytes (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def cpu_s(process: int) -> float:
    """Return the processor time that a process has taken, in seconds (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def loaded(address: str, process: int, picture: bytes, load: Load) -> None:
    """Put a server under load, and fill in ``load``."""
    import httpx

    end, before = time.monotonic() + load.seconds, cpu_s(process)

    async def client() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=120) as session:
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    answer = await session.post("predict", files={"picture": ("a.jpg", picture)})
                except httpx.HTTPError:
                    load.failed += 1
                    continue
                if answer.status_code == 200:
                    load.answered.append(time.monotonic() - began)
                elif answer.status_code == 503:
                    load.asked_to_wait += 1
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                else:
                    load.failed += 1

    async def watch() -> None:
        while time.monotonic() < end:
            load.memory_mb.append(memory_mb(process))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(client() for _ in range(load.clients)))
    load.memory_mb.append(memory_mb(process))
    load.cpu_s = cpu_s(process) - before


def astronaut() -> bytes:
    """Return scikit-image's portrait of Eileen Collins, 512 pixels wide, as JPEG."""
    import skimage.data
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(  # type: ignore[no-untyped-call]
        stream, "jpeg", quality=95
    )
    return stream.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Start a server, load it, print the measured values, and write them where ``--out`` says."""
    grammar = argparse.ArgumentParser(prog="python -m fer.benchmarks.serving")
    grammar.add_argument("--clients", type=int, default=50)
    grammar.add_argument("--seconds", type=float, default=60.0)
    grammar.add_argument("--out", type=Path)
    arguments = grammar.parse_args(argv)
    command = [sys.executable, "-m", "fer.serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            load = Load(1, 2.0)  # the first answers load what is loaded once
            asyncio.run(loaded(address, server.pid, astronaut(), load))
            load = Load(arguments.clients, arguments.seconds)
            asyncio.run(loaded(address, server.pid, astronaut(), load))
        finally:
            server.terminate()
    text = json.dumps(load.summary(), indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(None))

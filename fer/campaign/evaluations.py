"""A campaign's evaluations, side by side in processes of their own that import torch once."""

import logging
import multiprocessing
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fer.config.errors import FerError
from fer.runs.predictions import name_of
from fer.sweeps.jobs import end_with_parent

BATCH = 256  # faces at a time
KILLED = "its process was killed"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one network.

    Args:
        name: of the network.
        network: its run folder, checkpoint or shared file.
        split: "val" or "test".
        views: "none" or "ten_crop".
        data: path of the data set; None where the network knows it.
        rule: how ``data`` are split; None where the network knows it.
        out: folder for the results; None is the run's own.
        report: write the report and the model card too.
    """

    name: str
    network: Path
    split: str
    views: str
    data: str | None = None
    rule: str | None = None
    out: Path | None = None
    report: bool = False

    @property
    def folder(self) -> Path:
        """Where its results are, once they are there."""
        return (self.out or self.network / "evaluations") / name_of(self.split, self.views)

    @property
    def command(self) -> str:
        """The command that does the same."""
        options = ["--split", self.split, "--tta", self.views, *([] if self.report else ["--no-report"])]
        options += ["--data", self.data] if self.data else []
        options += ["--rule", self.rule] if self.rule else []
        options += ["--out", str(self.out)] if self.out else []
        return shlex.join(["python", "-m", "fer.evaluate", str(self.network), *options])


class Evaluations:
    """Evaluates networks side by side; one that fails or dies stops none of the others.

    Args:
        slots: what each process's environment holds of where it runs, as ``fer.system.slots`` gives it.
        on_gpu: compute there.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]], *, on_gpu: bool) -> None:
        self.slots, self.on_gpu = slots, on_gpu
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Evaluations":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the processes, whatever they do."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        self._pool = None

    def run(
        self, asked: Sequence[Evaluation], seconds: float, ended: Callable[[Evaluation, str], None]
    ) -> dict[Evaluation, str]:
        """Evaluate, and return of each evaluation why it is not there; nothing of those that are.

        Args:
            asked: evaluations; those whose results are there already are not done again.
            seconds: after which what is not done is given up.
            ended: called with each evaluation that failed, and why.
        """
        missing = [one for one in asked if not (one.folder / "metrics.json").is_file()]
        until = time.monotonic() + max(1.0, seconds)
        failed = self._tried(missing, until)
        # a process that dies takes its neighbours' work with it: what of it is not there is done again, one at a time
        killed = [one for one, reason in failed.items() if reason == KILLED]
        failed = {one: reason for one, reason in failed.items() if reason != KILLED}
        for one in killed:
            if not (one.folder / "metrics.json").is_file():
                failed |= self._tried([one], until)
        for one, reason in failed.items():
            ended(one, reason)
        return failed

    def _tried(self, asked: Sequence[Evaluation], until: float) -> dict[Evaluation, str]:
        """Evaluate, and return why what is not there is not."""
        failed: dict[Evaluation, str] = {}
        if not asked:
            return failed
        futures = self._submitted(asked)
        try:
            for future in as_completed(futures, timeout=max(0.1, until - time.monotonic())):
                if reason := self._reason(future):
                    failed[futures[future]] = reason
        except TimeoutError:
            failed |= {one: "there was no time left for it" for future, one in futures.items() if not future.done()}
            self.end()
        return failed

    def _submitted(self, asked: Sequence[Evaluation]) -> dict[Future[None], Evaluation]:
        for one in asked:  # what was cut off before its metrics were there
            shutil.rmtree(one.folder, ignore_errors=True)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked process could not use a GPU
            slots = context.SimpleQueue()
            for slot in self.slots:
                slots.put(dict(slot))
            self._pool = ProcessPoolExecutor(min(len(asked), len(self.slots)), context, _begin, (slots,))
        try:
            return {self._pool.submit(_evaluate, one, self.on_gpu): one for one in asked}
        except BrokenProcessPool:  # a process was killed while it had nothing to do
            self._pool = None
            return self._submitted(asked)

    def _reason(self, future: Future[None]) -> str:
        """Return why an evaluation failed; empty where it did not."""
        try:
            future.result()
        except BrokenProcessPool:
            self._pool = None
            return KILLED
        except FerError as error:
            return str(error)
        except Exception as error:  # out of memory, a full disk: the others go on
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return ""


def _begin(slots: "multiprocessing.queues.SimpleQueue[dict[str, str]]") -> None:
    """Prepare a process: where it runs, that it ends with the campaign, and that the campaign alone hears signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ.update(slots.get())
    logging.disable(logging.WARNING)
    import torch  # once for all evaluations of this process

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def _evaluate(one: Evaluation, on_gpu: bool) -> None:
    """Evaluate a network in this process and leave the results in its folder."""
    from fer.evaluation.evaluate import evaluate
    from fer.evaluation.request import Asked
    from fer.reports import model_card

    asked = Asked([str(one.network)], one.split, one.data, one.rule, views=one.views, batch_size=BATCH, on_gpu=on_gpu)
    results, scored, folder = evaluate(asked, one.out, one.command)
    if one.report:
        from fer.reports import run

        model_card.write(results, folder / "model_card.md")
        run.write(run.Report(results, scored), folder)

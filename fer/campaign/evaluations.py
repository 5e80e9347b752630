"""The evaluations of a campaign, side by side in a few processes.

Each process imports torch once.
"""

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
from fer.system.parent import end_with_parent

BATCH = 256  # faces at a time
KILLED = "its process was killed"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one network.

    Args:
        name: name of the network.
        network: run folder, checkpoint or shared file.
        split: "val" or "test".
        views: "none" or "ten_crop".
        data: path of the data set; None for that of the network's training.
        rule: split rule of ``data``; None for that of the network's training.
        out: folder for the results; None for the run folder.
        report: whether the report and the model card are written, too.
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
        """Folder of its results."""
        return (self.out or self.network / "evaluations") / name_of(self.split, self.views)

    @property
    def command(self) -> str:
        """The equivalent command line."""
        options = ["--split", self.split, "--tta", self.views, *([] if self.report else ["--no-report"])]
        options += ["--data", self.data] if self.data else []
        options += ["--rule", self.rule] if self.rule else []
        options += ["--out", str(self.out)] if self.out else []
        return shlex.join(["python", "-m", "fer.evaluate", str(self.network), *options])


class Evaluations:
    """Evaluates networks side by side; a failure of one does not stop the others.

    Args:
        slots: environment variables of each process, from ``fer.system.slots``.
        on_gpu: whether to compute on a GPU.
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
        """Terminate the processes, even in the middle of an evaluation."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        self._pool = None

    def run(
        self, evaluations: Sequence[Evaluation], seconds: float, ended: Callable[[Evaluation, str], None]
    ) -> dict[Evaluation, str]:
        """Run evaluations, and return failed evaluation -> reason.

        Args:
            evaluations: evaluations to run; those with results are skipped.
            seconds: time limit.
            ended: called with each failed evaluation and the reason.
        """
        missing = [evaluation for evaluation in evaluations if not (evaluation.folder / "metrics.json").is_file()]
        until = time.monotonic() + max(1.0, seconds)
        failed = self._attempt(missing, until)
        # one killed process breaks the whole pool, so unfinished evaluations are repeated, one at a time
        killed = [evaluation for evaluation, reason in failed.items() if reason == KILLED]
        failed = {evaluation: reason for evaluation, reason in failed.items() if reason != KILLED}
        for evaluation in killed:
            if not (evaluation.folder / "metrics.json").is_file():
                failed |= self._attempt([evaluation], until)
        for evaluation, reason in failed.items():
            ended(evaluation, reason)
        return failed

    def _attempt(self, evaluations: Sequence[Evaluation], until: float) -> dict[Evaluation, str]:
        """Run evaluations until a time of the monotonic clock, and return failed evaluation -> reason."""
        failed: dict[Evaluation, str] = {}
        if not evaluations:
            return failed
        futures = self._submit(evaluations)
        try:
            for future in as_completed(futures, timeout=max(0.1, until - time.monotonic())):
                if reason := self._reason(future):
                    failed[futures[future]] = reason
        except TimeoutError:
            failed |= {
                evaluation: "no time was left for it" for future, evaluation in futures.items() if not future.done()
            }
            self.end()
        return failed

    def _submit(self, evaluations: Sequence[Evaluation]) -> dict[Future[None], Evaluation]:
        for evaluation in evaluations:  # remains of an interrupted evaluation
            shutil.rmtree(evaluation.folder, ignore_errors=True)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked process could not use a GPU
            slots = context.SimpleQueue()
            for slot in self.slots:
                slots.put(dict(slot))
            self._pool = ProcessPoolExecutor(len(self.slots), context, _begin, (slots,))
        try:
            return {self._pool.submit(_evaluate, evaluation, self.on_gpu): evaluation for evaluation in evaluations}
        except BrokenProcessPool:  # a process was killed while idle
            self._pool = None
            return self._submit(evaluations)

    def _reason(self, future: Future[None]) -> str:
        """Return why an evaluation failed; empty if it did not."""
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
    """Prepare a process: set its slot, ignore interrupts, which the campaign handles, and end with the campaign."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ.update(slots.get())
    logging.disable(logging.WARNING)
    import torch  # once for all evaluations of this process

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def _evaluate(evaluation: Evaluation, on_gpu: bool) -> None:
    """Evaluate a network in this process and write the results to its folder."""
    from fer.evaluation.evaluate import evaluate
    from fer.evaluation.request import Request
    from fer.reports import model_card

    request = Request(
        [str(evaluation.network)], evaluation.split, evaluation.data, evaluation.rule, views=evaluation.views,
        batch_size=BATCH, on_gpu=on_gpu,
    )  # fmt: skip
    results, scored, folder = evaluate(request, evaluation.out, evaluation.command)
    if evaluation.report:
        from fer.reports import run, run_sections

        model_card.write(results, folder / "model_card.md")
        run.write(run_sections.Report(results, scored), folder)

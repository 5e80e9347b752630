"""``test_opened.json``: each evaluation of a network on test, with what it showed.

A metric on test is worth most the first time: whatever is chosen after it is chosen on test.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fer.evaluation.request import Member
from fer.metrics import results
from fer.metrics.results import Results
from fer.system import locks, records
from fer.system.files import read_json, read_list, write_json

log = logging.getLogger(__name__)

FILE = "test_opened.json"


@dataclass(frozen=True)
class Access:
    """An evaluation on test: its time, checkpoint, data, accuracy, views, number of networks and command.

    ``as_baseline`` is True where another network was evaluated, and compared with this one.
    """

    when: str | None = None
    checkpoint: str | None = None
    split: str | None = None
    data: str | None = None
    labels: str | None = None
    accuracy: float | None = None
    tta: str | None = None
    networks: int | None = None
    command: str | None = None
    as_baseline: bool | None = field(default=None, metadata=records.OPTIONAL)


Accesses = dict[Path, list[Access]]  # run folder -> its accesses; networks of one folder share a record


def accesses(member: Member) -> list[Access]:
    """Return the accesses of a run to test so far, those of older evaluations too.

    Raises:
        FerError: the record is damaged.
    """
    file = member.run / FILE
    return [records.read(Access, entry) for entry in read_list(file)] if file.exists() else _unrecorded(member)


def _unrecorded(member: Member) -> list[Access]:
    """Return the accesses of evaluations that were made before accesses were recorded."""
    accesses = []
    for file in sorted((member.run / "evaluations").glob("*/metrics.json")):
        try:
            evaluated = results.of(read_json(file))
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # another file of that name
        checkpoint = evaluated.evaluation.checkpoint if evaluated.evaluation else ""
        if evaluated.split == "test" and Path(checkpoint).name == member.file.name:
            accesses.append(access(member, evaluated))
    return accesses


def access(member: Member, evaluated: Results) -> Access:
    """Return the record of an evaluation of a network on test."""
    dataset = evaluated.dataset
    return Access(
        when=evaluated.machine.finished,
        checkpoint=member.file.name,
        split=evaluated.split,
        data=dataset.path or dataset.name,
        labels=dataset.labels,
        accuracy=evaluated.scores.accuracy.value,
        tta=evaluated.tta,
        networks=len(evaluated.members) or 1,
        command=evaluated.command,
    )


def access_as_baseline(member: Member, evaluated: Results, accuracy: float) -> Access:
    """Return the record of a network with which an evaluation on test compared its own.

    Args:
        member: the baseline.
        evaluated: the evaluation of the other network.
        accuracy: of the baseline on the same faces.
    """
    return replace(access(member, evaluated), accuracy=accuracy, networks=1, as_baseline=True)


def so_far(members: Sequence[Member]) -> Accesses:
    """Return the accesses of these networks to test; called before the current evaluation writes anything.

    Raises:
        FerError: a record is damaged.
    """
    known: Accesses = {}
    for member in members:
        if member.run not in known or not (member.run / FILE).exists():
            known.setdefault(member.run, []).extend(accesses(member))
    return known


def record(opened: Sequence[tuple[Member, Access]], known: Mapping[Path, Sequence[Access]]) -> int:
    """Record an access of each network, and return the largest number of accesses of a network.

    Where a folder may not be written, a warning names it, and its earlier accesses are counted.

    Args:
        opened: the networks and their accesses by the current evaluation.
        known: the accesses before it, see ``so_far``.

    Raises:
        FerError: a record was damaged in the meantime.
    """
    current: Accesses = {}
    for member, entry in opened:
        current.setdefault(member.run, []).append(entry)
    recorded = {folder: _add(folder, known[folder], entries) for folder, entries in current.items()}
    return max(sum(entry.checkpoint == member.file.name for entry in recorded[member.run]) for member, _ in opened)


def _add(folder: Path, known: Sequence[Access], entries: Sequence[Access]) -> list[Access]:
    """Add accesses to a run's record, to those of evaluations that ran at the same time too; return all of them."""
    file, before = folder / FILE, known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.of_folder(folder):
            if file.exists():
                before = [records.read(Access, entry) for entry in read_list(file)]
            write_json(file, [records.plain(entry) for entry in (*before, *entries)])
    except OSError as error:
        log.warning("this test evaluation could not be recorded: %s (%s)", file, error.strerror)
    return [*before, *entries]

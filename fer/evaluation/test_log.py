"""``test_opened.json``: when a network's test split was looked at, and what was seen.

A figure on test is worth most the first time: what is chosen after a look is chosen on test.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.evaluation.request import Member
from fer.system.files import read_list, write_json

log = logging.getLogger(__name__)

FILE = "test_opened.json"


def looks(member: Member) -> list[dict[str, Any]]:
    """Return the looks so far at the test split of a run's network, those of older evaluations too.

    Raises:
        FerError: the record is damaged.
    """
    file = member.run / FILE
    return read_list(file) if file.exists() else _before(member)


def _before(member: Member) -> list[dict[str, Any]]:
    """Return the looks of evaluations from before looks were recorded."""
    found = []
    for file in sorted((member.run / "evaluations").glob("*/metrics.json")):
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            if results["split"] == "test" and Path(results["checkpoint"]).name == member.file.name:
                found.append(entry(member, results))
        except (ValueError, LookupError, TypeError):
            continue  # not an evaluation's: there is no look to be told
    return found


def entry(member: Member, results: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a look."""
    return {
        "when": results.get("finished"),
        "checkpoint": member.file.name,
        "split": results["split"],
        "data": results["dataset"]["path"] or results["dataset"]["name"],
        "labels": results["dataset"]["labels"],
        "accuracy": results["accuracy"],
        "tta": results.get("tta", "none"),
        "networks": len(results.get("members", [None])),
        "command": results.get("command"),
    }


Looks = dict[Path, list[dict[str, Any]]]  # folder of networks, which share a record -> their looks


def so_far(members: Sequence[Member]) -> Looks:
    """Return the looks at test of these networks before this one; asked for before anything of it is written.

    Raises:
        FerError: a record is damaged.
    """
    known: Looks = {}
    for member in members:
        if member.run not in known or not (member.run / FILE).exists():
            known.setdefault(member.run, []).extend(looks(member))
    return known


def record(members: Sequence[Member], results: dict[str, Any], known: Looks) -> int:
    """Record a look for each network, and return how often the most looked at has been opened by now.

    A folder that may not be written is told; its network's looks are then counted as far as they were recorded.

    Args:
        members: the networks.
        results: of the look.
        known: the looks before, to which this one is added.
    """
    for member in members:
        known[member.run].append(entry(member, results))
    for folder, entries in known.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, entries)
        except OSError as error:
            log.warning("this look at test could not be recorded: %s (%s)", folder / FILE, error.strerror)
    return max(sum(1 for look in known[member.run] if look.get("checkpoint") == member.file.name) for member in members)

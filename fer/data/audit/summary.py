"""The numbers of an audit, counted from its findings.

findings = examine(faces, split, quick=False)
counted(findings, advise(findings), machine.provenance(), command)
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fer.data.audit import moved_copies, near_duplicates
from fer.data.audit.inspection import LABELS, SHEET_SEED, Findings, Suspects, present
from fer.data.audit.near_duplicates import FLAT
from fer.data.audit.results import (
    Answers,
    Audit,
    Classes,
    Dataset,
    Duplicates,
    Groups,
    LightSpan,
    MovedCopies,
    Near,
    NearGroups,
    OneColour,
    Percentiles,
    Sheets,
    SplitRule,
    Suggested,
    SuspectLabels,
    Votes,
    WithoutFace,
)
from fer.data.audit.suggestions import EXCLUDE, LOOK, RELABEL, Advice
from fer.data.duplicates import across
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.data.readers.ferplus import COLUMN_EMOTIONS
from fer.data.votes import tied
from fer.system.machine import MachineRecord

PERCENTILES = (5, 50, 95)


def counted(findings: Findings, advice: Sequence[Advice], machine: MachineRecord, command: str) -> Audit:
    """Return the results of an inspection, the contents of ``audit.json``.

    Args:
        findings: of the inspection.
        advice: its suggestions.
        machine: the machine, for the record.
        command: the command line, for the record.
    """
    faces, split = findings.faces, findings.split
    return Audit(
        quick=findings.light is None,
        dataset=about(faces),
        split=SplitRule(
            rule=split.rule,
            meaning=split.meaning,
            why_not_official=split.why or None,
            missing=split.missing,
            cautions=split.cautions,
        ),
        classes=class_counts(findings),
        sheets=Sheets(SHEET_SEED, {name: rows_of(faces, indices) for name, indices in findings.sheets.items()}),
        duplicates=duplicate_counts(findings),
        near_duplicates=near_duplicate_counts(findings),
        moved_copies=moved_copy_counts(findings),
        no_faces=no_face_counts(findings),
        one_colour=OneColour(int(findings.one_colour.sum()), rows_of(faces, findings.one_colour)),
        votes=vote_counts(faces),
        suspects=suspect_counts(findings),
        light=light_percentiles(findings),
        advice=advice_counts(advice),
        machine=machine,
        command=command,
    )


def rows_of(faces: Faces, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> tuple[int, ...]:
    """Return the rows in the source of the faces that a mask or indices choose."""
    return tuple(faces.rows[chosen].tolist())


def about(faces: Faces) -> Dataset:
    """Return the origin of the faces and the reader's decisions."""
    source = faces.source
    return Dataset(
        name=source.name,
        path=source.path,
        layout=source.layout,
        labels=source.labels,
        image_size=faces.image_size,
        fingerprint=faces.fingerprint(),
        notes=tuple(source.notes),
        skipped=tuple(source.skipped),
    )


def class_counts(findings: Findings) -> Classes:
    """Return the number of faces by split and class, and the class imbalance of each split."""
    counts = {name: by_label(findings.labels[findings.splits == name]) for name in present(findings.splits)}
    total = by_label(findings.labels)
    if not total["unlabelled"]:
        for table in (*counts.values(), total):
            del table["unlabelled"]
    return Classes(
        n=len(findings.labels),
        counts=counts,
        total=total,
        imbalance={name: imbalance(table) for name, table in (*counts.items(), ("total", total))},
    )


def by_label(labels: NDArray[np.str_]) -> dict[str, int]:
    """Return label -> number of faces."""
    return {str(name): int((labels == name).sum()) for name in LABELS}


def imbalance(counts: dict[str, int]) -> float | None:
    """Return the size of the largest class divided by that of the smallest; None if a class is empty."""
    sizes = [counts[name] for name in EMOTIONS]
    return max(sizes) / min(sizes) if min(sizes) else None


def duplicate_counts(findings: Findings) -> Duplicates:
    """Return the numbers of groups of exact duplicates: all, of one colour, by split, by size, and between splits."""
    plain = [number for number, group in enumerate(findings.groups) if findings.one_colour[group[0]]]
    return Duplicates(
        all=tally(findings, range(len(findings.groups))),
        where={name: tally(findings, numbers) for name, numbers in by_split(findings, findings.groups).items()},
        one_colour=tally(findings, plain),
        sizes={str(size): count for size, count in sorted(Counter(map(len, findings.groups)).items())},
        splits=duplicate_matrix(findings),
    )


def by_split(findings: Findings, groups: Sequence[NDArray[np.int64]]) -> dict[str, list[int]]:
    """Return "within train" and the like, then "across splits" -> numbers of the groups of this kind."""
    table: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        splits = set(findings.splits[group].tolist())
        table.setdefault(f"within {splits.pop()}" if len(splits) == 1 else "across splits", []).append(number)
    order = [*(f"within {name}" for name in present(findings.splits)), "across splits"]
    return {name: table[name] for name in order if name in table}


def tally(findings: Findings, numbers: Iterable[int]) -> Groups:
    """Return, for the groups with these numbers, the numbers of groups, faces, further copies and label conflicts."""
    chosen = list(numbers)
    faces = sum(len(findings.groups[number]) for number in chosen)
    conflicting = sum(bool(findings.conflicting[number]) for number in chosen)
    return Groups(groups=len(chosen), faces=faces, copies=faces - len(chosen), conflicting_groups=conflicting)


def duplicate_matrix(findings: Findings) -> dict[str, dict[str, int]]:
    """Return split -> split -> number of faces of the first with an exact duplicate in the second."""
    return named(findings, across(findings.groups, findings.split.splits))


def named(findings: Findings, table: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return a table of ``across`` as split -> split -> number, without empty splits."""
    position = {name: index for index, name in enumerate(SPLITS)}  # other names: the last row and column
    names = present(findings.splits)
    return {a: {b: int(table[position.get(a, -1), position.get(b, -1)]) for b in names} for a in names}


def near_duplicate_counts(findings: Findings) -> Near | None:
    """Return the numbers of groups of near duplicates: all, by split, by size; None in a quick audit.

    Exact copies within a group are separate faces but one picture. ``splits`` counts the faces of a split with a near
    duplicate and no exact duplicate in the other.
    """
    if findings.near is None:
        return None
    groups = findings.near.groups
    exact = {int(group[0]): len(group) - 1 for group in findings.groups}
    pictures = [len(group) - sum(exact.get(index, 0) for index in group.tolist()) for group in groups]

    def tallied(numbers: Sequence[int]) -> NearGroups:
        return NearGroups(
            groups=len(numbers),
            pictures=sum(pictures[number] for number in numbers),
            faces=sum(len(groups[number]) for number in numbers),
            conflicting_groups=sum(bool(findings.near_conflicting[number]) for number in numbers),
        )

    inside = set(np.concatenate(groups).tolist()) if groups else set()
    apart = [group for group in findings.groups if int(group[0]) not in inside]
    splits = findings.split.splits
    return Near(
        radius=near_duplicates.RADIUS,
        radius_mirrored=near_duplicates.MIRRORED_RADIUS,
        least_correlation=near_duplicates.LEAST,
        least_detail=near_duplicates.LEAST_DETAIL,
        all=tallied(range(len(groups))),
        mirrored=int(findings.near.mirrored.sum()),
        where={name: tallied(numbers) for name, numbers in by_split(findings, groups).items()},
        sizes={str(size): count for size, count in sorted(Counter(pictures).items())},
        splits=named(findings, across([*groups, *apart], splits) - across(findings.groups, splits)),
    )


def moved_copy_counts(findings: Findings) -> MovedCopies | None:
    """Return the numbers of faces of val and test with a moved copy in train; None if they were not searched for."""
    if findings.moved is None:
        return None
    first, second = findings.moved.first, findings.moved.second
    faces = np.unique(first)
    return MovedCopies(
        least_correlation=moved_copies.LEAST,
        least_detail=moved_copies.LEAST_DETAIL,
        pairs=len(first),
        conflicting=int((findings.labels[first] != findings.labels[second]).sum()),
        splits={name: int((findings.splits[faces] == name).sum()) for name in SPLITS[1:] if name in findings.splits},
    )


def no_face_counts(findings: Findings) -> WithoutFace:
    """Return the numbers and rows of pictures without a face; None for a kind that was not examined."""
    faces, problems = findings.faces, findings.no_faces
    with_votes, with_light = faces.votes is not None, findings.light is not None
    return WithoutFace(
        voted=int(problems.voted.sum()) if with_votes else None,
        likely=int(problems.likely.sum()) if with_votes else None,
        flat=int(problems.flat.sum()) if with_light else None,
        flat_below=FLAT,
        voted_rows=rows_of(faces, problems.voted),
        flat_rows=rows_of(faces, problems.flat),
    )


def suspect_counts(findings: Findings) -> SuspectLabels | None:
    """Return the numbers of suspect labels; None without predictions.

    If FER+'s votes are joined, ``votes`` compares their most frequent answer with the given and the predicted label. It
    counts agreements for suspects and for all other predicted faces.
    """
    if (suspects := findings.suspects) is None:
        return None
    chosen = np.zeros(len(findings.labels), np.bool_)
    chosen[suspects.indices] = True
    return SuspectLabels(
        runs=tuple(suspects.runs),
        settings=suspects.settings,
        covered=int(suspects.covered.sum()),
        accuracy=suspects.accuracy,
        suspects=len(suspects.indices),
        by_label={name: int((findings.labels[chosen] == name).sum()) for name in EMOTIONS},
        by_suggestion={name: int((suspects.predicted[chosen] == i).sum()) for i, name in enumerate(EMOTIONS)},
        by_split={name: int((findings.splits[chosen] == name).sum()) for name in present(findings.splits)},
        votes=answers_of(findings, suspects, {"suspects": chosen, "others": suspects.covered & ~chosen}),
    )


def answers_of(
    findings: Findings, suspects: Suspects, parts: dict[str, NDArray[np.bool_]]
) -> dict[str, Answers] | None:
    """Return for each part how often FER+'s most frequent answer is the given, the predicted, or another label."""
    if findings.faces.votes is None:
        return None
    answers, given = COLUMN_EMOTIONS[findings.faces.votes.argmax(1)], findings.faces.targets
    table = {}
    for name, part in parts.items():
        as_given, as_predicted = answers[part] == given[part], answers[part] == suspects.predicted[part]
        table[name] = Answers(
            faces=int(part.sum()),
            as_given=int(as_given.sum()),
            as_predicted=int(as_predicted.sum()),
            neither=int((~as_given & ~as_predicted).sum()),
        )
    return table


def vote_counts(faces: Faces) -> Votes | None:
    """Return the answers of FER+'s annotators by label; None without votes.

    Among equally frequent answers the first one in ``FERPLUS_COLUMNS`` counts, as in the reader.
    """
    if faces.votes is None:
        return None
    answers = faces.votes.argmax(1)
    table = np.zeros((len(LABELS), len(FERPLUS_COLUMNS)), np.int64)
    np.add.at(table, (faces.targets, answers), 1)
    total = faces.votes.sum(1, dtype=np.int64)
    return Votes(
        answers={
            str(label): dict(zip(FERPLUS_COLUMNS, row.tolist(), strict=True))
            for label, row in zip(LABELS, table, strict=True)
            if row.any()
        },
        agreeing=int(((COLUMN_EMOTIONS[answers] == faces.targets) & (faces.targets != UNKNOWN)).sum()),
        outside_the_seven=int((COLUMN_EMOTIONS[answers] == UNKNOWN).sum()),
        without_majority=int((2 * faces.votes.max(1).astype(np.int64) <= total).sum()),
        votes_per_face=(int(total.min()), int(total.max())),
        tied=int(tied(faces.votes).sum()),
    )


def light_percentiles(findings: Findings) -> dict[str, LightSpan] | None:
    """Return split -> percentiles of brightness and contrast; None in a quick audit."""
    light = findings.light
    if light is None:
        return None

    def percentiles(values: NDArray[np.float64]) -> Percentiles:
        return Percentiles(*(round(float(np.percentile(values, q)), 2) for q in PERCENTILES))

    members = {name: findings.splits == name for name in present(findings.splits)}
    return {
        name: LightSpan(mean=percentiles(light.mean[inside]), sd=percentiles(light.spread[inside]))
        for name, inside in members.items()
    }


def advice_counts(advice: Sequence[Advice]) -> dict[str, Suggested]:
    """Return suggestion -> number of faces, in total and by reason; a face may have several reasons."""
    table = {}
    for kind in (EXCLUDE, LOOK, RELABEL.rstrip(":")):
        lines = [line for line in advice if line.suggestion.startswith(kind)]
        reasons = Counter(line.reason for line in lines)
        table[kind] = Suggested(len({line.face for line in lines}), dict(reasons.most_common()))
    return table

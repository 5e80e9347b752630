"""One evaluation: faces scored, leakage counted, ``metrics.json`` and ``predictions.csv`` written."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.announce import log_notes
from fer.data.table import Table
from fer.data.votes import agreement
from fer.evaluation import scoring, test_log
from fer.evaluation.comparison import Baseline
from fer.evaluation.leakage import (
    TrainingData,
    copies_by_content,
    fingerprints,
    known_of_all,
    not_trained_on,
    overlap,
    search_moved_data,
    use_data_at_hand,
)
from fer.evaluation.request import (
    EnsembleMember,
    FacesBySize,
    Member,
    Request,
    Tables,
    ensemble_members,
    same_split,
    settings_of,
    with_weights,
)
from fer.evaluation.selection import Chosen, Selection, answering, chosen, selected
from fer.inference.ensemble import disagreement, mixed
from fer.metrics import results as metrics_json
from fer.metrics.arrays import Array, doubled, like
from fer.metrics.conformal import COVERAGE
from fer.metrics.results import (
    SCHEMA,
    Annotators,
    DatasetRecord,
    Diversity,
    EvaluationRecord,
    MemberRecord,
    NetworkRecord,
    Pretrained,
    Results,
    SetsRecord,
    Teacher,
)
from fer.runs import predictions
from fer.runs.predictions import Scored
from fer.system import machine
from fer.system.files import new_folder
from fer.system.records import read

log = logging.getLogger(__name__)

ENSEMBLES = Path("outputs/ensembles")


@dataclass(frozen=True)
class _Evaluation:
    """The networks and the faces of an evaluation.

    Args:
        request: what is to be evaluated, and how.
        given: M networks, after the choice among them.
        selection: that choice; None where all are kept.
        faces: at the size of each network.
        data: the faces at the first network's size.
        described: these data.
        tables: of the trainings.
    """

    request: Request
    given: Sequence[EnsembleMember]
    selection: Selection | None
    faces: FacesBySize
    data: Table
    described: DatasetRecord
    tables: Tables

    @property
    def members(self) -> list[Member]:
        """The networks with weights; where none has, one that states data and emotions."""
        return with_weights(self.given)

    @property
    def images(self) -> NDArray[np.uint8]:
        """The faces, (N, S, S)."""
        return self.data.split(self.request.split).grey

    @property
    def of_training(self) -> bool:
        """Whether the faces are of the table that the first network was trained on."""
        return self.described.fingerprint == self.members[0].model.provenance.dataset.get("fingerprint")

    @property
    def on_val(self) -> bool:
        """Whether the faces are val of the training."""
        same = same_split(self.faces.settings, self.members[0].trained_with)
        return self.of_training and self.request.split == "val" and same


def evaluate(request: Request, out: Path | None, command: str) -> tuple[Results, Scored, Path]:
    """Score, write ``metrics.json`` and ``predictions.csv``, and return the results, the faces and the folder.

    Args:
        request: what is to be evaluated, and how.
        out: folder for the results; None is the run's own, or ``outputs/ensembles``.
        command: the command line, for the record.

    Raises:
        FerError: a bad checkpoint; data that are missing, bad or without the split; a choice that cannot be made.
    """
    this = _opened(request)
    _announce(this)
    baseline = Baseline.of(request, this.faces, this.data)
    results, scored = _results(this, baseline, command)
    evaluated = [one for one in this.given if isinstance(one, Member)]
    compared = baseline.besides(evaluated) if baseline else []
    networks = [*evaluated, *compared]
    at_test = request.split == "test" or TrainingData(networks, this.tables).is_test(this.images)
    before = test_log.so_far(networks) if at_test else {}
    folder = results_folder(out, this.given, request)
    predictions.write(folder / "predictions.csv", request.split, scored, this.data.split(request.split).soft)
    if at_test and networks:  # counted once predictions show something of test
        opened = [(member, test_log.access(member, results)) for member in evaluated]
        if baseline:
            accuracy = baseline.accuracy(scored.targets)
            opened += [(member, test_log.access_as_baseline(member, results, accuracy)) for member in compared]
        results = replace(results, test_opened=test_log.record(opened, before))
    metrics_json.write(folder / "metrics.json", results)
    return results, scored, folder


def check_readable(requests: Sequence[Request]) -> None:
    """Raise unless the faces of all requests can be read, for the same networks.

    Raises:
        FerError: as ``evaluate``, for networks and data.
    """
    members = with_weights(ensemble_members(requests[0].networks))
    for request in requests:
        check_classes(members[0], _faces(request, members, Tables(request.batch_size)).at(members[0].model.image_size))


def _opened(request: Request) -> _Evaluation:
    """Return the networks and the faces, the choice among networks made.

    Raises:
        FerError: as ``evaluate``, for networks and data.
    """
    tables = Tables(request.batch_size)
    given = ensemble_members(request.networks)
    members = with_weights(given)
    if request.choose and request.data:  # among shared networks too, whose val is known by its contents
        use_data_at_hand(members, _faces(request, members, tables).at(members[0].model.image_size))
    selection = selected(request, given, tables) if request.choose else None
    given = selection.members if selection else given
    members = with_weights(given)
    faces = _faces(request, members, tables)
    data = faces.at(members[0].model.image_size)
    described = data.describe(request.split)
    check_classes(members[0], data)
    use_data_at_hand(members, data)
    search_moved_data(members, tables)
    return _Evaluation(request, given, selection, faces, data, described, tables)


def _faces(request: Request, members: Sequence[Member], tables: Tables) -> FacesBySize:
    return FacesBySize(settings_of(request, members), request.split, tables)


def _results(this: _Evaluation, baseline: Baseline | None, command: str) -> tuple[Results, Scored]:
    """Return everything that is known once the faces are scored, and the scored faces."""
    request, data, images = this.request, this.data, this.images
    training = TrainingData(this.members, this.tables)
    classes = list(this.members[0].model.hparams["classes"])
    predicted = this.faces.predicted(this.given, request)
    targets = like(predicted, data.split(request.split).targets)
    copies = copies_by_content(training, images, this.described.fingerprint)
    kept = known_of_all(not_trained_on(training, images, copies), request, this.given, this.described)
    choice = chosen(request, this.given, training, (predicted, targets, kept) if this.on_val else None, this.selection)
    together = mixed(predicted, choice.weights, choice.temperatures)
    scored = scoring.scored_faces(together, data, request.split, classes)
    networks = [_network(network, request) for network in this.given]
    return Results(
        schema=SCHEMA,
        split=request.split,
        measured=scoring.measured_split(together, data, request.split, classes, choice.temperature),
        temperature_fitted_on=choice.fitted_on or None,
        temperature_kept=choice.kept,
        data_sets=scoring.by_data_set(scored, data, request.split),
        seen_in_training=None if kept is None else int((~kept).sum()),
        seen_by_content=int(copies.sum()) if copies is not None and copies.any() else None,
        seen_in_choice=overlap(images, training.hashes("val", images.shape[-1])),
        clean=None if kept is None else scoring.clean(together, targets, kept, classes, scored.groups),
        answering=None if request.error_rate is None else answering(choice, request.error_rate, scored),
        sets=_sets(scored, choice, kept, request),
        comparison=None
        if baseline is None
        else baseline.compared(together, targets, images, kept, this.described.fingerprint, this.tables, scored.groups),
        annotators=agreement_with_votes(data, request.split, targets, together),
        architecture=" + ".join(dict.fromkeys(network.architecture for network in networks)),
        parameters=sum(network.parameters for network in networks),
        pretrained=_pretrained(networks),
        teachers=tuple({one.sha256: one for network in networks for one in network.teachers}.values()) or None,
        evaluation=_record(request, networks, choice),
        selection=this.selection.report if this.selection else None,
        diversity=diversity(predicted, targets),
        dataset=this.described,
        machine=machine.provenance(),
        command=command,
    ), scored


def _sets(scored: Scored, choice: Chosen, kept: NDArray[np.bool_] | None, request: Request) -> SetsRecord | None:
    """Return coverage and size of the prediction sets; None where nothing has calibrated them."""
    if choice.sets is None or choice.temperature is None:
        return None
    return scoring.prediction_sets(
        scored, choice.temperature, kept, choice.sets, request.coverage or COVERAGE, request.coverage_by
    )


def check_classes(member: Member, data: Table) -> None:
    """Raise unless the labels' emotions are all those that a network predicts, or the first of these.

    Raises:
        FerError: naming both.
    """
    classes, labels = list(member.model.hparams["classes"]), list(data.faces.classes)
    if classes[: len(labels)] != labels:
        raise FerError(
            f"{member.file}: predicts {', '.join(classes)}; the labels of {data.data.path} are {', '.join(labels)}"
        )


def agreement_with_votes(data: Table, split: str, targets: Array, predicted: Array) -> Annotators | None:
    """Return how labels and network agree with the annotators of FER+; None where their votes are not known."""
    if data.faces.votes is None:
        return None
    votes = data.faces.votes[data.indices(split)]
    answers = np.asarray(predicted.argmax(1))
    return agreement(votes, np.asarray(targets), answers, predicted.shape[1])


def _announce(this: _Evaluation) -> None:
    trained, here = this.members[0].model.provenance.dataset, this.described
    if here.fingerprint not in fingerprints(trained):
        for name, now, before in (
            ("data", here.path, trained.get("path")),
            ("labels", here.labels, trained.get("labels")),
        ):
            if now != before:
                log.warning("these are not the %s of the training: %s, trained on %s", name, now, before)
                break
        else:
            log.warning("%s has other contents than at the training", here.path)
    for network in this.given:
        architecture = network.model.architecture if isinstance(network, Member) else "predictions"
        log.info("network: %s from %s", architecture, network.file)
    log.info("data:    %s, split %s: %s", here.path, here.split, this.request.split)
    log_notes(here.notes, [str(row) for row in here.skipped], here.missing)


# --- records of the networks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """What an evaluation records of a network; without weights, what its own metrics state."""

    checkpoint: str
    record: NetworkRecord
    architecture: str
    parameters: int
    pretrained: Pretrained | None
    teachers: Sequence[Teacher]


def _network(given: EnsembleMember, request: Request) -> _Network:
    if isinstance(given, Member):
        model, made = given.model, given.model.provenance
        return _Network(
            str(given.file),
            NetworkRecord(weights_sha256=model.weights_sha256, architecture=model.architecture, trained=given.trained),
            model.architecture,
            model.parameter_count,
            None if made.pretrained is None else read(Pretrained, made.pretrained),
            [read(Teacher, teacher) for teacher in made.teachers or ()],
        )
    stated = given.results(request)
    return _Network(
        str(given.file),
        NetworkRecord(architecture=stated.architecture),
        stated.architecture,
        stated.parameters,
        stated.pretrained,
        stated.teachers or (),
    )


def _pretrained(networks: Sequence[_Network]) -> Pretrained | None:
    """Return the weights that the networks began with, different ones joined by commas."""
    begun = [network.pretrained for network in networks if network.pretrained]
    if not begun:
        return None
    columns = ([part.name for part in begun], [part.file for part in begun], [part.sha256 for part in begun])
    name, file, sha256 = (", ".join(dict.fromkeys(column)) for column in columns)
    return Pretrained(name=name, file=file, sha256=sha256)


def _record(request: Request, networks: Sequence[_Network], choice: Chosen) -> EvaluationRecord:
    mixed_at = zip(networks, choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    return EvaluationRecord(
        tta=request.views,
        checkpoint=networks[0].checkpoint if len(networks) == 1 else f"{len(networks)} networks",
        members=tuple(
            MemberRecord(checkpoint=one.checkpoint, network=one.record, weight=weight, temperature=temperature)
            for one, weight, temperature in mixed_at
        ),
        weights=("chosen" if request.choose else request.weights) if len(networks) > 1 else None,
    )


def diversity(predicted: Array, targets: Array) -> Diversity | None:
    """Return the accuracies and the disagreement of an ensemble's M networks (M, N, C); None for one network."""
    if len(predicted) == 1:
        return None
    alone = doubled(predicted.argmax(2) == targets).mean(1)
    matrix = disagreement(predicted).tolist()
    return Diversity(accuracy=tuple(alone.tolist()), disagreement=tuple(tuple(row) for row in matrix))


def results_folder(out: Path | None, given: Sequence[EnsembleMember], request: Request) -> Path:
    """Make and return the folder for the results; no earlier one is overwritten."""
    name = predictions.name_of(request.split, request.views)
    if out is not None:
        return new_folder(out, name)
    if len(given) == 1 and isinstance(given[0], Member):
        return new_folder(given[0].run / "evaluations", name)
    return new_folder(ENSEMBLES / f"{datetime.now():%Y-%m-%d_%H-%M-%S}", name)

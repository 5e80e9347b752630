"""The check of an exported file, before it gets its name.

The file is opened again and compared with the network that was exported.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.faces import bad_rows_in_words
from fer.data.readers.drawing import draw_faces
from fer.evaluation.evaluate import check_classes
from fer.evaluation.leakage import TrainingData, use_data_at_hand
from fer.evaluation.request import FacesBySize, Request, Tables, settings_of
from fer.exports.source import Source
from fer.inference.exported import OnVal, Parity
from fer.metrics.conformal import Thresholds
from fer.system.text import plural

log = logging.getLogger(__name__)

COMPARED = 512  # faces
CALIBRATING = 512  # faces of train that give an int8 file its ranges
MOST_DIFFERENCE = 1e-4  # of a probability, in 32 bits
MOST_LOST, MOST_NLL, LEAST_EQUAL = 0.005, 0.02, 0.97  # of int8 on val: accuracy, NLL, share of equal answers
ROUNDING = 1e-9  # 69.75 % less 69.25 % are a little more than 0.005 in floats
SEED = 0

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # faces (N, 1 or 3, S, S) -> probabilities (N, C)


@dataclass(frozen=True)
class CheckData:
    """The data of a check, as in ``fer.evaluation.request.Request``.

    Args:
        path: of data other than those of the training, or None.
        rule: how they are split, if not as in training.
        on_bad: "error" or "skip" for a bad row or picture, if not as in training.
        class_names: class folder -> emotion, if not as in training.
    """

    path: str | None = None
    rule: str | None = None
    on_bad: str | None = None
    class_names: Mapping[str, str] | None = None


OF_TRAINING = CheckData()


@dataclass(frozen=True)
class ParityCheck:
    """The faces that an export is checked on.

    Args:
        source: the networks.
        data: where the faces are from.
    """

    source: Source
    data: CheckData = OF_TRAINING

    @property
    def _faces(self) -> FacesBySize | None:
        """The data at hand; None where there are none and none were named."""
        found = self._searched
        return None if isinstance(found, FerError) else found

    @cached_property
    def _searched(self) -> FacesBySize | FerError:
        """The data at hand; where none were named, the reason why there are none."""
        members = self.source.members
        names, given = [str(member.file) for member in members], self.data
        request = Request(names, "val", given.path, given.rule, given.on_bad, given.class_names)
        try:
            faces = FacesBySize(settings_of(request, members), "val", Tables(request.batch_size))
            data = faces.at(self.source.size)
        except FerError as error:
            if given != OF_TRAINING:
                raise
            return error
        if skipped := data.faces.source.skipped:
            log.warning("skipped: %s of the data; first: %s", bad_rows_in_words(skipped), skipped[0])
        check_classes(members[0], data)
        use_data_at_hand(members, data)
        return faces

    def _needed(self) -> FacesBySize:
        found = self._searched
        if isinstance(found, FerError):
            raise FerError(
                f"--int8: needs the network's training data, train for calibration and val for the check: {found}"
            )
        return found

    def images(self, split: str) -> NDArray[np.uint8]:
        """Return the faces (N, 1, S, S), or (N, 3, S, S) in colour, of a split.

        Raises:
            FerError: the data are not at hand or have no such split.
        """
        return self._needed().at(self.source.size).split(split).pixels(slice(None))

    @property
    def _val_in_grey(self) -> NDArray[np.uint8]:
        """The faces (N, S, S) of val, by which duplicates are found."""
        return self._needed().at(self.source.size).split("val").grey

    @property
    def targets(self) -> NDArray[np.int64]:
        """The labels (N,) of val."""
        return self._needed().at(self.source.size).split("val").targets

    @cached_property
    def sample(self) -> tuple[NDArray[np.uint8], str]:
        """512 faces (N, 1, S, S), and where they are from: of val where it is at hand, the rest drawn."""
        faces = self.images("val") if self._faces is not None else np.empty((0, *self.source.shape), np.uint8)
        spread = np.unique(np.linspace(0, len(faces) - 1, min(COMPARED, len(faces))).round().astype(int))
        rest = COMPARED - len(spread)
        words = [f"{plural(len(spread), 'face')} of val"] if len(spread) else []
        if not rest:
            return faces[spread], words[0]
        drawn, _ = draw_faces(rest, seed=SEED, image_size=self.source.size)
        drawn = drawn[:, None].repeat(self.source.channels, 1)
        return np.concatenate([faces[spread], drawn]), " and ".join([*words, plural(rest, "drawn face")])

    @cached_property
    def calibration_sample(self) -> tuple[NDArray[np.uint8], str]:
        """Faces of train (N, 1, S, S) that give an int8 file its ranges, a seeded draw, and their name."""
        train = self.images("train")
        drawn = np.sort(np.random.default_rng(SEED).permutation(len(train))[:CALIBRATING])
        return train[drawn], f"{plural(len(drawn), 'face')} of train"

    @cached_property
    def expected(self) -> NDArray[np.float32]:
        """What the networks predict for ``sample``, (N, C)."""
        return self.source.probabilities(self.sample[0])

    @cached_property
    def expected_on_val(self) -> NDArray[np.float32]:
        """What the networks predict for val, (N, C)."""
        return self.source.probabilities(self.images("val"))

    def parity(self, predict: Predict) -> Parity:
        """Return the probabilities of a file beside those of the networks."""
        faces, of = self.sample
        predicted = predict(faces)
        equal = float((predicted.argmax(1) == self.expected.argmax(1)).mean())
        return Parity(len(faces), of, float(np.abs(predicted - self.expected).max()), equal)

    def parity_on_val(self, predict: Predict) -> tuple[Parity, Thresholds | None]:
        """Return the same with metrics of val, and thresholds of prediction sets for the file's own probabilities.

        The thresholds of the networks hold for their probabilities alone. They are calibrated on the faces of val
        without a duplicate in train, where these are known.
        """
        predicted, expected, targets = predict(self.images("val")), self.expected_on_val, self.targets
        both = (expected, predicted)
        on_val = OnVal(
            len(targets),
            tuple(float((each.argmax(1) == targets).mean()) for each in both),
            tuple(_nll(each, targets) for each in both),
            float((predicted.argmax(1) == expected.argmax(1)).mean()),
        )
        return replace(self.parity(predict), val=on_val), self._sets(predicted, targets)

    def _sets(self, found: NDArray[np.float32], targets: NDArray[np.int64]) -> Thresholds | None:
        if self.source.sets is None:
            return None
        kept = TrainingData(self.source.members, self._needed().tables).unseen(self._val_in_grey)
        known = np.ones(len(targets), np.bool_) if kept is None else kept
        return Thresholds.calibrated(found[known], targets[known])


def _nll(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    of_label = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(of_label.clip(min=np.finfo(np.float32).tiny)).mean())


def refuse(name: str, parity: Parity) -> None:
    """Raise unless a file predicts what the networks do.

    Raises:
        FerError: with what was measured, and the bounds.
    """
    faults = _of_int8(parity.val) if parity.val is not None else _of_32_bits(parity)
    if faults:
        raise FerError(f"{name}: not written, since it differs from the network: {'; '.join(faults)}")


def _of_32_bits(parity: Parity) -> Sequence[str]:
    faults = []
    if not parity.largest_difference <= MOST_DIFFERENCE:  # NaN too
        faults.append(
            f"a probability by {parity.largest_difference:.2g} on {parity.of}, expected at most {MOST_DIFFERENCE:g}"
        )
    if parity.equal < 1:
        faults.append(f"{100 * (1 - parity.equal):.2g} % of the answers on {parity.of}, expected none")
    return faults


def _of_int8(val: OnVal) -> Sequence[str]:
    lost, worse = val.accuracy[0] - val.accuracy[1], val.nll[1] - val.nll[0]
    faults = []
    if not lost <= MOST_LOST + ROUNDING:
        before, after = (f"{100 * value:.2f} %" for value in val.accuracy)
        faults.append(f"accuracy on val {after} after {before}, expected at most {100 * MOST_LOST:g} points less")
    if not worse <= MOST_NLL + ROUNDING:
        faults.append(f"NLL on val {val.nll[1]:.4f} after {val.nll[0]:.4f}, expected at most {MOST_NLL:g} more")
    if not val.equal >= LEAST_EQUAL - ROUNDING:
        faults.append(
            f"{100 * val.equal:.2f} % equal answers on {plural(val.faces, 'face')} of val, expected at least "
            f"{100 * LEAST_EQUAL:g} %"
        )
    return faults

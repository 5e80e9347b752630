"""The tracks of faces in a video.

Boxes that follow each other are one face; nothing else is compared. A detection continues the track whose box, moved on
with constant velocity, it overlaps most. A track ends after a second without a detection, and its number is never given
again. A face that leaves and returns has a new number: to know it again would be face recognition, which this library
does not do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fer.data.crop import Box
from fer.inference.detect import Detection

LEAST_OVERLAP = 0.3  # of a detection with the expected box of a track
LIVES = 1.0  # seconds without a detection after which a track ends
CARRIED = 0.25  # seconds without a detection that are bridged; two detections may be missed
KEPT = 8  # detections of a track that are remembered, more than a frame waits for
HITS = 3  # detections before a track is shown
LATEST = 0.5  # weight of the latest movement in the velocity; boxes of a cascade tremble


@dataclass(frozen=True)
class Sighting:
    """A face that was detected at a time, in seconds."""

    time: float
    face: Detection


class Track:
    """One face over time.

    Args:
        time: of the first detection, in seconds.
        face: that was detected.
    """

    def __init__(self, time: float, face: Detection) -> None:
        self.number: int | None = None  # from the detection on that makes it shown
        self.began = self.since = time  # seconds; shown from the second on, once it has a number
        self.sightings = [Sighting(time, face)]  # the latest, oldest first
        self.hits, self.missed = 1, False
        self._velocity = np.zeros(2)  # pixels per second, of the middle

    @property
    def last(self) -> Sighting:
        """The last detection."""
        return self.sightings[-1]

    def add(self, time: float, face: Detection) -> None:
        """Continue the track with a detection."""
        passed = time - self.last.time
        if passed > 0:
            moved = np.subtract(face.box.centre, self.last.face.box.centre) / passed
            self._velocity += (moved - self._velocity) * (1.0 if self.hits == 1 else LATEST)
        self.sightings = [*self.sightings[-KEPT + 1 :], Sighting(time, face)]
        self.hits, self.missed = self.hits + 1, False

    def at(self, time: float) -> Detection:
        """Return the face at a time: between two detections, or moved on from the last with its velocity."""
        if time >= self.last.time or len(self.sightings) == 1:
            face = self.last.face
            x, y = self._velocity * (time - self.last.time)
            return replace(face, box=replace(face.box, x=face.box.x + float(x), y=face.box.y + float(y)))
        later = [sighting.time > time for sighting in self.sightings].index(True)
        before, after = self.sightings[max(later, 1) - 1], self.sightings[max(later, 1)]
        return _between(before.face, after.face, (time - before.time) / (after.time - before.time))

    def is_shown(self, time: float) -> bool:
        """Return whether the track has been confirmed by a time, and is not past its last detection for long."""
        return self.number is not None and time >= self.since and time - self.last.time <= CARRIED


class Tracker:
    """The faces of a video, from detection to detection.

    Args:
        hits: detections before a track is shown.
    """

    def __init__(self, hits: int = HITS) -> None:
        self.tracks: list[Track] = []
        self._hits, self._numbers = hits, count(1)

    def expected(self, time: float) -> list[Detection]:
        """Return where the faces of all tracks are expected at a time."""
        return [track.at(time) for track in self.tracks if not _ended(track, time)]

    def update(self, time: float, found: Sequence[Detection]) -> None:
        """Continue the tracks with what was detected at a time; what continues none begins a new one."""
        self.tracks = [track for track in self.tracks if not _ended(track, time)]
        pairs = sorted(
            ((track.at(time).box.overlap(face.box), row, index) for row, track in enumerate(self.tracks)
             for index, face in enumerate(found)),
            key=lambda pair: -pair[0],
        )  # fmt: skip
        rows: set[int] = set()  # of tracks that continue
        used: set[int] = set()
        for overlap, row, index in pairs:
            if overlap >= LEAST_OVERLAP and row not in rows and index not in used:
                rows.add(row)
                used.add(index)
                self.tracks[row].add(time, found[index])
        for row, track in enumerate(self.tracks):
            track.missed = row not in rows
        self.tracks = [track for track in self.tracks if not _ended(track, time)]
        self.tracks += [Track(time, face) for index, face in enumerate(found) if index not in used]
        self._show(time)

    def _show(self, time: float) -> None:
        for track in self.tracks:
            if track.number is None and track.hits >= self._hits:
                track.number, track.since = next(self._numbers), time

    def shown(self, time: float, *, live: bool) -> list[tuple[int, Detection]]:
        """Return number and face of each track that is shown at a time, at or shortly after the last detection.

        Args:
            time: of a frame, in seconds.
            live: show a face that the latest search has missed for a while; else it has left with its last detection.
        """
        return [
            (track.number, track.at(time))
            for track in self.tracks
            if track.is_shown(time)
            and track.number is not None
            and (live or time <= track.last.time or not track.missed)
        ]

    def settled(self, time: float, now: float) -> bool:
        """Return whether it is known which faces a frame has: none is missed that a search may find again.

        Args:
            time: of the frame, in seconds.
            now: of the latest search.
        """
        return not any(
            track.missed and track.is_shown(time) and time > track.last.time and now - track.last.time <= CARRIED
            for track in self.tracks
        )

    def unconfirmed(self, time: float) -> int:
        """Return how many faces were detected at or before a time and are not shown yet."""
        return sum(
            track.began <= time and time - track.last.time <= CARRIED and (track.number is None or time < track.since)
            for track in self.tracks
        )


def _ended(track: Track, time: float) -> bool:
    """Return whether a second has passed without a detection, and one was looked for in vain.

    In a video of one frame in two seconds, a face that is detected in each of them is one track.
    """
    return track.missed and time - track.last.time > LIVES


def _between(before: Detection, after: Detection, share: float) -> Detection:
    first, second = ((*box.centre, box.width, box.height) for box in (before.box, after.box))
    x, y, width, height = ((1 - share) * one + share * other for one, other in zip(first, second, strict=True))
    box = Box(x - width / 2, y - height / 2, width, height)
    return replace(after, box=box, tilt=(1 - share) * before.tilt + share * after.tilt)


class Smoother:
    """The exponential mean of the logits of each track.

    The mean of logits keeps a sure network sure, where that of probabilities would not. Calibrated log probabilities
    serve as logits: they differ from ``logits / temperature`` by a number that softmax takes away.

    Args:
        half_life: seconds after which a frame counts half; 0 smooths nothing.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._means: dict[int, tuple[float, NDArray[np.float64]]] = {}

    def __call__(self, track: int, time: float, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return smoothed probabilities (C,) of a track's next frame, from its own (C,)."""
        if not self.half_life:
            return probabilities
        logits = np.log(probabilities.clip(np.finfo(np.float32).tiny), dtype=np.float64)
        if track in self._means:
            last, mean = self._means[track]
            kept = 0.5 ** ((time - last) / self.half_life)
            logits = kept * mean + (1 - kept) * logits
        self._means[track] = time, logits
        remembered = max(LIVES, 10 * self.half_life)  # after ten half-lives a frame counts a thousandth
        self._means = {number: pair for number, pair in self._means.items() if time - pair[0] <= remembered}
        exponentials = np.exp(logits - logits.max())
        smoothed: NDArray[np.float32] = (exponentials / exponentials.sum()).astype(np.float32)
        return smoothed

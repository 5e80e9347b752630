"""The timeline of a video: the emotions of each face over time.

It has gaps where a face is not detected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator, PercentFormatter
from numpy.typing import NDArray

from fer.reports import html, plotting
from fer.reports.html import Section, joined, paragraph, tag
from fer.reports.predictions import answer
from fer.reports.theme import PAPER
from fer.system.text import clock, plural

if TYPE_CHECKING:
    from fer.inference.records import FaceRecord, TrackRecord

MOST_TRACKS = 6  # of a figure and its page, the longest
MOST_POINTS = 1000  # of a track; beyond, neighbours are averaged, so that memory does not grow with the video
MOST_FACES = 24  # that are kept of a track
ON_PAGE = 6  # of them, a row of the page
INVISIBLE = 0.001  # share of the video's length; a shorter gap is invisible in the figure
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # seconds between ticks
COLOURS = ("bad", "good", "test", "train", "val", "ink", "soft", "rule")  # roles of the emotions, in their order


@dataclass
class Point:
    """Successive frames of a track: their numbers among the predicted ones, their times, the sum of probabilities."""

    first: int
    last: int
    start: float
    end: float
    total: NDArray[np.float64]
    frames: int = 1

    def joined(self, other: "Point") -> "Point":
        """Return this point and a later one as one."""
        return Point(
            self.first, other.last, self.start, other.end, self.total + other.total, self.frames + other.frames
        )


class Lane:
    """The probabilities of one track, and some of its faces.

    Args:
        track: its number.
    """

    def __init__(self, track: int) -> None:
        self.track = track
        self.points: list[Point] = []
        self.faces: list[tuple[float, NDArray[np.uint8], FaceRecord]] = []  # time, crop, record
        self.frames = 0
        self.total: NDArray[np.float64] = np.zeros(())
        self._every = 1  # frames between the faces that are kept

    def add(self, index: int, time: float, crop: NDArray[np.uint8], face: "FaceRecord") -> None:
        """Add a frame, the ``index``-th of those that are predicted."""
        values = np.array(list(face["probabilities"].values()), np.float64)
        self.points.append(Point(index, index, time, time, values))
        self.total = self.total + values
        if self.frames % self._every == 0:
            self.faces.append((time, crop, face))
        self.frames += 1
        if len(self.points) > MOST_POINTS:
            self.points = _thinned(self.points, INVISIBLE * time)
        if len(self.faces) > MOST_FACES:
            self.faces, self._every = self.faces[::2], 2 * self._every

    @property
    def start(self) -> float:
        """Time of the first frame, in seconds."""
        return self.points[0].start

    @property
    def end(self) -> float:
        """Time of the last frame, in seconds."""
        return self.points[-1].end

    def runs(self) -> list[list[Point]]:
        """Return the points without a gap between them, run by run."""
        pieces: list[list[Point]] = []
        for point in self.points:
            if pieces and point.first == pieces[-1][-1].last + 1:
                pieces[-1].append(point)
            else:
                pieces.append([point])
        return pieces


def _thinned(points: Sequence[Point], invisible: float) -> list[Point]:
    """Return half as many points: neighbours become one, unless there is a visible gap between them."""
    thinned: list[Point] = []
    for index, point in enumerate(points):
        before = thinned[-1] if thinned and index % 2 else None
        if before is not None and (point.first == before.last + 1 or point.start - before.end < invisible):
            thinned[-1] = before.joined(point)
        else:
            thinned.append(point)
    return thinned


class Timeline:
    """What the figure and the page of a video show. It grows with the number of faces, not with the video's length."""

    def __init__(self, emotions: Sequence[str]) -> None:
        self.emotions = emotions
        self.lanes: dict[int, Lane] = {}
        self.frames = 0
        self.end = 0.0  # seconds

    def add(self, time: float, crops: Sequence[NDArray[np.uint8]], faces: Sequence["FaceRecord"]) -> None:
        """Add a frame: its time in seconds, and crop (S, S) uint8 and record of each face."""
        for crop, face in zip(crops, faces, strict=True):
            lane = self.lanes.setdefault(face["track"], Lane(face["track"]))
            lane.add(self.frames, time, crop, face)
        self.frames, self.end = self.frames + 1, time

    def longest(self) -> list[Lane]:
        """Return the tracks that are shown, in the order of their numbers."""
        longest = sorted(self.lanes.values(), key=lambda lane: -lane.frames)[:MOST_TRACKS]
        return sorted(longest, key=lambda lane: lane.track)

    def tracks(self) -> list["TrackRecord"]:
        """Return the record of each track: from when to when, in how many frames, its mean probabilities."""
        return [
            {
                "track": lane.track,
                "start": round(lane.start, 4),
                "end": round(lane.end, 4),
                "frames": lane.frames,
                "probabilities": dict(zip(self.emotions, np.round(lane.total / lane.frames, 4).tolist(), strict=True)),
            }
            for lane in self.lanes.values()
        ]


def figure(timeline: Timeline) -> Figure:
    """Draw the probabilities of each track over time as stacked areas; call within ``plotting.style``."""
    lanes = timeline.longest()
    drawn, rows = plotting.canvas(1.1 + 0.95 * max(1, len(lanes)), max(1, len(lanes)), sharex=True)
    colours = [PAPER[COLOURS[index % len(COLOURS)]] for index in range(len(timeline.emotions))]
    for axes, lane in zip(rows[:, 0], lanes, strict=False):
        _lane(axes, lane, colours, timeline.end)
    last = rows[-1, 0]
    if not lanes:
        last.text(0.5, 0.5, "no face", transform=last.transAxes, ha="center", va="center")
        last.set_yticks([])
    last.set_xlim(0, max(timeline.end, 0.1))
    last.xaxis.set_major_locator(MultipleLocator(tick_step(timeline.end)))
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _stamp(value, timeline.end)))
    last.set_xlabel("time")
    if lanes:
        patches = [Patch(facecolor=colour, label=name) for name, colour in zip(timeline.emotions, colours, strict=True)]
        drawn.legend(
            handles=patches, loc="outside upper left", ncols=4, handlelength=1, handleheight=0.9, columnspacing=1.2
        )
    return drawn


def _lane(axes: Axes, lane: Lane, colours: Sequence[str], end: float) -> None:
    width = max(INVISIBLE * 2 * end, 1e-3)  # seconds, so that a single frame is visible
    for run in lane.runs():
        middles = [(point.start + point.end) / 2 for point in run]
        times = [run[0].start, *middles, max(run[-1].end, run[0].start + width)]
        means = [point.total / point.frames for point in run]
        values = np.stack([means[0], *means, means[-1]], axis=1)
        axes.stackplot(times, values, colors=colours, edgecolor=PAPER["ground"], linewidth=0.4)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_title(f"Face {lane.track}")


def tick_step(seconds: float) -> float:
    """Return the seconds between the ticks of a video's time: round ones, so that there are at most seven ticks."""
    return next((step for step in STEPS if seconds / step <= 6), 7200.0 * math.ceil(seconds / 6 / 7200))


def _stamp(seconds: float, end: float) -> str:
    return clock(seconds) if end >= 20 else f"{seconds:.3g} s"


def write(folder: Path, name: str, timeline: Timeline, title: str, lead: Markup) -> None:
    """Write ``<name>.html``, ``<name>.png`` and ``<name>.svg``.

    Args:
        folder: of the files.
        name: of the files, without their endings.
        timeline: of the video.
        title: of the page.
        lead: what stands above the timeline.
    """
    with plotting.style():
        drawn = plotting.save(figure(timeline), folder, name)
    shown = timeline.longest()
    words = (
        "Areas are smoothed probabilities. Gaps have no face. A face that leaves and returns has a new number. The "
        "coverage of prediction sets is promised for single pictures, not for smoothed frames."
    )
    parts = [paragraph(words), html.drawing(drawn, f"Emotions of {plural(len(shown), 'face')} over time", large=True)]
    if len(timeline.lanes) > len(shown):
        parts.append(html.note(f"The longest {len(shown)} of {len(timeline.lanes):,} faces."))
    sections = [Section("timeline", "Timeline", joined(*parts))]
    sections += [_faces(lane, timeline) for lane in shown]
    html.write(folder / f"{name}.html", title, lead, sections, "Written by fer predict.")


def _faces(lane: Lane, timeline: Timeline) -> Section:
    indices = np.linspace(0, len(lane.faces) - 1, min(ON_PAGE, len(lane.faces))).round().astype(int)
    shown = [
        html.face(crop, [answer(face), _stamp(time, timeline.end)],
                  html.chances(face["probabilities"], {}))
        for time, crop, face in (lane.faces[index] for index in indices)
    ]  # fmt: skip
    words = span(lane.start, lane.end, lane.frames)
    return Section(
        f"face-{lane.track}", f"Face {lane.track}", joined(paragraph(words), tag("div", *shown, class_="faces"))
    )


def span(start: float, end: float, frames: int) -> str:
    """Return the times of a track in words."""
    return f"{start:.1f} to {end:.1f} s, {plural(frames, 'frame')}"

"""The files that are made of one video.

They are its records, its timeline and page, and its annotated copy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.inference.sources import PAGES
from fer.reports import predictions, timeline
from fer.reports.annotate import AnnotatedVideo
from fer.system.files import new_file
from fer.system.records import Json
from fer.system.text import clock, plural

if TYPE_CHECKING:
    from fer.inference.records import Record, VideoRecord
    from fer.inference.video import Clip, Frame


class VideoReport:
    """Collects a video's frames, and makes of them what is written.

    Args:
        clip: the video.
        emotions: in the order of the network's outputs.
        annotated: folder of the annotated copy; None for none.
        fps: frames per second that are predicted; None for all.
    """

    def __init__(self, clip: "Clip", emotions: Sequence[str], annotated: Path | None, fps: float | None) -> None:
        self.clip, self.timeline = clip, timeline.Timeline(emotions)
        self.faces = self._small = self._unconfirmed = 0  # predicted faces; frames with faces of no prediction
        self._complete = False
        self._copy: AnnotatedVideo | None = None
        if annotated is not None:
            rate = clip.rate if fps is None else min(fps, clip.rate)
            self._copy = AnnotatedVideo(new_file(annotated, self.stem, ".mp4"), rate)

    @property
    def stem(self) -> str:
        """The name of the video without folder and ending."""
        return self.clip.name.replace(" ", "_") if self.clip.live else Path(self.clip.name).stem

    def add(self, frame: "Frame") -> "Record":
        """Take a frame, and return its record."""
        from fer.inference.records import frame_record

        entry = frame_record(self.clip.name, frame)
        self.timeline.add(frame.time, frame.crops, entry["faces"])
        self.faces += len(frame.faces)
        self._small += bool(frame.too_small)
        self._unconfirmed += bool(frame.unconfirmed)
        if self._copy is not None and frame.pixels is not None:
            self._copy.add(frame.pixels, frame.time, entry["faces"])
        return entry

    def finished(self, out: Path | None, about: Json) -> "Record":
        """Write the page and the timeline, if there is a folder for them, and return the record that closes the video.

        Args:
            out: folder of the results.
            about: of the network, the detector and the crop.
        """
        notes = self.clip.notes()
        notes += [f"faces below 24 pixels left out in {plural(self._small, 'frame')}"] if self._small else []
        if self._unconfirmed and not self.timeline.lanes:
            frames = plural(self._unconfirmed, "frame")
            notes.append(f"faces that were detected fewer than three times left out in {frames}")
        if self._copy is not None and self._copy.refused:
            notes.append(self._copy.refused)
        closing: VideoRecord = {
            "frames": self.timeline.frames,
            "seconds": round(self.timeline.end, 4),
            "tracks": self.timeline.tracks(),
            "notes": notes,
        }
        if self._copy is not None and self._copy.begun:
            closing["annotated"] = self._copy.file.name
        if out is not None:
            closing["page"] = self._page(out / PAGES, about, notes)
        self._complete = True
        return {"file": self.clip.name, "video": closing}

    def _page(self, folder: Path, about: Json, notes: Sequence[str]) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        file = new_file(folder, self.stem, ".html", ".png", ".svg")
        lead = predictions.lead(about, "; ".join([self.counts(), *notes]))
        timeline.write(folder, file.stem, self.timeline, Path(self.clip.name).name, lead)
        return f"{PAGES}/{file.name}"

    def counts(self) -> str:
        """Return length, frames and faces in words."""
        tracks = plural(len(self.timeline.lanes), "face")
        return f"{clock(self.timeline.end)}, {plural(self.timeline.frames, 'frame')}, {tracks}"

    def close(self) -> None:
        """Close the video and its annotated copy; a copy that is not complete is removed."""
        self.clip.close()
        if self._copy is not None:
            self._copy.close(complete=self._complete)

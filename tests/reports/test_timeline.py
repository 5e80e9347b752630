"""The timeline of a video: its figure and page, and that it does not grow with the video."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from fer.data.labels import EMOTIONS
from fer.reports import plotting, timeline
from fer.reports.html import paragraph
from fer.reports.theme import PAPER
from fer.reports.timeline import MOST_FACES, MOST_POINTS, Timeline

CROP = np.zeros((48, 48), np.uint8)


def face(track, share=0.5):
    rest = (1 - share) / (len(EMOTIONS) - 1)
    probabilities = {name: share if name == "happy" else rest for name in EMOTIONS}
    return {"track": track, "emotion": "happy", "uncertain": False, "emotions": [], "probabilities": probabilities}


def filled(frames, tracks_of, rate=25):
    """Return a timeline; ``tracks_of`` gives the tracks of a frame's number."""
    made = Timeline(EMOTIONS)
    for number in range(frames):
        tracks = tracks_of(number)
        made.add(number / rate, [CROP] * len(tracks), [face(track, 0.2 + 0.6 * number / frames) for track in tracks])
    return made


def test_gaps_stay_gaps():
    lane = filled(100, lambda number: [1] if number < 40 or number >= 60 else []).lanes[1]
    assert [(run[0].start, run[-1].end) for run in lane.runs()] == [(0.0, 39 / 25), (60 / 25, 99 / 25)]


def test_a_long_video_takes_no_more_memory_and_keeps_its_means():
    made = filled(20_000, lambda number: [1] if not 8_000 <= number < 9_000 else [])
    lane = made.lanes[1]
    assert len(lane.points) <= MOST_POINTS
    assert 6 <= len(lane.faces) <= MOST_FACES
    assert sum(point.frames for point in lane.points) == lane.frames == 19_000
    (first, second) = lane.runs()
    assert (first[-1].end, second[0].start) == (7_999 / 25, 9_000 / 25)
    half = next(point for point in first if point.end > 160)
    assert half.total[EMOTIONS.index("happy")] / half.frames == pytest.approx(0.2 + 0.6 * 4_000 / 20_000, abs=1e-2)
    times = [time for time, _, _ in lane.faces]
    assert times[0] == 0
    assert times[-1] > 0.9 * made.end


def test_the_record_of_tracks():
    (one, two) = filled(50, lambda number: [1, 2] if number >= 10 else [1]).tracks()
    assert (two["start"], two["end"], two["frames"]) == (0.4, 1.96, 40)
    assert one["probabilities"]["happy"] == pytest.approx(0.2 + 0.6 * 24.5 / 50, abs=1e-3)


def test_areas_are_in_the_colours_of_the_theme_and_add_up_to_one():
    with plotting.style():
        figure = timeline.figure(filled(100, lambda number: [1, 2] if number < 50 else [2]))
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("Face 1", "Face 2")
    assert len(first.collections) == len(EMOTIONS)
    colours = {to_hex(area.get_facecolor()[0]) for area in first.collections}
    assert len(colours) == len(EMOTIONS)
    assert colours <= set(PAPER.values())
    top = first.collections[-1].get_paths()[0].vertices
    assert top[:, 1].max() == pytest.approx(1)
    assert top[:, 0].max() == pytest.approx(49 / 25)
    assert first.get_xlim()[1] == pytest.approx(99 / 25)


@pytest.mark.parametrize(("seconds", "step"), [(0.5, 0.1), (10, 2), (45, 10), (100, 20), (600, 120), (7200, 1200)])
def test_ticks_are_round_times(seconds, step):
    assert timeline.tick_step(seconds) == step


def test_a_page_has_a_row_of_faces_for_each_track(tmp_path):
    timeline.write(tmp_path, "clip", filled(100, lambda _: range(1, 9)), "clip.mp4", paragraph("lead"))
    page = (tmp_path / "clip.html").read_text()
    assert page.count('class="face"') == timeline.MOST_TRACKS * timeline.ON_PAGE
    assert "The longest 6 of 8 faces" in page
    assert {file.suffix for file in tmp_path.iterdir()} == {".html", ".png", ".svg"}


def test_a_video_without_faces_has_a_page(tmp_path):
    timeline.write(tmp_path, "clip", filled(10, lambda _: []), "clip.mp4", paragraph("lead"))
    assert (tmp_path / "clip.html").exists()

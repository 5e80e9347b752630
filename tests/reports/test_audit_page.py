"""The page of an audit: whole, escaped, themed, and true to ``audit.json``."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fer.audit import main
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.reports.theme import PAPER


def audited(root, images, targets, *options):
    """Write the faces as a tree below ``root``, every second one as train, audit it, and return page and facts."""
    for row, (image, target) in enumerate(zip(images, targets, strict=True)):
        file = root / ("train", "test")[row % 2] / EMOTIONS[target] / f"{row:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    out = root.parent / "out"
    assert main([str(root), "--out", str(out), *options]) == 0
    return (out / "audit.html").read_text(), json.loads((out / "audit.json").read_text())


def section(page, name):
    """Return the HTML of a section."""
    (found,) = re.findall(f'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return found


@pytest.fixture
def drawn():
    images, targets = draw_faces(70, seed=5)
    return images.copy(), targets.copy()


def test_the_page_needs_nothing_from_elsewhere(drawn, tmp_path):
    page, _ = audited(tmp_path / "mine", *drawn)
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^"\s>)]+)', page)
    assert sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)


@pytest.mark.renders
def test_its_drawings_follow_the_theme(drawn, tmp_path):
    page, _ = audited(tmp_path / "mine", *drawn)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2  # classes, light
    for drawing in drawings:
        assert "var(--train)" in drawing
        assert not [colour for colour in PAPER.values() if colour in drawing]


def test_names_are_escaped(drawn, tmp_path):
    page, facts = audited(tmp_path / "<b>mine & yours", *drawn, "--quick")
    assert facts["dataset"]["name"] == "<b>mine & yours"
    assert "<h1>Audit of &lt;b&gt;mine &amp; yours</h1>" in page
    assert "<b>mine" not in page


def test_every_class_has_its_faces(drawn, tmp_path):
    page, _ = audited(tmp_path / "mine", *drawn, "--quick")
    sheets = re.findall(r'<h3>(\w+) \(10\)</h3><div class="sheet">(.*?)</div>', section(page, "faces"))
    assert [name for name, _ in sheets] == list(EMOTIONS)
    for name, sheet in sheets:
        rows = [int(row) for row in re.findall(rf'alt="{name}, row (\d+)"', sheet)]
        assert len(rows) == 10


def test_a_conflict_is_shown_with_its_labels_and_rows(drawn, tmp_path):
    images, targets = drawn
    happy, sad = np.flatnonzero(targets == 3)[:2], np.flatnonzero(targets == 4)[0]
    images[happy] = images[sad]
    page, _ = audited(tmp_path / "mine", images, targets, "--quick")
    (figure,) = re.findall(r"<figure.*?</figure>", section(page, "duplicates").partition("The largest groups")[0])
    assert "2 happy, 1 sad" in figure
    assert len(re.findall(r"happy: (?:train|test) \d+|sad: (?:train|test) \d+", figure)) >= 2
    assert figure.count("<img") == 1


def test_near_duplicates_stand_side_by_side_conflicting_ones_first(drawn, tmp_path):
    images, targets = drawn
    happy, sad = np.flatnonzero(targets == 3), np.flatnonzero(targets == 4)
    images[sad[0]] = images[happy[0]] // 2
    images[happy[2]] = images[happy[1]][:, ::-1] // 2
    page, facts = audited(tmp_path / "mine", images, targets)
    assert facts["near_twins"]["groups"] == 2
    part = section(page, "near-duplicates")
    conflict, equal = re.findall(r"<figure.*?</figure>", part)
    assert part.index("Conflicting labels (1)") < part.index(conflict) < part.index("Equal labels (1)")
    assert "1 happy, 1 sad" in conflict
    assert "2 happy" in equal
    assert "mirrored" in equal
    assert conflict.count("<img") == equal.count("<img") == 2


def test_many_groups_of_near_duplicates_are_cut_short_and_said_so(tmp_path):
    images, targets = (column.copy() for column in draw_faces(140, seed=5))
    images[70:], targets[70:] = images[:70] // 2, (targets[:70] + 1) % 7
    page, facts = audited(tmp_path / "mine", images, targets)
    conflicting = facts["near_twins"]["conflicting_groups"]
    assert conflicting > 65
    part = section(page, "near-duplicates")
    assert f"Conflicting labels (the first 60 of {conflicting})" in part
    reasons = facts["advice"]["exclude"]["reasons"]  # of the 140 faces half are in train, of which val takes a tenth
    assert set(reasons) == {"near duplicate of another label", "near duplicate in val"}
    assert sum(reasons.values()) == 63
    assert "near duplicate of another label" in section(page, "advice")


def test_many_conflicts_are_cut_short_and_said_so(tmp_path):
    images, targets = draw_faces(140, seed=5)
    images, targets = images.copy(), targets.copy()
    images[70:] = images[:70]
    targets[70:] = (targets[:70] + 1) % 7
    page, facts = audited(tmp_path / "mine", images, targets, "--quick")
    assert facts["twins"]["conflicting_groups"] == 70
    duplicates = section(page, "duplicates")
    assert "Conflicting labels (the first 60 of 70)" in duplicates
    assert duplicates.count("<figure") == 60 + 24


def test_one_colour_faces_have_a_section_of_their_own(drawn, tmp_path):
    images, targets = drawn
    images[:4] = 0
    images[4] = 90
    page, facts = audited(tmp_path / "mine", images, targets, "--quick")
    assert facts["one_colour"]["faces"] == 5
    rows = re.findall(r"<tr><td[^>]*>(\d+)</td><td[^>]*>(\d+)</td>", section(page, "one-colour"))
    assert rows == [("0", "4"), ("90", "1")]
    assert "The largest groups" not in page


def test_what_is_not_there_is_left_out(drawn, tmp_path):
    page, _ = audited(tmp_path / "mine", *drawn, "--quick")
    assert re.findall(r'<section id="([\w-]+)">', page) == ["classes", "faces", "duplicates", "advice", "provenance"]
    assert "No two faces are the same, pixel for pixel." in section(page, "duplicates")


def test_skipped_files_are_listed(drawn, tmp_path):
    broken = tmp_path / "mine" / "train" / "sad" / "broken.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a picture")
    page, _ = audited(tmp_path / "mine", *drawn, "--quick", "--on-bad", "skip")
    assert "kipped: 1 bad row or file" in page.partition("<nav>")[0]
    assert "broken.png" in section(page, "provenance").partition("<details>")[2]

"""Trees of pictures: every layout that is met, the official split by file name, links that lead nowhere."""

import os
import re
import shlex
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fer.config.command import class_names
from fer.config.errors import FerError, with_options
from fer.config.hydra import value_of
from fer.config.schema import check
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.faces import UNKNOWN
from fer.data.labels import EMOTIONS
from fer.data.load import assigned_with_notes, read_faces
from fer.data.readers import image_folder, images
from fer.data.table import Table

USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")


def official_place(faces, row):
    """Place as the image copies of FER2013 do: two folders, the usage in the file's name."""
    folder = "train" if faces.official[row] == 0 else "test"
    return f"{folder}/{EMOTIONS[faces.targets[row]]}/{USAGE_NAMES[faces.official[row]]}_{row:05d}.png"


def split_place(*folders):
    return lambda faces, row: f"{folders[faces.official[row]]}/{EMOTIONS[faces.targets[row]]}/{row:05d}.png"


def in_order(paths):
    """Return rows in the order of the listing: by split folder, class folder, file name."""
    return sorted(range(len(paths)), key=lambda row: paths[row].parts)


def expected_of(drawn, part, paths, *, official, given):
    """Return what reading ``paths`` must give; ``official`` and ``given`` are functions of the drawn split."""
    ordered = part(drawn, in_order(paths))
    return replace(
        ordered,
        official=np.array([official(split) for split in ordered.official], np.int8),
        given=np.array([given(split) for split in ordered.official], np.int8),
        rows=np.arange(len(paths)),
    )


def unknown(_):
    return UNKNOWN


def same(split):
    return split


def test_official_split_is_recovered_from_file_names(tmp_path, plant, drawn, part, load, equal, monkeypatch):
    monkeypatch.setattr(image_folder, "OFFICIAL_SIZES", (56, 7, 7))
    paths = plant(tmp_path / "tree", drawn, official_place)
    faces = load(tmp_path / "tree")
    equal(faces, expected_of(drawn, part, paths, official=same, given=lambda split: 0 if split == 0 else 2))
    assert (faces.source.name, faces.source.layout, faces.source.notes) == ("fer2013", "image tree", ())


SPLIT_LAYOUTS = {
    "train, val, test": ("", ("train", "val", "test")),
    "Train, Valid, Test": ("", ("Train", "Valid", "Test")),
    "TRAINING, validation, testing": ("", ("TRAINING", "validation", "testing")),
    "Training, PublicTest, PrivateTest": ("", ("Training", "PublicTest", "PrivateTest")),
    "images": ("images", ("train", "validation", "test")),
    "images/images": ("images/images", ("train", "validation", "test")),
    "fer2013/images/images": ("fer2013/images/images", ("train", "validation", "test")),
    "one folder of any name": ("archive", ("train", "val", "test")),
}


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_split_folders_are_recognised_by_name(layout, tmp_path, plant, drawn, part, load, equal):
    inside, folders = SPLIT_LAYOUTS[layout]
    paths = plant(tmp_path / "tree" / inside, drawn, split_place(*folders))
    faces = load(tmp_path / "tree")
    equal(faces, expected_of(drawn, part, paths, official=unknown, given=same))
    assert any("read from" in note for note in faces.source.notes) == bool(inside)


def test_train_and_validation_alone_have_no_test(tmp_path, plant, drawn, part, load, equal):
    paths = plant(tmp_path / "images", drawn, split_place("train", "validation", "validation"))
    faces = load(tmp_path)
    equal(faces, expected_of(drawn, part, paths, official=unknown, given=lambda split: min(split, 1)))


def test_the_reshuffled_copy_is_noted(tmp_path, plant, drawn, load, monkeypatch):
    train = int((drawn.official == 0).sum())
    monkeypatch.setattr(image_folder, "RESHUFFLED", (train, 70 - train))
    plant(tmp_path / "images", drawn, split_place("train", "validation", "validation"))
    notes = load(tmp_path).source.notes
    assert any("not the official split: its train folder holds official test images" in note for note in notes)


def test_class_folders_alone_name_no_split(tmp_path, plant, drawn, part, load, equal, class_name):
    paths = plant(tmp_path / "ck", drawn, lambda faces, row: f"{class_name(faces, row)}/{row:03d}.png")
    faces = load(tmp_path / "ck")
    equal(faces, expected_of(drawn, part, paths, official=unknown, given=unknown))
    assert faces.source.name == "ck"


def test_names_of_some_files_alone_do_not_make_a_split_official(tmp_path, plant, drawn, load):
    paths = plant(tmp_path, drawn, official_place)
    paths[0].rename(paths[0].with_name("copy.png"))
    faces = load(tmp_path)
    assert (faces.official == UNKNOWN).sum() == 1
    assert faces.source.name == tmp_path.name


SYNONYMS = {
    "angry": ("Anger", "ANGRY", " angry"),
    "disgust": ("disgusted", "Disgust"),
    "fear": ("Fearful", "afraid", "scared"),
    "happy": ("Happiness", "joy"),
    "sad": ("Sadness", "SAD"),
    "surprise": ("surprised", "Surprise"),
    "neutral": ("Neutral", "neutrality"),
}


def test_class_folders_are_known_by_synonyms_in_any_case(tmp_path, load):
    """The class comes from the name, not from the order of sorted folders."""
    expected = {}
    for emotion, names in SYNONYMS.items():
        for name in names:
            level = 10 + len(expected)
            expected[level] = EMOTIONS.index(emotion)
            (tmp_path / name).mkdir()
            Image.new("L", (48, 48), level).save(tmp_path / name / "1.png")
    faces = load(tmp_path)
    assert dict(zip(faces.images[:, 0, 0].tolist(), faces.targets.tolist(), strict=True)) == expected


def test_other_sizes_are_brought_to_the_size_asked_for(tmp_path, load):
    for emotion, side in (("angry", 16), ("happy", 200), ("sad", 48)):
        (tmp_path / emotion).mkdir()
        Image.new("L", (side, side), side).save(tmp_path / emotion / "1.png")
    for size in (48, 64):
        faces = load(tmp_path, image_size=size)
        expected = np.broadcast_to(np.array([16, 200, 48])[:, None, None], (3, size, size))
        np.testing.assert_array_equal(faces.images, expected)


def test_files_that_are_no_pictures_are_ignored_and_noted(tmp_path, plant, drawn, part, load, equal):
    paths = plant(tmp_path, drawn, split_place("train", "val", "test"))
    (tmp_path / "train" / "happy" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / "happy" / "a folder.png").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    faces = load(tmp_path)
    equal(faces, expected_of(drawn, part, paths, official=unknown, given=same))
    assert faces.source.notes == ("2 ignored, neither pictures nor folders of pictures: Thumbs.db, a folder.png",)


def test_pictures_in_folders_inside_class_folders_are_counted(tmp_path, plant, drawn, load):
    plant(tmp_path, drawn, split_place("train", "val", "test"))
    for inner in ("more", "2020/p1"):
        folder = tmp_path / "train" / "happy" / inner
        folder.mkdir(parents=True)
        Image.new("L", (48, 48)).save(folder / "1.png")
    (note,) = load(tmp_path).source.notes
    assert note.startswith("2 pictures ignored, in folders inside class folders: train/happy/2020/p1, train/happy/more")


def test_hidden_files_are_no_pictures(tmp_path, plant, drawn, load):
    """macOS writes ``._1.png`` beside ``1.png`` on other file systems; it holds no picture."""
    paths = plant(tmp_path, drawn, split_place("train", "val", "test"))
    for path in paths[:3]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
        path.with_name(f".{path.name}").write_bytes(path.read_bytes())
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "happy"):
        (folder / ".#notes.txt").symlink_to("me@host.1234")  # Emacs's lock
    faces = load(tmp_path)
    assert (len(faces), faces.source.notes) == (70, ())


def test_a_data_set_in_a_folder_of_another_name_is_reported(tmp_path, plant, drawn, load):
    plant(tmp_path, drawn, split_place("train", "val", "test"))
    for place in ("more/train/happy", "plots/old/deep"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (48, 48)).save(tmp_path / place / "b.png")
    (note,) = load(tmp_path).source.notes  # pictures of no data set may lie anywhere beside it
    assert "other data sets there are not read: " in note
    assert note.count(str(tmp_path / "more")) == 1


def test_results_beside_the_class_folders_leave_the_cache_valid(tmp_path, plant, drawn, load):
    plant(tmp_path / "data", drawn, split_place("train", "val", "test"))
    for run in range(3):
        load(tmp_path / "data", cache=tmp_path / "cache")
        picture = tmp_path / "data" / "outputs" / "2026" / str(run) / "figures" / "roc.png"
        picture.parent.mkdir(parents=True)
        Image.new("L", (48, 48)).save(picture)
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.name != "index"]) == 1


@pytest.mark.parametrize("name", ["", "happy/"])
def test_the_cache_hides_no_link_that_leads_nowhere(name, tmp_path, plant, drawn, load):
    place, cache = tmp_path / "tree", tmp_path / "cache"
    plant(place, drawn, lambda faces, row: f"{EMOTIONS[faces.targets[row]]}/{row}.png")
    load(place, cache=cache)
    (place / f"{name}zz.png").symlink_to("/nowhere")
    for _ in range(2):
        with pytest.raises(FerError, match=r"zz.png: is a broken link"):
            load(place, cache=cache)
    (place / f"{name}zz.png").unlink()
    (place / f"{name}zz.png").symlink_to("zz.png")
    with pytest.raises(FerError, match=r"zz.png: is a broken link or a loop"):
        load(place, cache=cache)


def test_the_cache_hides_no_empty_folder(tmp_path, plant, drawn, load):
    place, cache = tmp_path / "tree", tmp_path / "cache"
    plant(place, drawn, lambda faces, row: f"{EMOTIONS[faces.targets[row]]}/{row}.png")
    assert load(place, cache=cache).source.notes == ()
    (place / "happy" / "empty").mkdir()
    (note,) = load(place, cache=cache).source.notes
    assert note.startswith("1 ignored, neither pictures nor folders of pictures: empty")


@pytest.mark.parametrize("name", ["joyful/1.png", "happy/inner/1.png", "1.png", "happy/notes.txt"])
def test_the_cache_hides_nothing_that_is_reported(name, tmp_path, plant, drawn, load):
    place, cache = tmp_path / "tree", tmp_path / "cache"
    plant(place, drawn, lambda faces, row: f"{EMOTIONS[faces.targets[row]]}/{row}.png")
    before = load(place, on_bad="skip", cache=cache).source
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48)).save(place / name, "PNG")
    fresh, cached = (load(place, on_bad="skip", cache=folder).source for folder in (None, cache))
    assert (cached.notes, cached.skipped) == (fresh.notes, fresh.skipped) != (before.notes, before.skipped)


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, plant, drawn):
    """A tree with train, val and test."""
    plant(tmp_path / "tree", drawn, split_place("train", "val", "test"))
    return tmp_path / "tree"


def _named_and_skipped(path, tree, load, problem):
    with pytest.raises(FerError, match=problem) as caught:
        load(tree)
    assert str(caught.value).startswith(f"{path}: ")
    faces = load(tree, on_bad="skip")
    assert len(faces) == 70
    assert len(faces.source.skipped) == 1
    assert faces.source.skipped[0].startswith(f"{path}: ")


def test_pictures_in_a_folder_of_unknown_name_are_named_and_counted(tree, load):
    folder = tree / "train" / "furious"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        Image.new("L", (48, 48)).save(folder / name)
    with pytest.raises(FerError, match=r"furious/1.png: .* no emotion's folder; .*data.class_names=\{furious:happy\}"):
        load(tree)
    faces = load(tree, on_bad="skip")
    assert (len(faces), len(faces.source.skipped)) == (70, 2)


def test_folders_of_unknown_name_within_a_split_are_searched_to_the_end(tree, load):
    deep = tree / "train" / "boredom" / "a" / "b"
    deep.mkdir(parents=True)
    shutil.copy(next(tree.rglob("*.png")), deep / "1.png")
    with pytest.raises(FerError, match=r"boredom.*a.b.1\.png.*data\.class_names"):
        load(tree)
    assert len(load(tree, on_bad="skip").source.skipped) == 1
    (deep / "1.png").rename(deep / "1.heic")
    assert any("boredom" in note and note.startswith("1 ignored") for note in load(tree).source.notes)


def test_the_name_of_a_split_that_is_unknown_is_the_one_to_change(tree, load):
    (tree / "val").rename(tree / "dev")
    with pytest.raises(FerError, match=r"dev/\w+/\d+.png: .* 'dev', no split's folder; expected train, val or test"):
        load(tree)
    (tree / "dev").rename(tree / "train" / "extra")
    with pytest.raises(FerError, match=r"within train/extra; move the class folders up into train"):
        load(tree)


def test_faces_outside_the_splits_folders_are_counted(tree):
    (tree / "happy").mkdir()
    Image.new("L", (48, 48)).save(tree / "happy" / "1.png")
    data = DataSettings(path=str(tree), cache=None, split="as_given")
    splits, notes = assigned_with_notes(read_faces(data), data)
    assert (int((splits == UNKNOWN).sum()), notes) == (
        1,
        ["1 face left out: outside the folders or files of the splits"],
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_folders_with_accents_are_known_as_they_are_typed(form, tmp_path, load):
    folder = tmp_path / unicodedata.normalize(form, "fröhlich")
    folder.mkdir()
    Image.new("L", (48, 48)).save(folder / "1.png")
    faces = read_tree(tmp_path, class_names={unicodedata.normalize("NFC", "fröhlich"): "happy"})
    assert faces.targets.tolist() == [EMOTIONS.index("happy")]


# --- folders of strangers -------------------------------------------------------------------------------------------


def read_tree(path, **settings):
    return read_faces(DataSettings(path=str(path), cache=None, **settings))


@pytest.mark.parametrize("addition", [".jpg001", "_flipped", "-2", " - Copy"])
def test_an_official_name_with_an_addition_has_no_official_split(addition, tmp_path, plant, drawn, load, monkeypatch):
    monkeypatch.setattr(image_folder, "OFFICIAL_SIZES", (56, 7, 7))
    path = plant(tmp_path / "mine", drawn, official_place)[0]
    Image.new("L", (48, 48), 9).save(path.with_name(f"{path.stem}{addition}.png"))
    Image.new("L", (48, 48), 9).save(path.with_name(f"{path.stem} (1).png"))
    faces = load(tmp_path / "mine")
    assert (faces.source.name, int((faces.official == UNKNOWN).sum())) == ("mine", 1)
    assert "1 file with an addition to an official name" in faces.source.notes[0]


def test_a_part_of_fer2013_keeps_its_own_name(tmp_path, plant, drawn, load):
    plant(tmp_path / "part", drawn, official_place)
    assert load(tmp_path / "part").source.name == "part"


def test_numbers_before_a_class_are_ignored(tmp_path, plant, drawn, part, load, equal, class_name):
    paths = plant(tmp_path / "ck", drawn, lambda f, row: f"{f.targets[row]}_{class_name(f, row)}/{row:03d}.png")
    equal(load(tmp_path / "ck"), expected_of(drawn, part, paths, official=unknown, given=unknown))


@pytest.mark.parametrize("cached", [False, True])
def test_contempt_is_an_eighth_class_that_seven_leave_out(cached, tmp_path, plant, drawn, class_name):
    cache = str(tmp_path / "cache") if cached else None
    plant(tmp_path / "tree", drawn, lambda faces, row: f"{class_name(faces, row)}/{row:03d}.png")
    (tmp_path / "tree" / "Contempt").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("L", (48, 48), 9).save(tmp_path / "tree" / "Contempt" / name)
    for _ in range(2):  # the second time from the cache
        seven, eight = (
            read_faces(DataSettings(path=str(tmp_path / "tree"), classes=count, cache=cache)) for count in (7, 8)
        )
    assert (len(seven), seven.classes) == (70, EMOTIONS)
    assert any(note.startswith("2 images of contempt left out; data.classes=8") for note in seven.source.notes)
    assert (len(eight), eight.classes[7], int((eight.targets == 7).sum())) == (72, "contempt", 2)


def test_a_training_of_eight_classes_needs_contempt(tree):
    assert read_tree(tree, classes=8).classes == EMOTIONS  # an evaluation of such a network takes these
    (tree / "contempt").mkdir()  # of no picture
    with pytest.raises(FerError, match="data.classes=8: .* labels no face as contempt"):
        FERDataModule(DataSettings(path=str(tree), classes=8, split="holdout", cache=None)).setup()


def test_numbered_folders_mean_what_class_names_says(tmp_path, plant, drawn):
    plant(tmp_path / "raf", drawn, lambda faces, row: f"train/{(faces.targets[row] + 3) % 7 + 1}/{row:03d}.png")
    with pytest.raises(FerError, match=r"holds the folders 1, 2, .*data.class_names=\{1:EMOTION"):
        read_tree(tmp_path / "raf")
    names = {str((label + 3) % 7 + 1): name for label, name in enumerate(EMOTIONS)}
    faces = read_tree(tmp_path / "raf", class_names=names)
    assert np.bincount(faces.targets).tolist() == [10] * 7
    rows = [int(path.stem) for path in image_folder.Named(names).files(tmp_path / "raf")]
    np.testing.assert_array_equal(faces.targets, drawn.targets[rows])
    with pytest.raises(FerError, match=r"data.class_names=\{1:bored\}'?: 'bored' is no emotion"):
        read_tree(tmp_path / "raf", class_names={"1": "bored"})


@pytest.mark.parametrize(
    "folder", ["fröhlich", "x,y", "a=b", "it's", "[hap]", "null", "1e5", "007", "Happy :)", "a: b", "12", "Glad face"]
)
def test_the_remedy_for_a_folder_of_any_name_works(folder, tree):
    """As a user pastes it into a shell, and Hydra reads it."""
    (tree / "train" / "happy").rename(tree / "train" / folder)
    with pytest.raises(FerError) as caught:
        read_tree(tree)
    (remedy,) = shlex.split(re.search(r"or (\S.*) where it means happy", str(caught.value))[1])
    assert remedy.startswith("data.class_names=")
    names = check(DataSettings, {"class_names": value_of(remedy)}, "data")
    assert np.bincount(read_tree(tree, **names).targets).tolist() == [10] * 7
    with with_options({"data.class_names": "--class-names"}), pytest.raises(FerError) as caught:
        read_tree(tree)
    option, text = shlex.split(re.search(r"or (\S.*) where it means happy", str(caught.value))[1])
    assert option == "--class-names"
    assert np.bincount(read_tree(tree, class_names=class_names(text)).targets).tolist() == [10] * 7


def test_the_remedy_for_a_further_data_set_is_its_own(tree, table):
    (tree / "train" / "happy").rename(tree / "train" / "froh")
    with pytest.raises(FerError) as caught:
        _ = Table(DataSettings(path=str(table), cache=None, more=[str(tree)])).faces
    (remedy,) = shlex.split(re.search(r"or (\S.*) where it means happy", str(caught.value))[1])
    more = check(DataSettings, {"more": value_of(remedy)}, "data")
    assert more["more"] == [{"path": str(tree), "class_names": {"froh": "happy"}}]
    assert len(Table(DataSettings(path=str(table), cache=None, **more)).sets.each) == 2


def test_the_remedy_for_a_further_data_set_keeps_what_is_there(tree, table, tmp_path):
    shutil.copytree(tree, tmp_path / "other")
    for name in ("happy", "sad"):
        (tree / "train" / name).rename(tree / "train" / f"{name}_ones")
    given = [str(tmp_path / "other"), {"path": str(tree), "split": "holdout", "class_names": {"happy_ones": "happy"}}]
    with pytest.raises(FerError) as caught:
        _ = Table(DataSettings(path=str(table), cache=None, more=given)).faces
    (remedy,) = shlex.split(re.search(r"or (\S.*) where it means happy", str(caught.value))[1])
    names = {"happy_ones": "happy", "sad_ones": "happy"}
    assert value_of(remedy) == [given[0], {"path": str(tree), "split": "holdout", "class_names": names}]


def test_a_name_that_no_folder_has_is_noted(tree):
    notes = read_tree(tree, class_names={"hapy": "happy", "sad": "sad"}).source.notes
    assert "no class folder is named hapy, as data.class_names says" in notes
    with with_options({"data.class_names": "--class-names"}):
        notes = read_tree(tree, class_names={"hapy": "happy", "sad": "sad"}).source.notes
    assert "no class folder is named hapy, as --class-names says" in notes


def test_a_list_of_names_has_pairs(tree):
    with pytest.raises(FerError, match="class_names=.*expected FOLDER:EMOTION"):
        read_tree(tree, class_names=["happy"])


def test_names_for_a_table_that_states_its_own_numbers_are_refused(table):
    assert len(read_tree(table)) == 70
    with pytest.raises(FerError, match=r"class_names=\{0:surprise\}.*numbers as in FER2013: 0 angry, .*; leave it out"):
        read_tree(table, class_names={"0": "surprise"})


def test_pictures_that_may_be_photographs_are_counted(tree, load):
    for number, side in enumerate(((400, 400), (640, 480), (640, 399))):
        Image.new("L", side, 100).save(tree / "train" / "sad" / f"large{number}.png")
    [noted] = [note for note in load(tree).source.notes if images.PHOTOGRAPHS in note]
    assert noted.startswith("2 of 73 pictures")
    assert "cut out the faces first" in noted


def test_a_pointer_of_git_lfs_is_named_with_its_remedy(tree, load):
    picture = tree / "train" / "sad" / "zz.png"
    picture.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _named_and_skipped(picture, tree, load, "git lfs pull")


@pytest.mark.parametrize("name", ["train/happy/link.png", "train/disgusted", "val"])
@pytest.mark.parametrize("kind", ["broken", "loop"])
def test_broken_links_are_named(name, kind, tree, load):
    link = tree / name
    if link.exists():  # the whole split moved away, a link left behind
        link = tree / "validation"
    link.symlink_to(link if kind == "loop" else tree / "gone")
    _named_and_skipped(link, tree, load, "is a broken link or a loop of links")


def test_a_folder_linked_into_itself_does_not_trap_the_walk(tree, load):
    (tree / "train" / "happy" / "again").symlink_to(tree / "train")
    (tree / "train" / "up").symlink_to(tree)
    assert len(load(tree)) == 70


def test_links_to_pictures_are_read(tree, tmp_path, load):
    Image.new("L", (48, 48), 77).save(tmp_path / "far.png")
    os.symlink(tmp_path / "far.png", tree / "train" / "sad" / "zz.png")
    faces = load(tree)
    assert len(faces) == 71
    assert faces.targets[(faces.images == 77).all((1, 2))].tolist() == [EMOTIONS.index("sad")]


@pytest.mark.parametrize("cached", [False, True])
def test_class_folders_without_pictures_are_refused(cached, tmp_path, load):
    for emotion in EMOTIONS:
        (tmp_path / "tree" / "train" / emotion).mkdir(parents=True)
    with pytest.raises(FerError, match="holds no pictures in its class folders"):
        load(tmp_path / "tree", cache=tmp_path / "cache" if cached else None)

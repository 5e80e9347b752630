"""Other data sets, drawn in their own layouts: labels by word, people, boxes, and what is left out."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS
from fer.data.load import read_faces, read_path
from fer.data.readers import expw


@pytest.fixture
def face(drawn):
    """Return a function that saves a drawn face, with its number in a corner, at a path and returns its pixels."""
    made = iter(range(70))

    def save(path, size=(48, 48)):
        image = Image.fromarray(drawn.images[next(made)]).resize(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"format": "PNG"} if path.suffix == ".jpg" else {}))  # the contents decide, not the name
        return np.asarray(image)

    return save


def names(faces):
    return [faces.classes[target] for target in faces.targets]


def notes(faces):
    return "\n".join(faces.source.notes)


def written(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_rafdb_has_its_own_digits(face, load, tmp_path, equal):
    """The table's layout and the copy with class folders give the same faces."""
    lines = [f"train_0000{digit}.jpg {digit}" for digit in range(1, 8)] + ["test_0001.jpg 4"]
    written(tmp_path / "raf" / "basic" / "EmoLabel" / "list_patition_label.txt", *lines)
    pixels = []
    for line in lines:
        name, digit = line.replace(".jpg", "").split()
        pixels.append(face(tmp_path / "raf" / "basic" / "Image" / "aligned" / f"{name}_aligned.jpg"))
        copy = tmp_path / "copy" / "DATASET" / name.split("_")[0] / digit / f"{name}_aligned.jpg"
        copy.parent.mkdir(parents=True)
        Image.fromarray(pixels[-1]).save(copy, "PNG")
    faces = load(tmp_path / "raf")
    expected = ["surprise", "fear", "disgust", "happy", "sad", "angry", "neutral", "happy"]
    assert names(faces) == expected
    np.testing.assert_array_equal(faces.images, np.stack(pixels))
    assert faces.given.tolist() == [0] * 7 + [2]
    assert "published: 15,339" in notes(faces)
    copy = load(tmp_path / "copy")
    assert sorted(names(copy)) == sorted(expected)
    assert copy.source.name == faces.source.name == "rafdb"


def test_a_folder_of_several_digits_is_none_of_rafdbs(face, load, tmp_path):
    for digits in ("1", "12"):
        face(tmp_path / "set" / "train" / digits / "train_00001_aligned.jpg")
    with pytest.raises(FerError, match=re.escape("data.class_names")):
        load(tmp_path / "set")


def test_a_table_that_is_no_utf8_is_one_line(expw_folder, load, face, tmp_path):
    table = expw_folder / "label.lst"
    table.write_bytes(table.read_bytes() + b"\n\xff\xfe.jpg 0 0 0 48 48 99 3\n")
    with pytest.raises(FerError, match=r"label.lst: is no text in UTF-8"):
        load(expw_folder)
    face(tmp_path / "ck" / "cohn-kanade-images" / "S005" / "001" / "S005_001_00000001.png")
    label = tmp_path / "ck" / "Emotion" / "S005" / "001" / "S005_001_00000001_emotion.txt"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"\xff\xfe")
    with pytest.raises(FerError, match="expected an emotion's number"):
        load(tmp_path / "ck")


def test_rows_are_those_of_the_table_whatever_is_bad(expw_folder, load):
    table = expw_folder / "label.lst"
    table.write_text("a.jpg 0 no box\n\n" + table.read_text())
    faces = load(expw_folder, on_bad="skip")
    assert faces.rows.tolist() == [1, 2, 3]


def test_digits_of_other_folders_are_never_guessed(face, load, tmp_path):
    for digit in range(1, 8):
        face(tmp_path / "set" / "train" / str(digit) / "a.png")
    with pytest.raises(FerError, match=re.escape("data.class_names")):
        load(tmp_path / "set")


def test_ckplus_takes_first_and_last_frames_of_each_person(face, load, tmp_path):
    root = tmp_path / "ck"
    for person, code in (("S005", "3.0000000e+00"), ("S010", "2.0000000e+00"), ("S011", None)):
        for frame in range(1, 7):
            face(root / "cohn-kanade-images" / person / "001" / f"{person}_001_0000000{frame}.png", (64, 48))
        if code:
            written(root / "Emotion" / person / "001" / f"{person}_001_00000006_emotion.txt", f"   {code}")
    faces = load(root)
    assert names(faces) == ["neutral", *["disgust"] * 3, "neutral", *["contempt"] * 3]
    assert faces.group.tolist() == [0] * 4 + [1] * 4
    assert "1 sequence without a label left out" in notes(faces)
    assert "8 pictures not square: the middle square" in notes(faces)
    seven = read_faces(DataSettings(path=str(root), cache=str(tmp_path / "cache")))
    again = read_faces(DataSettings(path=str(root), cache=str(tmp_path / "cache")))  # from the cache
    assert names(seven) == ["neutral", *["disgust"] * 3, "neutral"]
    assert again.group.tolist() == seven.group.tolist() == [0] * 4 + [1]
    (root / "Emotion" / "S005" / "001" / "S005_001_00000006_emotion.txt").write_text("9\n")
    with pytest.raises(FerError, match=r"S005_001_00000006_emotion.txt: holds '9'"):
        load(root)


def test_class_folders_of_ckplus_know_the_people(face, load, tmp_path):
    for person, emotion in (("S005", "anger"), ("S005", "happy"), ("S010", "contempt")):
        face(tmp_path / "CK+48" / emotion / f"{person}_001_00000011.png")
    faces = load(tmp_path / "CK+48")
    assert sorted(zip(names(faces), faces.group.tolist(), strict=True)) == [("angry", 0), ("contempt", 1), ("happy", 0)]


def test_names_of_class_folders_leave_the_people_of_ckplus_known(face, load, tmp_path):
    for person, folder in (("S005", "anger"), ("S005", "pain"), ("S010", "pain"), ("S010", "happy")):
        face(tmp_path / "CK+48" / folder / f"{person}_001_00000011.png")
    given = {"path": str(tmp_path / "CK+48"), "cache": str(tmp_path / "cache")}
    for _ in range(2):  # the second time from the cache
        faces = read_faces(DataSettings(**given, class_names={"Pain": "fear", "rage": "angry"}))
        found = sorted(zip(names(faces), faces.group.tolist(), strict=True))
        assert found == [("angry", 0), ("fear", 0), ("fear", 1), ("happy", 1)]
        assert "no class folder is named rage" in notes(faces)
    assert len(read_faces(DataSettings(**given))) == 2


def test_names_for_the_digits_of_rafdb_replace_their_meaning_everywhere(face, load, tmp_path):
    for digit in ("1", "2"):
        face(tmp_path / "raf" / "train" / digit / f"train_0000{digit}_aligned.jpg")
    assert "digits are RAF-DB's" in notes(load(tmp_path / "raf"))
    faces = read_faces(DataSettings(path=str(tmp_path / "raf"), class_names={"1": "happy", "2": "sad"}))
    assert names(faces) == ["happy", "sad"]
    assert (faces.source.labels, "RAF-DB" in notes(faces)) == ("folder names", False)


def test_names_are_refused_where_a_data_set_has_no_class_folders(face, tmp_path):
    face(tmp_path / "KDEF" / "AF01" / "AF01ANS.JPG")
    with pytest.raises(FerError, match=r"data.class_names=\{af02:happy\}.* leave it out"):
        read_faces(DataSettings(path=str(tmp_path / "KDEF"), class_names={"AF02": "happy"}))


def test_jaffe_and_kdef_are_known_by_their_file_names(face, load, tmp_path):
    codes = {
        "AN": "angry",
        "DI": "disgust",
        "FE": "fear",
        "HA": "happy",
        "NE": "neutral",
        "SA": "sad",
        "SU": "surprise",
    }
    for number, code in enumerate(codes):
        face(tmp_path / "jaffe" / f"K{'AM'[number % 2]}.{code}1.{number}.tiff")
    face(tmp_path / "jaffe" / "more.png")
    faces = load(tmp_path / "jaffe")
    assert sorted(names(faces)) == sorted(codes.values())
    assert len(set(faces.group)) == 2
    assert "1 picture with other names" in notes(faces)
    assert "published: 213" in notes(faces)
    for name in ("AF01/AF01ANS", "BF01/BF01AFS", "AM02/AM02HAS", "AM02/AM02HAHL"):
        face(tmp_path / "kdef" / f"{name}.JPG".replace("JPG", "png"), (40, 60))
    faces = load(tmp_path / "kdef")
    assert sorted(zip(names(faces), faces.group.tolist(), strict=True)) == [("angry", 0), ("fear", 0), ("happy", 1)]
    assert "1 half left" in notes(faces)


def test_affectnet_of_2017_is_cut_out_by_its_boxes(drawn, load, tmp_path):
    scene = np.zeros((100, 120), np.uint8)
    scene[20:68, 30:78] = drawn.images[0]
    (tmp_path / "a" / "Manually_Annotated_Images" / "1").mkdir(parents=True)
    Image.fromarray(scene).save(tmp_path / "a" / "Manually_Annotated_Images" / "1" / "x.png")
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    rows = [f"1/x.png,30,20,48,48,1;2,{number},0,0" for number in range(8)] + ["1/x.png,,,,,,10,-2,-2"]
    rows = [row if number != 8 else "1/x.png,1,1,1,1,1;2,9,0,0" for number, row in enumerate(rows)]
    written(tmp_path / "a" / "validation.csv", head, *rows)
    faces = load(tmp_path / "a")
    assert names(faces) == ["neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"]
    np.testing.assert_array_equal(faces.images[3], drawn.images[0])
    assert faces.given.tolist() == [1] * 8
    assert "1 'uncertain'" in notes(faces)
    written(tmp_path / "a" / "validation.csv", head, *rows, '"broken', "1/x.png,900,20,48,48,1;2,3,0,0")
    faces = load(tmp_path / "a", on_bad="skip")
    assert len(faces) == 8
    assert ["line 11" in faces.source.skipped[0], "lie in the picture" in faces.source.skipped[1]] == [True, True]


def test_affectnet_of_2021_has_numbers_or_texts_of_numbers(face, load, tmp_path):
    for number, (part, value) in enumerate((("train_set", "0"), ("train_set", 6), ("val_set", "7"), ("val_set", "8"))):
        face(tmp_path / "a" / part / "images" / f"{number}.jpg")
        (tmp_path / "a" / part / "annotations").mkdir(exist_ok=True)
        np.save(tmp_path / "a" / part / "annotations" / f"{number}_exp.npy", np.array(value))
    faces = load(tmp_path / "a")
    assert list(zip(names(faces), faces.given.tolist(), strict=True)) == [("neutral", 0), ("angry", 0), ("contempt", 1)]
    assert "1 'none'" in notes(faces)


def test_faces_of_one_expw_picture_are_a_group(drawn, load, expw_folder):
    faces = load(expw_folder)
    assert names(faces) == ["angry", "neutral", "happy"]
    np.testing.assert_array_equal(faces.images, drawn.images[[0, 1, 1]])
    assert faces.group.tolist() == [0, 0, 1]
    assert expw.box_of(["5", "3", "nan", "53"]) is None


# --- parquet --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(drawn, tmp_path):
    """Return a function that writes parquet files, their classes named by the schema or not, and returns the folder."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    def write(words, files=("train-00000-of-00001", "test-00000-of-00001"), order=EMOTIONS):
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": words}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if words else None
        folder = tmp_path / "hub" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for part, name in enumerate(files):
            rows = range(part * 10, part * 10 + 10)
            images = [{"bytes": png(drawn.images[row]), "path": f"{row}.png"} for row in rows]
            labels = [order.index(EMOTIONS[drawn.targets[row]]) for row in rows]
            table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
            pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.parquet")
        return tmp_path / "hub"

    return write


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_parquet_takes_class_names_from_the_schema(hub, load, drawn):
    alphabetical = tuple(sorted(EMOTIONS))
    faces = load(hub(list(alphabetical), order=alphabetical))
    in_order = np.r_[10:20, 0:10]  # test comes first by its name
    np.testing.assert_array_equal(faces.images, drawn.images[in_order])
    np.testing.assert_array_equal(faces.targets, drawn.targets[in_order])
    assert faces.given.tolist() == [2] * 10 + [0] * 10
    assert "4 neutral" in notes(faces)


@pytest.mark.parametrize("bad", [None, b"no picture"])
def test_rows_of_parquet_are_counted_over_the_files_whatever_is_bad(bad, tmp_path, load, drawn):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for name, first in (("a", bad), ("b", png(drawn.images[0]))):
        images = [first, *(png(drawn.images[row]) for row in (1, 2))]
        table = pa.table({"image": pa.array(images, pa.binary()), "label": ["happy", "sad", "fear"]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert load(tmp_path, on_bad="skip").rows.tolist() == [1, 2, 3, 4, 5]


def test_parquet_without_class_names_is_refused_unless_they_are_given(hub, load, drawn):
    folder = hub(None, files=("all",))
    with pytest.raises(FerError, match="do(es)? not name.*data.class_names"):
        load(folder)
    given = {str(number): name for number, name in enumerate(EMOTIONS)}
    faces = read_path(folder, image_size=48, on_bad="error", cache=None, names=given)
    np.testing.assert_array_equal(faces.targets, drawn.targets[:10])


def test_names_are_taken_for_words_of_parquet_too(tmp_path, drawn):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    images = [png(drawn.images[row]) for row in range(3)]
    pq.write_table(pa.table({"image": images, "label": ["Joyful", "0", "sad"]}), tmp_path / "train.parquet")
    given = {"joyful": "happy", "0": "angry", "other": "fear"}
    faces = read_path(tmp_path, image_size=48, on_bad="error", cache=None, names=given)
    assert names(faces) == ["happy", "angry", "sad"]
    assert "joyful means happy" in notes(faces)
    assert "other, as data.class_names says" in notes(faces)


def test_names_are_taken_for_the_words_of_a_schema_too(hub, drawn):
    words = ["Wut" if name == "angry" else name for name in EMOTIONS]
    faces = read_path(hub(words), image_size=48, on_bad="error", cache=None, names={"wut": "angry", "5": "fear"})
    expected = ["fear" if EMOTIONS[drawn.targets[row]] == EMOTIONS[5] else EMOTIONS[drawn.targets[row]]
                for row in (*range(10, 20), *range(10))]  # fmt: skip
    assert names(faces) == expected
    assert "no label is" not in notes(faces)


def test_the_path_of_parquet_files_is_the_one_that_was_given(hub, load, tmp_path):
    folder = hub(list(EMOTIONS), files=("train",)) / "data"
    for path in (folder, folder / "train.parquet"):
        source = load(path, cache=tmp_path / "cache").source
        assert (source.path, source.name) == (str(path), path.stem)


def test_pictures_added_later_are_noted_in_spite_of_the_cache(face, load, tmp_path):
    for number in range(3):
        face(tmp_path / "jaffe" / f"KA.AN{number}.{number}.png")
    assert "other names" not in notes(load(tmp_path / "jaffe", cache=tmp_path / "cache"))
    face(tmp_path / "jaffe" / "other.png")
    assert "1 picture with other names" in notes(load(tmp_path / "jaffe", cache=tmp_path / "cache"))


def test_pictures_that_no_table_names_are_counted(face, load, tmp_path):
    written(tmp_path / "raf" / "EmoLabel" / "list_patition_label.txt", "train_00001.jpg 4")
    for number in (1, 2, 3):
        face(tmp_path / "raf" / "Image" / "aligned" / f"train_0000{number}_aligned.jpg")
    assert "2 pictures of aligned ignored, not in list_patition_label.txt" in notes(load(tmp_path / "raf"))
    folder = tmp_path / "affect" / "train_set"
    for number in (0, 1):
        face(folder / "images" / f"{number}.jpg")
    (folder / "annotations").mkdir()
    np.save(folder / "annotations" / "0_exp.npy", np.array(3))
    assert "1 picture of images ignored, not in train_set/annotations: 1.jpg" in notes(load(tmp_path / "affect"))


def test_parquet_damaged_or_without_pyarrow_is_one_line(hub, load, monkeypatch):
    folder = hub(list(FERPLUS_EMOTIONS), files=("train",))
    file = folder / "data" / "train.parquet"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(FerError, match=r"train.parquet: damaged"):
        load(folder)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.lib", None)
    with pytest.raises(FerError, match=r"pip install 'fer-lightning\[large\]'"):
        load(folder)

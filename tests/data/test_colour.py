"""``data.channels=3``: faces that keep their colours, from the picture file to the prediction."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image

import fer
from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.crop import Box
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import digests
from fer.data.labels import EMOTIONS
from fer.data.load import read_faces, read_path
from fer.data.readers.picture_set import Listing, PictureSet, Sample
from fer.data.samples import augmented_samples, first_batch, luma
from fer.inference.video import watch
from fer.models import create
from fer.serving.answers import answer
from fer.serving.limits import Limits
from fer.serving.upload import Upload

SIDE = 24
LUMA = 110  # of every pixel, so that grey faces differ in their noise alone


def coloured(number, rng):
    """Return a picture (S, S, 3) of one luma with a red stripe, whose position gives the class."""
    reds = 90 + rng.integers(-3, 4, (SIDE, SIDE))
    reds[3 * number : 3 * number + 3] += 60
    greens = np.full_like(reds, 100)
    blues = np.clip((LUMA - 0.299 * reds - 0.587 * greens) / 0.114, 0, 255)
    return np.stack([reds, greens, blues], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return class folders of train and val, as PNG."""
    root, rng = tmp_path_factory.mktemp("colour") / "faces", np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 3), ("test", 1)):
        for number, emotion in enumerate(EMOTIONS):
            folder = root / split / emotion
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(coloured(number, rng)).save(folder / f"{index}.png")
    return root


def settings(path, **keys):
    return DataSettings(path=str(path), split="as_given", image_size=SIDE, cache=None, **{"channels": 3, **keys})


def test_colours_are_kept_beside_the_same_grey(pictures):
    grey, colour = read_faces(settings(pictures, channels=1)), read_faces(settings(pictures))
    assert grey.colour is None
    assert (grey.images == colour.images).all()
    first = Image.open(pictures / "test" / EMOTIONS[0] / "0.png")
    row = int(np.flatnonzero(colour.given == 2)[0])
    assert (colour.colour[row] == np.asarray(first).transpose(2, 0, 1)).all()
    assert grey.fingerprint() != colour.fingerprint()
    fewer = colour.taken(np.array([1, 3]))
    assert (fewer.colour == colour.colour[[1, 3]]).all()


def test_colours_are_cached_and_resized(pictures, tmp_path):
    keys = {"image_size": 16, "on_bad": "error", "cache": tmp_path / "cache"}
    first, again = (read_path(pictures, channels=3, **keys) for _ in range(2))
    assert first.colour.shape == (112, 3, 16, 16)
    assert isinstance(again.colour, np.memmap)
    assert (again.colour == first.colour).all()
    assert read_path(pictures, **keys).colour is None  # another entry


def test_a_box_is_cut_out_of_each_colour(pictures, monkeypatch):
    file = pictures / "test" / EMOTIONS[0] / "0.png"
    sample = Sample(file, "happy", 0, box=Box(2, 2, 12, 12))
    reader = PictureSet("drawn", "drawn", lambda path: True, lambda path: Listing([sample]))
    faces = reader.read(pictures, image_size=12, channels=3)
    pixels = np.asarray(Image.open(file))[2:14, 2:14]
    assert (faces.colour[0] == pixels.transpose(2, 0, 1)).all()
    assert (faces.images == reader.read(pictures, image_size=12).images).all()


def test_batches_and_pictures_of_them(pictures):
    data = FERDataModule(settings(pictures, batch_size=16))
    data.setup("fit")
    dataset = data.datasets["train"]
    assert dataset[0].images.shape == (1, 3, SIDE, SIDE)
    assert set(digests(dataset.grey)) == data.hashes("train")
    assert first_batch(data).shape == (16, SIDE, SIDE)
    assert augmented_samples(data, 2, 3)[1].shape == (2, 3, SIDE, SIDE)
    shuffled = dataset.shuffled()
    assert np.abs(luma(shuffled.images.float()).numpy() - shuffled.grey).max() <= 1  # colours and grey stay together
    assert (data.split("train").pixels(np.array([5, 2])) == dataset.images.numpy()[[5, 2]]).all()


def test_sources_without_colours_are_refused(tmp_path):
    table = tmp_path / "fer2013.csv"
    table.write_text(f"emotion,pixels,Usage\n0,{' '.join(['7'] * 48**2)},Training\n")
    with pytest.raises(FerError, match=r"data.channels=3: .*fer2013.csv is read by csv, which serves grey faces alone"):
        read_faces(DataSettings(path=str(table), channels=3, cache=None))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cnn", {"channels": [4]}), ("convnext", {"channels": [8], "depths": [2]}), ("mini_xception", {"stem": 4}),
        ("efficientnet", {"channels": [8, 8], "depths": [1, 1], "last": 8}), ("preact_resnet", {"width": 4}),
        ("residual_masking", {"width": 4, "depths": [1], "levels": [1]}), ("resnet9", {"width": 4}),
        ("resnet18", {"width": 4}), ("vgg19", {"channels": [4], "depths": [1]}), ("vgg_fer", {"channels": [4]}),
    ],
)  # fmt: skip
def test_networks_take_three_channels(name, keys):
    model = create({"name": name, **keys}, image_size=32, in_channels=3).eval()
    faces = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    assert model.probabilities(faces).shape == (2, 7)
    with pytest.raises(FerError, match=r"expected a tensor \(B, 3, 32, 32\), red, green and blue"):
        model.probabilities(faces[:, :1])


def test_pretrained_networks_of_timm_take_colour_as_it_is(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet").eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    section = {"name": "timm", "network": "test_resnet", "weights": str(tmp_path / "theirs.pth")}
    model = create(section, image_size=32, in_channels=3)
    model.load_pretrained()
    faces = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs.forward_features((faces - 0.5) / 0.5)
        features = model.eval().net[1].forward_features(model._normalised(faces))
    torch.testing.assert_close(features, expected)


@pytest.mark.slow
def test_a_network_learns_from_colours_and_predicts_pictures(train, pictures, tmp_path, capfd):
    keys = (*SMALL[3:7], "augment=flip", f"data.path={pictures}", "data.split=as_given", f"data.image_size={SIDE}")
    keys = (*keys, "logger=none", "trainer.max_epochs=4", "optimizer.lr=0.01")
    for name, channels in (("colour", 3), ("grey", 1)):
        ended = train(*keys, f"data.channels={channels}", f"hydra.run.dir={name}")
        assert ended.code == 0, ended.err
    refused = train(*keys, "data.channels=3", "init_from=grey", "hydra.run.dir=other")
    assert (refused.code, "set data.channels=1" in refused.line) == (1, True)
    assert "model." not in refused.line.partition("; set")[2]
    assert metrics(Path("colour"))["accuracy"] > 0.7
    assert metrics(Path("grey"))["accuracy"] < 0.4  # all have the same luma
    model = fer.load("colour")
    assert model.in_channels == 3
    files = [pictures / "val" / emotion / f"{index}.png" for emotion in EMOTIONS for index in range(3)]
    expected = model.probabilities(
        torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2).copy())
    )
    boxes = [[Box(0, 0, SIDE, SIDE)] for _ in files]
    faces = fer.Predictor("colour", detector="none")(files, boxes)
    rows = torch.tensor([[face.probabilities[name] for name in EMOTIONS] for (face,) in faces])
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-4)
    served = answer(
        fer.Predictor("colour", detector="none"), Upload("a.png", files[0].read_bytes()), Limits(), maps=False,
        given_up=Event(),
    )  # fmt: skip
    assert served["faces"][0]["probabilities"] == pytest.approx(faces[0][0].probabilities, abs=1e-4)
    _check_video(files[:2])
    from fer.evaluate import main as evaluate
    from fer.export import main as export

    capfd.readouterr()
    assert evaluate(["colour", "--data", str(pictures), "--split", "val"]) == 0
    assert evaluate(["colour", "grey", "--data", str(pictures), "--split", "val"]) == 1
    assert "takes 1 channels of a face, colour/checkpoints/best.ckpt 3" in capfd.readouterr().err
    for one, other, takes in (("colour", "grey", 1), ("grey", "colour", 3)):
        assert evaluate([one, "--data", str(pictures), "--split", "val", "--against", other]) == 1
        assert f"--against {other}: takes {takes} channels of a face" in capfd.readouterr().err
    assert evaluate(["colour", "--data", "synthetic"]) == 1
    error = capfd.readouterr().err
    assert "the network takes 3 channels" in error
    assert "data.channels" not in error
    from fer.explain import main as explain

    assert explain([str(files[0]), "--network", "colour", "--detector", "none", "--out", "maps"]) == 0
    assert explain([str(files[0]), "--network", "colour", "--network", "grey", "--detector", "none"]) == 1
    assert "grey ones; explain networks of one kind together" in capfd.readouterr().err
    assert evaluate(["colour", "--data", str(pictures), "--split", "val", "--maps", "--out", "mapped"]) == 0
    assert "no maps" not in capfd.readouterr().err
    pytest.importorskip("onnxruntime")
    assert export(["colour", "colour.onnx", "--no-timing"]) == 0, capfd.readouterr().err
    exported = fer.Predictor("colour.onnx", detector="none")
    assert exported.in_colour
    again = exported(files, boxes)
    rows = torch.tensor([[face.probabilities[name] for name in EMOTIONS] for (face,) in again])
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-4)
    assert evaluate(["colour.onnx", "--data", str(pictures), "--split", "val", "--out", "onnx"]) == 0
    assert metrics(Path("onnx/val"))["accuracy"] == metrics(Path("colour/evaluations/val"))["accuracy"]
    assert export(["colour", "grey", "both.onnx"]) == 1
    assert "in colour, others grey" in capfd.readouterr().err


def _check_video(files):
    """Hold the predictions for the frames of a video to those for the same pictures."""
    pytest.importorskip("cv2")
    pictures = [np.asarray(Image.open(file).resize((96, 96))) for file in files]

    class Frames:
        name, live = "two frames", False

        def __iter__(self):
            for number, self.shown in enumerate(pictures):
                yield number, number / 25

        def pixels(self):
            return self.shown[..., ::-1]  # OpenCV's order

    predictor = fer.Predictor("colour", detector="none")
    frames = list(watch(predictor, Frames(), half_life=0))
    for frame, (face,) in zip(frames, predictor(pictures), strict=True):
        assert frame.raw[0] == pytest.approx(face.probabilities, abs=1e-5)


def test_a_file_with_other_channels_is_refused(tmp_path):
    from fer.models.untrusted import check_contract

    check_contract({"in_channels": 3}, tmp_path)
    for channels in (2, 4, "3", None):
        with pytest.raises(FerError, match=r"in_channels=.*: expected 1 \(grey\) or 3 \(colour\)"):
            check_contract({"in_channels": channels}, tmp_path)

"""``distill.teachers``: a network that learns from the predictions of others."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image

import fer
from fer.config.settings import DistillSettings
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.training import distillation
from fer.training.distillation import TeacherFile, Teachers


@pytest.fixture
def teacher(small_run):
    return fer.load(small_run)


def teachers(*networks, **settings):
    named = [TeacherFile(distillation.checkpoints.find(folder), weight) for folder, weight in networks]
    loaded = [fer.load(file.path) for file in named]
    return Teachers(loaded, named, DistillSettings(teachers=["x"], **settings))


def test_answers_are_the_weighted_mean_at_the_temperature(small_run, another_run):
    both = teachers((small_run, 0.25), (another_run, 0.75), temperature=3.0)
    faces = torch.rand(5, 1, 24, 24)
    with torch.no_grad():
        one, two = ((fer.load(run)(faces) / 3).softmax(1) for run in (small_run, another_run))
    assert torch.allclose(both.answers(faces), 0.25 * one + 0.75 * two, atol=1e-6)
    assert torch.allclose(both.answers((faces * 255).round().byte()).sum(1), torch.ones(5))


def test_each_teacher_answers_at_its_own_temperature_too(small_run, another_run):
    runs, own = (small_run, another_run), (0.5, 2.0)
    named = [TeacherFile(distillation.checkpoints.find(run), 0.5, warm) for run, warm in zip(runs, own, strict=True)]
    networks = [fer.load(run) for run in runs]
    both = Teachers(networks, named, DistillSettings(teachers=["x"], temperature=3.0))
    faces = torch.rand(5, 1, 24, 24)
    with torch.no_grad():
        one, two = ((network(faces) / (3 * warm)).softmax(1) for network, warm in zip(networks, own, strict=True))
    assert torch.allclose(both.answers(faces), (one + two) / 2, atol=1e-6)


def test_a_network_that_answers_as_its_teacher_has_nothing_to_learn_from_it(small_run, teacher):
    alone = teachers((small_run, 1.0), weight=0.5, temperature=2.0)
    faces = torch.rand(5, 1, 24, 24)
    with torch.no_grad():
        same = alone.blended(torch.tensor(1.0), teacher(faces), faces)
        turned = alone.blended(torch.tensor(1.0), teacher(faces).flip(1), faces)
    assert same == pytest.approx(0.5, abs=1e-6)
    assert turned > 0.51


def test_the_temperature_squared_keeps_gradients_as_large(small_run):
    """Hinton et al. 2015, section 2.1: for logits much smaller than the temperature, gradients are (z - v) / C."""
    faces, logits = torch.rand(4, 1, 24, 24), torch.zeros(4, 7, requires_grad=True)
    grown = teachers((small_run, 1.0), weight=1.0, temperature=1000.0)
    grown.blended(torch.zeros(()), logits, faces).backward()
    with torch.no_grad():
        theirs = grown.networks[0](faces)
    expected = -(theirs - theirs.mean(1, keepdim=True)) / 7 / 4  # of the batch's mean
    assert torch.allclose(logits.grad, expected, rtol=0.02, atol=2e-5)


def test_a_face_is_shown_at_the_teachers_size(small_run):
    assert teachers((small_run, 1.0)).answers(torch.rand(2, 1, 20, 20)).shape == (2, 7)


@pytest.mark.parametrize(
    ("crop", "size", "share", "shown", "middle"),
    [
        (None, 24, 1.0, 24, 24),  # whole faces for a teacher of whole faces
        (None, 20, 20 / 24, 24, 24),  # crops for it: enlarged
        (20, 24, 1.0, 24, 20),  # whole faces for a teacher of crops: their middle, at its scale
        (20, 12, 1.0, 24, 20),  # as in a stage of half the size
        (20, 20, 20 / 24, 20, 20),  # crops alike
        (20, 16, 16 / 24, 20, 20),  # smaller crops: enlarged
        (16, 20, 20 / 24, 20, 16),  # larger crops: their middle
    ],
)
def test_a_teacher_is_shown_the_part_and_scale_that_it_was_trained_at(crop, size, share, shown, middle):
    network = SimpleNamespace(image_size=24, input_size=crop or 24)
    faces = torch.rand(2, 1, size, size)
    resized = distillation.resized_for(network, faces, share)
    expected = distillation.resized(faces, shown)
    edge = (shown - middle) // 2
    assert torch.equal(resized, expected[..., edge : edge + middle, edge : edge + middle])


def test_a_teacher_of_crops_answers_a_learner_of_whole_faces_as_it_answers_users(train, tmp_path):
    assert train(*SMALL, "data.crop=20", "hydra.run.dir=cropped").code == 0
    network, faces = fer.load(tmp_path / "cropped"), torch.rand(4, 1, 24, 24)
    alone = teachers((tmp_path / "cropped", 1.0), temperature=1.0)
    with torch.no_grad():
        assert torch.allclose(alone.answers(faces), network(faces).softmax(1), atol=1e-6)


def test_keys_that_do_not_say_who_is_val_matter_to_no_teacher(train, small_run):
    """The official split does not depend on the seed of the other splits."""
    settings = (*SMALL, "trainer.max_epochs=1", f"distill.teachers=[{small_run}]")
    assert train(*settings, "data.conflicts=drop").code == 0


def test_resumed_with_the_same_weights_of_teachers_alone(train, scores, small_run, another_run, tmp_path):
    assert scores(str(small_run), str(another_run), "--out", "both").code == 0
    assert train(*SMALL, "distill.teachers=[both/val]", "hydra.run.dir=taught").code == 0
    about = tmp_path / "both" / "val" / "metrics.json"
    contents = json.loads(about.read_text())
    contents["members"][0]["weight"], contents["members"][1]["weight"] = 0.9, 0.1
    about.write_text(json.dumps(contents))
    (tmp_path / "taught" / "metrics.json").unlink()
    ended = train("resume=taught")
    assert (ended.code, "other networks or weights" in ended.line) == (1, True), ended.line


def test_a_run_learns_says_so_and_counts_its_teachers_training_faces_as_its_own(train, evaluate, small_run, tmp_path):
    ended = train(*SMALL, f"distill.teachers=[{small_run}]", "distill.weight=0.9", "hydra.run.dir=taught")
    assert ended.code == 0, ended.err
    assert "1 network (weight 0.9, temperature 2)" in ended.out
    recorded = metrics(tmp_path / "taught")["teachers"]
    assert [(one["architecture"], one["weight"]) for one in recorded] == [("mlp", 1.0)]
    model = fer.load(tmp_path / "taught")
    assert model.provenance.ancestors[0]["fingerprint"] == model.provenance.dataset["fingerprint"]
    assert "teachers" not in " ".join(model.state_dict())
    ended = evaluate("taught", "--out", "looked")
    assert ended.code == 0, ended.err
    assert metrics(tmp_path / "looked" / "val")["teachers"] == recorded
    card = (tmp_path / "looked" / "val" / "model_card.md").read_text()
    assert "Learnt from the answers of 1 other network, beside the labels." in card


def test_settings_of_teachers_that_are_not_there_are_reported(train):
    warning = "no teachers are named"
    assert warning in train(*SMALL, "trainer.max_epochs=1", "distill.weight=0.9").out
    assert warning not in train(*SMALL, "trainer.max_epochs=1").out


def test_nearer_to_its_teacher_than_without(train, small_run, tmp_path):
    """After the same number of steps from the same weights, predictions differ less from the teacher's."""
    assert train(*SMALL, "seed=5", "hydra.run.dir=alone").code == 0
    settings = (f"distill.teachers=[{small_run}]", "distill.weight=1", "distill.temperature=1")
    assert train(*SMALL, "seed=5", *settings, "hydra.run.dir=taught").code == 0
    faces = torch.rand(64, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        taught_by = fer.load(small_run)(faces).softmax(1)
        away = [(fer.load(tmp_path / run)(faces).softmax(1) - taught_by).abs().mean() for run in ("alone", "taught")]
    assert away[1] < away[0]


def test_an_ensemble_teaches_with_its_weights(train, scores, small_run, another_run, tmp_path):
    options = ("--weights", "val", "--out", "both")
    assert scores(str(small_run), str(another_run), *options).code == 0
    expected = {one["checkpoint"]: one["weight"] for one in metrics(tmp_path / "both" / "val")["members"]}
    assert train(*SMALL, "distill.teachers=[both/val]", "hydra.run.dir=taught").code == 0
    weights = {one["checkpoint"]: one["weight"] for one in metrics(tmp_path / "taught")["teachers"]}
    assert weights == pytest.approx({name: weight for name, weight in expected.items() if weight > 0})
    own = {one["checkpoint"]: one["temperature"] for one in metrics(tmp_path / "both" / "val")["members"]}
    assert 1 not in own.values()
    for one in metrics(tmp_path / "taught")["teachers"]:
        assert one["temperature"] == own[one["checkpoint"]]


def test_an_evaluation_without_temperatures_teaches_at_one(scores, small_run, another_run, tmp_path):
    assert scores(str(small_run), str(another_run), "--weights", "val", "--out", "both").code == 0
    about = tmp_path / "both" / "val" / "metrics.json"
    contents = json.loads(about.read_text())
    for one in contents["members"]:
        del one["temperature"]
    about.write_text(json.dumps(contents))
    assert [one.temperature for one, _ in distillation.members("both/val")] == [1.0, 1.0]


def test_resumed_with_the_same_temperatures_of_teachers_alone(train, scores, small_run, another_run, tmp_path):
    assert scores(str(small_run), str(another_run), "--out", "both").code == 0
    assert train(*SMALL, "distill.teachers=[both/val]", "hydra.run.dir=taught").code == 0
    about = tmp_path / "both" / "val" / "metrics.json"
    contents = json.loads(about.read_text())
    contents["members"][0]["temperature"] = 0.5
    about.write_text(json.dumps(contents))
    (tmp_path / "taught" / "metrics.json").unlink()
    ended = train("resume=taught")
    assert (ended.code, "other networks or weights" in ended.line) == (1, True), ended.line


def test_resumed_with_the_same_teachers_alone(train, small_run, another_run, tmp_path):
    settings = (*SMALL, f"distill.teachers=[{tmp_path / 'teacher.ckpt'}]")
    file = tmp_path / "teacher.ckpt"
    file.write_bytes((small_run / "checkpoints" / "best.ckpt").read_bytes())
    assert train(*settings, "hydra.run.dir=taught").code == 0
    file.write_bytes((another_run / "checkpoints" / "best.ckpt").read_bytes())
    (tmp_path / "taught" / "metrics.json").unlink()
    ended = train("resume=taught")
    assert (ended.code, "distill.teachers are other networks or weights" in ended.line) == (1, True), ended.line


@pytest.mark.slow
def test_faces_that_teachers_were_trained_on_are_no_val_at_another_size_either(train, scores, tmp_path):
    """The tables' fingerprints differ, the faces do not."""
    settings = (*SMALL[:2], "data.split=holdout", *SMALL[3:])
    assert train(*settings, "data.split_seed=1", "data.image_size=32", "hydra.run.dir=teacher").code == 0
    ended = train(*settings, "distill.teachers=[teacher]", "hydra.run.dir=taught")
    assert (ended.code, "of the faces that are val here" in ended.line) == (1, True), ended.line
    assert train(*settings, "data.split_seed=1", "distill.teachers=[teacher]", "hydra.run.dir=taught").code == 0
    assert metrics(tmp_path / "taught")["seen_in_training"] == 0


def test_data_of_teachers_are_read_without_a_cache_where_the_run_has_none(train, tmp_path):
    pixels, emotion = draw_faces(140, image_size=24, seed=1)
    for index, (face, label) in enumerate(zip(pixels, emotion, strict=True)):
        folder = tmp_path / "faces" / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(folder / f"{index}.png")
    settings = ("data.path=faces", "data.cache=null", "data.split=holdout", *SMALL[2:])
    assert train(*settings, "hydra.run.dir=teacher").code == 0
    assert train(*settings, "distill.teachers=[teacher]", "hydra.run.dir=taught").code == 0
    assert not (tmp_path / "cache").exists()


def test_what_a_run_began_from_counts_as_seen(train, scores, tmp_path):
    settings = (*SMALL[:2], "data.split=holdout", *SMALL[3:])
    assert train(*settings, "data.split_seed=1", "hydra.run.dir=before").code == 0
    assert train(*settings, "init_from=before", "hydra.run.dir=after").code == 0
    assert scores("after", "--out", "looked").code == 0
    own, later = metrics(tmp_path / "after"), metrics(tmp_path / "looked" / "val")
    assert own["seen_in_training"] == later["seen_in_training"] > 0
    assert own["clean"]["n"] == later["clean"]["n"] < own["n"]


def test_bad_teachers_are_refused_before_anything_trains(train, small_run, tmp_path):
    ended = train(*SMALL, "distill.teachers=[nowhere]")
    assert (ended.code, "nowhere: no such checkpoint" in ended.line) == (1, True), ended.line
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "metrics.json").write_text(json.dumps({"members": [{"checkpoint": str(small_run)}]}))
    ended = train(*SMALL, "distill.teachers=[odd]")
    assert (ended.code, "lists no networks" in ended.line) == (1, True), ended.line
    for odd, says in (
        ([{"checkpoint": 5, "weight": 1}], "lists no networks"),
        ([5], "lists no networks"),
        ([], "numbers from 0, and not all 0"),
        ([{"checkpoint": str(small_run), "weight": float("nan")}], "lists no networks"),
        ([{"checkpoint": str(small_run), "weight": float("inf")}], "lists no networks"),
        ([{"checkpoint": str(small_run), "weight": -1}], "numbers from 0, and not all 0"),
        (
            [{"checkpoint": str(small_run), "weight": 1, "temperature": 0}],
            "temperatures of networks are numbers above",
        ),
        ([{"checkpoint": str(small_run), "weight": 1, "temperature": "hot"}], "lists no networks"),
        ([{"checkpoint": "", "weight": 1}], "no run folder"),
    ):
        (tmp_path / "odd" / "metrics.json").write_text(json.dumps({"members": odd}))
        ended = train(*SMALL, "distill.teachers=[odd]")
        assert (ended.code, says in ended.line) == (1, True), ended.line
    ended = train(*SMALL, f"distill.teachers=[{small_run}]", "data.split=folds")
    assert (ended.code, "val here, by data.split=folds" in ended.line) == (1, True), ended.line
    ended = train(*SMALL, f"distill.teachers=[{small_run}]", "distill.weight=0")
    assert (ended.code, "distill.weight=0" in ended.line) == (1, True), ended.line


def test_teachers_lie_in_memory_as_convolutions_read_them():
    (network,) = teachers(("tiny", 1.0)).networks
    kernels = [value for value in network.parameters() if value.ndim == 4 and value.shape[1] > 1]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_splits_of_several_data_sets_differ_by_the_keys_of_each_rule():
    def named(rule, **keys):
        sets = [{"split": "official"}, {"split": rule}]
        return {"sets": sets, "settings": {"split": "official", "more": [{"path": "b"}], **keys}}

    first = distillation._split_settings(named("holdout"))
    assert first == distillation._split_settings(named("holdout", weights=[1, 2], val_of="first"))
    assert first != distillation._split_settings(named("holdout", split_seed=1))
    assert first != distillation._split_settings(named("folds"))

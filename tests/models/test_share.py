"""``fer.share``: a network as one safetensors file, and everything that takes it."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics, runner
from PIL import Image
from safetensors.torch import load_file

import fer
from fer.compare import main as compare_command
from fer.config.errors import FerError
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.metrics import results
from fer.models import safetensors
from fer.models.share import ROUNDED, evaluation_of, without_folders
from fer.reports import model_card
from fer.runs import zoo
from fer.training.callbacks import checkpointing


@pytest.fixture
def share(capfd):
    from fer.share import main

    return runner(main, capfd)


@pytest.fixture
def table(tmp_path):
    """140 drawn faces as FER2013's table."""
    images, targets = draw_faces(140, seed=1, image_size=48)
    usages = ["Training"] * 112 + ["PublicTest"] * 14 + ["PrivateTest"] * 14
    rows = zip(targets, images, usages, strict=True)
    lines = [f"{target},{' '.join(map(str, image.ravel()))},{usage}" for target, image, usage in rows]
    (tmp_path / "faces").mkdir()  # not data/, where it would be found
    (tmp_path / "faces" / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    return tmp_path / "faces" / "fer2013.csv"


@pytest.fixture(scope="module")
def shared_once(trained_once, tmp_path_factory):
    from fer.evaluate import main as evaluate
    from fer.share import main as share

    folder = tmp_path_factory.mktemp("shared")
    run = shutil.copytree(trained_once, tmp_path_factory.mktemp("evaluated") / "run")  # the look at test lies within
    assert evaluate([str(run), "--split", "test", "--out", str(folder / "looked")]) == 0
    assert share([str(folder / "looked" / "test"), str(folder / "small.safetensors")]) == 0
    return folder


@pytest.fixture
def shared(shared_once, tmp_path):
    """A small run as a shared file, its evaluation beside it."""
    shutil.copytree(shared_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "small.safetensors"


def kinds():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 2, 2, generator=generator)
    return {
        "kernel": kernel.half(),
        "channels_last": kernel.to(memory_format=torch.channels_last),
        "tied": kernel,
        "tied_too": kernel,
        "double": torch.randn(2, 2, generator=generator).double(),
        "brain": torch.randn(3, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.empty(0, 4),
    }


def test_what_is_written_is_loaded_by_the_library_alone(tmp_path):
    tensors, file, about = kinds(), tmp_path / "ours.safetensors", {"format": "pt", "note": "é"}
    file.write_bytes(safetensors.to_bytes(tensors, about))
    for stored in (load_file(file), safetensors.read(file)[0]):
        assert stored.keys() == tensors.keys()
        assert all(
            stored[name].dtype == value.dtype and torch.equal(stored[name], value) for name, value in tensors.items()
        )
    assert safetensors.read(file)[1] == about


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(safetensors.to_bytes({"a": torch.ones(5000)}, {}))
    tensors, _ = safetensors.read(file)
    file.write_bytes(b"")
    assert tensors["a"].sum() == 5000


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "U16", "C64"])
def test_types_that_no_network_has_are_refused(tmp_path, kind):
    width = {"U16": 2, "C64": 8}.get(kind, 1)
    header = json.dumps({"a": {"dtype": kind, "shape": [16 // width], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(FerError, match=r"a\.safetensors: "):
        safetensors.read(tmp_path / "a.safetensors")


def test_the_file_is_small_and_holds_the_network_that_was_evaluated(shared, small_run, tmp_path):
    model, before = fer.load(shared), fer.load(small_run)
    assert shared.stat().st_size < 0.62 * (small_run / "checkpoints" / "best.ckpt").stat().st_size
    assert model.hparams == before.hparams
    assert model.provenance.temperature == before.provenance.temperature
    for name, value in before.state_dict().items():
        expected = value.half().float() if value.is_floating_point() and value.ndim > 1 else value
        assert torch.equal(model.state_dict()[name], expected)
    model_card = (tmp_path / "looked" / "test" / "model_card.md").read_text()
    model_card = without_folders(model_card).replace('"best.ckpt"', '"small.safetensors"')
    model_card = model_card.replace("- name: mlp\n", '- name: "small"\n').replace("# mlp, facial-", "# small, facial-")
    text = shared.with_suffix(".md").read_text()
    assert "rounded to half precision" in text
    assert text.replace(ROUNDED, "") == model_card
    description = json.loads(safetensors.read(shared)[1]["fer"])
    assert description["results"]["accuracy"] == metrics(tmp_path / "looked" / "test")["accuracy"]


def test_a_shared_file_holds_no_local_path(evaluate, share, train, table, tmp_path):
    assert train(*SMALL[2:], f"data.path={table}", "hydra.run.dir=real").code == 0
    assert evaluate("real", "--out", str(tmp_path / "looked")).code == 0
    assert share("looked/val", "real.safetensors").code == 0
    description = json.loads(safetensors.read(tmp_path / "real.safetensors")[1]["fer"])
    assert description["dataset"]["path"] == description["dataset"]["settings"]["path"] == table.name
    assert description["results"]["command"] == "python -m fer.evaluate real --out looked"
    model_card = (tmp_path / "real.md").read_text()
    assert "data.path=fer2013.csv" in model_card
    assert str(tmp_path.parent) not in json.dumps(description) + model_card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.path=/home/me/faces/a.csv seed=0", "data.path=a.csv seed=0"),
        ("'distill.teachers=[/a/b/one,../c/two,~/d/three]'", "'distill.teachers=[one,two,three]'"),
        ('{"file": "/home/me/vgg16.pth"}', '{"file": "vgg16.pth"}'),
        ("fer.evaluate '/home/john doe/a run' --split test", "fer.evaluate 'a run' --split test"),
        ('{"path": "/srv/it\'s/x.csv", "votes": null}', '{"path": "x.csv", "votes": null}'),
        ("from file:///home/me/x.csv, PATH:/home/me/y", "from x.csv, PATH:y"),
        ("C:/Users/me/x.csv", "C:x.csv"),
        ("experiment=speedrun/70 1/2 https://a.org/b/c <b>x</b> outputs/run/x", None),
        ('see "https://a.org/b/c" and \'1/2\' </table> "a/b"', None),
    ],
)
def test_paths_are_cut_to_names_and_urls_are_kept(text, expected):
    assert without_folders(text) == (expected or text)


def test_every_command_takes_it(shared, train, evaluate, tmp_path):
    assert evaluate(str(shared), "--out", "again").code == 0
    assert metrics(tmp_path / "again" / "val")["n"] == 14
    assert train(*SMALL, f"init_from={shared}", "hydra.run.dir=tuned").code == 0
    assert train(*SMALL, f"distill.teachers=[{shared}]", "hydra.run.dir=taught").code == 0


@pytest.mark.slow
def test_data_that_lie_elsewhere_are_known_by_their_contents(evaluate, share, train, table, tmp_path):
    """Anyone who has the same data can evaluate a shared network on clean faces."""
    assert train(*SMALL[2:], f"data.path={table}", "hydra.run.dir=real").code == 0
    assert evaluate("real", "--out", "looked").code == 0
    assert share("looked/val", "real.safetensors").code == 0
    before = metrics(tmp_path / "looked" / "val")
    ended = evaluate("real.safetensors", "--out", "without")
    assert (ended.code, "no data: --data" in ended.line) == (1, True), ended.line
    assert evaluate("real.safetensors", "--data", str(table), "--out", "with").code == 0
    after = metrics(tmp_path / "with" / "val")
    assert after["clean"]["n"] == before["clean"]["n"] is not None
    assert after["seen_in_training"] == before["seen_in_training"]


@pytest.mark.slow
def test_shared_networks_are_chosen_among_on_data_that_lie_elsewhere(evaluate, share, train, table, tmp_path):
    for seed in (0, 1):
        assert train(*SMALL[2:], f"data.path={table}", f"seed={seed}", f"hydra.run.dir=run{seed}").code == 0
        assert evaluate(f"run{seed}", "--out", f"looked{seed}").code == 0
        assert share(f"looked{seed}/val", f"{seed}.safetensors").code == 0
    options = ("0.safetensors", "1.safetensors", "--choose")
    ended = evaluate(*options, "--out", "without")
    assert (ended.code, "fer2013.csv was not found" in ended.line) == (1, True), ended.line
    moved = table.rename(tmp_path / "faces.csv")
    assert evaluate(*options, "--data", str(moved), "--out", "with").code == 0
    assert metrics(tmp_path / "with" / "val")["selection"]["given"] == 2


def test_a_network_of_the_package_is_called_by_its_name(shared, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "PRETRAINED", shared.parent)
    assert zoo.pretrained() == ["small"]
    assert fer.load("small").architecture == "mlp"
    assert evaluate("small", "--out", "called").code == 0
    with pytest.raises(FerError, match="smal: no such checkpoint or run folder; the package contains small"):
        fer.load("smal")


def test_the_evaluation_of_a_run_that_was_moved_finds_its_network(
    evaluate, share, small_run, another_run, tmp_path, monkeypatch
):
    """The path in ``metrics.json`` is relative to the folder of the command, and a run takes its evaluations along."""
    assert evaluate("run", "--split", "test").code == 0
    small_run.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert share("../moved", "same.safetensors").code == 0
    shutil.copytree(another_run, "run")  # another network at the old path
    assert share("../moved/evaluations/test", "again.safetensors").code == 0
    assert fer.load("again.safetensors").weights_sha256 == fer.load("same.safetensors").weights_sha256
    shutil.copytree("../moved/evaluations/test", "alone/test")
    Path("best.ckpt").write_text("no network")  # beside the evaluation, and not of its run
    shutil.rmtree("run")
    ended = share("alone/test", "lost.safetensors")
    assert (ended.code, "run/checkpoints/best.ckpt" in ended.line, "evaluate again" in ended.line) == (1, True, True)


def test_a_run_is_shared_with_the_metrics_of_its_own_test(evaluate, share, small_run, tmp_path):
    """Test of another data set may have the name first."""
    pixels, labels = draw_faces(28, image_size=24, seed=5)
    for index, (face, label) in enumerate(zip(pixels, labels, strict=True)):
        picture = tmp_path / "photos" / ("train", "val", "test")[index % 3] / EMOTIONS[label] / f"{index}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(picture)
    assert evaluate("run", "--data", "photos", "--rule", "as_given", "--split", "test").code == 0
    assert evaluation_of(small_run).name == "test"  # the newest, where none is of its own test
    assert evaluate("run", "--split", "test", "--tta", "flip").code == 0
    assert evaluate("run").code == 0
    assert evaluation_of(small_run).name == "test_flip"
    assert evaluate("run", "--split", "test").code == 0
    assert evaluate("run", "--split", "test", "--tta", "flip").code == 0
    (small_run / "metrics.json").unlink()  # a run that was interrupted has none
    assert evaluation_of(small_run).name == "test_2"
    assert metrics(evaluation_of(small_run))["dataset"]["name"] == "synthetic"


def test_evaluations_of_earlier_weights_are_passed_over(evaluate, share, small_run, another_run):
    assert evaluate("run", "--split", "test").code == 0
    best = small_run / "checkpoints" / "best.ckpt"
    best.write_bytes((another_run / "checkpoints" / "best.ckpt").read_bytes())  # as of a run that went on
    ended = share("run", "early.safetensors")
    assert (ended.code, "of 1 none is of this network alone and its present weights" in ended.line) == (1, True), (
        ended.line
    )
    assert "python -m fer.evaluate run --split test" in ended.line
    assert evaluate("run").code == 0
    assert share("run", "late.safetensors", "--full").code == 0
    assert fer.load("late.safetensors").weights_sha256 == fer.load(best).weights_sha256


def test_weights_that_changed_since_the_evaluation_go_without_its_metrics(
    train, evaluate, share, small_run, another_run, tmp_path
):
    file = tmp_path / "one.ckpt"
    file.write_bytes((small_run / "checkpoints" / "best.ckpt").read_bytes())
    assert evaluate(str(file), "--split", "test", "--out", "looked").code == 0
    checkpointing.add_calibration(file, 1.5)  # another temperature, the same weights
    assert share("looked/test", "same.safetensors").code == 0
    file.write_bytes((another_run / "checkpoints" / "best.ckpt").read_bytes())
    for ended in (
        share("looked/test", "other.safetensors"),
        train(*SMALL, "distill.teachers=[looked/test]", "hydra.run.dir=taught"),
    ):
        assert (ended.code, "one.ckpt: its weights have changed since the evaluation" in ended.line) == (1, True)
    assert not (tmp_path / "other.safetensors").exists()


def test_what_cannot_be_shared_is_refused(share, evaluate, small_run, another_run, tmp_path):
    for given, says in (
        (("nowhere", "a.safetensors"), "nowhere: no evaluation"),
        ((str(small_run), "a.safetensors"), "no evaluation with a model card; python -m fer.evaluate"),
        (("looked/val", "a.pt"), "a.pt: expected a name that ends in .safetensors"),
        (("both/val", "a.safetensors"), "2 networks together; expected one"),
        (("bare/val", "a.safetensors"), "has no model_card.md"),
    ):
        if given[0] == "looked/val":
            assert evaluate(str(small_run), "--out", "looked").code == 0
        elif given[0] == "both/val":
            assert evaluate(str(small_run), str(another_run), "--out", "both").code == 0
        elif given[0] == "bare/val":
            assert evaluate(str(small_run), "--no-report", "--out", "bare").code == 0
        ended = share(*given)
        assert (ended.code, says in ended.line) == (1, True), ended.line
    assert not list(tmp_path.glob("a.*"))


def test_a_card_replaces_no_other_file(share, tmp_path):
    (tmp_path / "README.md").write_text("precious")
    assert "README.md is written beside it" in share("tiny", "README.safetensors").line
    assert [(file.name, file.read_text()) for file in tmp_path.glob("README*")] == [("README.md", "precious")]
    assert share("tiny", "other.safetensors").code == share("tiny", "other.safetensors").code == 0


def damaged(content, how):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    if how == "cut":
        return content[:-5]
    if how == "longer":
        return content + b"12345678"
    if how == "length":
        return struct.pack("<Q", 1 << 62) + content[8:]
    if how == "names":  # the first once more, with fewer values
        name = next(name for name in header if name != "__metadata__")
        again = f', {json.dumps(name)}: {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}}}'.encode()
        encoded = json.dumps(header).encode()[:-1] + again
        return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]
    if how == "header":
        return content[:8] + b"[" + content[9:]
    if how == "overlap":
        names = [name for name in header if name != "__metadata__"]
        header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    if how == "gap":
        for name in header.keys() - {"__metadata__"}:
            header[name]["data_offsets"] = [end + 8 for end in header[name]["data_offsets"]]
    if how == "huge":
        header[next(name for name in header if name != "__metadata__")] |= {
            "shape": [1 << 40],
            "data_offsets": [0, 1 << 42],
        }
    if how == "negative":
        header[next(name for name in header if name != "__metadata__")]["shape"] = [-2, -2]
    if how == "type":
        header[next(name for name in header if name != "__metadata__")]["dtype"] = "F7"
    if how == "alone":
        header["__metadata__"].pop("fer")
    if how == "text":
        header["__metadata__"]["fer"] = "[]"
    if how == "deep":
        header["__metadata__"]["fer"] = "[" * 100_000
    if how == "shape":
        header[next(name for name in header if name != "__metadata__")]["shape"] = [float("inf")]
    if isinstance(how, dict):
        header["__metadata__"]["fer"] = json.dumps(json.loads(header["__metadata__"]["fer"]) | how)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


def test_damaged_files_are_refused_in_one_line(shared, evaluate):
    content = shared.read_bytes()
    ways = (
        "cut",
        "longer",
        "length",
        "names",
        "header",
        "overlap",
        "gap",
        "huge",
        "negative",
        "type",
        "alone",
        "text",
        "deep",
        "shape",
    )
    ways += (
        {"teachers": "abc"},
        {"teachers": [{}]},
        {"ancestors": [{"settings": 5}]},
        {"plan": 5},
        {"sets": {"faces": 14, "at": {"0.50": 0.5}}},
        {"architecture": "timm", "hyper_parameters": {"network": 5}},
        {"architecture": "vgg19", "hyper_parameters": {"channels": [], "depths": []}},
        {"architecture": "residual_masking", "hyper_parameters": {"depths": [], "levels": []}},
    )
    for bad in (b"", b"<html>" + b" " * 100, *(damaged(content, how) for how in ways)):
        shared.write_bytes(bad)
        ended = evaluate(str(shared))
        assert ended.code == 1
        assert "small.safetensors: " in ended.line


def test_weights_that_share_bytes_are_refused_as_the_library_does(tmp_path):
    """Sizes are right and no byte is left over: the overlap is all that is wrong."""
    library = pytest.importorskip("safetensors")
    from safetensors.torch import load_file

    entries = {name: {"dtype": "F32", "shape": [2], "data_offsets": [at, at + 8]} for name, at in (("a", 0), ("b", 4))}
    header = json.dumps(entries).encode()
    file = tmp_path / "overlapping.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<3f", 1, 2, 3))
    with pytest.raises(library.SafetensorError):
        load_file(file)
    with pytest.raises(FerError, match="overlapping.safetensors: damaged"):
        safetensors.read(file)


def test_a_weight_that_is_no_number_is_refused(shared, evaluate):
    tensors, about = safetensors.read(shared)
    tensors[next(iter(tensors))].view(-1)[0] = float(np.nan)
    shared.write_bytes(safetensors.to_bytes(tensors, about))
    assert "holds NaN or infinite weights" in evaluate(str(shared)).line


def test_a_folder_of_its_name_hides_the_packages_network_and_says_so(tmp_path):
    (tmp_path / "tiny").mkdir()
    with pytest.raises(FerError, match="tiny: no run folder .* it hides the package's network of that name"):
        fer.load("tiny")


def test_metrics_of_the_packages_network_do_not_go_into_the_package(table, evaluate, tmp_path):
    before = sorted(zoo.PRETRAINED.iterdir())
    assert evaluate("tiny", "--data", str(table), "--split", "test").code == 0
    folder = tmp_path / "outputs" / "pretrained" / "tiny"
    assert metrics(folder / "evaluations" / "test")["test_opened"] == 1
    assert (folder / "test_opened.json").is_file()
    assert 'fer.load("tiny")' in (folder / "evaluations" / "test" / "model_card.md").read_text()
    assert sorted(zoo.PRETRAINED.iterdir()) == before


def test_each_network_of_the_package_is_small_loads_and_has_its_card():
    assert "tiny" in zoo.pretrained()
    table = (zoo.PRETRAINED / "README.md").read_text()
    for name in zoo.pretrained():
        file = zoo.PRETRAINED / f"{name}.safetensors"
        assert file.stat().st_size <= 3 * 2**20
        model = fer.load(name)
        answers = model.probabilities(torch.zeros(2, 1, 48, 48, dtype=torch.uint8))
        assert (answers.shape, answers.sum(1).tolist()) == ((2, 7), pytest.approx([1, 1]))
        assert f'fer.load("{name}")' in file.with_suffix(".md").read_text()
        assert f"[`{name}`]({name}.md)" in table
        assert f"{sum(value.numel() for value in model.parameters()):,}" in table


@pytest.mark.parametrize(
    "begun",
    ["distill.teachers=[small.safetensors]", pytest.param("init_from=small.safetensors", marks=pytest.mark.slow)],
)
def test_a_run_that_begins_with_a_shared_network_knows_its_data_by_their_contents(begun, table, train, evaluate, share):
    settings = (f"data.path={table}", *SMALL[1:])
    assert train(*settings, "hydra.run.dir=before").code == 0
    assert evaluate("before", "--split", "test", "--out", "looked").code == 0
    assert share("looked/test", "small.safetensors").code == 0
    ended = train(*settings, begun, "hydra.run.dir=after")
    assert ended.code == 0, ended.err
    assert "no clean metrics" not in ended.out + ended.err
    assert metrics(Path("after"))["seen_in_training"] == metrics(Path("before"))["seen_in_training"]
    assert metrics(Path("after"))["clean"]


def test_metrics_of_before_are_compared_shared_and_shown(evaluate, share, small_run, tmp_path, capfd):
    """Without the mean of a calibrated network and the debiased error, which earlier files lack."""
    assert evaluate(str(small_run), "--split", "test", "--out", "looked").code == 0
    for file in (small_run / "metrics.json", tmp_path / "looked" / "test" / "metrics.json"):
        older = json.loads(file.read_text(), object_hook=without_new_fields)
        file.write_text(json.dumps(older))
    ended = share("looked/test", "small.safetensors")
    assert ended.code == 0, ended.err
    assert runner(compare_command, capfd)(str(small_run)).code == 0
    model_card.write(results.read(tmp_path / "looked" / "test" / "metrics.json"), tmp_path / "card.md")
    assert "95th percentile" in (tmp_path / "card.md").read_text()
    assert "... mean of a calibrated network" not in (tmp_path / "card.md").read_text()


def without_new_fields(values):
    return {name: value for name, value in values.items() if not name.endswith(("_calibrated_mean", "_rms_debiased"))}

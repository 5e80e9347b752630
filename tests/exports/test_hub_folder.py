"""``fer.share`` for the Hugging Face hub: folders, uploads and ``hf://owner/name``, with a server in this process."""

import errno
import hashlib
import json
import logging
import shutil
from pathlib import Path

import hub_server
import pytest
import torch
import yaml
from conftest import metrics, runner
from hub_server import TOKEN, Repository, running

import fer
from fer.config.errors import FerError
from fer.data.readers.drawing import draw_faces
from fer.exports import hub_folder, onnx_file
from fer.models import checkpoints, create
from fer.models import hub_folder as hub_files
from fer.runs import zoo
from fer.system import hub as on_hub

constants = pytest.importorskip("huggingface_hub.constants")

NAME = "somebody/faces"
FACES = torch.zeros(2, 1, 48, 48, dtype=torch.uint8)


def no_onnx():
    raise FerError("onnx is missing: pip install onnx")


@pytest.fixture
def share(capfd):
    from fer.share import main

    return runner(main, capfd)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with its cache in the test's folder; ``huggingface_hub`` may have been imported before."""
    with running() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Git LFS in its place, which has a plain interface
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield served


@pytest.fixture(scope="module")
def folder_once(tmp_path_factory):
    """The package's network as a folder, without its graph, whose tracing takes seconds."""
    from fer.share import main

    folder = tmp_path_factory.mktemp("shared") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "check_packages", no_onnx)
        assert main(["tiny", f"{folder}/"]) == 0
    return folder


@pytest.fixture
def folder(folder_once, tmp_path):
    return shutil.copytree(folder_once, tmp_path / "mine")


@pytest.fixture
def stored(hub, folder):
    """A repository with the folder's files."""
    repository = hub.repositories[NAME] = Repository()
    repository.commit("main", {file.name: file.read_bytes() for file in folder.iterdir()})
    return repository


def changed(stored, **files):
    """Make the newest commit of a repository one with other files; None takes a file out."""
    tree = {**stored.commits[stored.branches["main"]], **{name.replace("_", "."): file for name, file in files.items()}}
    return stored.commit("main", {name: file for name, file in tree.items() if file is not None})


def card_of(file):
    _, head, text = file.read_text().split("---\n", 2)
    return yaml.safe_load(head), text


# --- the folder -----------------------------------------------------------------------------------------------------


def test_the_current_folder_and_a_link_to_a_folder_are_written(share, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "check_packages", no_onnx)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    assert share("tiny", "./").code == 0
    assert Path("model.safetensors").is_file()  # a shell stays in the folder that it was in
    assert share("tiny", "../link/").code == 0
    assert (tmp_path / "link").is_symlink()
    assert {file.name for file in Path("../there").iterdir()} == {file.name for file in Path().iterdir()}


def test_a_folder_has_card_description_and_weights_and_is_loaded_again(folder):
    about = json.loads((folder / "config.json").read_text())
    model = fer.load(folder)
    classes = list(model.hparams["classes"])
    assert {int(index): name for index, name in about["id2label"].items()} == dict(enumerate(classes))
    assert about["label2id"] == {name: index for index, name in enumerate(classes)}
    assert about["image_size"] == 48
    content = (folder / "model.safetensors").read_bytes()
    assert about["files"] == {
        "model.safetensors": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    }
    assert content == (zoo.PRETRAINED / "tiny.safetensors").read_bytes()
    assert torch.equal(model.probabilities(FACES), fer.load("tiny").probabilities(FACES))
    head, text = card_of(folder / "README.md")
    assert (head["license"], head["model-index"][0]["name"]) == ("apache-2.0", "mine")
    assert text.startswith("\n# mine, facial-emotion recognition\n")
    assert 'fer.load("mine/")' in text


def test_the_card_of_a_run_has_the_values_of_its_test_evaluation(evaluate, share, small_run, monkeypatch):
    monkeypatch.setattr(onnx_file, "check_packages", no_onnx)
    ended = share(str(small_run), "shared/")
    assert (ended.code, "no evaluation with a model card" in ended.line, "--split test" in ended.line) == (
        1,
        True,
        True,
    )
    assert not Path("shared").exists()
    assert evaluate(str(small_run), "--split", "test").code == 0
    assert evaluate(str(small_run)).code == 0  # of val, and newer
    ended = share(str(small_run), "shared/")
    assert ended.code == 0, ended.err
    assert "left out: model.onnx (onnx is missing" in ended.out
    assert "--license" in ended.out
    head, _ = card_of(Path("shared/README.md"))
    result = head["model-index"][0]["results"][0]
    values = {one["name"]: one["value"] for one in result["metrics"]}
    assert result["dataset"]["split"] == "test"
    assert values["accuracy"] == round(metrics(small_run / "evaluations" / "test")["accuracy"], 4)
    assert head["license"] == "unknown"
    ended = share(str(small_run), "shared/")  # an author may have edited its card
    assert (ended.code, "shared: is no new or empty folder" in ended.line) == (1, True)
    for given, option, stated in (
        ("shared/", ("--license", "mit"), "mit"),
        ("shared_0/", (), "mit"),
        ("shared_1/", ("--license", "cc-by-4.0"), "cc-by-4.0"),
    ):
        number = int(given[7:-1]) + 1 if given[6:7] == "_" else 0
        ended = share(given, f"shared_{number}/", *option)
        assert ended.code == 0, ended.err
        assert "licence:" not in ended.out
        text = Path(f"shared_{number}/README.md").read_text()
        assert text.count("license:") == 1
        assert card_of(Path(f"shared_{number}/README.md"))[0]["license"] == stated


@pytest.mark.parametrize(
    ("card", "licence", "stated"),
    [
        ("# My own card\n\n---\n", "mit", "mit"),
        ("# My own card\n", None, "unknown"),
        ("---\nlicense:\n- mit\n- apache-2.0\ntags: [faces]\n---\n# Mine\n", None, "mit, apache-2.0"),
        ("---\nlicense:\n- mit\n- apache-2.0\ntags: [faces]\n---\n# Mine\n", "other", "other"),
        ("---\ntags: [faces]\n---\n# Mine\n", None, "unknown"),
    ],
)
def test_a_card_states_one_licence(card, licence, stated):
    text, found = hub_folder._licensed(card, licence)
    assert found == stated
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == (stated if ", " not in stated else stated.split(", "))
    assert ("tags" in metadata) == ("tags" in card)
    assert text.endswith(card.rpartition("---\n")[2] if "tags" in card else card)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tiny"], "no OUT: name a file"),
        (["tiny", "a.safetensors", "--upload", NAME], "--upload: uploads a folder"),
        (["tiny", "a/", "--private"], "belong to --upload"),
        (["tiny", "a.safetensors", "--license", "mit"], "--license: belongs to a FOLDER/"),
        (["tiny", "a/", "--license", "My own!"], "--license My own!: expected an identifier"),
        (["tiny", "--upload", "../faces"], "hf://../faces: no repository of the hub; expected hf://owner/name"),
        (["gone", "a/"], "gone: no evaluation"),
        (["tiny", "a"], "expected a name that ends in .safetensors, or FOLDER/"),
        (["tiny", "."], "argument OUT: .: is a folder; name a file"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(share, arguments, says):
    ended = share(*arguments)
    assert (ended.code, says in ended.line) == (1, True), ended.line
    assert list(Path().iterdir()) == []


def test_a_folder_that_was_changed_is_refused(folder):
    file, config = folder / "model.safetensors", folder / "config.json"
    content, about = file.read_bytes(), json.loads(config.read_text())
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FerError, match=r"model\.safetensors: changed or damaged .*SHA-256"):
        fer.load(folder)
    file.write_bytes(content)
    for other, says in (
        ({**about, "library_name": "transformers"}, "written by 'transformers', not by 'fer-lightning'"),
        ({**about, "format": 2}, "written by a newer version of fer"),
        ({**about, "format": -1}, "states format -1; expected 1 to 1"),
        ({**about, "files": {}}, "states no hash of model.safetensors"),
        ({**about, "files": {"model.safetensors": "abc"}}, "damaged, or written by another program"),
        ({**about, "image_size": "48"}, "damaged, or written by another program"),
        ([], "damaged, or written by another program"),
    ):
        config.write_text(json.dumps(other))
        with pytest.raises(FerError, match=rf"config\.json: {says}"):
            fer.load(folder)


def test_a_network_of_colours_is_described_as_one():
    for channels in (1, 3):
        model = create({"name": "mlp", "hidden": [4]}, image_size=24, in_channels=channels)
        assert hub_folder._config(model, []).num_channels == channels


# --- the hub --------------------------------------------------------------------------------------------------------


def test_a_network_is_fetched_where_asked_and_read_from_the_cache_ever_after(hub, stored, caplog, capfd):
    caplog.set_level(logging.INFO)
    with pytest.raises(FerError, match=f"hf://{NAME}: not in the cache .*--download"):
        fer.load(f"hf://{NAME}")
    assert hub.asked == []
    changed(stored, pytorch_model_bin=b"never fetched")
    model = fer.load(f"hf://{NAME}", download=True)
    assert torch.equal(model.probabilities(FACES), fer.load("tiny").probabilities(FACES))
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET") and "/resolve/" in line}
    assert fetched == {"config.json", "model.safetensors", "README.md"}
    hub.asked.clear()
    commit = stored.branches["main"]
    for name in (f"hf://{NAME}", f"hf://{NAME}@main", f"hf://{NAME}@{commit}"):
        assert fer.load(name).architecture == "resnet9"
    assert hub.asked == []
    assert capfd.readouterr() == ("", "")  # a command's own lines may be JSON
    assert caplog.records == []


@pytest.fixture
def predict(capfd):
    from fer.predict import main

    return runner(main, capfd)


def test_commands_take_it_and_write_nothing_into_the_cache(hub, stored, evaluate):
    images, targets = draw_faces(21, seed=1, image_size=48)
    rows = zip(targets, images, strict=True)
    lines = [f"{target},{' '.join(map(str, image.ravel()))},PublicTest" for target, image in rows]
    Path("faces.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    arguments = (f"hf://{NAME}", "--data", "faces.csv", "--split", "all", "--no-report")
    ended = evaluate(*arguments)
    assert (ended.code, "not in the cache" in ended.line, hub.asked) == (1, True, [])
    ended = evaluate(*arguments, "--download")
    assert ended.code == 0, ended.err
    assert Path("outputs/hub/somebody/faces/evaluations/all/metrics.json").is_file()
    assert {file.name for file in Path("hub").rglob("snapshots/*/*")} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }


def test_a_shared_folder_is_evaluated_again_and_serves_as_a_baseline(folder, evaluate):
    images, targets = draw_faces(21, seed=1, image_size=48)
    rows = zip(targets, images, strict=True)
    lines = [f"{target},{' '.join(map(str, image.ravel()))},PublicTest" for target, image in rows]
    Path("faces.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    arguments = ("--data", "faces.csv", "--split", "all", "--no-report")
    for _ in range(2):
        ended = evaluate(str(folder), *arguments)
        assert ended.code == 0, ended.err
    ended = evaluate("tiny", *arguments, "--against", str(folder), "--out", "compared")
    assert ended.code == 0, ended.err


def test_a_file_that_was_damaged_in_the_cache_is_refused_and_fetched_again(hub, stored):
    fer.load(f"hf://{NAME}", download=True)
    repository = Path(constants.HF_HUB_CACHE) / "models--somebody--faces"
    (file,) = repository.glob("snapshots/*/model.safetensors")
    content = file.read_bytes()
    file.resolve().write_bytes(bytes(len(content)))
    with pytest.raises(FerError, match=rf"changed or damaged .*remove {repository} and fetch it again"):
        fer.load(f"hf://{NAME}")
    shutil.rmtree(repository)
    assert fer.load(f"hf://{NAME}", download=True).architecture == "resnet9"


def test_a_branch_is_fetched_by_its_name(hub, stored):
    stored.branches["wide"] = stored.branches["main"]
    changed(stored, model_safetensors=None)
    assert fer.load(f"hf://{NAME}@wide", download=True).architecture == "resnet9"
    assert on_hub.origin(checkpoints.find(f"hf://{NAME}@wide")) == on_hub.Reference(NAME, stored.branches["wide"])


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        ("somebody/gone", {}, "no such repository, or a private one; for a private one set HF_TOKEN"),
        (f"{NAME}@gone", {}, "has no revision 'gone'"),
        (NAME, {"model_safetensors": None}, "has no model.safetensors; expected a repository that fer share"),
        (NAME, {"model_safetensors": b"another"}, "model.safetensors: changed or damaged"),
        (NAME, {"config_json": b'{"model_type": "vit"}'}, "by 'None', not by 'fer-lightning'"),
        (NAME, {"config_json": b"<html>"}, "config.json: damaged"),
        ("a", {}, "no repository of the hub; expected hf://owner/name"),
        ("a/b@../../c", {}, "no repository of the hub"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, stored, name, files, says):
    changed(stored, **files)
    with pytest.raises(FerError) as caught:
        fer.load(f"hf://{name}", download=True)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_fetched(hub, stored):
    hub.sizes["model.safetensors"] = 2**31
    with pytest.raises(FerError, match=r"model\.safetensors has 2,147,483,648 bytes; expected at most 2,147,483,647"):
        fer.load(f"hf://{NAME}", download=True)
    assert not any("/resolve/" in line for line in hub.asked)


def test_a_file_that_is_larger_than_the_list_says_is_not_fetched(hub, stored, monkeypatch):
    monkeypatch.setattr(on_hub, "OF_USE", {**on_hub.OF_USE, "model.safetensors": 1000})
    hub.sizes["model.safetensors"] = 10
    with pytest.raises(FerError, match=r"model\.safetensors has 849,656 bytes; expected at most 1,000"):
        fer.load(f"hf://{NAME}", download=True)
    assert not any(line.startswith("GET") and "model.safetensors" in line for line in hub.asked)


def test_a_hub_that_is_down_slow_or_switched_off_is_one_line(hub, stored, monkeypatch):
    def says():
        with pytest.raises(FerError) as caught:
            fer.load(f"hf://{NAME}", download=True)
        return str(caught.value)

    hub.status = 500
    assert "answered 500 (out of order)" in says()
    hub.status, hub.wait = None, 0.3
    monkeypatch.setattr(on_hub, "SECONDS", 0.05)
    assert "did not answer in time" in says()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port "discard", where nothing listens
    assert "http://127.0.0.1:9 could not be reached" in says()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in says()


def test_a_private_repository_needs_a_token(hub, stored, monkeypatch):
    stored.private = True
    with pytest.raises(FerError, match="or a private one; for a private one set HF_TOKEN"):
        fer.load(f"hf://{NAME}", download=True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(FerError, match="or a private one; the token may not read it"):
        fer.load(f"hf://{NAME}", download=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fer.load(f"hf://{NAME}", download=True).architecture == "resnet9"


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(FerError, match="the extra hub: pip install 'huggingface_hub"):
        fer.load(f"hf://{NAME}")


# --- uploads --------------------------------------------------------------------------------------------------------


def test_a_network_is_uploaded_and_fetched_again(hub, share, monkeypatch):
    monkeypatch.setattr(onnx_file, "check_packages", no_onnx)
    ended = share("tiny", "--upload", NAME)
    assert (ended.code, "needs a token" in ended.line, "HF_TOKEN" in ended.line) == (1, True, True)
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    ended = share("tiny", "--upload", NAME, "--private")
    assert ended.code == 0, ended.err
    assert "uploaded: model.safetensors, config.json, README.md" in ended.out
    assert f"{hub.url}/{NAME}" in ended.out
    assert list(Path().iterdir()) == []
    repository = hub.repositories[NAME]
    assert repository.private
    assert set(repository.commits[repository.branches["main"]]) == {"README.md", "config.json", "model.safetensors"}
    card = repository.commits[repository.branches["main"]]["README.md"].decode()
    assert f'fer.load("hf://{NAME}", download=True)' in card
    assert "# faces, facial-emotion recognition" in card
    model = fer.load(f"hf://{NAME}", download=True)
    assert torch.equal(model.probabilities(FACES), fer.load("tiny").probabilities(FACES))


def test_a_folder_with_an_edited_card_is_uploaded_to_a_branch_without_other_files(hub, share, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hashed, sha256_of = [], hub_files.sha256_of
    monkeypatch.setattr(hub_files, "sha256_of", lambda file: hashed.append(file.name) or sha256_of(file))
    card = folder / "README.md"
    card.write_text(card.read_text() + "\n## By hand\n")
    (folder / "notes.txt").write_text("of the author")
    for option in (["--license", "mit"], ["--full"]):  # of no effect on a folder that is written already
        refused = share(str(folder), "--upload", NAME, *option)
        assert (refused.code, f"{option[0]}: " in refused.line) == (1, True), refused.err
    hashed.clear()
    ended = share(str(folder), "--upload", NAME, "--revision", "trial")
    assert ended.code == 0, ended.err
    assert hashed == ["model.safetensors"]  # once
    assert f"{hub.url}/{NAME}/tree/trial" in ended.out
    repository = hub.repositories[NAME]
    files = repository.commits[repository.branches["trial"]]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b"## By hand" in files["README.md"]
    assert repository.commits[repository.branches["main"]] == {}
    (folder / "model.safetensors").write_bytes(b"another")
    ended = share(str(folder), "--upload", NAME)
    assert (ended.code, "changed or damaged" in ended.line) == (1, True)


def test_a_token_that_may_not_write_is_one_line(hub, share, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    ended = share(str(folder), "--upload", NAME)
    assert (ended.code, "the token does not allow it (403)" in ended.line) == (1, True)


def test_secrets_never_reach_a_message(hub, stored, share, folder, monkeypatch):
    def says():
        with pytest.raises(FerError) as caught:
            fer.load(f"hf://{NAME}", download=True)
        return str(caught.value)

    def repeats(self, *_):
        self._send(400, {"error": f"bad {self.headers.get('Authorization')}\x1b[31m"})

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(hub_server, "ROUTES", ((hub_server.ROUTES[0][0], repeats),))
        assert "answered 400 (bad Bearer ***" in (said := says())
    assert TOKEN not in said
    assert said.isprintable()
    monkeypatch.setenv("HF_TOKEN", "hf_ü")
    assert "the token is not plain ASCII; set HF_TOKEN" in says()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("//", "//me:of_mine@"))
    ended = share(str(folder), "--upload", NAME)
    assert ended.code == 0, ended.err
    assert f"{hub.url}/{NAME}" in ended.out
    assert "of_mine" not in ended.out
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:of_mine@127.0.0.1:9")
    assert "http://127.0.0.1:9 could not be reached" in says()


def test_an_answer_of_no_hub_names_its_address(hub, stored, monkeypatch):
    for answer in (b"<html>log in</html>", b"[1]", b"{}", b'{"id": "a/b", "siblings": [1]}'):
        monkeypatch.setattr(hub_server, "ROUTES", ((".*", lambda self, a=answer: self._send(200, a)),))
        with pytest.raises(FerError, match=f"{hub.url} did not answer as the hub does; is HF_ENDPOINT right"):
            fer.load(f"hf://{NAME}", download=True)


def test_a_full_disk_is_not_taken_for_a_silent_hub(hub, stored, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/part")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(FerError, match=r"/cache/part: No space left on device; HF_HOME names another folder"):
        fer.load(f"hf://{NAME}", download=True)


def test_files_of_others_are_not_uploaded(hub, share, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    config, card = folder / "config.json", folder / "README.md"
    about, secret = json.loads(config.read_text()), tmp_path / "secret"
    secret.write_text("mine")
    recorded = {"sha256": hashlib.sha256(b"mine").hexdigest(), "bytes": 4}
    config.write_text(json.dumps({**about, "files": {**about["files"], "../secret": recorded}}))
    assert "config.json: names '../secret'; expected model.safetensors" in share(str(folder), "--upload", NAME).line
    config.write_text(json.dumps(about))
    card.unlink()
    card.symlink_to(secret)
    assert "README.md: is a link; an upload takes files alone" in share(str(folder), "--upload", NAME).line
    card.unlink()
    card.write_bytes(b"\xff")
    assert "README.md: is not UTF-8" in share(str(folder), "--upload", NAME).line
    assert hub.repositories == {}


@pytest.mark.slow
def test_the_graph_predicts_what_the_folder_does(share, predict):
    onnx_file.check_packages()
    assert share("tiny", "graph/").code == 0
    about = json.loads(Path("graph/config.json").read_text())
    assert about["files"]["model.onnx"]["bytes"] == Path("graph/model.onnx").stat().st_size
    from fer.inference.exported import ExportedNetwork

    network = ExportedNetwork("graph/model.onnx")
    assert "# graph, facial-emotion recognition" in network.about.card
    faces = torch.randint(0, 256, (8, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = fer.load("graph/").probabilities(faces)
    assert torch.allclose(torch.from_numpy(network.probabilities(faces.numpy())), expected, atol=1e-4)

"""``python -m fer.train --info models``: the networks, their costs, their times."""

import re
from operator import mul

import pytest
from conftest import settings_of_first_job
from torch import nn

from fer.models import MODELS, EmotionClassifier, create
from fer.training.model_table import Entry, duration, legend, listing, multiply_adds, seconds_a_face

PLUGIN = '''
from torch import nn
from fer.models import EmotionClassifier, register

@register("tiny")
class Tiny(EmotionClassifier):
    """One convolution.

    Nothing else.
    """
    def __init__(self, width: int = 8, **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Linear(width, self.num_classes))

@register("needy")
class Needy(Tiny):
    """A network with an argument that has no default."""
    def __init__(self, breadth: int, **contract):
        super().__init__(width=breadth, **contract)

@register("misfit")
class Misfit(EmotionClassifier):
    """A network for faces of another size."""
    def __init__(self, **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(99, self.num_classes))

@register("broken")
class Broken(EmotionClassifier):
    def __init__(self, **contract):
        raise OSError("its weights are not there")
'''


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("fer.training.model_table.SECONDS", 0.001)
    monkeypatch.setattr("fer.training.model_table.LEAST", 1)
    monkeypatch.setattr("fer.training.model_table.BATCHES", (1, 2))
    monkeypatch.setattr("fer.training.model_table.WARM_UP", 1)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "four_nets.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return "plugins=[four_nets]"


@pytest.fixture
def few(monkeypatch):
    """Two of the shipped networks: with all of them a list takes seconds, which one test is enough for."""
    monkeypatch.setattr(MODELS, "_entries", {name: MODELS._entries[name] for name in ("mlp", "cnn")})


def rows(out):
    """Return name -> cells; columns lie two spaces or more apart."""
    return {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())}


@pytest.mark.slow  # makes every network
def test_lists_the_networks_with_hand_counted_costs(train, monkeypatch):
    monkeypatch.setattr("fer.training.model_table.SECONDS", 0.01)
    ended = train("--info", "models", "trainer.accelerator=cpu")
    assert (ended.code, ended.err) == (0, "")
    listed = rows(ended.out)
    assert listed["name"] == [
        "parameters", "multiply-adds", "CPU, batch 1", "CPU, batch 2", "what it is"
    ]  # fmt: skip
    assert listed["mlp"][:2] == ["1,314,055", f"{(48 * 48 * 512 + 512 * 256 + 256 * 7) / 1e6:.2f} M"]
    assert listed["mlp"][-1] == "Dense layers on raw pixels."
    assert listed["cnn"][0] == "980,455"
    blocks = [(3, 64, 64), (64, 128, 128), (128, *[256] * 3), (256, *[512] * 3), (512, *[512] * 3)]  # channels
    per_pixel = [9 * sum(map(mul, block, block[1:])) for block in blocks]
    convolutions = sum(side**2 * products for side, products in zip((48, 24, 12, 6, 3), per_pixel, strict=True))
    assert listed["vgg16"][:2] == ["14,848,839", f"{(convolutions + 512 * 256 + 256 * 7) / 1e6:.2f} M"]
    assert all(re.fullmatch(r"[\d.]+ (µs|ms|s)", cell) for name in ("mlp", "cnn") for cell in listed[name][2:4])
    assert "48x48" in ended.out
    assert re.search(r"CPU: .+, \d+ threads? of \d+ cores", ended.out)


def test_plugins_are_listed_and_those_that_cannot_be_built_are_noted(train, few, plugin):
    ended = train("--info=models", plugin, "data.image_size=24", "trainer.accelerator=cpu")
    assert (ended.code, ended.err) == (0, "")
    listed = rows(ended.out)
    assert listed["tiny"][0] == str(8 * 9 + 8 + 8 * 7 + 7)
    assert listed["tiny"][1] == f"{(22 * 22 * 8 * 9 + 8 * 7) / 1e6:.2f} M"
    assert listed["tiny"][-1] == "One convolution."
    assert listed["needy"][:4] == ["-"] * 4
    assert "needy: needs arguments: model=needy model.breadth=" in ended.out
    assert "misfit: cannot take faces of shape (2, 1, 24, 24)" in ended.out
    assert "broken: OSError: its weights are not there" in ended.out


def test_the_arguments_of_the_named_network_hold(train, few, plugin):
    base = ("--info", "models", "trainer.accelerator=cpu", "data.image_size=24")
    assert rows(train(*base, "model=mlp", "model.hidden=[16]").out)["mlp"][0] == "9,367"
    assert rows(train(*base, plugin, "model=needy", "model.breadth=3").out)["needy"][0] == str(3 * 9 + 3 + 3 * 7 + 7)


def test_a_row_is_printed_before_the_next_network_is_measured(few, monkeypatch):
    built = []
    monkeypatch.setattr("fer.training.model_table.entry_of", lambda name, *_: built.append(name) or Entry(name, "", 1))
    monkeypatch.setattr("fer.training.model_table._values", lambda *_: ["1"] * 4)
    lines = listing(settings_of_first_job(["trainer.accelerator=cpu"]))
    assert next(lines).startswith("name ")
    assert next(lines).startswith("---")
    for number, name in enumerate(("cnn", "mlp")):
        assert next(lines).startswith(f"{name} ")
        assert len(built) == number + 1


def test_a_time_is_that_of_the_fastest_pass(monkeypatch):
    """A warm-up of 9 seconds, then passes of 5, 2 and 4; the last ones begin before the seconds are over."""
    clock = iter([0, 9, 10, 15, 20, 22, 30, 34, 40, 41])
    monkeypatch.setattr("fer.training.model_table._now", lambda device: next(clock))
    monkeypatch.setattr("fer.training.model_table.LEAST", 3)
    assert seconds_a_face(create({"name": "mlp", "hidden": [4]}, image_size=8), "cpu", 2) == 1.0


@pytest.mark.parametrize(("load", "said"), [(0.2, False), (64.5, True)])
def test_a_busy_machine_is_reported(load, said):
    assert ("64.5" in "\n".join(legend(48, ["cpu"], load))) == said


def test_multiply_adds_of_small_networks_by_hand():
    mlp = create({"name": "mlp", "hidden": [10, 5]}, image_size=16)
    assert multiply_adds(mlp) == 256 * 10 + 10 * 5 + 5 * 7
    cnn = create({"name": "cnn", "channels": [4, 6], "depth": 2, "hidden": 9}, image_size=16)
    first, second = 16 * 16 * 9 * (1 * 4 + 4 * 4), 8 * 8 * 9 * (4 * 6 + 6 * 6)
    assert multiply_adds(cnn) == first + second + 6 * 4 * 4 * 9 + 9 * 7


class Rows(EmotionClassifier):
    """Attention over the rows of a face."""

    def __init__(self, **contract):
        super().__init__(**contract)
        side = self.image_size
        layer = nn.TransformerEncoderLayer(side, nhead=2, dim_feedforward=32, batch_first=True)
        self.net = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(side * side, self.num_classes))


def test_attention_is_counted_though_inference_has_a_kernel_of_its_own():
    side = 16
    attention = 4 * side * side * side + 2 * side * side * side  # projections; scores and weighted sum
    assert multiply_adds(Rows(image_size=side)) == attention + 2 * side * side * 32 + side * side * 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m"], "--info models takes only key=value; leave out -m"),
        (["model.dept=3"], "did you mean 'model.depth'?"),
        (["+data.color=1"], "keys cannot be added"),
        (["plugins=[no_such_module]"], "could not be imported"),
        (["data.image_size=4"], "out of range"),
    ],
)
def test_a_mistake_is_one_line(train, arguments, says):
    ended = train("--info", "models", *arguments)
    assert ended.code == 1
    assert says in ended.line


@pytest.mark.parametrize("topic", ["defaults", "searchpath"])
def test_hydras_own_info_still_works(train, topic):
    ended = train("--info", topic)
    assert ended.code == 0
    assert "batch 2" not in ended.out
    assert ended.out.strip()


def test_unknown_info_is_one_line(train):
    assert "invalid choice: 'modls'" in train("--info", "modls").line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.31e-5, "83.1 µs"), (2.2e-3, "2.20 ms"), (0.355, "355 ms"), (0.9996, "1.00 s"), (12, "12.0 s")],
)
def test_times_have_three_digits(seconds, text):
    assert duration(seconds) == text

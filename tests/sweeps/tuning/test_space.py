"""What a search varies: read from YAML and the command line, and checked before the first trial."""

import pytest

from fer.config.conf import conf_folder, plain
from fer.config.errors import FerError
from fer.config.hydra import composed
from fer.sweeps.tuning.space import Parameter, Span, checked, configured, read

SPACES = sorted(file.stem for file in (conf_folder() / "space").glob("*.yaml"))
MLP = ["model=mlp", "data=synthetic", "trainer.accelerator=cpu"]


def one(entry, key="optimizer.lr", fixed=None):
    (parameter,) = read({key: entry}, fixed or {})
    return parameter


@pytest.mark.parametrize("name", SPACES)
def test_every_shipped_space_is_sound(name):
    model = name if name in ("mlp", "cnn") else "cnn"
    section = plain(composed([f"space={name}"], "tune"))["space"]
    parameters = checked(read(section, {}), [f"model={model}", "trainer.accelerator=cpu"])
    assert {parameter.key for parameter in parameters} == set(section)


def test_what_pruning_cannot_compare_is_not_searched():
    with pytest.raises(FerError, match=r"budget\.hours.*tune\.hours="):
        one([1, 2], "budget.hours")


def test_a_list_is_choices_and_a_section_is_a_range():
    assert one([0.1, 0.2]).texts == ["0.1", "0.2"]
    assert one({"choices": [[16], [32, 16]]}, "model.hidden").texts == ["[16]", "[32,16]"]
    assert one({"low": 0.1, "high": 1, "log": True}).span == Span(0.1, 1, log=True)
    assert one(["none", "basic"], "augment").texts == ["none", "basic"]
    assert one([None, 1.0], "trainer.gradient_clip").texts == ["null", "1.0"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"low": 2, "high": 1}, "low=2 must be below high=1"),
        ({"low": 1, "high": 1}, "low=1 must be below high=1"),
        ({"low": 0, "high": 1, "log": True}, "low=0 has no logarithm"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "step and log exclude each other"),
        ({"low": 0, "high": 1, "step": 0.3}, "step=0.3 does not lead from low=0 to high=1"),
        ({"low": 0, "high": 1, "step": 0}, "step=0 does not lead"),
        ({"low": 0, "hihg": 1}, "did you mean 'high'?"),
        ({"low": 0}, "space.optimizer.lr.high is missing"),
        ({"low": "a", "high": 1}, "space.optimizer.lr.low"),
        ({"choices": 3}, "expected a list"),
        ([0.1], "at least two choices"),
        ([0.1, 0.1], "each once"),
        ("adamw", "expected {low: 0, high: 1} or a list of choices"),
        ({"lr": {"low": 0, "high": 1}}, "expected {low: 0, high: 1} or a list of choices"),
        ({"low": 0, "high": 1, "when": {"optimizer": "sgd"}}, "expected a key of this space with choices"),
    ],
)
def test_a_faulty_entry_is_refused_in_words(entry, said):
    with pytest.raises(FerError, match="space.optimizer.lr") as raised:
        one(entry)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "key", ["seed", "monitor", "data", "data.path", "data.split_seed", "trainer", "trainer.limit_val", "logger.report",
            "resume", "experiment", "sweep.jobs", "plugins"],
)  # fmt: skip
def test_what_would_make_trials_incomparable_is_not_searched(key):
    with pytest.raises(FerError, match="cannot be searched"):
        one(["a", "b"], key)


@pytest.mark.parametrize("key", ["data.batch_size", "data.image_size", "trainer.max_epochs", "trainer.gradient_clip"])
def test_these_keys_of_their_sections_are_searched(key):
    assert one([1, 2], key).key == key


def test_what_the_command_line_sets_does_not_vary():
    section = {"augment": ["none", "basic"], "optimizer.lr": [0.1, 0.2], "model.dropout": None}
    assert [parameter.key for parameter in read(section, {"augment": "none"})] == ["optimizer.lr"]
    with pytest.raises(FerError, match="the command line sets all"):
        read(section, {"augment": "none", "optimizer.lr": "1.0"})
    with pytest.raises(FerError, match="nothing varies; "):
        read({}, {})


def test_conditions():
    section = {
        "optimizer.momentum": {"low": 0.8, "high": 0.9, "when": {"optimizer": "sgd"}},
        "optimizer": ["adamw", "sgd"],
    }
    optimizer, momentum = read(section, {})  # those with conditions come last
    assert not momentum.applies({"optimizer": "adamw"})
    assert momentum.applies({"optimizer": "sgd"})
    assert str(momentum) == "0.8 to 0.9, where optimizer=sgd"
    assert optimizer.applies({})
    assert [parameter.key for parameter in read(section, {"optimizer": "sgd"})] == ["optimizer.momentum"]
    assert read(section, {"optimizer": "sgd"})[0].when == {}
    with pytest.raises(FerError, match="nothing varies"):
        read(section, {"optimizer": "adamw"})
    with pytest.raises(FerError, match=r"optimizer=sgdd: the space has adamw, sgd; did you mean 'sgd'\?"):
        read(section | {"optimizer.momentum": {"choices": [0.8, 0.9], "when": {"optimizer": ["sgdd"]}}}, {})


def test_drawn_numbers_read_well_and_stay_within():
    rate = one({"low": 0.00012342, "high": 0.0123456, "log": True})
    assert rate.text(0.0012344999) == "0.001234"
    assert rate.text(0.01234559) == "0.0123456"
    assert rate.text(0.000123421) == "0.00012342"
    assert one({"low": 0, "high": 0.5, "step": 0.05}, "model.dropout").text(0.15000000000000002) == "0.15"
    assert Parameter("model.depth", span=Span(1, 3), whole=True).text(2) == "2"
    fine = Parameter("loss.label_smoothing", span=Span(1.0, 1.001, step=0.0001))
    values = [1.0 + 0.0001 * number for number in range(11)]
    assert [fine.text(value) for value in values] == ["1.0", *(f"1.000{number}" for number in range(1, 10)), "1.001"]


def test_a_configured_number_keeps_its_digits():
    rate = one({"low": 0.00012342, "high": 0.0123456, "log": True})
    assert rate.text(0.00123456, in_full=True) == "0.00123456"
    assert rate.text(0.00123456) == "0.001235"


def test_a_range_holds_what_may_be_drawn():
    dropout = one({"low": 0.1, "high": 0.5, "step": 0.1}, "model.dropout")
    assert dropout.holds(0.3)
    assert not dropout.holds(0.25)
    assert not dropout.holds(0.6)
    assert not dropout.holds(None)
    assert one([None, 1.0], "trainer.gradient_clip").holds(None)
    assert not one([0, 1], "optimizer.lr").holds(False)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"optimizer.lrr": [1, 2]}, "space: optimizer.lrr: no such key; did you mean 'optimizer.lr'?"),
        ({"optimizer.lr": {"low": -1, "high": 1}}, "space: optimizer.lr=-1: out of range; it must be above 0"),
        ({"model.dropout": {"low": 0.0, "high": 1.0}}, "space: model.dropout=1.0: out of range"),
        ({"data.batch_size": {"low": 1, "high": 64}}, "use at least 2"),
        ({"data.batch_size": {"low": 16.5, "high": 64}}, "data.batch_size=16.5: expected auto or a whole number"),
        ({"augment": ["none", "basik"]}, "did you mean 'basic'?"),
        ({"augment": {"low": 0, "high": 1}}, "space.augment: is a group"),
        (
            {"optimizer": ["adamw", "sgd"], "optimizer.momentum": [0.8, 0.9]},
            "space, optimizer=adamw: optimizer.momentum",
        ),
        ({"model": ["mlp", "cnn"], "model.head_dropout": [0.1, 0.2]}, "space, model=mlp: model.head_dropout"),
    ],
)
def test_every_key_and_end_is_checked_wherever_it_is_varied(section, said):
    with pytest.raises(FerError) as raised:
        checked(read(section, {}), MLP)
    assert said in str(raised.value)


def test_a_condition_is_checked_where_it_holds():
    section = {
        "model": ["mlp", "cnn"],
        "optimizer": ["adamw", "sgd"],
        "model.head_dropout": {"low": 0.0, "high": 0.5, "when": {"model": "cnn"}},
        "optimizer.momentum": {"choices": [0.8, 0.9], "when": {"optimizer": "sgd", "model": ["mlp", "cnn"]}},
    }
    assert len(checked(read(section, {}), MLP[1:])) == 4
    with pytest.raises(FerError, match="space, model=cnn: model.head_dropout=1.5: out of range"):
        checked(read(section | {"model.head_dropout": {"choices": [0.1, 1.5], "when": {"model": "cnn"}}}, {}), MLP[1:])


def test_whole_numbers_are_written_as_such_and_not_where_the_key_holds_a_fraction():
    section = {"data.batch_size": {"low": 16, "high": 64, "step": 16}, "augment.rotate_degrees": {"low": 0, "high": 20}}
    batch, degrees = checked(read(section, {}), MLP)
    assert batch.whole
    assert not degrees.whole


def test_a_loss_cannot_be_searched_and_compare_the_trials():
    with pytest.raises(FerError, match="cannot be compared by monitor=loss/val"):
        checked(read({"loss.label_smoothing": [0.0, 0.1]}, {}), [*MLP, "monitor=loss/val"])
    assert checked(read({"optimizer.lr": [0.1, 0.2]}, {}), [*MLP, "monitor=loss/val"])


@pytest.mark.parametrize("choices", [[0, 0.5], [0.0, 0.5]])
def test_a_choice_is_a_value_however_it_is_spelled(choices):
    parameters = checked(read({"model.dropout": choices}, {}), [*MLP, "model.dropout=0.0"])
    (text,) = configured(parameters, [*MLP, "model.dropout=0.0"]).values()
    assert text == parameters[0].texts[0]


def test_the_configured_values_are_known_where_the_space_holds_them():
    section = {
        "augment": ["none", "flip"],
        "scheduler": ["none", "step"],
        "optimizer.lr": {"low": 0.001, "high": 0.1, "log": True},
        "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.125},
        "model.hidden": [[16], [512, 256]],
        "optimizer.beta1": [0.8, 0.95],
    }
    configured_values = configured(checked(read(section, {}), MLP), MLP)
    assert configured_values == {"augment": "flip", "optimizer.lr": 0.002, "model.hidden": "[512,256]"}

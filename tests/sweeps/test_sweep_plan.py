"""What a sweep's command line asks for, and what of it is done already."""

import functools
import itertools
import json
from pathlib import Path

import pytest
from conftest import SMALL
from omegaconf import OmegaConf

from fer.config.conf import conf_folder, plain
from fer.config.errors import FerError
from fer.config.hydra import composed, tidied
from fer.config.settings import AugmentSettings
from fer.runs.run_folder import identity
from fer.sweeps.plan import expanded, finished, planned, read, stored
from fer.system import locks


def jobs_of(*arguments: str) -> list[list[str]]:
    return expanded(read(["-m", *arguments]))


def test_lists_are_combined_the_last_one_fastest():
    assert jobs_of("model=mlp,cnn", "seed=0,1") == [[f"model={m}", f"seed={s}"] for m in ("mlp", "cnn") for s in (0, 1)]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("scheduler=glob(*,exclude=[c*,e*,n*])", ["onecycle", "plateau", "step"]),
        ("data.path='a b,c=d.csv','it\\'s'", ["'a b,c=d.csv'", "'it\\'s'"]),
        ("model.hidden=[1,2],[3]", ["[1,2]", "[3]"]),
        ("seed=5", ["5"]),
    ],
)
def test_what_hydra_writes_as_a_list_is_one(given, values):
    key = given.partition("=")[0]
    assert jobs_of(given) == [[f"{key}={value}"] for value in values]


SCHEDULES, NETWORKS = (
    {file.stem for file in (conf_folder() / group).glob("*.yaml")} for group in ("scheduler", "model")
)


@pytest.mark.parametrize(
    ("name", "beside", "count"),
    [
        ("schedules", [], len(SCHEDULES)),
        pytest.param("augmentation", [], 17, marks=pytest.mark.slow),
        ("architectures", [], len(NETWORKS) - 1),
        ("losses", [], 9),
        ("folds", [], 5),
        ("speedrun", ["experiment=speedrun/63"], 10),
        pytest.param("recipes", ["experiment=best/tiny"], 18, marks=pytest.mark.slow),
        ("ensemble", ["experiment=best/ensemble", "seed=0"], 6),
        ("study", ["seed=0"], 12),
    ],
)
def test_each_shipped_sweep_composes_to_different_jobs(name, beside, count):
    plan = planned(read(["-m", *beside, f"sweep={name}", "data=synthetic", "hydra.sweep.dir=s"]))
    assert (len(plan.jobs), plan.doubles) == (count, 0)
    assert not any(job.reason for job in plan.jobs)


@pytest.mark.slow
def test_each_row_of_the_recipes_can_train(tmp_path, train):
    """Composing is not enough: a loss may take no mixed faces."""
    settings = ("experiment=best/tiny", "data=synthetic", "data.synthetic_count=140", "model.width=4")
    settings += ("trainer.max_epochs=1", "trainer.limit_train=1", "trainer.threads=1", "logger=none")
    rows = jobs_of("sweep=recipes")
    assert len(rows) == 18
    for number, overrides in enumerate(rows):
        ended = train(*settings, *overrides, f"hydra.run.dir={tmp_path / str(number)}")
        assert ended.code == 0, (overrides, ended.err)
        assert (tmp_path / str(number) / "metrics.json").is_file()


def test_the_schedules_and_architectures_are_all_there_are():
    assert {text for (text,) in jobs_of("sweep=schedules")} == {f"scheduler={name}" for name in SCHEDULES}
    assert {text for (text,) in jobs_of("sweep=architectures")} == {
        f"model={name}" for name in NETWORKS if name != "timm"
    }


def test_the_augmentations_are_each_alone_each_left_out_none_and_all():
    strong, basic = (plain(composed([f"augment={name}"]))["augment"] for name in ("strong", "basic"))
    off = vars(AugmentSettings())
    flags = {key: value for key, value in strong.items() if value != off[key]} | {"crop_padding": basic["crop_padding"]}
    expected = [off, strong, *({**off, key: value} for key, value in flags.items())]
    expected += [{**strong, key: 0} for key in flags if strong[key] != off[key]]
    augments = [plain(composed(overrides))["augment"] for overrides in jobs_of("sweep=augmentation", "model=cnn")]
    assert len(augments) == 17
    assert sorted(map(str, map(sorted_items, augments))) == sorted(map(str, map(sorted_items, expected)))


def sorted_items(values: dict) -> list:
    return sorted((key, float(value)) for key, value in values.items())


def test_the_command_line_goes_with_a_shipped_sweep_and_before_it():
    jobs = jobs_of("sweep=schedules", "seed=0,1", "trainer.max_epochs=10")
    assert len(jobs) == 12
    assert jobs[0] == ["scheduler=none", "seed=0", "trainer.max_epochs=10"]
    assert jobs_of("sweep=schedules", "scheduler=cosine") == [["scheduler=cosine"]]
    assert not any(text.startswith("sweep") for text in itertools.chain(*jobs))


def test_a_key_that_the_alternatives_set_is_not_set_twice():
    with pytest.raises(FerError, match="flip=0.3: this sweep varies augment.flip itself"):
        jobs_of("sweep=augmentation", "augment.flip=0.3")


OWN = """
defaults: [none]
over:
  model.hidden: [[16], [8, 8]]
  data.path: [a b, null]
  data.on_bad: [skip]
  seed: range(3,5)
"""


def test_a_sweep_of_ones_own_is_a_file(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(OWN)
    jobs = jobs_of(*tidied(["--config-dir", str(tmp_path), "sweep=mine", "model=mlp"]))
    ends = itertools.product(["model.hidden=[16]", "model.hidden=[8,8]"], ["data.path='a b'", "data.path=null"])
    assert jobs == [[*e, "data.on_bad=skip", f"seed={s}", "model=mlp"] for e in ends for s in (3, 4)]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["seed=interval(0,1)"], "no range without steps"),
        (["seed=range(0,0)"], "a sweep without jobs"),
        (["sweep=schedules,augmentation"], "sweep: takes one value"),
        (["sweep=shedules"], "did you mean 'schedules'?"),
        (["sweep.over={seed:[1,2]}"], "write key=value,value"),
        (["sweep.jobs=0"], "at least 1"),
        (["sweep.jbs=1"], "did you mean 'sweep.jobs'?"),
        (["resume=x"], "leave out -m"),
        (["hydra.run.dir=x"], "name the sweep's folder with --out"),
        (["hydra.sweep.subdir=x"], "numbered"),
        (["hydra/sweeper=basic"], "hydra/sweeper"),
        (["--config-name", "x"], "--config-name"),
        (["sweep.resume=nowhere"], "nowhere: no sweep folder"),
        (["sweep.resume=.", "hydra.sweep.dir=x"], "no sweep folder"),
    ],
)
def test_what_cannot_be_swept_is_one_line(tmp_path, given, line):
    with pytest.raises(FerError, match=line):
        jobs_of(*given)


def test_jobs_that_compute_the_same_are_done_once():
    plan = planned(read(["-m", "data=synthetic", "seed=0,1,0", "logger=none,tensorboard", "hydra.sweep.dir=s"]))
    assert (len(plan.jobs), plan.doubles) == (2, 4)


def test_a_configuration_that_is_refused_is_one_job_and_all_of_them_an_error():
    plan = planned(read(["-m", "data=synthetic", "data.image_size=24,8", "hydra.sweep.dir=s"]))
    assert [bool(job.reason) for job in plan.jobs] == [False, True]
    assert "image_size=8: out of range" in plan.jobs[1].reason
    with pytest.raises(FerError, match="seed=-1: out of range"):
        planned(read(["-m", "data=synthetic", "seed=-1", "model=mlp,cnn", "hydra.sweep.dir=s"]))


def test_data_are_looked_for_once_before_the_first_job(tmp_path, monkeypatch):
    (tmp_path / "faces.csv").touch()
    monkeypatch.setenv("FER_DATA", "faces.csv")
    plan = planned(read(["-m", "seed=0,1", "hydra.sweep.dir=s"]))
    assert [job.environment for job in plan.jobs] == [{"FER_DATA": str(tmp_path / "faces.csv")}] * 2


# --- going on -------------------------------------------------------------------------------------------------------


@functools.cache
def known(seed: int) -> str:
    return identity(plain(composed([*SMALL, f"seed={seed}"])))


def hold(folder: Path, number: int, seed: int, code: int | None, *files: str) -> None:
    """Make a job's folder as a sweep leaves it."""
    path = folder / str(number)
    path.mkdir(parents=True)
    record = {"overrides": [*SMALL, f"seed={seed}"], "identity": known(seed), "exit_code": code, "seconds": 7.5}
    (path / "job.json").write_text(json.dumps(record))
    for file in ("console.log", *files):
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text("{}" if file.endswith(".json") else "")


RESULT = ("metrics.json", "history.csv", "predictions.csv")
CUT = ("checkpoints/last.ckpt", ".hydra/config.yaml")


@pytest.fixture
def before(tmp_path):
    """The folder of a sweep over seeds 0 to 5, whose jobs came to different ends."""
    folder = tmp_path / "s"
    hold(folder, 0, 0, 0, *RESULT, *CUT)
    hold(folder, 1, 1, 143, *CUT)
    hold(folder, 2, 2, 1, *CUT)
    hold(folder, 3, 3, None, *CUT)
    hold(folder, 4, 4, 130)
    hold(folder, 10, 0, 1)  # which failed, but another with its configuration is done
    (folder / "sweep.json").write_text(json.dumps({"arguments": [*SMALL, "seed=0,1,2,3,4,5"], "jobs": []}))
    return folder


def test_what_is_done_stays_what_was_cut_off_goes_on_and_the_rest_is_new(before):
    plan = planned(read(["-m", f"sweep.resume={before}"]))
    assert [(job.folder.name, job.code, job.resume) for job in plan.jobs] == [
        ("0", 0, False),
        ("1", None, True),
        ("11", None, False),
        ("3", None, True),
        ("12", None, False),
        ("13", None, False),
    ]
    assert plan.jobs[0].seconds == 7.5
    assert [(folder.name, job.folder.name) for folder, job in plan.again] == [("2", "11"), ("4", "12")]
    assert plan.unasked == 0


def test_further_overrides_replace_those_of_the_sweep(before):
    plan = planned(read(["-m", f"sweep.resume={before}", "seed=1,7"]))
    assert [(job.folder.name, job.resume) for job in plan.jobs] == [("1", True), ("11", False)]
    assert plan.unasked == 1
    other = planned(read(["-m", f"sweep.resume={before}", "trainer.max_epochs=4"]))
    assert not any(job.resume or job.code == 0 for job in other.jobs)
    assert [folder.name for folder in other.saved] == ["1", "3"]


def test_jobs_are_known_by_their_configuration_and_not_by_their_number(before):
    (before / "0").rename(before / "100")
    (before / "1").rename(before / "101")
    plan = planned(read(["-m", f"sweep.resume={before}", "seed=0,1"]))
    assert [(job.folder.name, job.code, job.resume) for job in plan.jobs] == [("100", 0, False), ("101", None, True)]


def test_a_folder_of_any_name_is_gone_on_with(before, tmp_path):
    moved = before.rename(tmp_path / "a, b=c 'd' [e]")
    plan = planned(read(["-m", f"sweep.resume={moved}"]))
    assert [job.folder.parent for job in plan.jobs] == [moved] * 6


def test_a_sweep_that_still_runs_is_left_alone(before, monkeypatch):
    with open(before / "3" / "console.log", "ab") as console:
        locks.hold(console)
        with pytest.raises(FerError, match="its job 3 still runs"):
            planned(read(["-m", f"sweep.resume={before}"]))


@pytest.mark.parametrize(
    "contents", ["", "{}", "[]", '{"arguments": "x", "jobs": 1}', '{"arguments": [1], "jobs": []}']
)
def test_a_damaged_sweep_is_one_line(before, contents):
    (before / "sweep.json").write_text(contents)
    with pytest.raises(FerError, match="sweep.json: damaged"):
        stored(before)


def test_damaged_records_of_jobs_are_jobs_that_are_missing(before):
    (before / "0" / "job.json").write_text("{")
    (before / "1" / "checkpoints" / "last.ckpt").unlink()
    plan = planned(read(["-m", f"sweep.resume={before}", "seed=0,1"]))
    assert [(job.folder.name, job.resume) for job in plan.jobs] == [("11", False), ("12", False)]
    assert [folder.name for folder in plan.unreadable] == ["0"]


def test_a_job_without_its_record_is_known_by_its_configuration(before):
    for number, seed in ((0, 0), (1, 1)):
        OmegaConf.save(composed([*SMALL, f"seed={seed}"]), before / str(number) / ".hydra" / "config.yaml")
    (before / "0" / "job.json").write_text("{")
    (before / "1" / "job.json").unlink()
    plan = planned(read(["-m", f"sweep.resume={before}", "seed=0,1"]))
    assert [(job.folder.name, job.code, job.resume) for job in plan.jobs] == [("0", 0, False), ("1", None, True)]
    assert not plan.unreadable
    assert [folder.name for folder in finished(before)] == ["0"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda job: (job / "metrics.json").write_text('{"accuracy": 0.5'),
        lambda job: (job / "predictions.csv").unlink(),
        lambda job: (job / "history.csv").unlink(),
        lambda job: (job / "job.json").write_text((job / "job.json").read_text().replace("7.5", '"abc"')),
    ],
)
def test_a_job_whose_result_is_damaged_is_done_again(before, damage):
    damage(before / "0")
    (done,) = planned(read(["-m", f"sweep.resume={before}", "seed=0"])).jobs
    assert (done.folder.name, done.code) == ("11", None)


def test_a_used_folder_is_refused(before):
    with pytest.raises(FerError, match="a sweep is in it already"):
        read(["-m", *SMALL, f"hydra.sweep.dir={before}"])

"""``python -m fer.compare`` as a user meets it."""

import shutil
import subprocess
import sys

import pytest
from conftest import metrics, runner

from fer.compare import main


@pytest.fixture
def compare(capfd):
    """Return a function that runs ``fer.compare``."""
    return runner(main, capfd)


@pytest.fixture
def two_runs(small_run, tmp_path):
    """A run, and one that differs from it by its seed and by the first face, which it reads otherwise."""
    other = shutil.copytree(small_run, tmp_path / "other")
    file = other / "metrics.json"
    changed = file.read_text().replace('"seed": 0', '"seed": 1')
    lines = (other / "predictions.csv").read_text().splitlines()
    row, split, target, predicted, *chances = lines[1].split(",")
    swapped = "happy" if predicted == target != "happy" else "sad" if predicted == target else target
    lines[1] = ",".join([row, split, target, swapped, *chances])
    (other / "predictions.csv").write_text("\n".join(lines) + "\n")
    right = sum(line.split(",")[2] == line.split(",")[3] for line in lines[1:])
    file.write_text(changed.replace(f'"accuracy": {metrics(small_run)["accuracy"]}', f'"accuracy": {right / 14}'))
    return small_run, other


def test_runs_are_laid_side_by_side(compare, two_runs, tmp_path):
    ended = compare(*map(str, two_runs))
    assert ended.code == 0, ended.err
    assert "1 configuration, 2 runs" in ended.out
    (folder,) = (tmp_path / "outputs" / "compare").iterdir()
    assert {file.name for file in folder.iterdir()} == {"compare.html", "leaderboard.csv", "leaderboard.md", "figures"}
    assert str(folder.relative_to(tmp_path) / "compare.html") in ended.out


def test_no_earlier_comparison_is_overwritten(compare, two_runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "leaderboard.md").write_text("mine")
    ended = compare(*map(str, two_runs), "--out", "out")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "leaderboard.md").read_text() == "mine"
    assert "Leaderboard" in (tmp_path / "out_2" / "leaderboard.md").read_text()
    assert "out_2" in ended.out


def test_a_pair_is_tested(compare, two_runs):
    first, second = map(str, two_runs)
    ended = compare(first, second, "--out", "out", "--pair", first, second, "--pair", second, first)
    assert ended.code == 0, ended.err
    (there,) = [line.split() for line in ended.out.splitlines() if line.startswith(f"{first} ")]
    (back,) = [line.split() for line in ended.out.splitlines() if line.startswith(f"{second} ")]
    assert sorted(there[2:4]) == ["0", "1"]  # one face parts them
    assert there[2:4] == back[3:1:-1]
    assert there[4:] == ["1.00", "1.00"]
    alone = compare(first, second, "--out", "alone", "--pair", first, second)
    assert "adjusted" not in alone.out.partition("McNemar")[2].splitlines()[1]


def test_a_pair_of_different_faces_is_refused(compare, two_runs, tmp_path):
    first, second = two_runs
    file = second / "predictions.csv"
    lines = file.read_text().splitlines()
    row, rest = lines[1].split(",", 1)
    file.write_text("\n".join([lines[0], f"{int(row) + 5000},{rest}", *lines[2:]]) + "\n")
    ended = compare(str(first), str(second), "--out", "out", "--pair", str(first), str(second))
    assert ended.code == 1
    assert "a paired test needs runs scored on the same faces (faces scored: 14 of val" in ended.line
    assert not (tmp_path / "out").exists()  # nothing half done
    assert compare(str(first), str(second), "--out", "out").code == 0


def test_rows_are_sorted_as_asked(compare, two_runs, tmp_path):
    first, second = two_runs
    config = second / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("label_smoothing: 0.1", "label_smoothing: 0.2"))
    file = second / "metrics.json"
    file.write_text(file.read_text().replace(f'"nll": {metrics(second)["nll"]}', '"nll": 0.001'))
    ended = compare(str(first), str(second), "--out", "out", "--sort", "nll")
    assert ended.code == 0
    assert "sorted by NLL" in ended.out
    assert "0.0010" in ended.out  # the column that sorts is shown
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Sorted by NLL." in page
    rows = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()
    assert rows[1].endswith("../other")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: runs"),
        (("nowhere",), "nowhere: no such folder"),
        ((".",), ".: no finished run"),
        (("run", "--out", "taken"), "--out: taken: is a file; name a folder"),
        (("run", "--pair", "run", "nowhere"), "nowhere"),
        (("run", "--pair", "run", "run"), "the same run twice; name two"),
        (("taken",), "taken: is a file, no folder"),
        (("run", "--sort", "luck"), "argument --sort: invalid choice: 'luck'"),
    ],
)
def test_faults_are_one_line(compare, small_run, tmp_path, arguments, said):
    if arguments == (".",):
        shutil.rmtree(small_run)
    (tmp_path / "taken").touch()
    ended = compare(*arguments)
    assert ended.code == 1
    assert said in ended.line


def test_help_answers_without_torch_and_without_hydra():
    code = (
        "import sys, fer.compare as c; c.parser().format_help(); print(sorted({'torch', 'hydra'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_comparing_needs_no_torch(small_run):
    code = "import sys; from fer.compare import main; main(['run', '--out', 'out']); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_test_metrics_are_shown_of_one_chosen_run_alone(compare, evaluate, two_runs, tmp_path):
    run = two_runs[0]
    refused = compare(*map(str, two_runs), "--test", str(run), "--out", str(tmp_path / "out"))
    assert refused.code == 1
    assert "its test split was not opened; python -m fer.evaluate" in refused.line
    assert not (tmp_path / "out").exists()
    for one in two_runs:
        assert evaluate(str(one), "--split", "test").code == 0
    assert evaluate(str(run), "--split", "test", "--tta", "flip").code == 0
    assert evaluate(str(run), "--split", "all").code == 0  # test among others
    plain = compare(*map(str, two_runs), "--out", str(tmp_path / "plain"))
    assert "Test evaluations of the chosen run" not in plain.out
    ended = compare(*map(str, two_runs), "--test", str(run), "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    assert f"Test evaluations of the chosen run {run}" in ended.out
    looks = [line.split() for line in ended.out.splitlines() if line.startswith(("test ", "test_flip ", "all "))]
    data = ["synthetic,", "drawn"]
    views = {"test": "none", "test_flip": "flip", "all": "none"}
    assert [line[:5] for line in looks] == [
        [name, str(number), *data, tta] for number, (name, tta) in enumerate(views.items(), 1)
    ]
    assert "in another folder" not in ended.out
    for name in ("leaderboard.md", "compare.html"):
        page = (tmp_path / "out" / name).read_text()
        assert page.count("test_flip") == 1, name
        assert "of the one chosen run" not in (tmp_path / "plain" / name).read_text()

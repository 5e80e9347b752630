"""The search for the data: the given path, $FER_DATA, data/, and drawn faces last."""

import pytest

from fer.config.errors import FerError
from fer.data import locate as module
from fer.data.locate import data_folders, locate


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder ``data/``, empty."""
    folder = tmp_path / "checkout" / "data"
    folder.mkdir(parents=True)
    monkeypatch.setattr(module, "data_folders", lambda: [folder])
    return folder


@pytest.fixture
def folders(tmp_path, data, monkeypatch):
    """Data at all three paths."""
    (data / "fer2013.csv").touch()
    for name in ("given", "variable"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("FER_DATA", str(tmp_path / "variable"))
    return tmp_path


@pytest.mark.parametrize("allowed", [True, False])
def test_the_path_given_comes_first(allowed, folders):
    assert locate(str(folders / "given"), drawn_faces_allowed=allowed) == (str(folders / "given"), False)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_variable_comes_second(allowed, folders):
    assert locate(None, drawn_faces_allowed=allowed) == (str(folders / "variable"), False)


@pytest.mark.parametrize("variable", [None, ""])
def test_the_folder_comes_third(variable, folders, data, monkeypatch):
    monkeypatch.delenv("FER_DATA")
    if variable is not None:
        monkeypatch.setenv("FER_DATA", variable)
    assert locate(None, drawn_faces_allowed=True) == (str(data), False)


@pytest.mark.parametrize("state", ["missing", "empty", "hidden files"])
def test_an_empty_folder_falls_through_to_drawn_faces(state, data):
    if state == "missing":
        data.rmdir()
    if state == "hidden files":
        (data / ".gitkeep").touch()
    assert locate(None, drawn_faces_allowed=True) == ("synthetic", True)


def test_without_data_and_drawn_faces_there_is_an_error(data):
    with pytest.raises(
        FerError, match=r"no data: data.path and \$FER_DATA are not set and .* is empty or missing"
    ) as no:
        locate(None, drawn_faces_allowed=False)
    assert str(data) in str(no.value)
    assert "msambare/fer2013" in str(no.value)


@pytest.mark.parametrize("allowed", [True, False])
def test_drawn_faces_requested_by_name_replace_nothing(allowed, folders):
    assert locate("synthetic", drawn_faces_allowed=allowed) == ("synthetic", False)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_path_given_and_missing_is_an_error_whatever_else_is_there(allowed, folders):
    with pytest.raises(FerError, match=r"data.path=.*gone.csv: no such file or folder"):
        locate(str(folders / "gone.csv"), drawn_faces_allowed=allowed)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_variable_set_and_missing_is_an_error_whatever_else_is_there(allowed, folders, monkeypatch):
    monkeypatch.setenv("FER_DATA", str(folders / "gone"))
    with pytest.raises(FerError, match=r"\$FER_DATA=.*gone: no such file or folder"):
        locate(None, drawn_faces_allowed=allowed)


def test_an_empty_path_is_an_error(folders):
    with pytest.raises(FerError, match=r"data.path=: no such file or folder"):
        locate("", drawn_faces_allowed=True)


def test_a_broken_link_is_missing(folders):
    (folders / "link").symlink_to(folders / "gone")
    with pytest.raises(FerError, match=r"data.path=.*link: no such file or folder"):
        locate(str(folders / "link"), drawn_faces_allowed=True)


def test_the_home_folder_may_be_abbreviated(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    monkeypatch.setenv("FER_DATA", "~/variable")
    assert locate("~/given", drawn_faces_allowed=False) == (str(folders / "given"), False)
    assert locate(None, drawn_faces_allowed=False) == (str(folders / "variable"), False)


def test_the_current_folder_is_searched_before_the_checkouts_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, root = data_folders()
    assert here == tmp_path / "data"
    assert (root.parent / "pyproject.toml").is_file()
    here.mkdir()
    (here / "fer2013.csv").touch()
    assert locate(None, drawn_faces_allowed=False) == (str(here), False)


def test_each_folder_that_was_searched_is_named(tmp_path, monkeypatch):
    first, second = tmp_path / "here" / "data", tmp_path / "checkout" / "data"
    monkeypatch.setattr(module, "data_folders", lambda: [first, second])
    with pytest.raises(FerError, match="no data") as no:
        locate(None, drawn_faces_allowed=False)
    assert str(first) in str(no.value)
    assert str(second) in str(no.value)


def test_for_an_installed_package_the_folder_is_in_the_current_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "fer" / "data" / "locate.py"))
    monkeypatch.chdir(tmp_path)
    assert data_folders() == [tmp_path / "data"]

"""Names of networks, as pages show them."""

import pytest

from fer.inference.network import title


@pytest.mark.parametrize(
    ("given", "named", "shown"),
    [
        ("outputs/cnn-lr0.05", "cnn-lr0.05", "cnn-lr0.05"),
        ("a.onnx", "a.onnx", "a"),
        ("tiny", "tiny", "tiny"),
        ("hf://lab/faces@v1.2", "snapshots/0123abcd", "hf://lab/faces@v1.2"),
    ],
)
def test_a_page_names_the_network_and_not_where_its_files_lie(tmp_path, given, named, shown):
    (tmp_path / "cnn-lr0.05").mkdir()
    (tmp_path / "snapshots" / "0123abcd").mkdir(parents=True)
    assert title(given, tmp_path / named) == shown

"""The model card as a page."""

import html as entities
import re
from types import SimpleNamespace

import pytest

from fer.serving import card

NETWORK = SimpleNamespace(architecture="mlp", trained_on="photos")


def test_the_package_network_has_its_card():
    text = card.text_of("tiny", NETWORK)
    page = card.page(text)
    assert "Article 5(1)(f)" in page
    assert 'id="law-and-uses-to-keep-away-from"' in page
    assert "<td>happy</td>" in page
    assert "library_name" not in page  # the metadata
    assert re.findall(r"<style|\bstyle=|\bon[a-z]+=", page.replace('style="text-align', "")) == []


def test_a_run_has_the_card_of_its_last_evaluation(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"")
    without = card.text_of(tmp_path, NETWORK)
    assert "Trained on photos. It has no card" in without
    assert "Article 5(1)(f)" in without
    for name in ("b", "a"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "model_card.md").write_text(f"# card {name}")
    assert card.text_of(tmp_path, NETWORK) == "# card a"


@pytest.mark.parametrize("start", ["", "---\na: b\n---\n\n"])
def test_html_of_a_stranger_is_text(start):
    page = card.page(f"{start}# Mine\n\n<script>alert(1)</script> <img src=x onerror=alert(2)>\n\n<div>\nx\n</div>\n")
    body = page[page.index("<main>") :]
    assert "<h1" in body
    assert re.findall(r"<(?:script|img|div)", body) == []
    assert "&lt;script&gt;" in body


def test_links_and_pictures_of_a_stranger_do_no_harm():
    targets = ["javascript:a()", "JavaScript:a()", "&#106;avascript:a()", "java&#9;script:a()", "data:text/html,a"]
    targets += ["vbscript:a", "//elsewhere.example/", "http:elsewhere.example", "\\javascript:a()", "a.html"]
    lines = [f"[words{at}]({target})\n" for at, target in enumerate(targets)]
    lines += [
        "[ref]\n",
        "[ref]: javascript:a()\n",
        "<javascript:a()>\n",
        "![a face](https://elsewhere.example/x.png)\n",
    ]
    page = card.page("\n".join([*lines, "[web](https://a.example) [in](#part) <mailto:a@b.example>\n"]))
    body = page[page.index("<main>") :]
    kept = [entities.unescape(target) for target in re.findall(r'href="([^"]*)"', body)]
    assert kept == ["https://a.example", "#part", "mailto:a@b.example"]
    assert "words0" in body
    assert "a face" in body
    assert re.findall(r"<img|\bsrc=", body) == []


def test_a_card_that_is_no_unicode_is_served(predictor):
    from starlette.testclient import TestClient

    from fer.serving.app import build

    client = TestClient(build(predictor, "tiny", card.page("a\ud800b")), base_url="http://localhost")
    assert "a?b" in client.get("/card").text

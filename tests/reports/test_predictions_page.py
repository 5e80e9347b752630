"""The page of ``fer predict``, and what stands at the foot of that of a campaign."""

import pytest

import fer
from fer.reports import campaign, predictions
from fer.reports.campaign import Row, Summary
from fer.reports.session import Options, Session


@pytest.fixture(scope="module")
def predictor():
    return fer.Predictor("tiny", detector="none")


def test_a_network_that_names_no_data_is_described_so(predictor):
    words = str(predictions.lead(predictor.about() | {"trained_on": None}, ""))
    assert "None" not in words
    assert "data that its file does not name" in words


def test_unreadable_files_come_first_and_the_rest_is_counted(predictor, tmp_path):
    session = Session(Options(out=tmp_path / "out"), predictor, [])
    for number in range(5):
        session._count({"file": f"{number}.png", "faces": [], "too_small": number})
    session._count({"file": "bad.png", "error": "damaged"})
    session.close()
    listed = session._left_out(3)
    assert listed[0] == ("bad.png", "damaged")
    assert listed[2] == ("1.png", "no face found, 1 too small")
    assert listed[3][0] == "3 more"
    assert len(session._left_out(6)) == 6


@pytest.mark.parametrize(("split", "words"), [("val", "Test was not opened."), ("test", "evaluated at the end")])
def test_a_campaigns_page_states_whether_test_was_opened(split, words, tmp_path):
    row = Row("cnn", "member", 100, split, "ten_crop", 0.5, (0.4, 0.6), None, 0.5, None, 1.2, 0.1, None)
    page = campaign.write(Summary("title", [], [row], [], 1, 1, {}, {}), tmp_path).read_text()
    assert words in page

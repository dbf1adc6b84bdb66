"""How a model file is read is remembered for that file alone, and a damaged memory costs nothing else."""

import json
import pathlib

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.model import catalog, ways
from edge_agent.model.profile import AS_IT_SAYS, Profile, Way
from edge_agent.model.ways import Ways
from tests.support.paths import DEMO

ONE, OTHER = "a" * 64, "b" * 64


def test_way_is_remembered_for_its_file_alone(tmp_path: pathlib.Path) -> None:
    ways.save(tmp_path, ONE, Way("plain", "option"))
    ways.save(tmp_path, OTHER, Way("foggen"))
    assert ways.load(tmp_path, ONE) == Way("plain", "option") and ways.load(tmp_path, OTHER) == Way("foggen")
    assert ways.load(tmp_path, "c" * 64) == AS_IT_SAYS


@pytest.mark.parametrize(
    "entry", [7, [], "plain", {"profile": "rm -rf"}, {"answers": []}, {"colour": "red"}, {"chat_shape": "x"}, {"measured": "12"}, None]
)
def test_wrong_entry_counts_as_none_and_leaves_the_others_alone(tmp_path: pathlib.Path, entry: object) -> None:
    (tmp_path / "ways.json").write_text(json.dumps({ONE: entry, OTHER: {"profile": "plain"}}))
    assert ways.load(tmp_path, ONE) == AS_IT_SAYS and ways.load(tmp_path, OTHER) == Way("plain")
    ways.save(tmp_path, ONE, Way("plain"))
    assert ways.load(tmp_path, ONE) == ways.load(tmp_path, OTHER) == Way("plain")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", '"x"', "\x00", '{"a": 1'])
def test_file_that_cannot_be_understood_counts_as_none(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "ways.json").write_text(text)
    assert ways.load(tmp_path, ONE) == AS_IT_SAYS


def test_file_of_others_is_not_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ways.json").mkdir()
    assert ways.load(tmp_path, ONE) == AS_IT_SAYS
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "ways.json").write_text(json.dumps({ONE: {"profile": "plain"}, "x": "y" * (1 << 20)}))
    assert ways.load(tmp_path / "big", ONE) == AS_IT_SAYS


def test_what_a_person_wants_is_used_and_remembered(tmp_path: pathlib.Path) -> None:
    files = catalog.ModelFiles(DEMO, None, Ways(Way("plain", "option"), tmp_path))
    assert Profile.from_json(catalog.identified(files).profile).is_plain
    again = catalog.ModelFiles(DEMO, None, Ways(folder=tmp_path))
    assert catalog.identified(again) == catalog.identified(files)
    back = catalog.ModelFiles(DEMO, None, Ways(Way("foggen"), tmp_path))
    assert catalog.identified(back) == catalog.identify(DEMO)
    assert ways.load(tmp_path, catalog.sha256_of(DEMO)) == Way("foggen")


def test_folder_that_cannot_be_written_costs_no_answer(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    files = catalog.ModelFiles(DEMO, None, Ways(Way("plain"), tmp_path / "file"))
    assert Profile.from_json(catalog.identified(files).profile).is_plain
    assert "ways.json" in caplog.text


def test_answers_chosen_by_a_person_are_not_measured_ones() -> None:
    measured = Way("plain", "option", measured=ONE)
    assert AS_IT_SAYS.over(measured) == measured
    assert Way(answers="letter").over(measured) == Way("plain", "letter")


def test_unknown_word_is_refused() -> None:
    for wrong in ({"profile": "fancy"}, {"answers": "text"}, {"chat_shape": "telepathy"}):
        with pytest.raises(ModelRefused):
            Way(**wrong)

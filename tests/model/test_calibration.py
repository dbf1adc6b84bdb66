"""A calibration's file: only exactly what was written is used, and nothing that it holds raises anything but our error."""

import hashlib
import json
import pathlib
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import readouts
from edge_agent.core.errors import BadData
from edge_agent.core.records import Reading
from edge_agent.core.routing import PolicyName
from edge_agent.model import calibration
from edge_agent.model.calibration import Calibration, Disagreement, choose, load, parse, save
from tests.support.calibrations import bound_to, calibrated
from tests.support.spoken_model import SURE

BOUND = tuple(bound_to().values())
WHOLE = calibrated(readout="combined", weights=(1, 2, 3, 4, 5), disagreement=Disagreement(cloud_model="big", kept=100, different=4))
FIELDS = [field.name for field in fields(Calibration)]
SHARE = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400) | st.just(-0.0),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def named(folder: pathlib.Path, data: bytes) -> pathlib.Path:
    """A file with these bytes, named by their sha256."""
    path = folder / f"{hashlib.sha256(data).hexdigest()}.json"
    path.write_bytes(data)
    return path


@given(tau=SHARE, tie_share=SHARE, value=SHARE, weights=st.lists(st.floats(-1e9, 1e9), min_size=5, max_size=5), salt=st.text())
def test_what_is_saved_is_loaded_exactly(
    tmp_path_factory: pytest.TempPathFactory, tau: float, tie_share: float, value: float, weights: list[float], salt: str
) -> None:
    folder = tmp_path_factory.mktemp("calibrations")
    salt = "".join(c for c in salt if c.isprintable())[:500]
    made = replace(WHOLE, tau=tau, tie_share=tie_share, value=value, weights=tuple(weights), salt=salt)
    path = save(folder, made)
    assert load(path) == made and path.name == f"{made.sha256}.json" == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.json"
    assert save(folder, made) == path and [one.name for one in folder.iterdir()] == [path.name]


def test_equal_calibrations_have_the_same_text() -> None:
    """A whole number is a float, too: the text is what the sha256 is of."""
    assert calibrated(tau=1, tie_share=0, value=1, delta=None, curve=[[0, 0], [1, 1]]) == calibrated(
        tau=1.0, value=1.0, delta=None, curve=((0.0, 0.0), (1.0, 1.0))
    )
    assert calibrated(tau=1, value=1).sha256 == calibrated(tau=1.0, value=1.0).sha256


@given(cut=st.integers(0, 2000), byte=st.integers(0, 255), kind=st.sampled_from(["cut", "changed", "added"]))
def test_changed_byte_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int, byte: int, kind: str) -> None:
    folder = tmp_path_factory.mktemp("calibrations")
    path = save(folder, WHOLE)
    data = path.read_bytes()
    at = cut % len(data)
    changed = {"cut": data[:at], "changed": data[:at] + bytes([byte]) + data[at + 1 :], "added": data[:at] + bytes([byte]) + data[at:]}[
        kind
    ]
    path.write_bytes(changed)
    if changed == data:
        assert load(path) == WHOLE
        return
    with pytest.raises(BadData, match="was changed or is damaged"):
        load(path)
    with pytest.raises(BadData):  # also under the name that fits its bytes
        named_path = named(folder, changed)
        if load(named_path).to_json().encode() == changed:
            raise BadData("a sound calibration of its own")  # such as another digit


@given(name=st.sampled_from([*FIELDS, "version", "more"]), value=JSON)
def test_field_with_any_value_is_checked(tmp_path_factory: pytest.TempPathFactory, name: str, value: Any) -> None:
    """A sound one makes a policy whose score is a number; all others are refused with one line."""
    folder = tmp_path_factory.mktemp("calibrations")
    try:
        data = json.dumps({**json.loads(WHOLE.to_json()), name: value}, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        data = json.dumps({**json.loads(WHOLE.to_json()), name: value}).encode()
    path = named(folder, data)
    try:
        found = load(path)
    except BadData as error:
        assert str(error).isprintable() and len(str(error)) < 400 + len(str(path))
        assert choose(folder, *BOUND).problems == (str(error),)
        return
    assert name not in ("version", "more") or value == calibration.VERSION
    policy = found.policy(PolicyName.PREFER_LOCAL, 0.5)
    score = readouts.score(SURE, policy.readout, policy.weights)
    assert score is not None and 0 <= score <= 1
    assert found.in_words().isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"1", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 200_000, b'{"version": 1}', b"NaN", b'{"a":' * 100_000,
        b"9" * 10_000, b'{"version": ' + b"9" * 10_000 + b"}", b" " * (calibration.MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_file_that_is_none_is_refused(tmp_path: pathlib.Path, data: bytes) -> None:
    path = named(tmp_path, data)
    with pytest.raises(BadData, match="calibration"):
        load(path)
    assert choose(tmp_path, *BOUND).calibration is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"version": 1', '"version": 2'), "it has version 2, and this edge-agent reads version 1"),
        (('"tau": 0.75', '"tau": NaN'), "nan is not a number"),
        (('"tau": 0.75', '"tau": 1e999'), "inf is not a number"),
        (('"tau": 0.75', '"tau": 1.5'), "1.5 is not a share"),
        (('"tau": 0.75', '"tau": true'), "True is not a number"),
        ((' "tau": 0.75,\n', ""), "the field 'tau' is missing"),
        (('"readout": "confidence"', '"readout": "margins"'), "the readout is 'margins' with 0 weights"),
        (('"weights": []', '"weights": [1.0]'), "with 1 weights"),
        (('"weights": []', '"weights": {}'), "not written as edge-agent writes it"),
        (('"value": 0.15', '"value": 15'), "15.0 is not a share"),
        (('"goal": "max_local_error"', '"goal": "all"'), "the goal is 'all'"),
    ],
)
def test_wrong_value_is_named(change: tuple[str, str], words: str) -> None:
    text = calibrated().to_json()
    changed = text.replace(*change)
    assert changed != text and parse(text, "it") == calibrated()
    with pytest.raises(BadData, match="cannot be used") as refused:
        parse(changed, "'x.json'")
    assert words in str(refused.value)


@pytest.mark.parametrize("moment", ["zzz", "", "9999", "2026-13-01", "2026-01-01 at noon"])
def test_what_is_no_date_is_refused(moment: str) -> None:
    """The newest calibration applies, so a text that sorts last would apply for ever."""
    with pytest.raises(BadData, match="cannot be used"):
        parse(calibrated(created_at=moment).to_json(), "it")


def test_weights_too_large_to_add_are_refused() -> None:
    huge = replace(WHOLE, weights=(1e308,) * 5)
    with pytest.raises(BadData, match="too large a weight"):
        parse(huge.to_json(), "it")
    reading: Reading = SURE
    assert 0 <= (readouts.score(reading, "combined", (calibration.MAX_WEIGHT,) * 5) or 0) <= 1


def test_the_newest_that_fits_applies_and_a_bad_one_hides_no_good_one(tmp_path: pathlib.Path) -> None:
    first, second = calibrated(created_at="2026-01-01T00:00:00+00:00"), calibrated(created_at="2026-02-01T00:00:00+00:00")
    others = (
        calibrated(model_sha256="a" * 64, created_at="2027-01-01"),
        calibrated(adapter_sha256="b" * 64),
        calibrated(profile_sha256="c" * 64),
    )
    for one in (second, first, *others):
        save(tmp_path, one)
    (tmp_path / f"{'0' * 64}.json").write_text("no")
    (tmp_path / "notes.txt").write_text("mine")
    found = choose(tmp_path, *BOUND)
    assert (found.calibration, found.n_others, found.n_other_ways) == (second, 2, 1)
    assert len(found.problems) == 1 and "0" * 64 in found.problems[0]
    assert choose(tmp_path, *BOUND, first.sha256[:9]).calibration == first
    assert choose(tmp_path, *BOUND, "none").calibration is None
    assert choose(tmp_path, "d" * 64, "", BOUND[2]).n_others == 5


@pytest.mark.parametrize(
    ("folder", "words"), [("nothing", ""), ("a file", "cannot be read (Not a directory)"), ("a file/b", "Not a directory")]
)
def test_folder_that_is_none(tmp_path: pathlib.Path, folder: str, words: str) -> None:
    (tmp_path / "a file").write_text("x")
    found = choose(tmp_path / folder, *BOUND)
    assert found.calibration is None and len(found.problems) == bool(words) and words in "".join(found.problems)
    wanted = choose(tmp_path / folder, *BOUND, "abcdef")
    assert wanted.calibration is None and "begins with abcdef" in wanted.problems[-1]


def test_start_that_means_two_calibrations_means_none(tmp_path: pathlib.Path) -> None:
    for n in range(40):
        save(tmp_path, calibrated(salt=str(n)))
    starts = [path.name[:1] for path in tmp_path.iterdir()]
    twice = next(start for start in starts if starts.count(start) > 1)
    found = choose(tmp_path, *BOUND, twice)
    assert found.calibration is None and "give more of its sha256" in found.problems[0]


def test_words_say_the_goal_the_tau_and_what_is_promised() -> None:
    words = calibrated(tie_share=0.4, delta=0.001).in_words()
    for part in (
        "for an error of at most 15% among the kept answers", "from confidence 0.75 on", "of those at exactly 0.75, 40% go to the cloud",
        "25.0% went to the cloud", "10.0% of the kept answers were wrong", "at least 99.9%",
    ):  # fmt: skip
        assert part in words
    assert "no guarantee" in calibrated(goal="cloud_rate", value=0.2, delta=None).in_words()
    assert "a budget of 3 a day" in calibrated(goal="budget", value=3, delta=None).in_words()


@pytest.mark.parametrize(("score", "chance"), [(0.0, 0.2), (0.1, 0.2), (0.3, 0.2), (0.4, 0.5), (0.5, 0.8), (0.9, 0.8), (1.0, 0.8)])
def test_chance_of_a_score_is_on_the_curve(score: float, chance: float) -> None:
    assert calibrated(curve=((0.3, 0.2), (0.5, 0.8))).chance(score) == pytest.approx(chance)
    assert calibrated(curve=()).chance(score) is None

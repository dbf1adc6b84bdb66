"""What a person sees of a calibration: in `ask`, `doctor`, `config`, `log`, `export` and `replay`."""

import json
import pathlib
from typing import Any

import pytest

from tests.support.calibrations import stored
from tests.support.command_line import ask, run

ASK = ("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--option", "24")


def check() -> tuple[int, dict[str, Any]]:
    """The exit code of `doctor`, and its line about the calibration."""
    done = run("doctor", "--json")
    return done.returncode, next(one for one in json.loads(done.stdout) if one["name"] == "calibration")


def test_calibrated_decision_is_named_wherever_it_is_shown(home: pathlib.Path) -> None:
    made = stored(home, tau=0.2, readout="margin")
    decision = ask()
    assert (decision["readout"], decision["tau"], decision["calibration"]) == ("margin", 0.2, made.sha256)
    done = run(*ASK)
    assert f"20% is enough, by calibration {made.sha256[:8]}" in done.stdout and "margin" in done.stdout and done.stderr == ""
    (logged, _) = json.loads(run("log", "--json").stdout)
    exported = json.loads(run("export").stdout.splitlines()[0])
    assert logged["calibration"] == exported["calibration"] == logged["policy"]["calibration"] == made.sha256
    plain = json.loads(run(*ASK, "--json", "--tau", "0.5").stdout)
    assert (plain["readout"], plain["calibration"]) == ("confidence", None)
    assert json.loads(run("log", "--json").stdout)[0]["calibration"] is None


def test_question_at_the_threshold_says_why_it_goes(home: pathlib.Path) -> None:
    stored(home, tau=1.0, tie_share=1.0)
    assert "100%, exactly the threshold, where a part of the questions goes to the cloud" in run(*ASK).stdout


def test_doctor_says_which_applies_or_why_none_does(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = check()
    assert code == 0 and "none; the model's own tau counts: 0.5" in found["detail"]
    made = stored(home, tau=0.25)
    code, found = check()
    assert code == 0 and found["detail"] == made.in_words()
    monkeypatch.setenv("EDGE_AGENT_TAU", "0.6")
    code, found = check()
    assert code == 0 and "none, because a tau is given: 0.6" in found["detail"]
    monkeypatch.delenv("EDGE_AGENT_TAU")
    monkeypatch.setenv("EDGE_AGENT_CALIBRATION", "none")
    assert "none, as set" in check()[1]["detail"]
    monkeypatch.setenv("EDGE_AGENT_CALIBRATION", "abcdef")
    code, found = check()
    assert code == found["exit_code"] == 65 and "no usable calibration that begins with abcdef" in found["detail"]
    monkeypatch.delenv("EDGE_AGENT_CALIBRATION")
    (home / "calibrations" / f"{'0' * 64}.json").write_text("{}")
    code, found = check()
    assert code == 65 and "was changed or is damaged" in found["detail"] and made.in_words() in found["detail"]


@pytest.mark.parametrize("kind", ["another model's", "tampered", "truncated"])
def test_refused_calibration_is_said_and_the_answer_comes_with_the_models_own_tau(home: pathlib.Path, kind: str) -> None:
    made = stored(home, tau=0.1, **({"model_sha256": "a" * 64} if kind == "another model's" else {}))
    path = home / "calibrations" / f"{made.sha256}.json"
    text = path.read_text()
    path.write_text({"another model's": text, "tampered": text.replace("0.1,", "0.2,"), "truncated": text[:99]}[kind])
    done = run(*ASK, "--json")
    decision = json.loads(done.stdout)
    assert done.returncode == 0 and (decision["tau"], decision["calibration"]) == (0.5, None)
    assert done.stderr.count("the model's own tau counts: 0.5") == 1 and "Traceback" not in done.stderr
    assert done.stderr.count(str(path)) == (kind != "another model's")
    code, found = check()
    assert code == (0 if kind == "another model's" else 65) and "the model's own tau counts: 0.5" in found["detail"]


def test_calibration_is_chosen_in_the_config(home: pathlib.Path) -> None:
    old, new = stored(home, tau=0.2, created_at="2026-01-01"), stored(home, tau=0.3, created_at="2026-02-01")
    assert ask()["calibration"] == new.sha256
    for value, expected in ((old.sha256[:8].upper(), old.sha256), ("auto", new.sha256), ("none", None)):
        done = run("config", "set", "calibration", value)
        assert done.returncode == 0 and done.stderr == ""
        assert ask()["calibration"] == expected
    done = run("config", "set", "calibration", "123456")  # a number in TOML, and the start of a sha256 here
    assert done.returncode == 0 and "it does not count yet: there is no calibration 123456" in done.stderr
    done = run(*ASK)
    assert done.returncode == 0 and "no usable calibration that begins with 123456" in done.stderr
    for wrong in ("abc", "true", "newest", "0" * 65, "[]", ""):
        done = run("config", "set", "calibration", wrong)
        assert done.returncode == 78 and "give auto, none, or at least 6 characters" in done.stderr, wrong


def test_log_is_proved_after_the_calibration_is_replaced_and_deleted(home: pathlib.Path) -> None:
    old = stored(home, tau=0.25, readout="expected_confidence", tie_share=0.5)
    run(*ASK)
    (home / "calibrations" / f"{old.sha256}.json").unlink()
    stored(home, tau=0.75, readout="answer_prob")
    run(*ASK)
    done = run("replay", "--assert")
    assert done.returncode == 0 and "2 of 2 decisions follow" in done.stdout, done.stdout
    tried = json.loads(run("replay", "--tau", "1", "--json").stdout)["as_tried"]
    assert tried["decisions"] == 2

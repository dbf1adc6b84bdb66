"""`edge-agent restore` brings back the calibration that was in force, too."""

import json
import pathlib
import shutil

from tests.support.calibrations import calibrated, stored
from tests.support.command_line import ask, run
from tests.support.paths import DEMO


def test_calibration_that_was_in_force_applies_again(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    made, copy = stored(home), tmp_path / "copy.db"
    before = ask()
    assert before["calibration"] == made.sha256
    ask("--tau", "0.9")  # decided under none
    assert run("backup", str(copy)).returncode == 0
    shutil.rmtree(home / "calibrations")
    done = run("restore", str(copy))
    assert done.returncode == 0 and made.in_words() in done.stdout.replace("\n", " ")
    again = ask()
    assert again["calibration"] == made.sha256 and again["tau"] == before["tau"]
    assert json.loads(run("restore", str(copy), "--json").stdout)["calibration"] == made.sha256


def test_calibration_of_another_model_is_not_put_back_and_said(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other, copy = tmp_path / "other.gguf", tmp_path / "copy.db"
    other.write_bytes(DEMO.read_bytes() + bytes(32))
    made = stored(home, other)
    assert ask("--model", str(other))["calibration"] == made.sha256
    assert run("backup", str(copy)).returncode == 0
    shutil.rmtree(home / "calibrations")
    done = run("restore", str(copy))
    assert done.returncode == 0 and f"calibration {made.sha256[:12]}, which is for another model" in done.stdout
    assert not (home / "calibrations").exists() and ask()["calibration"] is None


def test_backup_without_a_calibration_or_with_a_damaged_one_is_restored(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "copy.db"
    ask()
    assert run("backup", str(copy)).returncode == 0
    assert json.loads(run("restore", str(copy), "--json").stdout)["calibration"] is None
    made = stored(home)
    ask("--refresh")
    copy = tmp_path / "second.db"
    assert run("backup", str(copy)).returncode == 0
    shutil.rmtree(home / "calibrations")
    data = copy.read_bytes()
    text = made.to_json().encode()
    assert text in data and calibrated().sha256 == made.sha256
    copy.write_bytes(data.replace(text, text.replace(b'"delta"', b'"Delta"')))
    done = run("restore", str(copy))
    assert done.returncode == 0 and "was not put back" in done.stdout and not (home / "calibrations").exists()

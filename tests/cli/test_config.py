"""`edge-agent config`: every setting, where it comes from, and changes that leave the rest of the file alone."""

import json
import pathlib
import tomllib

import pytest

from edge_agent.core.config import settings
from tests.support.command_line import run


def shown(**environment: str) -> dict:
    done = run("config", "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_setting_is_shown_with_its_source(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("tau = 0.25\nkeep_days = 30\n")
    found = shown(EDGE_AGENT_TAU="0.75")
    rows = {row["name"]: row for row in found["settings"]}
    assert set(rows) == {one.name for one in settings.DECLARED} and found["config_file"] == str(home / "config.toml") and found["exists"]
    assert (rows["tau"]["value"], rows["tau"]["source"]) == (0.75, "EDGE_AGENT_TAU")
    assert (rows["keep_days"]["value"], rows["keep_days"]["source"]) == (30.0, str(home / "config.toml"))
    assert (rows["policy"]["value"], rows["policy"]["source"]) == ("prefer_local", "default")
    printed = run("config", EDGE_AGENT_TAU="0.75").stdout.splitlines()
    assert printed[0] == str(home / "config.toml") and "tau                     0.75  (EDGE_AGENT_TAU)" in printed
    assert len(printed) == 1 + len(settings.DECLARED)


def test_key_is_only_said_to_be_set(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-key")
    key.chmod(0o600)
    (tmp_path / settings.CREDENTIAL).write_text("secret-key")
    for environment, source in (
        ({}, "default"),
        ({"EDGE_AGENT_CLOUD_KEY": "secret-key"}, "EDGE_AGENT_CLOUD_KEY"),
        ({"EDGE_AGENT_CLOUD_KEY_FILE": str(key)}, "cloud_key_file"),
        ({"CREDENTIALS_DIRECTORY": str(tmp_path)}, "CREDENTIALS_DIRECTORY"),
    ):
        for arguments in (["config"], ["config", "--json"], ["config", "-v"]):
            done = run(*arguments, **environment)
            assert done.returncode == 0 and "secret-key" not in done.stdout + done.stderr
        row = next(row for row in shown(**environment)["settings"] if row["name"] == "cloud_key")
        assert row == {"name": "cloud_key", "set": source != "default", "source": source}


def test_unknown_variables_are_said() -> None:
    assert shown(EDGE_AGENT_MODLE="x", EDGE_AGENT_TEST_DATA="x")["unknown_variables"] == {"EDGE_AGENT_MODLE": "EDGE_AGENT_MODEL"}
    assert "EDGE_AGENT_MODLE is not a setting; do you mean EDGE_AGENT_MODEL?" in run("config", EDGE_AGENT_MODLE="x").stderr


def test_setting_without_a_variable_is_named_with_its_place() -> None:
    done = run("config", EDGE_AGENT_CLOUD_PROXY="x", EDGE_AGENTTAU="1", EDGE_AGENT_keep_days="2", EDGE_AGENT="x", EDGE_AGENTS="x")
    assert done.stderr.splitlines() == [
        "edge-agent: EDGE_AGENT is not a setting; `edge-agent config` shows all of them.",
        "edge-agent: EDGE_AGENTS is not a setting; `edge-agent config` shows all of them.",
        "edge-agent: EDGE_AGENTTAU is not a setting; do you mean EDGE_AGENT_TAU?",
        "edge-agent: EDGE_AGENT_CLOUD_PROXY does nothing: this setting has no variable; set cloud_proxy in config.toml.",
        "edge-agent: EDGE_AGENT_keep_days is not a setting; do you mean EDGE_AGENT_KEEP_DAYS?",
    ]


def test_wrong_settings_are_named_and_the_rest_is_shown(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("keep_days = 0\ntua = 1\n")
    done = run("config", EDGE_AGENT_TAU="7")
    assert done.returncode == 78 and "cloud_deadline_s" in done.stdout and len(done.stderr.splitlines()) == 3
    assert run("config", "unset", "tua").returncode == 0  # the line that was wrong
    assert len(json.loads(run("config", "--json", EDGE_AGENT_TAU="7").stdout)["problems"]) == 2


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["tau", "0.75"], 0.75),
        (["policy", "only_local"], "only_local"),
        (["keep_days", "forever"], "forever"),
        (["redact_built_in", "false"], False),
        (["queue_max_rows", "50"], 50),
        (["cloud_model", "7"], "7"),
        (["cloud_url", "https://api.example.com/v1"], "https://api.example.com/v1"),
        (["never_send", "password"], ["password"]),
        (["never_send", "password", r"\bkey\b"], ["password", r"\bkey\b"]),
        (["never_send", '["a", "b"]'], ["a", "b"]),
    ],
)
def test_value_is_set_in_its_right_type_and_unset_again(home: pathlib.Path, arguments: list[str], value: object) -> None:
    home.mkdir()
    (home / "config.toml").write_text("# mine\nmodel = 'demo'  # the small one\n")
    done = run("config", "set", *arguments)
    assert done.returncode == 0 and arguments[0] in done.stdout, done.stderr
    text = (home / "config.toml").read_text()
    assert tomllib.loads(text) == {"model": "demo", arguments[0]: value} and "# mine\nmodel = 'demo'  # the small one\n" in text
    assert run("config", "unset", arguments[0]).returncode == 0
    assert tomllib.loads((home / "config.toml").read_text()) == {"model": "demo"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tau", "7"], "give a number from 0 to 1"),
        (["policy", "never"], "give one of prefer_local"),
        (["tua", "0.5"], "do you mean tau?"),
        (["zzz", "0.5"], "`edge-agent config` shows all"),
        (["cloud_key", "secret-key"], "secret"),
        (["tau", "0.5", "0.6"], "takes one value"),
        (["queue_max_rows", "1.5"], "whole number"),
    ],
)
def test_wrong_value_is_refused_and_the_file_stays(home: pathlib.Path, arguments: list[str], words: str) -> None:
    done = run("config", "set", *arguments)
    assert done.returncode == 78 and words in done.stderr and "secret-key" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (home / "config.toml").exists()


def test_set_makes_the_file_and_says_what_overrules_it(home: pathlib.Path) -> None:
    assert run("config", "path").stdout == f"{home / 'config.toml'}\n"
    done = run("config", "set", "tau", "0.75", EDGE_AGENT_TAU="0.5")
    assert done.returncode == 0 and "EDGE_AGENT_TAU is set, too, and overrules the file" in done.stderr
    assert shown()["settings"][1] == {"name": "tau", "value": 0.75, "source": str(home / "config.toml"), "default": None}

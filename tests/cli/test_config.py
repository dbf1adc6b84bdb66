"""`edge-agent config`: every setting, where it comes from, and changes that leave the rest of the file alone."""

import json
import pathlib
import tomllib

import pytest

from edge_agent.core.config import loading, settings
from tests.support.command_line import run
from tests.support.paths import DEMO


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
    (tmp_path / loading.CREDENTIAL).write_text("secret-key")
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["never_send", "(?R)"], "(?R)"),
        (["redact", "("], "not a regular expression"),
        (["redact", "fine", ".*"], "matches every text"),
        (["cloud_url", "javascript:x"], "not an http or https address"),
        (["cloud_url", "http://exa mple.com/v1"], "not an http or https address"),
        (["cloud_url", "https://user:sk-verysecret@example.com"], "a password"),
        (["cloud_proxy", "socks5://user:sk-verysecret@example.com"], "cloud_proxy is a proxy"),
        (["cloud_ca_file", "/no/such/file.pem"], "does not exist"),
        (["cloud_key_file", "/no/such/key"], "cannot be read"),
    ],
)
def test_value_that_later_commands_would_refuse_is_refused(home: pathlib.Path, arguments: list[str], words: str) -> None:
    done = run("config", "set", *arguments)
    assert done.returncode == 78 and words in done.stderr and "verysecret" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (home / "config.toml").exists()


@pytest.mark.parametrize("line", ["never_send = ['(?R)']", "redact = ['(']", "cloud_url = 'javascript:x'", "cloud_url = 'https://:443/v1'"])
def test_what_would_stop_an_agent_is_a_problem(home: pathlib.Path, line: str) -> None:
    home.mkdir()
    (home / "config.toml").write_text(line)
    done = run("config")
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 1
    assert len(json.loads(run("config", "--json").stdout)["problems"]) == 1
    assert run("config", "set", "tau", "0.5").returncode == 0  # another setting can still be changed
    assert run("config", "unset", line.partition(" ")[0]).returncode == 0 and run("config").returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cloud_extra_headers", '{Authorization = "Bearer sk-verysecret"}'),
        ("cloud_extra_headers", '{"Authorization: sk-verysecret" = "x"}'),
        ("cloud_extra_headers", '{X-Team = ["sk-verysecret"]}'),
        ("cloud_extra_headers", '{X-Team = "sk-verysecret", X-Day = 2026-01-01}'),
        ("cloud_extra_headers", "Authorization: Bearer sk-verysecret"),
        ("cloud_proxy", "http://user:sk-verysecret@proxy.example.com:3128"),
        ("cloud_proxy", '["sk-verysecret"]'),
        ("cloud_proxy", "ftp://user:sk-verysecret@proxy.example.com"),
        ("cloud_key", "sk-verysecret"),
    ],
)
def test_value_of_a_secret_is_in_no_message(home: pathlib.Path, name: str, value: str) -> None:
    for option in ([], ["--json"], ["-v"]):
        done = run("config", "set", name, value, *option)
        assert "verysecret" not in done.stdout + done.stderr and done.returncode in (0, 78)
    home.mkdir(exist_ok=True)
    if name != "cloud_key":
        (home / "config.toml").write_text(f"{name} = {value if value[0] in '[{' else repr(value)}")
        done = run("config")
        assert "verysecret" not in done.stdout + done.stderr


def test_table_is_set_and_replaced(home: pathlib.Path) -> None:
    done = run("config", "set", "cloud_extra_headers", '{Authorization = "Bearer sk-verysecret", "X-Team" = "a"}')
    assert done.returncode == 0 and done.stdout.startswith("cloud_extra_headers is set in"), done.stderr
    assert run("config", "set", "cloud_extra_body", '{ reasoning = { effort = "low", n = [1, true] } }').returncode == 0
    assert run("config", "set", "cloud_extra_headers", '{X-Team = "b"}').returncode == 0
    found = tomllib.loads((home / "config.toml").read_text())
    assert found == {"cloud_extra_headers": {"X-Team": "b"}, "cloud_extra_body": {"reasoning": {"effort": "low", "n": [1, True]}}}
    assert run("config").returncode == 0


@pytest.mark.parametrize("values", [['"secret"'], ["'secret'"], ["secret"], ['["secret"]'], ['"secret"', "secret"]])
def test_quotation_marks_belong_to_toml_in_a_list_too(home: pathlib.Path, values: list[str]) -> None:
    assert run("config", "set", "never_send", *values).returncode == 0
    assert set(tomllib.loads((home / "config.toml").read_text())["never_send"]) == {"secret"}
    assert run("config", "set", "model", '"demo"').returncode == 0
    assert tomllib.loads((home / "config.toml").read_text())["model"] == "demo"


@pytest.mark.parametrize("value", [r'"\d+"', r'"\bkey\b"'])
def test_pattern_in_quotation_marks_that_would_never_match_is_refused(home: pathlib.Path, value: str) -> None:
    done = run("config", "set", "never_send", value)
    assert done.returncode == 78 and "leave the quotation marks out" in done.stderr and not (home / "config.toml").exists()


@pytest.mark.parametrize(("name", "value", "words"), [("model", "none", "no model 'none'"), ("adapter", str(DEMO), "is not an adapter")])
def test_model_that_cannot_be_used_yet_is_said(home: pathlib.Path, name: str, value: str, words: str) -> None:
    done = run("config", "set", name, value)
    assert done.returncode == 0 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not run("config", "set", "model", str(DEMO)).stderr

"""Where a setting comes from."""

import pathlib

import pytest

from edge_agent.core.config.loading import load
from edge_agent.core.config.settings import DECLARED, checked
from edge_agent.core.errors import BadSetting
from tests.support.command_line import run


def config(home: pathlib.Path, text: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text)


def test_flag_beats_environment_beats_file_beats_default(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load().model, load().tau, load().policy) == ("demo", None, "prefer_local")
    config(home, 'model = "file"\ntau = 0.25\npolicy = "only_local"\n')
    assert (load().model, load().tau, load().policy) == ("file", 0.25, "only_local")
    monkeypatch.setenv("EDGE_AGENT_MODEL", "environment")
    monkeypatch.setenv("EDGE_AGENT_TAU", "0.5")
    assert (load().model, load().tau) == ("environment", 0.5)
    flagged = load({"model": "flag", "tau": None})
    assert (flagged.model, flagged.tau) == ("flag", 0.5)


def test_relative_model_path_starts_at_the_config_file(home: pathlib.Path) -> None:
    config(home, 'model = "models/x.gguf"\n')
    assert load().model == str(home / "models" / "x.gguf")
    config(home, 'model = "/opt/x.gguf"\n')
    assert load().model == "/opt/x.gguf"


def test_home_keeps_everything_in_one_folder(home: pathlib.Path) -> None:
    assert load().database == home / "edge-agent.db"
    assert load().config_file == home / "config.toml"


def test_without_home_the_platform_folders_are_used() -> None:
    assert load(environment={}).database.name == "edge-agent.db"
    assert load(environment={}).config_file.parent.name == "edge-agent"


@pytest.mark.parametrize("value", ["7", "-0.1", "nan", "inf", "high"])
def test_wrong_tau_is_refused_with_its_source(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_TAU", value)
    with pytest.raises(BadSetting, match="EDGE_AGENT_TAU"):
        load()


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_TAU", "")
    assert load().tau is None


@pytest.mark.parametrize(
    "text", ["tau = true", "tau = [1]", 'policy = "sometimes"', "model = 3", 'modle = "x"', "tau = ", 'cloud_key = "sk-secret-1"', "\xff"]
)
def test_wrong_config_file_is_refused(home: pathlib.Path, text: str) -> None:
    config(home, "")
    (home / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSetting) as caught:
        load()
    assert "sk-secret" not in str(caught.value)


def test_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_CLOUD_KEY", "sk-secret-2")
    settings = load()
    assert settings.cloud_key == "sk-secret-2" and "sk-secret-2" not in repr(settings)
    monkeypatch.setenv("EDGE_AGENT_CLOUD_KEY", "sk-sécret-3")
    with pytest.raises(BadSetting) as caught:
        load()
    assert "cret-3" not in str(caught.value)


def test_key_comes_from_a_private_file_or_from_systemd(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    file.chmod(0o600)
    config(home, f'cloud_key_file = "{file}"\n')
    assert load().cloud_key == "sk-file" and "sk-file" not in repr(load())
    home_only = {"EDGE_AGENT_HOME": str(home)}
    assert load(environment={**home_only, "EDGE_AGENT_CLOUD_KEY": "sk-env"}).cloud_key == "sk-env"
    file.chmod(0o640)
    with pytest.raises(BadSetting, match="chmod 600"):
        load()
    file.chmod(0o600)
    for content in (b"", b"one\ntwo", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(BadSetting, match="one key"):
            load()
    config(home, "")
    (tmp_path / "edge-agent-cloud-key").write_text("sk-systemd")
    assert load(environment={**home_only, "CREDENTIALS_DIRECTORY": str(tmp_path)}).cloud_key == "sk-systemd"
    assert load(environment={**home_only, "CREDENTIALS_DIRECTORY": str(home)}).cloud_key is None


@pytest.mark.parametrize(
    "text",
    [
        "queue_max_rows = -1",
        "queue_max_rows = 1.5",
        "queue_ttl_days = 0",
        'queue_max_mib = "big"',
        "cloud_deadline_s = true",
        "cloud_deadline_s = 1e10",
        "cloud_deadline_s = nan",
        "keep_days = 0",
        'keep_days = "always"',
        "keep_days = true",
        "keep_days = nan",
        "answers_max_rows = -1",
        "answers_max_mib = 0",
        "cache_min_free_mib = 1.5",
        "queue_min_free_mib = -1",
        "cloud_max_tokens = 0",
        "cloud_max_tokens = 1.5",
        "cloud_max_tokens = 2000000",
        "cloud_temperature = -1",
        "cloud_temperature = 3",
        "cloud_temperature = nan",
        'cloud_temperature = "hot"',
        "cloud_extra_body = 7",
        'cloud_extra_body = { model = "x" }',
        "cloud_extra_body = { Messages = [] }",
        "cloud_extra_body = { stream = true }",
        "cloud_extra_body = { n = 9 }",
        "cloud_extra_body = { max_tokens = 9 }",
        "cloud_extra_body = { max_completion_tokens = 9 }",
        "cloud_extra_body = { temperature = 1 }",
        "cloud_extra_body = { top_p = nan }",
        "cloud_extra_body = { since = 2026-01-01 }",
        "cloud_extra_headers = []",
        "cloud_extra_headers = { X-A = 7 }",
        'cloud_extra_headers = { X-A = "" }',
        'cloud_extra_headers = { "X A" = "b" }',
        'cloud_extra_headers = { "X-A:" = "b" }',
        'cloud_extra_headers = { "" = "b" }',
        'cloud_extra_headers = { Host = "b" }',
        'cloud_extra_headers = { content-length = "1" }',
        'cloud_extra_headers = { Transfer-Encoding = "chunked" }',
        'cloud_extra_headers = { X-Client-Request-Id = "b" }',
        'cloud_extra_headers = { X-A = "b", x-a = "c" }',
    ],
)
def test_wrong_limit_is_refused(home: pathlib.Path, text: str) -> None:
    config(home, text)
    with pytest.raises(BadSetting, match=text.split(maxsplit=1)[0]):
        load()


def test_questions_are_kept_for_some_days_or_forever(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().keep_days == 90
    config(home, 'keep_days = "forever"\n')
    assert load().keep_days == "forever"
    monkeypatch.setenv("EDGE_AGENT_KEEP_DAYS", "7.5")
    assert load().keep_days == 7.5


def test_old_setting_name_works_and_is_warned_about_once(home: pathlib.Path) -> None:
    config(home, "queue_max_mb = 2\n")
    assert load().limits.queue.max_bytes == 2_000_000
    done = run("queue", "list")
    assert done.returncode == 0 and done.stderr.count("queue_max_mib") == 1 == len(done.stderr.splitlines())
    assert load({"queue_max_mb": 1.0}).limits.queue.max_bytes == 1_000_000
    config(home, "queue_max_mb = 2\nqueue_max_mib = 3\n")
    assert load().limits.queue.max_bytes == 3 << 20


def test_every_setting_is_declared_with_its_meaning() -> None:
    assert all(one.meaning.endswith(".") and checked(one.name, one.default, "") == one.default for one in DECLARED if one.default)


def test_request_to_the_cloud_can_be_shaped(home: pathlib.Path) -> None:
    assert (load().cloud_max_tokens, load().cloud_temperature, load().cloud_extra_body, load().cloud_extra_headers) == (None, 0, None, None)
    config(
        home,
        'cloud_max_tokens = 2000\ncloud_temperature = "none"\n[cloud_extra_body]\nreasoning = { effort = "low" }\n'
        '[cloud_extra_headers]\napi-key = " azure-secret-1 "\n',
    )
    settings = load()
    assert (settings.cloud_max_tokens, settings.cloud_temperature) == (2000, "none")
    assert settings.cloud_extra_body == {"reasoning": {"effort": "low"}} and settings.cloud_extra_headers == {"api-key": "azure-secret-1"}


@pytest.mark.parametrize("value", ["a-secret\nHost: x", "a-sécret", "a-secret\0"])
def test_values_of_extra_headers_are_never_shown(home: pathlib.Path, value: str) -> None:
    config(home, '[cloud_extra_headers]\napi-key = "a-secret"\n')
    assert "a-secret" not in repr(load())
    with pytest.raises(BadSetting, match="'api-key' in the setting cloud_extra_headers") as caught:
        load({"cloud_extra_headers": {"api-key": value}})
    assert "cret" not in str(caught.value)
    assert [one.name for one in DECLARED if not one.shown] == ["cloud_key", "cloud_proxy", "cloud_extra_headers"]


def test_password_of_the_proxy_is_never_shown(home: pathlib.Path) -> None:
    config(home, 'cloud_url = "https://x/v1"\ncloud_proxy = "http://user:hunter2@proxy:99999"\n')
    assert "hunter2" not in repr(load())
    for command in (["doctor"], ["ask", "Q?", "--option", "a", "--option", "b"]):
        done = run(*command)
        assert done.returncode == 78 and "cloud_proxy is a proxy" in done.stdout + done.stderr
        assert "hunter2" not in done.stdout + done.stderr and "Traceback" not in done.stderr

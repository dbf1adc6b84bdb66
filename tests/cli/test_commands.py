"""`edge-agent` as people run it: in a separate process."""

import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from edge_agent.cloud.gate import TEST_QUESTION
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ASK, CONTRACT, ask, run
from tests.support.paths import DEMO


def test_ask_prints_the_contract_object_and_recalls_the_answer() -> None:
    first = ask()
    assert set(first) == CONTRACT
    assert set(first["timings"]) == {
        "prefill_ms", "decode_ms", "total_ms", "waited_ms", "n_prompt_tokens", "n_cached_tokens", "n_forward",
    }  # fmt: skip
    assert set(first["model"]) == {"name", "sha256", "quantization"} and first["model"]["quantization"] == "Q8_0"
    assert list(first["level_probs"]) == ["0.0", "0.25", "0.5", "0.75", "1.0"] and list(first["answer_probs"]) == ["A", "B", "C"]
    again = ask()
    assert again["recalled"] and not first["recalled"]
    same = CONTRACT - {"recalled", "decision_id", "timings"}
    assert {key: again[key] for key in same} == {key: first[key] for key in same}


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/v1"])
def test_recall_loads_no_heavy_library(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cloud or without one."""
    monkeypatch.setenv("EDGE_AGENT_CLOUD_URL", url)
    ask()
    program = (
        "import sys\nfrom edge_agent.cli import main\n"
        "try: main(sys.argv[1:], prog_name='edge-agent')\n"
        "except SystemExit: print([m for m in ('llama_cpp', 'numpy', 'httpx', 'httpx2', 'sqlite_utils', 'huggingface_hub')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *ASK], capture_output=True, text=True, check=False)
    assert "remembered" in done.stdout and done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [[*ASK], ["log"], ["queue", "list"], ["replay"], ["doctor"], ["models"], ["verify", str(DEMO)], ["serve", "--help"]]
)
def test_only_serve_imports_the_server_and_its_libraries(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom edge_agent.cli import main\n"
        "try: main(sys.argv[1:], prog_name='edge-agent')\n"
        "except SystemExit: print([m for m in ('edge_agent.server', 'fastapi', 'starlette', 'pydantic', 'uvicorn', 'websockets',"
        " 'prometheus_client') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["serve", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom edge_agent.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: assert not e.code\n"
        "print([m for m in ('llama_cpp', 'httpx', 'httpx2', 'numpy', 'gguf', 'sqlite_utils', 'huggingface_hub', 'sqlite3')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask", ""], 65, "empty"),
        (["ask", "Q"], 65, "no options"),
        (["ask", "Q", "--option", "a"], 65, "one option"),
        (["ask", "Q", *(x for i in range(27) for x in ("--option", str(i)))], 65, "27 options"),
        (["ask", "Q", "--option", "a", "--option", "b", "--option", " a"], 65, "A and C are the same"),
        (["ask", "word " * 3000, "--option", "a", "--option", "b"], 65, "shorten"),
        ([*ASK, "--model", "/nowhere/x.gguf"], 66, "/nowhere/x.gguf"),
        ([*ASK, "--model", "nothing"], 66, "demo, foggen"),
        ([*ASK, "--model", "foggen"], 66, "edge-agent pull foggen"),
        ([*ASK, "--model", "README.md"], 66, "not a GGUF"),
        ([*ASK, "--model", "~nobody-of-this-name/x.gguf"], 66, "Cannot use"),
        ([*ASK, "--model", "x" * 300 + ".gguf"], 66, "x" * 100),
        ([*ASK, "--cloud-url", "htp:/cloud"], 78, "htp:/cloud"),
        ([*ASK, "--policy", "only_cloud"], 69, "only_cloud"),
        (["queue", "drain"], 69, "EDGE_AGENT_CLOUD_URL"),
        (["queue", "drain", "--watch"], 69, "EDGE_AGENT_CLOUD_URL"),
        (["log", "nothing"], 65, "no decision 'nothing'"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line_and_its_exit_code(arguments: list[str], code: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == code and words in done.stderr
    assert done.stdout == "" and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*ASK, "--tau", "7"], "0 to 1"),
        ([*ASK, "--tau", "nan"], "0 to 1"),
        ([*ASK, "--policy", "never"], "policy"),
        (["ask"], "question"),
        (["log", "--wait", "3"], "DECISION_ID"),
        (["replay", "--tau", "7"], "0 to 1"),
    ],
)
def test_wrong_usage_is_2_and_shows_the_usage(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.startswith("Usage:")
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_wrong_setting_is_78() -> None:
    done = run(*ASK, EDGE_AGENT_TAU="7")
    assert done.returncode == 78 and "EDGE_AGENT_TAU" in done.stderr and len(done.stderr.splitlines()) == 1


def test_truncated_model_is_66(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(DEMO.read_bytes()[:2_000_000])
    done = run(*ASK, "--model", str(file))
    assert done.returncode == 66 and "truncated" in done.stderr and len(done.stderr.splitlines()) == 1


def write_text(path: pathlib.Path) -> None:
    path.write_text("shopping list")


def write_table(path: pathlib.Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()


@pytest.mark.parametrize("write", [write_text, write_table])
def test_foreign_database_is_74_and_is_not_changed(home: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    home.mkdir()
    path = home / "edge-agent.db"
    write(path)
    before = path.read_bytes()
    for command in (ASK, ("queue", "list"), ("log",)):
        done = run(*command)
        assert done.returncode == 74 and len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == before and [p.name for p in home.iterdir()] == ["edge-agent.db"]


def test_unreachable_cloud_is_a_provisional_success() -> None:
    decision = ask("--policy", "prefer_cloud", "--cloud-url", "http://127.0.0.1:9")
    assert (decision["provisional"], decision["reason"], decision["queue_id"]) == (True, "offline", 1)
    rows = json.loads(run("queue", "list", "--json").stdout)
    assert [(row["queue_id"], row["state"], row["attempts"], row["last_error"]) for row in rows] == [
        (1, "ready", 0, decision["cloud_error"])
    ]
    assert "created_at" in rows[0] and "no connection" in decision["cloud_error"]
    assert run("queue", "drain", "--cloud-url", "http://127.0.0.1:9").returncode == 69


def test_queue_is_drained_when_the_cloud_is_reachable(cloud: LoopbackCloud) -> None:
    ask("--policy", "prefer_cloud")
    done = run("queue", "drain", "--json", "--cloud-url", cloud.url)
    assert set(json.loads(done.stdout)) == {"answered", "failed", "waiting", "stopped", "audited", "upheld", "overturned"}
    (entry,) = json.loads(run("log", "--json").stdout)
    assert entry["ending"] in ("upheld", "overturned") and entry["final_answer"] == "B"


def test_dead_letter_can_be_listed_retried_and_dropped(cloud: LoopbackCloud) -> None:
    ask("--policy", "prefer_cloud")

    def reply(body: dict) -> str:  # the cloud rejects this question, but answers the test question
        cloud.status = 200 if TEST_QUESTION.stem in body["messages"][0]["content"] else 400
        return "B"

    cloud.reply = reply
    done = run("queue", "drain", "--json", "--cloud-url", cloud.url)
    assert done.returncode == 69 and json.loads(done.stdout)["failed"] == 1
    (row,) = json.loads(run("queue", "list", "--state", "dead", "--json").stdout)
    assert (row["state"], row["attempts"], row["due_in_s"]) == ("dead", 1, None) and "HTTP 400" in row["last_error"] and row["age_s"] >= 0
    assert json.loads(run("log", "--json").stdout)[0]["ending"] == "abandoned"
    assert "1 ready to be sent again" in run("queue", "retry", "--dead").stdout
    assert "HTTP 400" in run("queue", "list").stdout
    (dropped,) = json.loads(run("queue", "drop", "1", "--json").stdout)
    assert dropped["state"] == "cancelled"
    for arguments, code, words in ((["drop", "9"], 65, "no queue row 9"), (["retry"], 2, "--dead"), (["drop", "x"], 65, "no decision 'x'")):
        done = run("queue", *arguments)
        assert done.returncode == code and words in done.stderr


def test_watch_drains_new_questions_and_ends_with_130(cloud: LoopbackCloud) -> None:
    command = [sys.executable, "-m", "edge_agent", "queue", "drain", "--watch", "--json", "--cloud-url", cloud.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "waiting for new questions\n"
    ask("--policy", "prefer_cloud")
    assert process.stderr.readline() == "1: sending\n"
    assert json.loads(process.stdout.readline())["answered"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.strip().endswith("edge-agent: interrupted")


def test_log_waits_for_an_ending_and_replay_proves_the_log(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    decision = ask("--policy", "prefer_cloud")
    done = run("log", decision["decision_id"], "--wait", "0.1")
    assert done.returncode == 69 and "waiting" in done.stdout
    run("queue", "drain", "--cloud-url", cloud.url)
    ended = json.loads(run("log", decision["decision_id"], "--wait", "9", "--json").stdout)
    assert ended["ending"] in ("upheld", "overturned") and (ended["answer"], ended["final_answer"]) == (decision["answer"], "B")
    assert json.loads(run("replay", "--assert", "--json").stdout) == {"decisions": 1, "proved": 1, "unknown": 0, "wrong": []}
    (replayed,) = json.loads(run("replay", "--json").stdout)
    assert replayed["answer"] == decision["answer"] and replayed["final_answer"] == "B"
    tried = json.loads(run("replay", "--tau", "0", "--policy", "prefer_local", "--json").stdout)
    assert (tried["as_decided"]["deferred"], tried["as_tried"]["deferred"]) == (1, 0)
    assert "1 of 1 decisions follow" in run("replay", "--assert").stdout and "tau 1" in run("replay", "--tau", "1").stdout
    with sqlite3.connect(home / "edge-agent.db") as database:
        database.execute("UPDATE decisions SET reason = 'confident'")
    database.close()
    done = run("replay", "--assert")
    assert done.returncode == 65 and "reason is 'confident', but 'no_cloud' follows" in done.stdout and "1 of 1" in done.stderr


def test_interrupted_drain_ends_with_130_and_loses_nothing(cloud: LoopbackCloud) -> None:
    """Ctrl-C while the cloud is being asked: the row is half-sent, and ready again for the next drain."""
    ask("--policy", "prefer_cloud")
    answered = threading.Event()

    def late(body: dict) -> str:
        answered.wait(30)
        return "B"

    cloud.reply = late
    command = [sys.executable, "-m", "edge_agent", "queue", "drain", "--cloud-url", cloud.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "1: What is 12 + 7?" in process.stderr.readline()
    while not cloud.requests:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    answered.set()
    assert process.returncode == 130 and errors.strip() == "edge-agent: interrupted"
    assert [row["state"] for row in json.loads(run("queue", "list", "--json").stdout)] == ["ready"]
    assert json.loads(run("queue", "drain", "--json", "--cloud-url", cloud.url).stdout)["answered"] == 1


def test_closed_pipe_or_full_disk_is_not_a_bug() -> None:
    ask()
    for redirect, code in ((" | true", 141), (" > /dev/full", 74)):
        command = f"set -o pipefail; {sys.executable} -m edge_agent log --json{redirect}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == code and "Traceback" not in done.stderr


def test_control_characters_in_a_question_do_not_reach_the_terminal() -> None:
    done = run("ask", "evil \x1b]0;pwned\x07\x1b[2J \u202e here?", "--option", "a\x1b[2J", "--option", "b\x1b[2J")
    shown = done.stdout + run("log").stdout + run("queue", "list").stdout
    assert done.returncode == 0 and not set("\x1b\x07\u202e") & set(shown)


def test_provisional_answer_that_could_not_be_queued_is_an_error(home: pathlib.Path) -> None:
    ask()
    database = sqlite3.connect(home / "edge-agent.db")
    database.execute("CREATE TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    database.commit()
    database.close()
    done = run(*ASK, "--policy", "prefer_cloud", "--json")
    assert done.returncode == 74 and json.loads(done.stdout)["persisted"] is False


def test_question_is_read_from_stdin() -> None:
    done = run("ask", "-", "--json", stdin="What is 2 + 2?\nA. 4\nB. 5\n")
    assert done.returncode == 0 and set(json.loads(done.stdout)["answer_probs"]) == {"A", "B"}


def test_key_is_never_printed_or_stored(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    secret = "sk-canary-4711"
    environment = {"EDGE_AGENT_CLOUD_KEY": secret, "EDGE_AGENT_CLOUD_URL": cloud.url}
    for status in (200, 401):
        cloud.status = status
        for command in ([*ASK, "--policy", "prefer_cloud", "--refresh"], ["queue", "drain"], ["doctor", "--json"], ["log", "--json"]):
            done = run(*command, **environment)
            assert secret not in done.stdout + done.stderr
    assert cloud.requests[0]["headers"]["Authorization"] == f"Bearer {secret}"
    assert all(secret.encode() not in file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_doctor_passes_on_this_installation_and_names_a_missing_model() -> None:
    checks = json.loads(run("doctor", "--json").stdout)
    of_the_device = ["disk", "storage", "clock", "power", "processor"]
    assert [check["name"] for check in checks] == [
        "version",
        "settings",
        "build",
        "model",
        "calibration",
        "database",
        *of_the_device,
        "cloud",
    ]
    assert all(check["exit_code"] == 0 for check in checks)
    done = run("doctor", "--model", "/nowhere.gguf")
    assert done.returncode == 66 and "BAD" in done.stdout


@pytest.mark.parametrize(
    ("variable", "config", "words"),
    [
        ({"EDGE_AGENT_TAU": "abc"}, "", "EDGE_AGENT_TAU is 'abc'"),
        ({"EDGE_AGENT_HOME": "~nobody-of-this-name"}, None, "EDGE_AGENT_HOME"),
        ({}, "tau = ", "not valid TOML"),
        ({}, "a = " + "[" * 100_000, "not valid TOML"),
        ({}, 'modle = "x"', "unknown setting 'modle'"),
        ({}, 'cloud_key = "sk-canary"', "contains a cloud_key"),
        ({}, 'never_send = ["("]', "never_send has the pattern '(', which is not a regular expression"),
        ({}, 'never_send = ["a", "(?R)"]', "never_send has the pattern '(?R)', which never ends"),
        ({}, 'redact = ["x*"]', "redact has the pattern 'x*', which matches every text"),
        ({}, 'cloud_key_file = "/nowhere"', "/nowhere"),
    ],
)
def test_doctor_reports_a_wrong_setting_as_one_failed_check(
    home: pathlib.Path, tmp_path: pathlib.Path, variable: dict[str, str], config: str | None, words: str
) -> None:
    home.mkdir()
    if config is not None:
        (home / "config.toml").write_text(config)
    done = run("doctor", "--json", **variable, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 78 and done.stderr == "", done.stderr
    checks = json.loads(done.stdout)
    assert [check["name"] for check in checks if check["exit_code"]] == ["settings"] and len(checks) == 12
    (detail,) = [check["detail"] for check in checks if check["name"] == "settings"]
    assert words in detail and "sk-canary" not in done.stdout


def test_doctor_names_all_wrong_settings_and_uses_the_right_ones(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text('tau = 7\npolicy = "only_local"\nmodle = "x"\n')
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json", EDGE_AGENT_POLICY="never").stdout)}
    for words in ("modle", "tau in", "EDGE_AGENT_POLICY"):
        assert words in checks["settings"]["detail"]
    printed = run("doctor", EDGE_AGENT_CLOUD_URL="https://cloud.example/v1").stdout
    assert "BAD  settings" in printed and "ok   cloud       https://cloud.example" in printed


def test_doctor_checks_the_adapter_and_the_cloud_certificates(home: pathlib.Path) -> None:
    done = run("doctor", "--adapter", str(DEMO))
    assert done.returncode == 66 and "is not an adapter" in done.stdout
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text('cloud_url = "https://cloud.example/v1"\ncloud_ca_file = "/nowhere.pem"\n')
    done = run("doctor")
    assert done.returncode == 78 and "BAD  cloud" in done.stdout and "/nowhere.pem" in done.stdout


def test_printed_answer_says_how_sure_where_from_and_how_long() -> None:
    done = run(*ASK, "--tau", "0")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("sure", "from", "time", "model", "FogGen-demo"):
        assert word in done.stdout
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "x"])
@pytest.mark.parametrize("arguments", [["log", "some-id", "--wait"], ["purge", "--older-than"], ["verify", "x.gguf", "--max-kl"]])
def test_number_that_is_not_one_is_a_usage_error(arguments: list[str], number: str) -> None:
    done = run(*arguments, number)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr

"""`edge-agent ask` for other programs: JSON on stdin, and one object in, one object out."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from tests.support.asked import CLAIM
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ASK, CONTRACT, run

SURE = {"question": "What is 12 + 7?", "options": ["18", "19", "24"]}
BATCH = [sys.executable, "-m", "edge_agent", "ask", "--batch", "-"]


def lines(*objects: object) -> str:
    return "".join((each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)) + "\n" for each in objects)


def answers(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SURE),
        "\ufeff" + json.dumps(SURE, indent=2),
        json.dumps({**SURE, "options": {"A": "18", "B": "19", "C": "24"}}),
        json.dumps({"question": "What is 12 + 7?\n1. 18\n2. 19\n3. 24"}),
        json.dumps({**SURE, "options": ["A. 18", "B. 19", "C. 24"]}),
        "What is 12 + 7?\n- 18\n- 19\n- 24",
        "What is 12 + 7? A) 18 B) 19 C) 24",
    ],
)
def test_question_on_stdin_may_be_json_or_any_form_of_text(text: str) -> None:
    done = run("ask", "-", "--json", stdin=text)
    assert done.returncode == 0 and set(json.loads(done.stdout)) == CONTRACT and json.loads(done.stdout)["answer_text"] == "19"


def test_json_carries_its_id_and_its_own_rules() -> None:
    done = run("ask", "-", "--json", stdin=json.dumps({**SURE, "id": "kiosk-7", "tau": 1, "policy": "only_local", "never_send": True}))
    answer = json.loads(done.stdout)
    assert (answer["id"], answer["tau"], answer["policy"], answer["reason"]) == ("kiosk-7", 1.0, "only_local", "only_local")


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (["ask", "-"], '{"question": "x"', 65, "looks like JSON, but it cannot be read"),
        (["ask", "-"], '{"text": "x"}', 65, "A question in JSON is an object"),
        (["ask", "-"], lines(SURE, SURE), 65, "--batch -"),
        (["ask", "-"], json.dumps([SURE]), 65, "--batch -"),
        (["ask", "-", "--option", "x"], json.dumps(SURE), 65, "leave out --option"),
        (["ask", "-"], json.dumps({**SURE, "tau": 7}), 78, "The tau of this question is 7"),
        (["ask", "-"], json.dumps({**SURE, "id": ["x"]}), 65, "The id of a JSON question"),
        (["ask", "-"], json.dumps({**SURE, "refresh": 1}), 65, "refresh"),
        (["ask", "-"], "What is 12 + 7?", 65, "this model chooses one of several"),
        (["ask", "Q?\nA. 18\nB. 19", "--option", "24"], "", 65, "already has lettered options"),
        (["ask", "--batch", "/nowhere/x.jsonl"], "", 65, "Cannot read the file '/nowhere/x.jsonl'"),
        (["ask", "--batch", "/"], "", 65, "Cannot read the file '/'"),
        (["ask", "--batch", "-", "--model", "nothing"], lines(SURE), 66, "no model 'nothing'"),
    ],
)
def test_what_cannot_be_asked_ends_in_one_line(arguments: list[str], stdin: str, code: int, words: str) -> None:
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "") and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_question_or_batch_but_not_both() -> None:
    for more in (["x"], ["--option", "x"]):
        assert run("ask", "--batch", "-", *more).returncode == 2


def test_every_line_has_its_answer_in_order_and_a_bad_one_stops_nothing() -> None:
    given = lines(
        {**SURE, "id": 1},
        "",
        "not JSON",
        {"question": "What is 12 + 7?"},
        {**SURE, "id": "two", "tau": "x"},
        {**SURE, "id": [1]},
        '{"question": "\\ud800", "id": "three"}',
        {"question": "Сұрақ?\n1. бір\n2. екі", "id": "қазақ"},
        "[" * 100_000,
        "x" * 3_000_000,
        '{"id": "last", "question": "What is 12 + 7? A) 18 B) 19 C) 24"}',
    )
    done = run("ask", "--batch", "-", stdin="\ufeff" + given[:-1].replace("\n", "\r\n"))
    found = answers(done)
    assert [(each["line"], each["id"]) for each in found] == [
        (1, 1), (3, None), (4, None), (5, "two"), (6, None), (7, "three"), (8, "қазақ"), (9, None), (10, None), (11, "last"),
    ]  # fmt: skip
    errors = {each["line"]: each["error"]["message"] for each in found if "error" in each}
    assert set(errors) == {3, 4, 5, 6, 7, 9, 10} and all("\n" not in message and len(message) < 300 for message in errors.values())
    for line, words in {3: "not JSON", 4: "chooses one of several", 5: "tau", 6: "id", 7: "UTF-8", 9: "not JSON", 10: "longer"}.items():
        assert words in errors[line]
    assert (
        found[0]["answer_text"] == found[-1]["answer_text"] == "19" and found[-1]["recalled"] and set(found[0]) == CONTRACT | {"id", "line"}
    )
    assert done.returncode == 65 and done.stderr == ""


def test_all_answered_is_0_and_an_empty_file_is_fine(tmp_path: pathlib.Path) -> None:
    (tmp_path / "q.jsonl").write_text(lines(SURE, SURE))
    done = run("ask", "--batch", str(tmp_path / "q.jsonl"))
    assert (done.returncode, [each["answer"] for each in answers(done)]) == (0, ["B", "B"])
    assert run("ask", "--batch", "-").returncode == 0


def test_exit_code_is_that_of_the_first_line_that_failed(home: pathlib.Path) -> None:
    done = run("ask", "--batch", "-", "--policy", "only_cloud", stdin=lines(SURE, "x", {**SURE, "policy": "only_local"}))
    assert [each.get("error", {}).get("type") for each in answers(done)] == ["CloudUnavailable", "BadData", None] and done.returncode == 69


def test_flags_count_for_every_line_and_a_line_overrules_them(cloud: LoopbackCloud) -> None:
    unsure = {"question": "A claim of 1994 is barred after 15 years. In which year?", "options": ["2007", "2009", "2011"]}
    given = lines(unsure, {**unsure, "tau": 0.25}, {**unsure, "never_send": True})
    found = answers(run("ask", "--batch", "-", "--tau", "0.75", "--cloud-url", cloud.url, stdin=given))
    assert [each["tau"] for each in found] == [0.75, 0.25, 0.75]
    assert [each["reason"] for each in found] == ["unsure", "confident", "never_send"] and len(cloud.requests) == 1
    kept = answers(run("ask", "--batch", "-", "--tau", "0.75", "--never-send", "--refresh", "--cloud-url", cloud.url, stdin=lines(unsure)))
    assert (kept[0]["reason"], kept[0]["recalled"], len(cloud.requests)) == ("never_send", False, 1)


def test_long_lived_process_answers_each_line_at_once_and_ends_with_its_input() -> None:
    with subprocess.Popen(BATCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stdin and process.stdout
        for number in range(5):
            process.stdin.write(lines({**SURE, "id": number}))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number  # before the next is written
        process.stdin.close()
        assert process.wait() == 0
        watchdog.cancel()


def test_interrupt_ends_a_batch_with_whole_lines() -> None:
    with subprocess.Popen(
        BATCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(lines(SURE))
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert json.loads(first)["answer"] == "B" and (rest, errors.strip(), process.returncode) == ("", "edge-agent: interrupted", 130)


def test_reader_that_ends_ends_the_batch() -> None:
    given = lines(*[SURE] * 200)
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m edge_agent ask --batch - | head -1; exit ${{PIPESTATUS[0]}}"],
                          input=given, capture_output=True, text=True, check=False, env=os.environ)  # fmt: skip
    assert done.returncode == 141 and json.loads(done.stdout)["line"] == 1 and "Traceback" not in done.stderr


def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    program = (
        "import io, json, resource, sys\n"
        "from edge_agent import Agent\nfrom edge_agent.cli import asked\n"
        "line = json.dumps({'question': 'What is 12 + 7?', 'options': ['18', '19', '24']}).encode() + b'\\n'\n"
        "class Endless(io.RawIOBase):\n"
        "    left = 300\n"
        "    def readline(self, limit=-1):\n"
        "        self.left -= 1\n"
        "        return line if self.left >= 0 else b''\n"
        "with Agent.open('demo') as agent:\n"
        "    peaks = []\n"
        "    for answer in asked.LineByLine(agent).answers(Endless()):\n"
        "        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(len(peaks), peaks[-1] - peaks[99])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    count, grown_kib = map(int, done.stdout.split())
    assert count == 300 and grown_kib < 4096


def test_quiet_prints_only_the_answer_and_verbose_says_settings_and_times(home: pathlib.Path) -> None:
    quiet = run(*ASK, "-q", EDGE_AGENT_POLCY="only_local")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "B. 19\n", "")
    home.joinpath("config.toml").write_text("keep_days = 30\n")
    verbose = run(*ASK, "--verbose", "--refresh", "--policy", "only_local", EDGE_AGENT_TAU="0.75", EDGE_AGENT_CLOUD_KEY="secret-key")
    assert verbose.returncode == 0 and verbose.stdout.startswith("B. 19\n") and "secret-key" not in verbose.stdout + verbose.stderr
    for words in ("policy = only_local  (flag)", "tau = 0.75  (EDGE_AGENT_TAU)", f"keep_days = 30  ({home / 'config.toml'})",
                  "cloud_key = set  (EDGE_AGENT_CLOUD_KEY)", "prefill", "s in all"):  # fmt: skip
        assert words in verbose.stderr
    assert run(*ASK, "-q", "-v").returncode == 2
    failed = run("ask", "Q", "-q")
    assert failed.returncode == 65 and "no options" in failed.stderr  # an error is always said


def test_lost_question_is_said_even_quietly(home: pathlib.Path) -> None:
    home.write_text("a file")
    options = [word for text in CLAIM.options for word in ("--option", text)]
    done = run("ask", "-q", CLAIM.stem, *options)
    assert (done.returncode, done.stdout) == (74, "C. 2013\n")
    assert done.stderr.startswith("edge-agent: this answer is not stored: the database ") and len(done.stderr.splitlines()) == 1
    assert run("config", "-q", EDGE_AGENT_TAU="7").stderr.startswith("edge-agent: EDGE_AGENT_TAU is ")


def test_full_disk_is_said_even_quietly(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text(f"queue_min_free_mib = {1 << 30}\ncache_min_free_mib = {1 << 30}\n")
    done = run(*ASK, "-q")
    assert done.returncode == 0 and done.stdout == "B. 19\n"
    assert done.stderr.startswith("edge-agent: this answer is not stored: ") and len(done.stderr.splitlines()) == 1


def test_unknown_variable_is_said_with_the_name_that_was_meant() -> None:
    done = run(*ASK, EDGE_AGENT_POLCY="only_local", EDGE_AGENT_TEST_DATA="x", EDGE_AGENT_WRITE_DOCS="", EDGE_AGENT_ZZZ="1")
    assert done.returncode == 0 and done.stderr.splitlines() == [
        "edge-agent: EDGE_AGENT_POLCY is not a setting; do you mean EDGE_AGENT_POLICY?",
        "edge-agent: EDGE_AGENT_ZZZ is not a setting; `edge-agent config` shows all of them.",
    ]

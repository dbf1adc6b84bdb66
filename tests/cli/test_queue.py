"""What `queue` prints: the questions, what became of them, and what a drain waits for."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.store.store import Store
from tests.support.asked import CLAIM, KAZAKH, asked
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ask, run


def test_drain_says_each_question_and_what_changed_and_counts(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM, KAZAKH, CLAIM)
    cloud.reply = lambda body: "B" if "1996" in json.dumps(body) else "A"
    done = run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url)
    assert done.stderr.splitlines() == [
        f"1: {CLAIM.stem}",
        "   overturned: was 2009, the cloud says 2011 (2 decisions)",
        f"2: {KAZAKH.stem}",
        "   upheld: the cloud says Алматы, too",
    ]
    assert done.stdout == "2 answered (1 upheld, 2 overturned), 0 failed, 0 still waiting.\n"


def test_drain_says_why_a_question_got_no_answer(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM)
    cloud.status = 500
    done = run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url)
    assert "   no answer yet: " in done.stderr and "HTTP 500" in done.stderr


def test_drain_for_a_program_prints_counts_and_no_text(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM)
    done = run("queue", "drain", "--json", EDGE_AGENT_CLOUD_URL=cloud.url)
    assert json.loads(done.stdout) == {
        "answered": 1,
        "failed": 0,
        "waiting": 0,
        "stopped": None,
        "audited": 0,
        "upheld": 0,
        "overturned": 1,
    }
    assert done.stderr == "1: sending\n   answered\n"


def test_rows_that_are_over_leave_the_list_unless_asked_for(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM, KAZAKH)
    assert run("queue", "drop", "2").returncode == 0
    assert run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url).returncode == 0
    assert run("queue", "list").stdout == "Nothing waits. 2 done or cancelled; --all shows them.\n"
    assert json.loads(run("queue", "list", "--json").stdout) == []
    states = [row["state"] for row in json.loads(run("queue", "list", "--all", "--json").stdout)]
    assert states == ["done", "cancelled"]
    assert [row["state"] for row in json.loads(run("queue", "list", "--state", "done", "--json").stdout)] == ["done"]
    asked(home, KAZAKH)
    done = run("queue", "list")
    assert done.stdout.splitlines()[1].split()[:3] == ["3", "ready", "0"] and "2 more are done or cancelled" in done.stderr


def test_rows_are_named_by_number_or_by_the_start_of_an_id(home: pathlib.Path) -> None:
    first, second = asked(home, CLAIM, KAZAKH)
    done = run("queue", "drop", first.decision_id[:8], "2")
    assert done.stdout.splitlines() == ["2 dropped.", f"   1: {CLAIM.stem}", f"   2: {KAZAKH.stem}"]
    assert run("queue", "retry", second.decision_id[:8]).returncode == 0


@pytest.mark.parametrize("named", ["99999999999999999999", "9" * 400, "-", "x'; --", "nothing", "\udcff", ""])
def test_name_of_no_row_is_refused_in_one_line(named: str) -> None:
    for verb in ("retry", "drop"):
        done = run("queue", verb, "--", named)
        assert done.returncode == 65 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_decision_that_was_never_queued_is_no_row() -> None:
    decision = ask()
    done = run("queue", "drop", decision["decision_id"])
    assert done.returncode == 65 and "never queued" in done.stderr


def test_watch_says_what_it_waits_for_and_until_when(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM)
    cloud.status = 500
    lines = watched(cloud.url, 4)
    assert lines[2].startswith("waiting for the next try of 1 question; next try at ") and lines[2][-8:-6].isdigit()
    (home / "edge-agent.db").unlink()
    asked(home, CLAIM)
    lines = watched("http://127.0.0.1:9/v1", 3)
    assert lines[2].startswith("waiting for the cloud (no connection to the cloud") and "; next try at " in lines[2]


def watched(url: str, n_lines: int) -> list[str]:
    """The first lines that `queue drain --watch` prints on stderr."""
    command = [sys.executable, "-m", "edge_agent", "queue", "drain", "--watch", "--cloud-url", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = [process.stderr.readline().rstrip() for _ in range(n_lines)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    return lines


def test_without_a_cloud_the_hint_names_the_policy_that_queues_nothing() -> None:
    done = run("ask", CLAIM.stem, *(word for option in CLAIM.options for word in ("--option", option)), "--tau", "1")
    assert "queued" in done.stdout and "--policy only_local" in done.stdout
    assert "--policy only_local" in run("queue", "drain").stderr


def test_half_sent_row_of_a_killed_drain_can_be_dropped_or_purged(home: pathlib.Path) -> None:
    asked(home, CLAIM, KAZAKH)
    with Store(home / "edge-agent.db") as store:
        outbox = Outbox(store)
        outbox.claim()
        outbox.claim()
    assert run("purge", "--question", CLAIM.stem, "--yes").stdout == "Deleted 1 question and 1 decision.\n"
    assert run("queue", "drop", "2").stdout.startswith("1 dropped.")


def rejects(cloud: LoopbackCloud, *stems: str) -> None:
    """Reject the questions with these texts, and answer B to all others."""

    def respond(body: dict) -> tuple[int, bytes]:
        if any(stem in body["messages"][0]["content"] for stem in stems):
            return 400, b'{"error": {"message": "bad"}}'
        return 200, b'{"choices": [{"message": {"content": "B"}}]}'

    cloud.respond = respond


def test_drain_says_that_it_does_not_know_yet_and_later_that_a_question_was_given_up(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM, KAZAKH)
    rejects(cloud, CLAIM.stem)
    said = run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url).stderr.splitlines()
    assert said[0] == f"1: {CLAIM.stem}" and said[1].startswith("   not known yet: ")
    assert said[2] == f"2: {KAZAKH.stem}" and said[3].startswith("   1: given up: the cloud rejected this question")
    assert said[4].startswith("   overturned: ")


def test_row_that_is_purged_during_a_drain_does_not_end_it(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    asked(home, CLAIM, KAZAKH)
    rejects(cloud, CLAIM.stem)
    others = cloud.respond

    def respond(body: dict) -> tuple[int, bytes]:
        if KAZAKH.stem in body["messages"][0]["content"]:
            return 500, b"{}"
        if "2 + 2" in body["messages"][0]["content"]:  # the test question at the end of the pass
            assert run("purge", "--question", KAZAKH.stem, "--yes").returncode == 0
        return others(body)

    cloud.respond = respond
    done = run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url)
    assert "   1: given up: " in done.stderr and "   unknown: the row cannot be read now, or it was purged" in done.stderr
    assert done.stdout == "0 answered, 2 failed, 0 still waiting.\n"

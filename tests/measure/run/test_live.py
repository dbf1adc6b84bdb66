"""A run that asks a real cloud on loopback, and one whose cloud was recorded."""

import json
import pathlib
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from edge_agent.cloud.gate import Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import BadData, StorageError
from edge_agent.measure.results import LIVE, RECORDED
from edge_agent.measure.run import run
from edge_agent.measure.run.clouds import RecordedFile
from edge_agent.measure.run.live import NEVER_SENT, LiveCloud
from edge_agent.store.store import Store
from tests.support import command_line
from tests.support.cloud_server import LoopbackCloud
from tests.support.run_data import FILES, Opener, data, lines
from tests.support.typed_cloud import typed_cloud

N = 12


@contextmanager
def live(
    path: pathlib.Path, url: str, limits: BudgetLimits | None = None, rules: Rules | None = None, api: str = "chat"
) -> Iterator[LiveCloud]:
    """The cloud at this address, as an eval makes it, that waits no longer than it must."""
    with closing(Store(path)) as store:
        cloud = CloudModel(url, "big", api=api, deadline_s=5)
        yield LiveCloud(store, Gate(store, cloud, limits or BudgetLimits()), rules, deadline_s=5, chance=lambda: 0.001)


def stem(body: dict) -> str:
    """The question in a request."""
    return str(body["messages"][-1]["content"])


@pytest.fixture
def asked(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run file in which the device has answered, and no cloud was asked yet: the first call failed at once."""
    return tmp_path / "run.db"


def test_answers_of_a_cloud_are_graded_and_counted(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    with live(home / "a.db", cloud.url) as source:
        made = run.answer(data(N), FILES, source, path=asked)
    results, golds = made.results(), [row.answer for row in data(N).rows]
    assert len(cloud.requests) == N and results.cloud.kind == LIVE and results.cloud.words == "the cloud big"
    assert list(results.cloud_correct) == [float(gold == "B") for gold in golds]
    assert list(results.agrees) == [float(row.reading.answer == "B") for row in made.rows]
    assert results.cloud_tokens is not None and set(results.cloud_tokens[0]) == {9} and set(results.cloud_tokens[1]) == {1}
    assert not results.cloud.estimated_tokens and made.cloud_ms.min() > 0 and source.stopped is None and run.load(asked) == made


def test_typed_decisions_are_used_where_the_cloud_has_them(home: pathlib.Path, asked: pathlib.Path) -> None:
    with typed_cloud("systemone", "chat") as typed, live(home / "a.db", typed.url, api="auto") as source:
        made = run.answer(data(4), FILES, source, path=asked)
        apis = [api for api, *_ in typed.requests]
    assert apis.count("systemone") >= 4 and all(row.cloud is not None and row.cloud.answer == "B" for row in made.rows)
    assert made.results().cloud_tokens is not None and set(made.results().cloud_tokens[0]) == {41}


def test_failed_calls_are_made_again_at_the_next_run_and_no_others(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    """Every third question fails for good in the first run: the reply has no letter in it."""
    bad = {row.question.stem for row in data(N).rows[::3]}
    cloud.reply = lambda body: "I would rather not say." if any(text in stem(body) for text in bad) else "B"
    with live(home / "a.db", cloud.url) as source:
        first = run.answer(data(N), FILES, source, path=asked)
    failed = [row for row in first.rows if row.cloud is not None and row.cloud.error]
    assert len(failed) == 4 and np.isnan(first.results().cloud_correct).sum() == 4 and source.stopped is None
    n_before, opener = len(cloud.requests), Opener()
    cloud.reply = lambda body: "B"
    with live(home / "a.db", cloud.url) as source:
        second = run.answer(data(N), FILES, source, path=asked, open_model=opener)
    again = [stem(request["body"]) for request in cloud.requests[n_before:]]
    assert len(again) == 4 and all(any(text in one for text in bad) for one in again) and opener.models == []
    assert not np.isnan(second.results().cloud_correct).any()


def test_temporary_fault_is_tried_again_in_the_same_run(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    seen: dict[str, int] = {}

    def respond(body: dict) -> tuple[int, bytes]:
        seen[stem(body)] = seen.get(stem(body), 0) + 1
        whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}}]}
        return (503, b"{}") if seen[stem(body)] == 1 and len(seen) % 2 else (200, json.dumps(whole).encode())

    cloud.respond = respond
    with live(home / "a.db", cloud.url) as source:
        made = run.answer(data(N), FILES, source, path=asked)
    assert all(row.cloud is not None and row.cloud.answer == "A" for row in made.rows) and max(seen.values()) == 2
    assert made.results().cloud.estimated_tokens  # these replies say nothing of tokens


@pytest.mark.parametrize("status", [401, 402])
def test_fault_of_the_whole_cloud_ends_the_asking(status: int, cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    cloud.status, cloud.raw = status, b'{"error": {"message": "no"}}'
    with live(home / "a.db", cloud.url) as source:
        made = run.answer(data(N), FILES, source, path=asked)
    assert source.stopped and len(cloud.requests) <= 2 and all(row.cloud is None for row in made.rows) and made.is_complete
    cloud.status, cloud.raw = 200, None
    opener, n_before = Opener(), len(cloud.requests)
    with live(home / "a.db", cloud.url) as source:
        made = run.answer(data(N), FILES, source, path=asked, open_model=opener)
    assert len(cloud.requests) - n_before == N and opener.models == [] and not np.isnan(made.results().cloud_correct).any()


def test_budget_ends_the_asking_and_the_next_day_goes_on(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    with live(home / "a.db", cloud.url, BudgetLimits(calls_per_day=5)) as source:
        made = run.answer(data(N), FILES, source, path=asked)
    assert len(cloud.requests) == 5 and source.stopped and "budget" in source.stopped
    assert sum(row.cloud is not None for row in made.rows) == 5
    with live(home / "b.db", cloud.url, BudgetLimits(calls_per_day=50)) as source:  # another database: nothing was spent
        run.answer(data(N), FILES, source, path=asked)
    assert len(cloud.requests) == N and len({stem(request["body"]) for request in cloud.requests}) == N


def test_rules_hold_for_a_run(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    secret, redacted = data(N).rows[0].question.stem, data(N).rows[1].question.stem
    rules = Rules.of([re.escape(secret)], [re.escape(redacted[:8])])
    with live(home / "a.db", cloud.url, rules=rules) as source:
        made = run.answer(data(N), FILES, source, path=asked)
    sent = "\n".join(stem(request["body"]) for request in cloud.requests)
    assert secret not in sent and redacted not in sent and redacted[8:] in sent and "[redacted]" in sent
    first = made.rows[0].cloud
    assert first is not None and first.error == NEVER_SENT and len(cloud.requests) == N - 1


def test_pause_that_the_cloud_asks_for_is_kept(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    cloud.status, cloud.raw, cloud.headers = 429, b"{}", {"Retry-After": "3600"}
    with live(home / "a.db", cloud.url) as source:
        run.answer(data(N), FILES, source, path=asked)
    assert source.stopped and "pause" in source.stopped and len(cloud.requests) <= 2


def test_file_of_another_cloud_is_refused(cloud: LoopbackCloud, home: pathlib.Path, asked: pathlib.Path) -> None:
    with live(home / "a.db", cloud.url) as source:
        run.answer(data(2), FILES, source, path=asked)
    with live(home / "a.db", "http://127.0.0.1:9/v1") as source, pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        run.answer(data(2), FILES, source, path=asked)


def test_command_asks_the_cloud_of_the_settings(cloud: LoopbackCloud, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rows, questions = tmp_path / "run.db", tmp_path / "q.jsonl"
    questions.write_text(lines(N), encoding="utf-8")
    options = ("eval", str(questions), "--cloud", "live", "--cloud-url", cloud.url, "--rows", str(rows))
    cloud.status = 401
    failed = command_line.run(*options, "--json")
    assert failed.returncode == 69 and f"{N} of {N} questions have no answer of the cloud" in failed.stderr, failed.stderr
    cloud.status = 200
    done = command_line.run(*options)
    assert done.returncode == 0 and "the cloud default" in done.stdout and "simulated" not in done.stdout, done.stderr
    n_requests = len(cloud.requests)
    again = command_line.run(*options, "--tau", "1")
    assert again.returncode == 0 and len(cloud.requests) == n_requests and done.stderr == again.stderr == ""


def test_recorded_answers_are_a_cloud(tmp_path: pathlib.Path) -> None:
    path, rows = tmp_path / "big.jsonl", data(N).rows
    said = [{"id": row.id, "question": row.question.stem, "answer": "A"} for row in rows[:-2]]
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in said), encoding="utf-8")
    source = RecordedFile(path, rows)
    made = run.answer(data(N), FILES, source, path=tmp_path / "run.db")
    results = made.results()
    assert results.cloud.kind == RECORDED and "big.jsonl" in results.cloud.words and results.cloud.estimated_tokens
    assert list(results.cloud_correct[:-2]) == [float(row.answer == "A") for row in rows[:-2]]
    assert np.isnan(results.cloud_correct[-2:]).all() and run.load(tmp_path / "run.db") == made
    path.write_text(path.read_text(encoding="utf-8").replace('"answer": "A"', '"answer": "B"', 1), encoding="utf-8")
    with pytest.raises(StorageError, match="the cloud"):
        run.answer(data(N), FILES, RecordedFile(path, rows), path=tmp_path / "run.db")


def test_recorded_answers_to_other_questions_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_text('{"question": "something else", "answer": "A"}\n', encoding="utf-8")
    with pytest.raises(BadData, match=r"big\.jsonl"):
        RecordedFile(path, data(N).rows)
    done = command_line.run("eval", "-", "--cloud", str(tmp_path / "none.jsonl"), stdin=lines(2))
    assert done.returncode == 65 and "none.jsonl" in done.stderr and "Traceback" not in done.stderr

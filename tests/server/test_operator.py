"""The routes behind the operator's page: for the operator alone, bounded, and with the numbers of the database."""

import contextlib
import json
import pathlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_agent.measure.replay import compare
from edge_agent.store.store import Store
from tests.support.calibrations import stored
from tests.support.event_stream import NO_CLOUD
from tests.support.past_weeks import live_through
from tests.support.serving import Serving, serving, token_file

CLIENT, OPERATOR = "a-clients-token-for-tests", "an-operators-token-for-tests"
N = 600
ROUTES = ("/edge/overview", "/edge/history", "/edge/calibration", "/edge/preview?tau=0.5")
NO_SUCH = "0f8fad5b-d9cb-469f-a165-70867728950e"


def flags(home: pathlib.Path) -> tuple[str, ...]:
    return "--token-file", token_file(home / "client", CLIENT), "--operator-token-file", token_file(home / "operator", OPERATOR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("operator")
    with Store(home / "edge-agent.db") as store:
        live_through(store, N, calibration=stored(home, tau=0.6).sha256)
    with serving(home, *flags(home), environment=NO_CLOUD) as running:
        yield running


@pytest.fixture
def operator(server: Serving) -> Iterator[httpx.Client]:
    with server.client(OPERATOR) as client:
        yield client


def rows(server: Serving, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(server.home / "edge-agent.db")) as db:
        return db.execute(sql).fetchall()


def some_id(server: Serving, where: str = "ending = 'overturned'") -> str:
    return str(rows(server, f"SELECT decision_id FROM decisions WHERE {where} LIMIT 1")[0][0])


def test_each_route_needs_the_operators_token(server: Serving) -> None:
    with server.client() as stranger, server.client(CLIENT) as client, server.client(OPERATOR) as operator:
        for path in (*ROUTES, f"/edge/decisions/{some_id(server)}/facts"):
            assert [who.get(path).status_code for who in (stranger, client, operator)] == [401, 403, 200], path


def test_page_itself_holds_no_data_and_loads_only_what_the_server_has(server: Serving) -> None:
    with server.client() as stranger:
        page = stranger.get("/operator")
        assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert not re.search("https?://", page.text.replace("xmlns='http://www.w3.org/2000/svg'", ""))
        for name in ("operator.js", "operator-api.js", "operator-charts.js", "operator-model.js", "operator.css", "operator.words.json"):
            assert stranger.get(f"/kiosk/{name}").status_code == 200, name
        assert "/operator" not in stranger.get("/").text + stranger.get("/kiosk/visitor.js").text


def test_overview_has_the_numbers_of_the_database(server: Serving, operator: httpx.Client) -> None:
    found = operator.get("/edge/overview").json()
    for table, n in found["storage"]["rows"].items():
        assert rows(server, f"SELECT count(*) FROM {table}") == [(n,)], table
    assert found["storage"]["file_bytes"] >= (server.home / "edge-agent.db").stat().st_size > 0
    assert found["policy"]["tau"] == 0.6 and found["model"]["quantization"] == "Q8_0"
    assert found["reading_times"]["n"] == N and 0 < found["reading_times"]["p50_ms"] <= found["reading_times"]["p95_ms"]
    assert dict(rows(server, "SELECT state, count(*) FROM outbox GROUP BY state")) == found["queue"]["states"]


def test_history_adds_up_to_the_database(server: Serving, operator: httpx.Client) -> None:
    found = operator.get("/edge/history", params={"count": 40, "offset_min": 300}).json()
    sql = "SELECT count(*), sum(deferred), sum(route = 'cloud'), sum(ending IS 'overturned') FROM decisions"
    total = found["total"]
    assert rows(server, sql) == [(total["decisions"], total["deferred"], total["cloud"], total["overturned"])]
    assert len(found["periods"]) == 40 and sum(one["agreed"] for one in found["periods"]) == total["agreed"] > 0
    assert found["complete"] and sum(one["compared"] for one in found["reliability"]) == total["compared"]


def test_days_are_those_of_the_zone(operator: httpx.Client) -> None:
    begins = [one["begins_at"] for one in operator.get("/edge/history", params={"count": 3, "zone": "Asia/Almaty"}).json()["periods"]]
    assert all("T19:00:00" in one for one in begins)
    for unknown in ("Asia/Atlantis", "../../etc/passwd", "Europe", "\0", "/"):
        begins = [one["begins_at"] for one in operator.get("/edge/history", params={"offset_min": 60, "zone": unknown}).json()["periods"]]
        assert all("T23:00:00" in one for one in begins)


def test_hours_are_bounded(operator: httpx.Client) -> None:
    assert len(operator.get("/edge/history?per=hour&count=366").json()["periods"]) == 336


@pytest.mark.parametrize(
    "query",
    [
        "history?per=week", "history?count=0", "history?count=367", "history?count=1e3", "history?offset_min=1440",
        "history?offset_min=nan", f"history?zone={'x' * 65}",
        "preview", "preview?tau=1.1", "preview?tau=-0.1", "preview?tau=nan", "preview?tau=inf", "preview?tau=", "preview?tau=half",
        "preview?tau=0.5&newest=0", "preview?tau=0.5&newest=100001", "decisions?kind=all", "decisions?kind=", f"decisions?text={'x' * 201}",
    ],
)  # fmt: skip
def test_value_that_does_not_fit_is_refused_with_a_sentence(operator: httpx.Client, query: str) -> None:
    reply = operator.get(f"/edge/{query}")
    assert reply.status_code == 400 and len(reply.json()["error"]["message"]) > 20, reply.text


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.6, 1.0])
def test_preview_is_the_replay_of_the_log(server: Serving, operator: httpx.Client, tau: float) -> None:
    found = operator.get("/edge/preview", params={"tau": tau, "newest": 200}).json()
    with Store(server.home / "edge-agent.db") as store:
        log, other = compare(list(store.decisions())[-200:], tau)
    assert found["log"]["decisions"] == 200 and found["other"]["deferred"] == other.deferred and found["log"]["deferred"] == log.deferred
    assert (found["other"]["changed"], found["other"]["unknown"]) == (other.changed, other.unknown)
    assert tau == 0.6 or other.deferred != log.deferred


def test_preview_that_nobody_waits_for_ends(server: Serving, operator: httpx.Client, tmp_path: pathlib.Path) -> None:
    """More looks than the line has places would be refused, and each would take its turn, if those that were left went on."""
    began = time.monotonic()
    for _ in range(30):
        with contextlib.suppress(httpx.TimeoutException), server.client(OPERATOR) as hasty:
            hasty.get("/edge/preview?tau=0.9&newest=100000", timeout=0.01)
    while operator.get("/edge/preview?tau=0.9&newest=1").status_code == 503:
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def test_too_many_long_looks_are_refused_and_questions_are_not(server: Serving) -> None:
    statuses: list[int] = []

    def look() -> None:
        with server.client(OPERATOR) as client:
            statuses.append(client.get("/edge/preview?tau=0.9").status_code)

    looking = [threading.Thread(target=look) for _ in range(24)]
    for thread in looking:
        thread.start()
    with server.client(CLIENT) as client:
        asked = client.post("/edge/ask", json={"question": "What is 2 + 2?", "options": ["3", "4"], "policy": "only_local"})
    for thread in looking:
        thread.join()
    assert asked.status_code == 200 and set(statuses) <= {200, 503} and 200 in statuses


def test_facts_have_what_was_stored(server: Serving, operator: httpx.Client) -> None:
    for where in ("ending = 'overturned'", "route = 'cloud'", "NOT deferred", "provisional AND ending IS NULL"):
        decision_id = some_id(server, where)
        found = operator.get(f"/edge/decisions/{decision_id}/facts").json()
        sql = "SELECT d.answer, d.score, d.reason, r.reading FROM decisions d JOIN readings r ON r.id = reading_id"
        ((answer, score, reason, reading),) = rows(server, f"{sql} WHERE decision_id = '{decision_id}'")
        assert (found["answer"], found["score"], found["reason"], found["reading"]) == (answer, score, reason, json.loads(reading))
        assert found["question"] and found["options"] and found["policy"]["tau"] == 0.6 and found["calibration"]
        assert (found["cloud_answer"] is not None) == (where in ("ending = 'overturned'", "route = 'cloud'"))


@pytest.mark.parametrize("named", [NO_SUCH, "1", "%00", "..%2f..", "a" * 300])
def test_decision_that_is_not_there_is_not_found(operator: httpx.Client, named: str) -> None:
    assert operator.get(f"/edge/decisions/{named}/facts").status_code == 404


def test_list_can_be_narrowed(server: Serving, operator: httpx.Client) -> None:
    found = operator.get("/edge/decisions", params={"kind": "overturned", "limit": 500}).json()
    assert [(len(found["decisions"]),)] == rows(server, "SELECT count(*) FROM decisions WHERE ending = 'overturned'")
    assert {one["ending"] for one in found["decisions"]} == {"overturned"}
    found = operator.get("/edge/decisions", params={"text": "ҚАЗАҚ", "limit": 3}).json()
    assert len(found["decisions"]) == 3 and found["next"] and all("Қазақ" in one["question"] for one in found["decisions"])


def test_calibration_says_what_it_promised_and_what_came_of_it(server: Serving, operator: httpx.Client) -> None:
    found = operator.get("/edge/calibration").json()
    assert found["calibration"]["goal"] == "max_local_error" and found["calibration"]["delta"] == 0.05
    ((n, deferred),) = rows(server, "SELECT count(*), sum(deferred) FROM decisions WHERE instr(policy, '\"prefer_local\"')")
    assert (found["live"]["questions"], found["live"]["deferred"]) == (n, deferred) and found["live"]["lines"]
    assert found["audits"]["audited"] == rows(server, "SELECT count(*) FROM agreements")[0][0] and found["audits"]["sentence"]


DAMAGE = (
    "UPDATE readings SET reading = '{\"level\": NaN}'",
    "UPDATE readings SET reading = x'ff00ff'",
    "UPDATE cloud_answers SET answer = '[1e999, \"\\ud800\"]'",
    "UPDATE decisions SET policy = 'x', circumstances = '[]', score = 9e999, ended_at = 9e999, created_at = -9e99 WHERE rowid % 3 = 0",
    "UPDATE decisions SET answer = x'f0', reason = x'00', final_answer = x'ff', ending = 'lost' WHERE rowid % 3 = 1",
    "UPDATE questions SET options = '{', stem = x'fffe' WHERE rowid % 2",
    "UPDATE audits SET cloud_answer = x'ff', agrees = 1",
)


def test_damaged_rows_never_stop_a_reply(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        live_through(store, 60, days=1)
    with serving(tmp_path, *flags(tmp_path), environment=NO_CLOUD) as running, running.client(OPERATOR) as operator:
        for damage in DAMAGE:
            with contextlib.closing(sqlite3.connect(tmp_path / "edge-agent.db", timeout=20)) as db:
                db.execute(damage)
                db.commit()
            ids = [one[0] for one in rows(running, "SELECT decision_id FROM decisions LIMIT 6")]
            for path in (
                *ROUTES,
                "/edge/decisions?limit=60",
                "/edge/decisions?text=a&kind=kept",
                *(f"/edge/decisions/{one}/facts" for one in ids),
            ):
                assert operator.get(path).status_code == 200, (damage, path, running.said()[-2000:])


def test_locked_database_is_a_sentence_and_soon(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, *flags(tmp_path), environment=NO_CLOUD) as running, running.client(OPERATOR) as operator:
        with contextlib.closing(sqlite3.connect(tmp_path / "edge-agent.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode")
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")
            db.execute("PRAGMA user_version = 8")
            for path in ROUTES:
                began = time.monotonic()
                reply = operator.get(path)
                assert reply.status_code in (200, 503) and time.monotonic() - began < 15, path  # in WAL mode a reader does not wait
                assert reply.status_code == 200 or len(reply.json()["error"]["message"]) > 20
            db.execute("ROLLBACK")
        assert operator.get("/edge/overview").status_code == 200


def test_without_a_calibration_it_says_so(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, *flags(tmp_path)) as running, running.client(OPERATOR) as operator:
        found = operator.get("/edge/calibration").json()
        assert found["calibration"] is None and found["audits"] is None and found["policy"]["readout"] == "confidence"
        assert operator.get("/edge/preview?tau=0.5").json()["log"]["decisions"] == 0
        assert operator.get("/edge/history").json()["total"]["decisions"] == 0
        assert operator.get("/edge/overview").json()["connection"] == "none"

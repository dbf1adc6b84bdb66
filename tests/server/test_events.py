"""Events: each ending once and in order, over reconnects and restarts, to whoever may hear of it."""

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edge_agent import Agent
from edge_agent.core.config.loading import load
from edge_agent.core.config.settings import HOME
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import Ending
from edge_agent.server import sse
from edge_agent.server.edge.following import FOR_OPERATOR, MOST_KEPT, MOST_STREAMS, Following, Listener, State
from tests.support.event_stream import NO_CLOUD, end, forget, put_waiting, stream
from tests.support.serving import Serving, serving, token_file

TOKEN = "an-operators-token-for-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("events")
    with serving(home, "--operator-token-file", token_file(home / "operator", TOKEN), environment=NO_CLOUD) as running:
        yield running


@pytest.fixture
def other(tmp_path: pathlib.Path) -> Iterator[Serving]:
    with serving(tmp_path / "home", environment=NO_CLOUD) as running:
        yield running


def test_client_hears_of_the_decisions_that_it_names_and_of_no_other(server: Serving) -> None:
    with server.client() as client:
        mine, others, mine_too = put_waiting(client, 3, 100)
    ids = f"{mine['decision_id']},{mine_too['decision_id']}"
    with stream(server, ids) as events:
        assert events.next().name == "state"
        end(server.home, others, mine, mine_too)
        heard = [events.next("ending"), events.next("ending")]
    assert [event.data["decision_id"] for event in heard] == ids.split(",")
    assert all(event.id == event.data["number"] and event.data["ending"] for event in heard)


def test_ending_before_the_stream_was_opened_is_not_missed(server: Serving) -> None:
    with server.client() as client:
        (mine,) = put_waiting(client, 1, 200)
    end(server.home, mine)
    with stream(server, mine["decision_id"]) as events:
        event = events.next()
    assert (event.name, event.data["decision_id"]) == ("ending", mine["decision_id"])


def test_operator_hears_everything_and_of_decisions_as_they_come(server: Serving) -> None:
    with stream(server, token=TOKEN) as events, server.client() as client:
        assert events.next().name == "state"
        one, two = put_waiting(client, 2, 300)
        assert events.next("decision").data["decision_id"] == one["decision_id"]
        end(server.home, one, two)
        assert [events.next("ending").data["decision_id"] for _ in range(2)] == [one["decision_id"], two["decision_id"]]


def test_decision_that_is_deleted_is_told_once_and_other_endings_still_come(server: Serving) -> None:
    with server.client() as client:
        before, meanwhile, kept = put_waiting(client, 3, 500)
    forget(server.home, before)
    with stream(server, ",".join(one["decision_id"] for one in (before, meanwhile, kept))) as events:
        first = events.next()
        assert (first.name, first.id, first.data) == ("gone", None, {"decision_id": before["decision_id"]})
        assert events.next().name == "state"
        forget(server.home, meanwhile)
        assert events.next("gone").data == {"decision_id": meanwhile["decision_id"]}
        end(server.home, kept)
        names = []
        while not names or names[-1] != "ending":
            names.append((event := events.next()).name)
        assert event.data["decision_id"] == kept["decision_id"] and "gone" not in names


def test_state_says_how_many_wait_and_that_the_cloud_is_away(other: Serving) -> None:
    with other.client() as client, stream(other) as events:
        assert events.next("state").data == {"connection": "online", "waiting": 0, "text": "Online."}
        put_waiting(client, 1)
        found = events.next("state")
        while not found.data["waiting"]:
            found = events.next("state")
    assert found.data["waiting"] == 1 and found.data["text"].endswith("; 1 question waits for the cloud.")


def test_state_is_offline_as_soon_as_one_call_found_no_connection(other: Serving) -> None:
    with other.client() as client:
        (waiting,) = put_waiting(client, 1)
        assert waiting["reason"] == "offline"
        with stream(other, waiting["decision_id"]) as events:
            assert events.next("state").data["connection"] == "offline"


@pytest.mark.parametrize(
    ("kind", "connection"),
    [(CloudKind.OFFLINE, "offline"), (CloudKind.FAILED, "paused"), (CloudKind.TIMEOUT, "paused"), (CloudKind.ANSWERED, "online")],
)
def test_state_follows_the_newest_call(tmp_path: pathlib.Path, kind: CloudKind, connection: str) -> None:
    settings = load({"cloud_url": "http://127.0.0.1:9/v1", "cloud_model": "m"}, {HOME: str(tmp_path)})
    with Agent.open(settings) as agent:
        assert agent.gate is not None
        agent.gate.breaker.note(CloudKind.OFFLINE, "no connection")
        agent.gate.breaker.note(CloudKind.ANSWERED, None)
        agent.gate.breaker.note(kind, None)
        assert Following(agent, threading.Event()).state().connection == connection


def test_stream_that_saw_another_state_in_between_hears_that_it_is_over(tmp_path: pathlib.Path, question: Question) -> None:
    """The state is looked at once a second, and by each stream when it opens: what came and went in between reached that stream alone."""

    async def listen(agent: Agent) -> list[object]:
        stop = threading.Event()
        following = Following(agent, stop)
        first = following.listen((), True)
        thread = threading.Thread(target=following.run)
        thread.start()
        try:
            heard: list[object] = [await first.next(5)]
            second = following.listen((), True)
            await asyncio.to_thread(agent.ask, question)
            return [*heard, await second.next(5)]
        finally:
            stop.set()
            thread.join()

    with Agent.open(load({}, {HOME: str(tmp_path)})) as agent:
        assert asyncio.run(listen(agent)) == [State("none", 0), State("none", 0)]


def test_state_without_a_cloud_promises_none() -> None:
    assert State("none", 2).text == "No cloud is set up; 2 questions wait until one is."


def test_each_ending_comes_once_and_in_order_over_drops_and_a_killed_server(other: Serving) -> None:
    with other.client() as client:
        waiting = put_waiting(client, 12)
    ids = ",".join(decision["decision_id"] for decision in waiting)
    heard: list[tuple[int | None, str]] = []
    last: int | None = None
    batches = [waiting[:3], waiting[3:6], waiting[6:9], waiting[9:]]
    for number, batch in enumerate(batches):
        end(other.home, *batch[:1])  # while nobody listens
        with stream(other, ids, last) as events:
            end(other.home, *batch[1:])
            for _ in range(2 if number < 3 else len(waiting) - len(heard)):  # and is dropped in the middle
                event = events.next("ending")
                heard.append((event.id, event.data["decision_id"]))
                last = event.id
        if number == 1:
            other.stop(signal.SIGKILL)
            other.start()
            other.wait_ready()
    assert [decision_id for _, decision_id in heard] == ids.split(",")
    assert [number for number, _ in heard] == sorted({number for number, _ in heard})


def test_number_of_another_file_brings_all_endings(server: Serving) -> None:
    with server.client() as client:
        (mine,) = put_waiting(client, 1, 400)
    end(server.home, mine)
    with stream(server, mine["decision_id"], after=10**9) as events:
        assert events.next().data["decision_id"] == mine["decision_id"]


def test_stream_is_not_buffered_and_says_when_to_come_back(server: Serving) -> None:
    with server.client() as client, client.stream("GET", "/edge/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert next(response.iter_lines()).startswith("retry: ")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("ids=nothing", {}),
        ("ids=" + ",".join(["0f8fad5b-d9cb-469f-a165-70867728950e"[:-2] + f"{n:02}" for n in range(33)]), {}),
        ("", {"Last-Event-ID": "-1"}),
        ("", {"Last-Event-ID": "1" * 19}),
        ("after=1e3", {}),
    ],
)
def test_wrong_ids_are_refused(server: Serving, query: str, headers: dict[str, str]) -> None:
    with server.client() as client:
        reply = client.get(f"/edge/events?{query}", headers=headers)
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_number_of_streams_is_bounded_and_a_closed_one_makes_room(server: Serving) -> None:
    with contextlib.ExitStack() as stack, server.client() as client, server.client(TOKEN) as operator:
        streams = [stack.enter_context(stream(server)) for _ in range(MOST_STREAMS - FOR_OPERATOR)]
        assert all(events.next().name == "state" for events in streams)
        with client.stream("GET", "/edge/events") as refused:
            assert refused.status_code == 503 and refused.headers["Retry-After"]
        streams += [stack.enter_context(stream(server, token=TOKEN)) for _ in range(FOR_OPERATOR)]
        assert all(events.next().name == "state" for events in streams[-FOR_OPERATOR:])
        with operator.stream("GET", "/edge/events") as refused:
            assert refused.status_code == 503 and refused.headers["Retry-After"]
        asked = client.post("/edge/ask", json={"question": "What is 2 + 2?", "options": ["3", "4"], "policy": "only_local"})
        assert asked.status_code == 200  # streams use up nothing that answers need
    ends = time.monotonic() + 10
    while True:
        with contextlib.suppress(AssertionError), stream(server) as events:
            events.next()
            return
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_open_streams_and_a_client_that_does_not_read_do_not_delay_the_end(tmp_path: pathlib.Path) -> None:
    server = Serving(tmp_path / "home", environment=NO_CLOUD)
    server.wait_ready()
    with socket.create_connection(("127.0.0.1", server.port)) as silent, stream(server) as events:
        silent.sendall(f"GET /edge/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        events.next()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 2
        with pytest.raises(EOFError):  # the end is clean: a browser connects again
            events.next("nothing")


def test_slow_listener_is_told_to_read_the_store_and_keeps_little() -> None:
    async def listening() -> Listener:
        listener = Listener(None, is_stream=True)
        listener.behind = False
        for number in range(10 * MOST_KEPT):
            listener.put(Ending("id", True, "upheld", "A", "A", 0.0, 0.0, number))
        return listener

    listener = asyncio.run(listening())
    assert listener.behind and len(listener._items) <= MOST_KEPT


def test_waiting_text_counts() -> None:
    assert State("offline", 3).text == "Offline; 3 questions wait for the cloud."
    assert State("none", 0).text == "No cloud is set up."


def test_following_goes_on_after_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        """An agent whose store fails in a way that nobody foresaw."""

        @property
        def store(self) -> object:
            stop.set()
            raise RuntimeError("a bug")

    stop = threading.Event()
    Following(Broken(), stop).run()  # type: ignore[arg-type]
    assert "following the endings failed" in caplog.text


def test_event_is_one_line_a_field_for_every_client() -> None:
    text = "a\nb\r\nc\u2028d\x85e"
    name, number, data, *rest = sse.event({"text": text}, "state", 7).splitlines()
    assert (name, number, json.loads(data.removeprefix("data: ")), rest) == ("event: state", "id: 7", {"text": text}, [""])
    assert sse.event({}) == "data: {}\n\n"

"""Metrics: what Prometheus reads, bounded and without a word of anybody."""

import pathlib
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cloud_server import LoopbackCloud
from tests.support.event_stream import NO_CLOUD, end, put_waiting, stream
from tests.support.raw_client import ask
from tests.support.serving import Serving, serving, token_file

TOKEN = "an-operators-token-for-tests"
CANARY = "xyzzy-canary"
ASKED = {"question": "What is 2 + 2?", "options": ["3", "4"], "policy": "only_local"}


@pytest.fixture
def flags(tmp_path: pathlib.Path) -> tuple[str, str]:
    return "--operator-token-file", token_file(tmp_path / "operator", TOKEN)


@pytest.fixture
def server(tmp_path: pathlib.Path, flags: tuple[str, str]) -> Iterator[Serving]:
    with serving(tmp_path / "home", *flags, environment=NO_CLOUD) as running:
        yield running


def scraped(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    reply = client.get("/metrics")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(reply.text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    return sum(found for (known, own), found in samples.items() if known == name and labels.items() <= dict(own).items())


def test_decisions_requests_endings_and_the_queue_are_counted(server: Serving) -> None:
    with server.client(TOKEN) as client, stream(server) as events:
        events.next()
        for _ in range(2):
            assert client.post("/edge/ask", json=ASKED).status_code == 200
        waiting = put_waiting(client, 2)
        samples = scraped(client)
        assert value(samples, "edge_agent_decisions_total", route="local", reason="only_local") == 2
        assert value(samples, "edge_agent_decisions_total", recalled="true") == 1
        assert value(samples, "edge_agent_decisions_total", provisional="true", cause="prefer_cloud") == 2
        assert value(samples, "edge_agent_decision_seconds_count") == 4
        assert value(samples, "edge_agent_prefill_seconds_count") == value(samples, "gen_ai_server_request_duration_seconds_count") == 3
        assert value(samples, "edge_agent_requests_total", route="/edge/ask", status="200") == 4
        assert value(samples, "edge_agent_queue_length") == 2 and value(samples, "edge_agent_queue_oldest_seconds") > 0
        assert value(samples, "edge_agent_model_info") == 1 and value(samples, "edge_agent_store_up") == 1
        end(server.home, *waiting)
        with stream(server, ",".join(one["decision_id"] for one in waiting)) as ended:
            assert {ended.next("ending").data["ending"], ended.next("ending").data["ending"]} & {"abandoned", "upheld", "overturned"}
        while value(samples := scraped(client), "edge_agent_endings_total") < 2:
            pass
        assert value(samples, "process_open_fds") > 0


def test_request_is_counted_under_its_route_however_it_names_it(server: Serving) -> None:
    with server.client(TOKEN) as client:
        client.head("/v1/models")
        request = f"GET {server.url}/v1/models HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
        assert ask(server.port, request.encode()).status == 200
        assert value(scraped(client), "edge_agent_requests_total", route="/v1/models", status="200") == 2


def test_refusals_and_what_is_no_request_are_counted_under_fixed_names(server: Serving) -> None:
    bad = [
        (400, b"\x16\x03\x01 no HTTP\r\n\r\n"),
        (431, b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000),
        (501, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (408, b"GET / HTTP/1.1\r\nHo"),  # and no more
    ]
    with server.client(TOKEN) as client, server.client("wrong") as stranger:
        for status, data in bad:
            assert ask(server.port, data).status == status
        stranger.get("/edge/queue")
        client.post("/edge/ask", content=b"{", headers={"Content-Type": "application/json"})
        client.get("/health", headers={"Host": CANARY})
        client.get("/nothing")
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        assert client.get("/edge/draft", headers={**upgrade, "Origin": f"http://{CANARY}"}).status_code == 403
        samples = scraped(client)
    for status, _ in bad:
        assert value(samples, "edge_agent_requests_total", route="connection", status=str(status)) == 1, status
    for status, n in ((400, 1), (401, 1), (403, 2)):
        assert value(samples, "edge_agent_requests_total", route="guard", status=str(status)) == n, status
    assert value(samples, "edge_agent_requests_total", route="none") == 1
    n_loading = value(samples, "edge_agent_refused_requests_total", status="503")  # of /health, while the model was being opened
    assert value(samples, "edge_agent_refused_requests_total") - n_loading == 6


def test_no_text_of_a_stranger_becomes_a_label(server: Serving) -> None:
    with server.client(TOKEN) as client, server.client("wrong") as stranger:
        before = len(scraped(client))
        client.post("/edge/ask", json={"question": f"{CANARY}?", "options": [CANARY, "4"], "policy": "only_local"})
        for n in range(20):
            client.get(f"/{CANARY}/{n}")
            client.get(f"/edge/decisions/{CANARY}-{n}")
            client.request("BREW", f"/edge/ask?{CANARY}={n}")
            stranger.get(f"/edge/queue?state={CANARY}-{n}")
            client.get("/health", headers={"Host": f"{CANARY}-{n}"})
        text = client.get("/metrics").text
        samples = scraped(client)
    assert CANARY not in text
    assert len(samples) - before < 150  # the series of one decision and of a few pairs of route and status; not 100 requests' own
    assert value(samples, "edge_agent_refused_requests_total", status="401") == 20
    assert value(samples, "edge_agent_refused_requests_total", status="403") == 20
    assert value(samples, "edge_agent_requests_total", route="/edge/decisions/{decision_id}", status="404") == 20


def test_calls_to_the_cloud_are_counted_by_the_name_that_the_operator_gave(tmp_path: pathlib.Path, flags: tuple[str, str]) -> None:
    cloud = LoopbackCloud()
    environment = {"EDGE_AGENT_CLOUD_URL": cloud.url, "EDGE_AGENT_CLOUD_MODEL": "big"}
    try:
        with (
            serving(tmp_path / "home", *flags, environment=environment) as running,
            running.client(TOKEN) as client,
        ):
            assert client.post("/edge/ask", json={**ASKED, "policy": "only_cloud"}).json()["route"] == "cloud"
            samples = scraped(client)
    finally:
        cloud.stop()
    assert value(samples, "gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="big", gen_ai_operation_name="chat") == 1
    assert value(samples, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 9
    assert value(samples, "edge_agent_cloud_seconds_count") == 1 and value(samples, "edge_agent_breaker_open") == 0


def test_audits_are_counted_and_told_to_the_operator(tmp_path: pathlib.Path, flags: tuple[str, str]) -> None:
    """The server's own drainer sends a kept question, and the cloud gives another answer."""
    cloud = LoopbackCloud()
    cloud.reply = lambda body: "A"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(f'cloud_url = "{cloud.url}"\ncloud_model = "big"\naudit_share = 1.0\ntau = 0.0\n')
    kept = {"question": CANARY, "options": ["18", "19"], "policy": "prefer_local"}
    try:
        with serving(tmp_path / "home", *flags) as running, running.client(TOKEN) as client:
            decision = client.post("/edge/ask", json=kept).json()
            assert decision["reason"] == "confident"
            ends = time.monotonic() + 30
            while (samples := scraped(client)) and not value(samples, "edge_agent_audits"):
                assert time.monotonic() < ends
                time.sleep(0.1)
            told = client.get("/health").json()["audits"]
            page = client.get("/metrics").text
    finally:
        cloud.stop()
    same = decision["answer"] == "A"
    assert value(samples, "edge_agent_audits", result="same" if same else "different") == 1 and len(cloud.requests) == 1
    assert value(samples, "edge_agent_audits_waiting") == 0 and CANARY not in page
    assert not any(name.startswith("edge_agent_agreement") for name, _ in samples)  # no calibration, so nothing is tested
    assert (told["waiting"], told["agreement"]["audited"], told["agreement"]["fell"]) == (0, 1, False)

"""The client for OpenAI-compatible endpoints, with a real server on loopback and with transports that fail on command."""

import gzip
import json
import os
import pathlib
import resource
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.cloud.wire.client import CloudModel, is_normal, tls_message
from edge_agent.cloud.wire.request import MOST_SENDS, Shape, prompt
from edge_agent.cloud.wire.secret import Secrets
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from tests.support import refusals
from tests.support.cloud_server import LoopbackCloud, completion, gpt_5, reply
from tests.support.command_line import ASK, run
from tests.support.spoken_model import UNSURE, SpokenModel, agent

QUESTION = Question("Which city?", ("Astana", "Almaty", "Aktau", "Atyrau"))


def test_answer_comes_back_with_its_cost(cloud: LoopbackCloud) -> None:
    outcome = CloudModel(cloud.url, "big", "sk-key").ask(QUESTION)
    assert outcome.kind is CloudKind.ANSWERED and outcome.answer
    assert (outcome.answer.answer, outcome.answer.model) == ("B", "big")
    assert (outcome.answer.n_prompt_tokens, outcome.answer.n_completion_tokens) == (9, 1)
    (request,) = cloud.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == "Bearer sk-key"
    assert request["body"]["messages"] == [{"role": "user", "content": prompt(QUESTION)}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "refused"),
        (403, "refused"),
        (402, "no_credit"),
        (429, "limited"),
        (500, "failed"),
        (529, "failed"),
        (408, "failed"),
        (409, "failed"),
        (425, "failed"),
        (404, "misconfigured"),
        (405, "misconfigured"),
        (501, "misconfigured"),
        (400, "rejected"),
        (413, "rejected"),
        (302, "portal"),
        (204, "portal"),
        (407, "portal"),
        (511, "portal"),
    ],
)
def test_each_http_status_has_its_kind(cloud: LoopbackCloud, status: int, kind: str) -> None:
    cloud.status = status
    cloud.headers = {"Location": cloud.url}
    outcome = CloudModel(cloud.url, "big", "sk-secret").ask(QUESTION)
    assert outcome.kind == kind and outcome.answer is None
    assert len(cloud.requests) == 1  # a redirect is not followed
    assert "sk-secret" not in str(outcome)


HTML = b"<html>Welcome to the hotel</html>"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (HTML, "portal"), (b"", "portal"), (b"[]", "portal"), (b"[" * 100_000, "portal"), (b'{"status": "ok"}', "portal"),
        (b'{"choices": [{"mess', "failed"), (b'{"choices": []}', "unusable"), (b'"' + b"x" * (2 << 20) + b'"', "unusable"),
        (reply(message={"content": None}), "unusable"), (reply(message={"content": ""}), "unusable"),
        (reply(message={"content": "I cannot say."}), "unusable"), (reply(message=7), "unusable"), (reply(), "unusable"),
        (reply(message={"content": "B"}, finish_reason="length"), "unusable"),
        (reply(message={"content": "B"}, finish_reason="content_filter"), "unusable"),
        (reply(message={"content": "B"}, finish_reason="stop"), "answered"),
    ],
)  # fmt: skip
def test_each_reply_has_its_kind(cloud: LoopbackCloud, raw: bytes, kind: str) -> None:
    cloud.raw = raw
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind == kind


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "insufficient_quota", "no_credit"), (429, "credit_balance_exhausted", "no_credit"),
        (429, "spend_limit_exceeded", "no_credit"),
        (429, "rate_limit_exceeded", "limited"), (429, None, "limited"), (429, 7, "limited"), (402, None, "no_credit"),
    ],
)  # fmt: skip
def test_no_credit_and_too_many_calls_are_different_kinds(cloud: LoopbackCloud, status: int, code: object, kind: str) -> None:
    cloud.status, cloud.raw = status, json.dumps({"error": {"code": code}}).encode()
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind == kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7), ({"Retry-After": "0"}, 1), ({"Retry-After": "86400"}, 3600), ({"Retry-After": "9" * 500}, 3600),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1),
        ({"Retry-After": "soon"}, None), ({"Retry-After": "Wed, 99 Oct 2026 07:28:30 GMT"}, None), ({}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_date(headers: dict[str, str], seconds: float | None) -> None:
    """A date is relative to the reply's own date, since the device's clock may be wrong."""
    answer = httpx.MockTransport(lambda request: httpx.Response(429, headers=headers, stream=httpx.ByteStream(b"")))
    model = CloudModel("https://cloud.test/v1", "big", transport=answer)
    assert model.ask(QUESTION).retry_after_s == seconds


def test_size_limit_counts_the_decompressed_reply(cloud: LoopbackCloud) -> None:
    cloud.headers = {"Content-Encoding": "gzip"}
    cloud.raw = gzip.compress(reply(message={"content": "B"}))
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind is CloudKind.ANSWERED
    cloud.raw = gzip.compress(b" " * (1 << 30 >> 3))  # 128 MB in 130 kB
    outcome = CloudModel(cloud.url, "big").ask(QUESTION)
    assert outcome.kind is CloudKind.UNUSABLE and "1048576" in outcome.error
    cloud.raw = b"not gzip"
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind is CloudKind.UNUSABLE


def test_refused_connection_is_offline() -> None:
    assert CloudModel("http://127.0.0.1:9", "big").ask(QUESTION).kind is CloudKind.OFFLINE


def failing(error: Exception) -> CloudModel:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return CloudModel("https://cloud.test/v1", "big", "sk-secret", transport=httpx.MockTransport(handler))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("name not known"), "offline"),
        (httpx.ConnectTimeout("slow"), "offline"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.RemoteProtocolError("gone"), "timeout"),
        (RuntimeError("an error inside a library"), "failed"),
    ],
)
def test_each_error_has_its_kind_and_is_never_raised(error: Exception, kind: str) -> None:
    assert failing(error).ask(QUESTION).kind == kind


def test_deadline_holds_when_name_resolution_hangs() -> None:
    """A call that hangs below httpx is abandoned; nothing was sent, so it counts as offline."""

    def hang(request: httpx.Request) -> httpx.Response:
        time.sleep(5)
        raise AssertionError

    model = CloudModel("https://cloud.test/v1", "big", deadline_s=0.1, transport=httpx.MockTransport(hang))
    started = time.perf_counter()
    assert model.ask(QUESTION).kind is CloudKind.OFFLINE
    assert time.perf_counter() - started < 4


def test_deadline_after_sending_is_a_timeout(cloud: LoopbackCloud) -> None:
    arrived, leave = threading.Event(), threading.Event()
    cloud.reply = lambda body: arrived.set() or leave.wait(10) or "B"
    call = CloudModel(cloud.url, "big").start(QUESTION)
    assert arrived.wait(14)
    call.ends_s = time.monotonic()  # the deadline is now, however slow this machine is
    outcome = call.result()
    leave.set()
    assert outcome.kind is CloudKind.TIMEOUT


def test_abandoned_call_sends_nothing_later(cloud: LoopbackCloud) -> None:
    """The caller has queued the question by then: it would be asked, and billed, twice."""
    resolving, resolved = threading.Event(), threading.Event()

    class Resolver(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            resolving.set()
            resolved.wait(20)
            return super().handle_request(request)

    call = CloudModel(cloud.url, "big", deadline_s=20, transport=Resolver()).start(QUESTION)
    assert resolving.wait(14)
    assert not call.abandon()  # as at the deadline, while the name is still being resolved
    resolved.set()
    assert call.result().kind is CloudKind.OFFLINE and cloud.requests == []


def test_at_most_two_calls_run_at_once(cloud: LoopbackCloud) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def reply(body: dict) -> str:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.1)
        with lock:
            now -= 1
        return "B"

    cloud.reply = reply
    model = CloudModel(cloud.url, "big", deadline_s=20)
    outcomes = [call.result() for call in [model.start(QUESTION) for _ in range(5)]]
    assert {outcome.kind for outcome in outcomes} == {CloudKind.ANSWERED} and most == 2


def test_job_key_is_sent_as_a_header(cloud: LoopbackCloud) -> None:
    CloudModel(cloud.url, "big").ask(QUESTION, job_key="job-1")
    assert cloud.requests[0]["headers"]["X-Client-Request-Id"] == "job-1"


@pytest.mark.parametrize(
    ("verify_code", "wall", "words"),
    [
        (9, 0.0, "says 1970-01-01; set the clock"),
        (10, 1e9, "set the clock"),
        (18, 1e9, "set the clock"),
        (10, 1.8e9, "has expired, or this device's date (2027-01-15) is wrong"),
        (62, 1.8e9, "may be a captive portal"),
        (None, 1.8e9, "may be a captive portal"),
    ],
)
def test_failed_tls_names_a_wrong_clock_or_a_portal(verify_code: int | None, wall: float, words: str) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = verify_code
    assert words in tls_message(error, wall)


def test_server_without_tls_is_not_reported_as_offline(cloud: LoopbackCloud) -> None:
    outcome = CloudModel(cloud.url.replace("http://", "https://"), "big").ask(QUESTION)
    assert outcome.kind is CloudKind.TLS and "no secure connection" in outcome.error


def test_proxy_and_certificate_file_are_checked(tmp_path: pathlib.Path) -> None:
    for proxy in ("socks://proxy:3128", "socks5://x", "http://", "http://proxy:99999", "http://[::1"):
        with pytest.raises(BadSetting, match="proxy"):
            CloudModel("https://x/v1", "big", proxy=proxy)
    (tmp_path / "empty.pem").touch()
    for name in ("nothing.pem", "empty.pem", ""):
        with pytest.raises(BadSetting, match="cloud_ca_file"):
            CloudModel("https://x/v1", "big", ca_file=str(tmp_path / name))


def test_proxy_is_used(cloud: LoopbackCloud) -> None:
    """The loopback server acts as the proxy: it receives the full address that it should fetch."""
    outcome = CloudModel("http://cloud.test/v1", "big", proxy=cloud.url.removesuffix("/v1")).ask(QUESTION)
    assert outcome.kind is CloudKind.ANSWERED and cloud.requests[0]["path"] == "http://cloud.test/v1/chat/completions"


@pytest.mark.parametrize(
    "url", ["", "cloud", "ftp://x/v1", "http://", "http://[bad", "https://user:pw@x/v1", "https://x/v1?key=1", "http://x:port/"]
)
def test_malformed_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        CloudModel(url, "big")
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:hunter2@[bad/v1", "htp://user:hunter2@host/v1", "https://user:hunter2@host:port/v1"])
def test_password_in_a_malformed_url_is_not_shown(url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        CloudModel(url, "big")
    assert "hunter2" not in str(caught.value)


def test_key_is_removed_from_a_reply_that_repeats_it(cloud: LoopbackCloud) -> None:
    """A short key stays: it may be a word of the answer."""
    cloud.raw = reply(message={"content": "B. Your key is sk-secret-4711, and sk is its beginning."})
    outcome = CloudModel(cloud.url, "big", "sk-secret-4711").ask(QUESTION)
    assert outcome.answer and outcome.answer.answer == "B"
    assert outcome.answer.reply == "B. Your key is [key], and sk is its beginning."
    assert "sk is" in CloudModel(cloud.url, "big", "sk").ask(QUESTION).answer.reply


def test_key_is_removed_from_the_error_of_a_library() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ProxyError(f"407 {request.headers['Authorization']}")

    outcome = CloudModel("https://x", "big", "sk-secret-4711", transport=httpx.MockTransport(fail)).ask(QUESTION)
    assert outcome.kind is CloudKind.OFFLINE and "407 Bearer [key]" in (outcome.error or "") and "4711" not in str(outcome)


def test_key_that_does_not_fit_in_a_header_is_refused_without_showing_it() -> None:
    with pytest.raises(BadSetting) as caught:
        CloudModel("https://x/v1", "big", "sk-secret\r\nHost: y")
    assert "sk-secret" not in str(caught.value)


def test_base_and_full_address_mean_the_same() -> None:
    addresses = ["https://x/v1", "https://x/v1/", "https://x/v1/chat/completions"]
    assert {CloudModel(url, "big").endpoint for url in addresses} == {"https://x/v1/chat/completions"}


def test_open_question_is_sent_as_it_is_and_answered_in_words(cloud: LoopbackCloud) -> None:
    cloud.reply = lambda body: "<think>hm</think> Astana.\n"
    question = Question("Which city is the capital?", (), "open")
    outcome = CloudModel(cloud.url, "big").ask(question)
    assert outcome.answer and outcome.answer.answer == "Astana."
    assert cloud.requests[0]["body"]["messages"][0]["content"] == "Which city is the capital?"


_HOSTS = st.sampled_from(
    ["127.0.0.1", "localhost", "api.example.com", "API.Example.com", "192.168.1.7", "999.1.1.1", "1.2.3", "a-b.c", "-a.b",
     "xn--bcher-kva.de", "bücher.de", "[::1]", "a_b.c", "a..b", ""]
)  # fmt: skip
_PORTS = st.sampled_from(["", ":8000", ":80", ":443", ":0", ":08", ":99999", ":11434", ":x"])
_PARTS = ["/", "v1", ".", "..", "a.b", "A%20", "~x", "ü", "chat/completions", "?q", "#f", " ", "//"]
_PATHS = st.lists(st.sampled_from(_PARTS), max_size=5).map("".join)


@settings(max_examples=1000)
@given(st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "http://user:pw@"]), _HOSTS, _PORTS, _PATHS)
def test_address_that_needs_no_httpx_is_spelled_as_httpx_spells_it(scheme: str, host: str, port: str, path: str) -> None:
    """Answers are stored under the endpoint, so both ways must agree to the letter."""
    url = scheme + host + port + path
    if is_normal(url):
        parsed = httpx.URL(url)
        base = parsed.path.rstrip("/")
        expected = str(parsed.copy_with(path=base if base.endswith("/chat/completions") else base + "/chat/completions"))
        assert CloudModel(url, "big").endpoint == expected


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1", "http://127.0.0.1:8000/v1", "http://localhost:11434/v1/", "http://box.local"]
)
def test_usual_address_needs_no_httpx(url: str) -> None:
    assert is_normal(url)


def test_model_that_wants_another_form_is_asked_again_in_the_same_call(cloud: LoopbackCloud) -> None:
    """It was dead after one try."""
    cloud.respond = gpt_5
    model, forms = CloudModel(cloud.url, "gpt-5", deadline_s=30), []
    outcome = model.start(QUESTION, job_key="job-1", again=lambda shape: forms.append(shape) or True).result()
    assert outcome.kind is CloudKind.ANSWERED and outcome.answer and outcome.answer.answer == "B"
    assert len(cloud.requests) == 4 and len(forms) == 3
    assert {request["headers"]["X-Client-Request-Id"] for request in cloud.requests} == {"job-1"}
    assert {json.dumps(request["body"]["messages"]) for request in cloud.requests} == {json.dumps(cloud.requests[0]["body"]["messages"])}
    assert model.ask(QUESTION).kind is CloudKind.ANSWERED and len(cloud.requests) == 5  # what was learned is used at once


def test_question_is_not_sent_again_if_that_is_not_allowed(cloud: LoopbackCloud) -> None:
    """The budget for it is used up: the question waits, and is not rejected."""
    cloud.respond = gpt_5
    outcome = CloudModel(cloud.url, "gpt-5", deadline_s=30).start(QUESTION, again=lambda shape: False).result()
    assert outcome.kind is CloudKind.PAUSED and "budget" in (outcome.error or "") and len(cloud.requests) == 1


@pytest.mark.parametrize("error", [refusals.WANT_NO_TEMPERATURE[4], refusals.WANT_OTHER_NAME[0], refusals.WANT_LESS[0]])
def test_cloud_that_is_never_content_is_asked_only_a_few_times(cloud: LoopbackCloud, error: tuple[str, int, dict]) -> None:
    cloud.respond = lambda asked: (400, json.dumps(error[2]).replace("max_tokens", next(n for n in asked if n.startswith("max_"))).encode())
    outcome = CloudModel(cloud.url, "big", deadline_s=30, wanted=Shape(100_000, raised_tokens=100_000)).ask(QUESTION)
    assert outcome.kind in (CloudKind.REJECTED, CloudKind.MISCONFIGURED) and 2 <= len(cloud.requests) <= MOST_SENDS


def test_reply_that_was_cut_but_is_answered_all_the_same_is_not_asked_for_again(cloud: LoopbackCloud) -> None:
    cloud.respond = lambda asked: completion("B")
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind is CloudKind.ANSWERED and len(cloud.requests) == 1


def test_second_sending_ends_at_the_deadline_of_the_call(cloud: LoopbackCloud) -> None:
    leave = threading.Event()

    def respond(asked: dict) -> tuple[int, bytes]:
        if asked["max_tokens"] > 256:
            leave.wait(20)
        return completion("", "length")

    cloud.respond = respond
    model = CloudModel(cloud.url, "big")
    model.ask(QUESTION, deadline_s=0.01)  # loads what a first call loads
    started = time.monotonic()
    outcome = model.ask(QUESTION, deadline_s=1.5)
    leave.set()
    assert outcome.kind is CloudKind.TIMEOUT and time.monotonic() - started < 5


SECRETS = {"api-key": "azure-secret-0815", "X-Auth": "Token gateway-secret-42", "X-Title": "Kiosk"}


def test_extra_headers_and_fields_are_sent(cloud: LoopbackCloud) -> None:
    shape = Shape(300, temperature=None, extra={"reasoning_effort": "low"})
    assert CloudModel(cloud.url, "big", "sk-key", wanted=shape, headers=SECRETS).ask(QUESTION).kind is CloudKind.ANSWERED
    (request,) = cloud.requests
    assert {name: request["headers"][name] for name in SECRETS} == SECRETS and request["headers"]["Authorization"] == "Bearer sk-key"
    assert request["headers"]["Accept-Encoding"] == "gzip"
    assert set(request["body"]) == {"model", "messages", "reasoning_effort", "max_tokens"} and request["body"]["max_tokens"] == 300


def test_authorization_of_ones_own_needs_a_cloud_without_a_key(cloud: LoopbackCloud) -> None:
    """Which of the two is sent would be a guess."""
    own = {"authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    with pytest.raises(BadSetting, match="remove one") as caught:
        CloudModel(cloud.url, "big", "sk-key", headers=own)
    assert "dXNl" not in str(caught.value)
    assert CloudModel(cloud.url, "big", headers=own).ask(QUESTION).kind is CloudKind.ANSWERED
    assert cloud.requests[0]["headers"]["authorization"] == own["authorization"]


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_secrets_are_removed_from_a_reply_that_repeats_them(cloud: LoopbackCloud, status: int) -> None:
    """As they are, and as JSON may spell them."""
    told = "B. You sent azure-secret-0815, Token gateway-secret-42, gateway-secret-42, sk-secret-4711 and p4ssw0rd-x, Kiosk."
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in told)
    payload = {"choices": [{"message": {"content": "TOLD"}}], "error": {"message": "TOLD", "code": "TOLD"}, "message": "TOLD"}
    proxy = cloud.url.replace("http://", "http://user:p4ssw0rd-x@").removesuffix("/v1")
    for text in (told, spelled):
        cloud.status, cloud.raw = status, json.dumps(payload).replace("TOLD", text).encode()
        outcome = CloudModel("http://cloud.test/v1", "big", "sk-secret-4711", headers=SECRETS, proxy=proxy).ask(QUESTION)
        shown = str(outcome)
        assert not any(secret in shown for secret in ("0815", "gateway", "4711", "p4ssw0rd"))
        assert (outcome.answer is not None) is (status == 200)
        if outcome.answer:
            assert outcome.answer.reply == "B. You sent [secret], [secret], [secret], [key] and [secret], Kiosk."


def test_secret_is_removed_before_a_reply_is_shortened() -> None:
    """Half of a secret in an error message would be too much, and no search for the whole would find it."""
    data = Secrets("sk-secret-4711", SECRETS, None).removed_from(b'{"error": "azure-secret-0815 sk-secret-4711 Kiosk"}')
    assert data == b'{"error": "[secret] [key] Kiosk"}'


ORDINARY = {"X-Title": "Museum Kazakhstan", "X-Region": "Kazakhstan", "X-Role": "assistant", "X-Form": "completion_tokens"}


def test_header_of_ordinary_words_changes_no_answer(cloud: LoopbackCloud) -> None:
    """The answer was "[secret]"."""
    cloud.reply = lambda body: "Kazakhstan"
    model = CloudModel(cloud.url, "big", headers=ORDINARY)
    chosen, told = model.ask(Question("Which is larger?", ("Kazakhstan", "Kyrgyzstan"))), model.ask(Question("Which?", (), "open"))
    assert chosen.answer and (chosen.answer.answer, chosen.answer.n_completion_tokens) == ("A", 1)
    assert told.answer and told.answer.answer == told.answer.reply == "Kazakhstan"


@pytest.mark.parametrize(("name", "value"), [("X-Api-Token", "Zz98/Yy76Xx54Ww32Vv10"), ("X-Id", "9f8e7d6c5b4a39281706f5e4d3c2b1a0")])
def test_header_that_is_a_secret_leaves_neither_a_whole_nor_a_part_behind(cloud: LoopbackCloud, name: str, value: str) -> None:
    model = CloudModel(cloud.url, "big", headers={name: value})
    cloud.reply = lambda body: f"You sent {value}"
    told = model.ask(Question("Which?", (), "open"))
    assert told.answer and told.answer.reply == "You sent [secret]"
    for n_before in (10, 190):  # the second is cut in the middle, and JSON spells the slash in another way
        message = json.dumps({"error": {"message": "x" * n_before + " " + value}}).replace("/", "\\/")
        cloud.status, cloud.raw = 401, message.encode()
        assert not any(value[n : n + 6] in (model.ask(QUESTION).error or "") for n in range(len(value) - 5))


WRONG_ENVIRONMENT = {
    "HTTP_PROXY": "http://user:hunter2@127.0.0.1:9", "HTTPS_PROXY": "socks://x:1", "ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "[::1",
    "SSLKEYLOGFILE": "/none/keys",
}  # fmt: skip


def test_environment_sends_a_question_to_no_proxy(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """The key and the question went to the proxy, and a wrong value ended in a traceback or killed the question."""
    asked = ("--policy", "only_cloud", "--json")
    done = run(*ASK, *asked, EDGE_AGENT_CLOUD_URL=cloud.url, EDGE_AGENT_CLOUD_KEY="sk-secret-4711", **WRONG_ENVIRONMENT)
    assert done.returncode == 0 and json.loads(done.stdout)["route"] == "cloud", done.stderr
    assert cloud.requests[0]["headers"]["Authorization"] == "Bearer sk-secret-4711" and len(cloud.requests) == 1
    done = run("doctor", EDGE_AGENT_CLOUD_URL=cloud.url, **WRONG_ENVIRONMENT)
    assert "HTTPS_PROXY and HTTP_PROXY and ALL_PROXY set, but not used for the cloud" in done.stdout and "hunter2" not in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_wrong_certificates_in_the_environment_are_refused_when_the_cloud_is_made(variable: str, cloud: LoopbackCloud) -> None:
    """Eight attempts failed, and the question was dead, though nothing was ever sent."""
    wrong = {variable: "/none", "EDGE_AGENT_CLOUD_URL": "https://127.0.0.1:9/v1"}
    for command in (ASK, ("queue", "drain"), ("doctor",)):
        done = run(*command, **wrong)
        assert done.returncode == 78 and f"{variable} is '/none'" in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert CloudModel(cloud.url, "big", environment=wrong).ask(QUESTION).kind is CloudKind.ANSWERED  # without TLS they do not matter


def test_certificate_file_that_vanishes_or_spoils_is_a_fault_of_this_device(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "ca.pem"
    for change in (file.unlink, lambda: file.write_text("-----BEGIN CERTIFICATE-----"), lambda: file.write_text("")):
        file.write_text("-----BEGIN CERTIFICATE-----\n")
        model = CloudModel("https://127.0.0.1:9/v1", "big", environment={"SSL_CERT_FILE": str(file)})
        own = CloudModel("https://127.0.0.1:9/v1", "big", ca_file=str(file))
        change()
        for made, source in ((model, "SSL_CERT_FILE"), (own, "cloud_ca_file")):
            outcome = made.ask(QUESTION)
            assert outcome.kind is CloudKind.DEVICE and source in (outcome.error or "") and not outcome.was_sent


def test_call_without_a_free_file_handle_is_a_fault_of_this_device(cloud: LoopbackCloud) -> None:
    model = CloudModel(cloud.url, "big", deadline_s=30)
    handles = pathlib.Path("/proc/self/fd")
    before = len(list(handles.iterdir()))
    assert model.ask(QUESTION).kind is CloudKind.ANSWERED
    ends = time.monotonic() + 5
    while len(list(handles.iterdir())) > before and time.monotonic() < ends:
        time.sleep(0.01)  # the server in this process closes its side a little later, which would free one
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in handles.iterdir())
    seen = []
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]  # no gap below is left
    try:
        for n in range(2):  # none for the socket, none for our second handle on it
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare[-1] + 1 + n, limits[1]))
            seen.append(model.start(QUESTION, 10).result())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for handle in spare:
            os.close(handle)
    assert [outcome.kind for outcome in seen] == [CloudKind.DEVICE] * 2 and len(cloud.requests) == 1
    assert "Too many open files" in (seen[0].error or "") and "nothing was sent" in (seen[0].error or "")
    assert model.ask(QUESTION).kind is CloudKind.ANSWERED


def test_fault_of_this_device_costs_no_attempt_and_no_money(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The queue keeps the question, the budget counts nothing, and the breaker does not blame the cloud."""
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    with agent(home, SpokenModel(UNSURE), "https://127.0.0.1:9/v1", budget=BudgetLimits(calls_per_day=1)) as one:
        one.gate.cloud._ca_file = str(file)
        for n in range(9):
            decision = one.ask(Question(f"Q{n}", ("x", "y", "z")))
            assert decision.provisional and "cloud_ca_file" in (decision.cloud_error or "")
        *_, drained = one.drain()
        assert drained.waiting == 9 and "cloud_ca_file" in drained.stopped
        assert {(row.state, row.attempts) for row in one.outbox.list()} == {("ready", 0)}
        assert one.store.database.rows("SELECT 1 FROM spending") == [] and one.gate.breaker.wait_s() == 0


def test_few_file_handles_end_in_an_answer_or_a_sentence(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """`ulimit -n 8`: a traceback."""
    for n in range(7, 13):
        limited = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({n}, {n}))"
        code = f"{limited}; runpy.run_module('edge_agent', run_name='__main__')"
        command = [sys.executable, "-c", code, *ASK, "--policy", "prefer_cloud", "--cloud-url", cloud.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 66, 74), (n, done.stderr)
        assert "Traceback" not in done.stderr and (done.returncode == 0 or len(done.stderr.splitlines()) == 1), (n, done.stderr)

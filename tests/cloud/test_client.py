"""The client for OpenAI-compatible endpoints: against a real server on loopback, and with transports that fail on command."""

import gzip
import json
import pathlib
import ssl
import threading
import time
from dataclasses import replace

import httpx
import pytest

from edge_agent.cloud.client import CloudModel, _tls_words
from edge_agent.cloud.reply import find_answer, find_letter, prompt
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from tests.support.cloud_server import LoopbackCloud
from tests.support.mutation import catches

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
        (404, "rejected"),
        (400, "rejected"),
        (413, "rejected"),
        (302, "portal"),
        (204, "portal"),
        (407, "portal"),
        (511, "portal"),
    ],
)
def test_status_is_sorted(cloud: LoopbackCloud, status: int, kind: str) -> None:
    cloud.status = status
    cloud.headers = {"Location": cloud.url}
    outcome = CloudModel(cloud.url, "big", "sk-secret").ask(QUESTION)
    assert outcome.kind == kind and outcome.answer is None
    assert len(cloud.requests) == 1  # a redirect is not followed
    assert "sk-secret" not in str(outcome)


HTML = b"<html>Welcome to the hotel</html>"


def reply(**choice: object) -> bytes:
    return json.dumps({"choices": [choice]}).encode()


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
def test_reply_is_sorted(cloud: LoopbackCloud, raw: bytes, kind: str) -> None:
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
def test_no_credit_is_told_from_too_many_calls(cloud: LoopbackCloud, status: int, code: object, kind: str) -> None:
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
    """A date counts from the reply's own date, since the device's clock may be wrong."""
    answer = httpx.MockTransport(lambda request: httpx.Response(429, headers=headers, stream=httpx.ByteStream(b"")))
    model = CloudModel("https://cloud.test/v1", "big", transport=answer)
    assert model.ask(QUESTION).retry_after_s == seconds


def test_compressed_reply_is_capped_after_unpacking(cloud: LoopbackCloud) -> None:
    cloud.headers = {"Content-Encoding": "gzip"}
    cloud.raw = gzip.compress(reply(message={"content": "B"}))
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind is CloudKind.ANSWERED
    cloud.raw = gzip.compress(b" " * (1 << 30 >> 3))  # 128 MB in 130 kB
    outcome = CloudModel(cloud.url, "big").ask(QUESTION)
    assert outcome.kind is CloudKind.UNUSABLE and "1048576" in outcome.error
    cloud.raw = b"no gzip"
    assert CloudModel(cloud.url, "big").ask(QUESTION).kind is CloudKind.UNUSABLE


def test_nobody_listening_is_offline() -> None:
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
        (RuntimeError("a library's own trouble"), "failed"),
    ],
)
def test_failure_is_sorted_and_never_raised(error: Exception, kind: str) -> None:
    assert failing(error).ask(QUESTION).kind == kind


def test_deadline_holds_when_name_resolution_hangs() -> None:
    """A call that hangs below httpx is left behind; nothing was sent, so it counts as offline."""

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
    call._ends = time.monotonic()  # the deadline, however long this machine took to get here
    outcome = call.result()
    leave.set()
    assert outcome.kind is CloudKind.TIMEOUT


def test_call_that_is_left_behind_sends_nothing_later(cloud: LoopbackCloud) -> None:
    """The caller has queued the question by then: it would be asked, and paid for, twice."""
    call = CloudModel(cloud.url, "big", deadline_s=5).start(QUESTION)
    call._left = True  # as at the deadline, while the name is still being looked up
    assert call.result().kind is CloudKind.FAILED and cloud.requests == []


def test_at_most_two_calls_are_under_way(cloud: LoopbackCloud) -> None:
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


def test_job_key_goes_along(cloud: LoopbackCloud) -> None:
    CloudModel(cloud.url, "big").ask(QUESTION, job_key="job-1")
    assert cloud.requests[0]["headers"]["X-Client-Request-Id"] == "job-1"


@pytest.mark.parametrize(
    ("verify_code", "wall", "words"),
    [
        (9, 0.0, "believes it is 1970-01-01; set its clock"),
        (10, 1e9, "set its clock"),
        (18, 1e9, "set its clock"),
        (10, 1.8e9, "has expired, unless this device is wrong that it is 2027-01-15"),
        (62, 1.8e9, "a captive portal, perhaps"),
        (None, 1.8e9, "a captive portal, perhaps"),
    ],
)
def test_failed_tls_names_a_wrong_clock_or_a_portal(verify_code: int | None, wall: float, words: str) -> None:
    error = ssl.SSLError(1, "certificate verify failed")
    if verify_code is not None:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_code = verify_code
    assert words in _tls_words(error, wall)


def test_server_that_speaks_no_tls_is_told_from_one_that_is_not_there(cloud: LoopbackCloud) -> None:
    outcome = CloudModel(cloud.url.replace("http://", "https://"), "big").ask(QUESTION)
    assert outcome.kind is CloudKind.TLS and "no safe connection" in outcome.error


def test_proxy_and_certificate_file_are_checked(tmp_path: pathlib.Path) -> None:
    for proxy in ("proxy:3128", "socks5://x", "http://"):
        with pytest.raises(BadSetting, match="proxy"):
            CloudModel("https://x/v1", "big", proxy=proxy)
    with pytest.raises(BadSetting, match="cloud_ca_file"):
        CloudModel("https://x/v1", "big", ca_file=str(tmp_path / "nothing.pem"))


def test_proxy_is_used(cloud: LoopbackCloud) -> None:
    """The loopback server stands in for the proxy: it sees the whole address that it is to fetch."""
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


class Repeats(CloudModel):
    """Mutant: does not look for its key in what comes back."""

    def _call(self, *arguments: object) -> object:
        outcome = super()._call(*arguments)
        return replace(
            outcome, answer=outcome.answer and replace(outcome.answer, reply=json.loads(self.raw)["choices"][0]["message"]["content"])
        )


@catches(CloudModel, Repeats)
def test_reply_that_repeats_the_key_is_kept_without_it(part, cloud: LoopbackCloud) -> None:
    """A short key is left: it would be a word of the answer."""
    cloud.raw = reply(message={"content": "B. Your key is sk-secret-4711, and sk is its beginning."})
    asked = part(cloud.url, "big", "sk-secret-4711")
    asked.raw = cloud.raw
    outcome = asked.ask(QUESTION)
    assert outcome.answer and outcome.answer.answer == "B"
    assert outcome.answer.reply == "B. Your key is [key], and sk is its beginning."
    assert "sk is" in CloudModel(cloud.url, "big", "sk").ask(QUESTION).answer.reply


def test_error_of_a_library_that_names_the_key_is_kept_without_it() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ProxyError(f"407 {request.headers['Authorization']}")

    outcome = CloudModel("https://x", "big", "sk-secret-4711", transport=httpx.MockTransport(fail)).ask(QUESTION)
    assert outcome.kind is CloudKind.OFFLINE and "407 Bearer [key]" in (outcome.error or "") and "4711" not in str(outcome)


def test_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(BadSetting) as caught:
        CloudModel("https://x/v1", "big", "sk-secret\r\nHost: y")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("reply", [" " * 1_000_000 + "x", "answer" * 100_000, "<think>" * 100_000, "answer" + " " * 19_000, "(" * 19_000])
def test_hostile_reply_is_read_in_no_time(reply: str) -> None:
    """A quadratic search would hold the interpreter for minutes, deadline or not."""
    started = time.perf_counter()
    assert find_letter(reply, QUESTION) is None
    assert time.perf_counter() - started < 1


def test_base_and_full_address_mean_the_same() -> None:
    addresses = ["https://x/v1", "https://x/v1/", "https://x/v1/chat/completions"]
    assert {CloudModel(url, "big").endpoint for url in addresses} == {"https://x/v1/chat/completions"}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" b.\n", "B"),
        ("**C**", "C"),
        ("D. Atyrau", "D"),
        ("(A) because it is the capital", "A"),
        ("The answer is B.", "B"),
        ("The correct answer is **C**", "C"),
        ("Final answer: A", "A"),
        ("<think>maybe A or B</think>\n\nB", "B"),
        ("Almaty", "B"),
        ("almaty.", "B"),
        ("The answer is: B", "B"),
        ("The correct answer is: **B**", "B"),
        ("The answer would be B.", "B"),
        ("The correct option is B.", "B"),
        ("Option B", "B"),
        ("B, Almaty", "B"),
        ("B - Almaty", "B"),
        ("So the result is \\boxed{B}.", "B"),
        ("The answer is Almaty.", "B"),
        ("The answer is A. No, the answer is B.", None),
        ("E", None),
        ("A or B", None),
        ("I would answer a question like this with care", None),
        ("answer: a city", None),
        ("", None),
    ],
)
def test_letter_in_a_reply(reply: str, letter: str | None) -> None:
    assert find_letter(reply, QUESTION) == letter


def test_open_question_is_asked_alone_and_answered_in_words(cloud: LoopbackCloud) -> None:
    cloud.reply = lambda body: "<think>hm</think> Astana.\n"
    question = Question("Which city is the capital?", (), "open")
    outcome = CloudModel(cloud.url, "big").ask(question)
    assert outcome.answer and outcome.answer.answer == "Astana."
    assert cloud.requests[0]["body"]["messages"][0]["content"] == "Which city is the capital?"
    assert find_answer("  ", question) is None and find_answer("x" * 30_000, question) is None

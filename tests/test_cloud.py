"""The client for OpenAI-compatible endpoints: against a real server on loopback, and with transports that fail on command."""

import time

import httpx
import pytest

from edge_agent.cloud import CloudModel, find_answer, find_letter, prompt
from edge_agent.errors import BadSetting
from edge_agent.question import Question
from edge_agent.routing import CloudKind
from tests.conftest import LoopbackCloud

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
    [(401, "refused"), (403, "refused"), (402, "limited"), (429, "limited"), (500, "failed"), (404, "failed"), (302, "failed")],
)
def test_status_is_sorted(cloud: LoopbackCloud, status: int, kind: str) -> None:
    cloud.status = status
    cloud.headers = {"Location": cloud.url}
    outcome = CloudModel(cloud.url, "big", "sk-secret").ask(QUESTION)
    assert outcome.kind == kind and outcome.answer is None
    assert len(cloud.requests) == 1  # a redirect is not followed
    assert "sk-secret" not in str(outcome)


@pytest.mark.parametrize(
    "raw",
    [b"<html>Welcome to the hotel</html>", b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"[" * 100_000,
     b'{"choices": [{"message": {"content": "I cannot say."}}]}', b'"' + b"x" * (2 << 20) + b'"'],
)  # fmt: skip
def test_reply_without_an_answer_is_unusable(cloud: LoopbackCloud, raw: bytes) -> None:
    cloud.raw = raw
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
        (RuntimeError("a library's own trouble"), "unusable"),
    ],
)
def test_failure_is_sorted_and_never_raised(error: Exception, kind: str) -> None:
    assert failing(error).ask(QUESTION).kind == kind


def test_deadline_holds_when_the_network_does_not_answer() -> None:
    """A call that hangs below httpx (name resolution does) is left behind."""

    def hang(request: httpx.Request) -> httpx.Response:
        time.sleep(5)
        raise AssertionError

    model = CloudModel("https://cloud.test/v1", "big", deadline_s=0.1, transport=httpx.MockTransport(hang))
    started = time.perf_counter()
    assert model.ask(QUESTION).kind is CloudKind.TIMEOUT
    assert time.perf_counter() - started < 2


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

"""What must not leave the device does not leave it."""

import json
import pathlib
import random
import time

import pytest

from edge_agent.cloud.privacy import Rules
from edge_agent.core.errors import BadSetting
from edge_agent.core.question import Question
from tests.support.cloud_server import LoopbackCloud
from tests.support.mutation import catches
from tests.support.spoken_model import UNSURE, SpokenModel, agent

CANARY = "canary-4711"


def question(stem: str, **more: bool) -> Question:
    return Question(stem, ("x", "y", "z"), **more)


def card(digits: str) -> str:
    """A card number: the digits, and the check digit of the Luhn rule."""
    doubled = "".join(str(int(d) * (2 - place % 2)) for place, d in enumerate(reversed(digits)))
    return digits + str(-sum(map(int, doubled)) % 10)


def iin(digits: str) -> str | None:
    """A Kazakh identification number: eleven digits and their check digit; None if the number is never given out."""
    first, second = (
        sum(weight * int(d) for weight, d in zip(weights, digits, strict=True)) % 11
        for weights in ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2))
    )
    check = first if first < 10 else second
    return f"{digits}{check}" if check < 10 else None


class Careless(Rules):
    """Mutant: forbids nothing."""

    def forbids(self, question: Question) -> bool:
        return False


class Forgetful(Rules):
    """Mutant: redacts only the question's text, not its options."""

    def redacted(self, question: Question) -> Question:
        return Question(super().redacted(Question(question.stem, (), "open")).stem, question.options, question.kind)


class Open(Rules):
    """Mutant: redacts nothing."""

    def redacted(self, question: Question) -> Question:
        return question


@catches(Rules, Careless)
def test_never_send_is_stronger_than_every_policy(part, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    rules = part.of(["canary"], [])
    for policy in ("prefer_local", "prefer_cloud", "only_cloud"):
        with agent(home, SpokenModel(UNSURE), cloud.url, policy=policy, rules=rules) as one:
            for asked in (question(f"{CANARY} {policy}"), question(f"flagged {policy}", never_send=True)):
                decision = one.ask(asked)
                assert (decision.route, decision.reason, decision.provisional, decision.answer) == ("local", "never_send", False, "A")
                assert one.outbox.list() == [] and cloud.requests == []
    with agent(home, SpokenModel(UNSURE), rules=rules) as offline:
        assert offline.ask(question(CANARY)).queue_id is None


@catches(Rules, Careless)
def test_waiting_question_is_cancelled_when_it_must_no_longer_be_sent(part, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Because it was asked again with the flag, or because a rule is newer than the row."""
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(question("flagged later"))
        one.ask(question(CANARY))
        one.ask(question("harmless"))
    with agent(home, SpokenModel(UNSURE), cloud.url, rules=part.of(["canary"], [])) as two:
        two.ask(question("flagged later", never_send=True))
        list(two.drain())
        assert [row.state for row in two.outbox.list()] == ["cancelled", "cancelled", "done"]
        assert [row["ending"] for row in two.store.log(9)] == [None, "overturned", "abandoned", "abandoned"]
        assert two.store.database.rows("SELECT payload FROM outbox WHERE state = 'cancelled' AND payload IS NOT NULL") == []
    assert CANARY not in json.dumps(cloud.requests)


@catches(Rules, Open, Forgetful)
def test_personal_data_is_redacted_before_it_is_queued_or_sent(part, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    secret = Question("Mail me@example.org?", ("+7 701 123 45 67", "4111 1111 1111 1111", "no"))
    rules = part.of([], ["project \\w+"])
    with agent(home, SpokenModel(UNSURE), rules=rules) as one:
        one.ask(secret)
        one.ask(question("About Project Unicorn"))
        assert not any(word in str(row.payload) for row in one.outbox.list() for word in ("example.org", "701", "4111", "Unicorn"))
    with agent(home, SpokenModel(UNSURE), cloud.url, rules=rules) as two:
        list(two.drain())
        two.ask(secret, refresh=True)
    sent = json.dumps(cloud.requests)
    assert len(cloud.requests) == 3 and not any(word in sent for word in ("example.org", "701", "4111", "Unicorn"))
    assert "[email]" in sent and "[phone]" in sent and "[card]" in sent and "[redacted]" in sent


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to a.b+c@mail.example.kz.", "write to [email]."),
        ("call +7 (701) 123-45-67 now", "call [phone] now"),
        ("IBAN DE89 3704 0044 0532 0130 00!", "IBAN [iban]!"),
        ("KZ86125KZT5004100100", "[iban]"),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("What is 4111111111111112 + 1?", "What is 4111111111111112 + 1?"),
        ("What is 123456789012 - 5?", "What is 123456789012 - 5?"),
        ("In 1994 there were 20 000 000 000 000", "In 1994 there were 20 000 000 000 000"),
        ("user@host", "user@host"),
        ("2 + 3 = 5", "2 + 3 = 5"),
    ],
)
def test_personal_data_with_a_fixed_form_is_found_and_sums_are_not(text: str, redacted: str) -> None:
    assert Rules().redacted(question(text)).stem == redacted
    assert Rules(built_in=False).redacted(question(text)).stem == text


def test_recall_on_a_seeded_corpus() -> None:
    """All of about 400 made-up numbers and addresses are found inside a sentence."""
    chance = random.Random(7)
    found, wanted = 0, 0
    for _ in range(100):
        name = "".join(chance.choices("abcdefgh.", k=8)).strip(".") or "x"
        number = card("4" + "".join(chance.choices("0123456789", k=14)))
        digits = "".join(chance.choices("0123456789", k=10))
        birth = f"{chance.randrange(100):02}{chance.randrange(1, 13):02}{chance.randrange(1, 29):02}"
        person = iin(f"{birth}{chance.randrange(1, 7)}{digits[:4]}")
        for secret in filter(None, (f"{name}@{name.replace('.', '')}x.kz", f"+7{digits}", number, person)):
            wanted += 1
            text = Rules().redacted(question(f"Is it {secret}, or not?")).stem
            found += secret not in text
    assert wanted > 380 and found == wanted


SLOW_PATTERNS = [
    ("(a+)+$", "a" * 5000 + "b"),
    ("(.*,){20}x", "a," * 20_000),
    (r"(.*)*,\1x", "a," * 2000),
    ("(a|aa)+$", "a" * 5000 + "b"),
    (r"(?=(\w+\d?)+!)", "a1" * 3000),
]


class Trusting(Rules):
    """Mutant: a pattern that takes too long counts as not found."""

    def _forbids_slow(self, pattern: str) -> bool:
        super()._forbids_slow(pattern)
        return False


@pytest.mark.parametrize(("pattern", "text"), SLOW_PATTERNS)
@catches(Rules, Trusting)
def test_pattern_that_takes_too_long_counts_as_found(part, pattern: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """With `re`, each of these would run for years."""
    for rules in (part.of([pattern], []), part.of([], [pattern])):
        caplog.clear()
        assert rules.forbids(question(text)) and rules.forbids(Question("short", ("x", text)))
        assert not rules.forbids(question("harmless"))
        (said,) = caplog.records
        assert repr(pattern) in said.getMessage() and text[:50] not in said.getMessage()


def test_question_on_which_a_pattern_takes_too_long_is_answered_locally(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    for rules in (Rules.of(["(a+)+$"], []), Rules.of([], ["(.*,){20}x"])):
        with agent(home, SpokenModel(UNSURE), cloud.url, policy="prefer_cloud", rules=rules) as one:
            decision = one.ask(question("a," * 5000 + "a" * 5000 + "b"), refresh=True)
            assert (decision.answer, decision.route, decision.reason, decision.queue_id) == ("A", "local", "never_send", None)
            assert decision.persisted and one.ask(question("harmless"), refresh=True).route == "cloud"
    assert len(cloud.requests) == 2


def test_waiting_question_is_cancelled_when_a_new_pattern_takes_too_long(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(question("a" * 5000 + "b"))
        one.ask(question("harmless"))
    with agent(home, SpokenModel(UNSURE), cloud.url, rules=Rules.of([], ["(a+)+$"])) as two:
        list(two.drain())
        assert [row.state for row in two.outbox.list()] == ["cancelled", "done"] and len(cloud.requests) == 1


def test_text_that_cannot_be_searched_in_time_is_redacted_completely() -> None:
    """So a caller that did not ask `forbids` first sends nothing of it either."""
    redacted = Rules.of([], ["(a+)+$"]).redacted(Question("a" * 5000 + "b", ("yes", "no")))
    assert redacted.stem == "[redacted]" and redacted.options == ("yes", "no")


def test_patterns_with_lookaround_and_unicode_work_as_in_python() -> None:
    for pattern, found, not_found in (
        ("(?<!un)known", "Known", "unknown"), (r"\bпароль\b", "Мой ПАРОЛЬ?", "парольный"), ("(?i:abc)|x{2,3}$", "ABC", "axb"),
        (r"(\d)\1", "a11", "a12"), ("[^\\W\\d_]{4}", "қазақ", "a1b2"),
    ):  # fmt: skip
        rules = Rules.of([pattern], [])
        assert rules.forbids(question(found)) and not rules.forbids(question(not_found))


@pytest.mark.parametrize("pattern", ["(", "", "x*", "(" * 5000 + ")" * 5000])
def test_wrong_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadSetting, match="never_send"):
        Rules.of([pattern], [])


def test_hostile_text_is_redacted_quickly() -> None:
    """No built-in pattern takes quadratic time on what a visitor may type."""
    started = time.perf_counter()
    for text in ("a" * 50_000, "a." * 25_000, "+1" * 25_000, "1 " * 25_000, "A1" * 25_000, "@" * 50_000, "a@" * 25_000):
        Rules().redacted(question(text))
    assert time.perf_counter() - started < 60

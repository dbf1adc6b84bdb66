"""The form of a request: what a refusal teaches, what is remembered of it, and what no setting can change."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.wire.request import RAISED_TOKENS, Shape, body, known_after, learn, recalled, remembered
from edge_agent.core.question import Question
from tests.support import refusals

FIRST = Shape()
RENAMED, COLD = replace(FIRST, limit_name="max_completion_tokens"), replace(FIRST, temperature=None)
RAISED = replace(FIRST, max_tokens=RAISED_TOKENS)
QUESTION = Question("Which city?", ("Astana", "Almaty"))


def cases(sent: Shape, wanted: Shape | None, found: list[tuple[str, int, dict]]) -> list[Any]:
    return [pytest.param(sent, wanted, status, body, id=f"{server}: {str(body)[:40]}") for server, status, body in found]


@pytest.mark.parametrize(
    ("sent", "wanted", "status", "error"),
    [
        *cases(FIRST, RENAMED, refusals.WANT_OTHER_NAME),
        *cases(RENAMED, FIRST, refusals.WANT_OLD_NAME),
        *cases(FIRST, COLD, refusals.WANT_NO_TEMPERATURE),
        *cases(COLD, None, refusals.WANT_NO_TEMPERATURE),
        *cases(FIRST, RAISED, refusals.WANT_MORE),
        *cases(RAISED, None, refusals.WANT_MORE),
        *cases(RAISED, replace(RAISED, max_tokens=2048, at_most=2048), refusals.WANT_LESS),
        *[case for *found, fits in refusals.WANT_LESS_ONCE for case in cases(RAISED, replace(RAISED, fits_tokens=fits), [tuple(found)])],
        *cases(FIRST, None, [tuple(found) for *found, _ in refusals.WANT_LESS_ONCE]),
        *cases(FIRST, None, refusals.WANT_NOTHING),
    ],
)
def test_each_servers_refusal_teaches_the_form_that_it_wants(sent: Shape, wanted: Shape | None, status: int, error: dict) -> None:
    assert learn(sent, status, json.dumps(error).encode()) == wanted


def test_two_refused_fields_are_learned_at_once() -> None:
    error = {"detail": refusals.forbidden("max_tokens", "temperature")}
    assert learn(FIRST, 422, json.dumps(error).encode()) == replace(RENAMED, temperature=None)


def test_limit_that_a_person_sets_is_never_raised_by_a_reply() -> None:
    """It bounds what a call may cost."""
    mine = Shape(500, raised_tokens=500)
    _, status, cut = refusals.WANT_MORE[2]
    assert learn(mine, status, json.dumps(cut).encode()) is None
    assert recalled(mine, remembered(FIRST, RAISED)).max_tokens == 500


CUT = json.dumps(refusals.WANT_MORE[2][2]).encode()


def test_reply_that_was_cut_at_the_highest_limit_that_was_named_tries_a_higher_one() -> None:
    lowered = replace(FIRST, max_tokens=1024, at_most=1024)
    assert learn(lowered, 200, CUT) == RAISED
    assert learn(replace(FIRST, at_most=1024), 200, CUT) == lowered  # it was cut below that


def test_reply_that_was_cut_where_the_context_ends_asks_for_nothing() -> None:
    assert learn(replace(RAISED, fits_tokens=700), 200, CUT) is None


def test_half_of_a_limit_whose_refusal_names_none_is_for_one_question() -> None:
    error = refusals.openai("max_tokens is too large for this model", "max_tokens")
    assert learn(RAISED, 400, json.dumps(error).encode()) == replace(RAISED, fits_tokens=2048)


@pytest.mark.parametrize(
    ("known", "last", "after"),
    [
        (FIRST, RAISED, RAISED),
        (FIRST, replace(RAISED, fits_tokens=3936), replace(FIRST, max_tokens=2048)),  # the next question may be a little longer
        (replace(FIRST, max_tokens=2048), replace(RAISED, fits_tokens=700), replace(FIRST, max_tokens=2048)),
        (RAISED, replace(RAISED, fits_tokens=700), RAISED),
        (RAISED, replace(RAISED, max_tokens=2048, at_most=2048), replace(RAISED, max_tokens=2048, at_most=2048)),
        (replace(FIRST, max_tokens=512, at_most=512), RAISED, RAISED),
        (RAISED, replace(RENAMED, temperature=None), replace(RAISED, limit_name="max_completion_tokens", temperature=None)),
    ],
)
def test_limit_is_kept_once_it_was_answered_and_one_question_lowers_none(known: Shape, last: Shape, after: Shape) -> None:
    assert known_after(known, last, is_answered=True) == after
    unanswered = known_after(known, last, is_answered=False)
    assert unanswered == replace(known, limit_name=last.limit_name, temperature=last.temperature)


_NAMES = st.sampled_from(["error", "message", "param", "loc", "detail", "choices", "finish_reason", "input"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner))


@given(_JSON, st.sampled_from([200, 400, 422]))
def test_no_reply_ends_in_an_exception(value: object, status: int) -> None:
    data = json.dumps(value).encode()
    for broken in (data, data[:-1], data[: len(data) // 2], None):
        assert learn(RAISED, status, broken) is None or isinstance(learn(RAISED, status, broken), Shape)


@pytest.mark.parametrize("wanted", [FIRST, Shape(8000, raised_tokens=8000), Shape(temperature=0.7), Shape(temperature=None)])
@pytest.mark.parametrize("learned", [FIRST, RENAMED, COLD, RAISED, replace(RENAMED, temperature=None, max_tokens=2048, at_most=2048)])
def test_what_was_learned_is_recalled_as_far_as_it_fits_the_settings(wanted: Shape, learned: Shape) -> None:
    shape = recalled(wanted, remembered(FIRST, learned))
    assert shape.limit_name == learned.limit_name
    assert shape.max_tokens == min(max(wanted.max_tokens, min(learned.max_tokens, wanted.raised_tokens)), learned.at_most or 1 << 20)
    refused = learned.temperature is None and wanted.temperature == FIRST.temperature
    assert shape.temperature == (None if refused else wanted.temperature)  # another temperature may be welcome
    assert shape.extra == wanted.extra and shape.raised_tokens == wanted.raised_tokens


@pytest.mark.parametrize(
    "text",
    [
        None, "", "{", "[]", "7", "null", '{"limit_name": "model"}', '{"limit_name": ["max_tokens"]}', '{"raised_to": 1e9}',
        '{"raised_to": true}', '{"raised_to": -1, "at_most": 0}', '{"at_most": 1}', '{"at_most": "x"}', '{"refused_temperature": "0"}',
        '{"refused_temperature": [0]}', '{"refused_temperature": false}', '{"raised_to": 999999999999999999999999}', "[" * 100_000,
        '{"extra": {"model": "x"}, "messages": []}',
    ],
)  # fmt: skip
def test_damaged_or_hostile_memory_means_nothing_learned(text: str | None) -> None:
    assert recalled(FIRST, text) == FIRST


def test_extra_fields_are_sent_but_replace_nothing_of_ours() -> None:
    """The settings refuse these names, too; here is the second lock."""
    hostile = {"model": "x", "messages": [], "max_tokens": 9, "temperature": 2, "top_p": 0.5, "reasoning": {"effort": "low"}}
    sent = body(QUESTION, "big", Shape(extra=hostile))
    assert sent == {**body(QUESTION, "big"), "top_p": 0.5, "reasoning": {"effort": "low"}}
    assert sent["model"] == "big" and sent["max_tokens"] == 256 and sent["temperature"] == 0


def test_first_request_is_as_it_always_was() -> None:
    assert set(body(QUESTION, "big")) == {"model", "messages", "temperature", "max_tokens"}
    assert set(body(QUESTION, "big", replace(RENAMED, temperature=None))) == {"model", "messages", "max_completion_tokens"}

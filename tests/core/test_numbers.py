"""No number in a setting ends in a traceback: it is refused by name, or it works."""

import math
import pathlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.cloud.budget import Budget
from edge_agent.cloud.queue import Outbox
from edge_agent.core.config import loading, settings
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer
from edge_agent.store.forget import sweep
from edge_agent.store.store import Store

NUMERIC = [one.name for one in settings.DECLARED if isinstance(one.default, (int, float)) or "budget" in one.name or one.name == "tau"]
NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from(
        [1e308, -1e308, math.nan, math.inf, -math.inf, -0.0, 5e-324, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(10**5000)]
    ),
    st.booleans(),
    st.text(max_size=5),
)


@pytest.mark.parametrize("name", NUMERIC)
@given(value=NUMBERS)
@example(value=1e308)
@example(value=10**5000)
@example(value=math.nextafter(1e12, math.inf))
@example(value=10**12)
@example(value=1e9)
@example(value=1e-300)
def test_number_is_refused_by_name_or_works(name: str, value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        loaded = loading.load({"budget_per_month": 1e12, name: value}, {settings.HOME: "/nowhere"})
    except BadSetting as error:
        assert name in str(error) and len(str(error)) < 400
        return
    use(loaded, tmp_path_factory.mktemp("home") / "edge-agent.db")


def use(loaded: settings.Settings, database: pathlib.Path) -> None:
    """Everything that computes with a limit."""
    limits, question = loaded.limits, Question("What is 12 + 7?", ("18", "19"))
    with Store(database) as store:
        outbox, budget = Outbox(store, limits.queue), Budget(store, "https://cloud.example/v1", limits.budget)
        for _ in range(2):
            with store.transaction():
                store.put_question(question)
                outbox.put(question)
                reservation = budget.reserve(question)
                if reservation:
                    answer = CloudAnswer("A", "A", "m", 1.0, 1_000_000, 1_000_000)
                    budget.close(reservation, CloudOutcome(CloudKind.ANSWERED, answer))
        outbox.claim()
        assert outbox.next_due_in_s() is None or math.isfinite(outbox.next_due_in_s() or 0.0)
        sweep(store, limits.retention)


def test_price_of_nothing_may_be_written_down() -> None:
    assert loading.load({"cloud_prompt_price": 0, "cloud_completion_price": 0}, {}).cloud_prompt_price == 0.0

"""What each outcome of a call means for a waiting question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.retry import MAX_ATTEMPTS, MAX_UNUSABLE, WHOLE_CLOUD, Treatment, backoff_s, treat
from edge_agent.core.outcome import CloudKind
from tests.support.mutation import catches

COSTLY = (CloudKind.TIMEOUT, CloudKind.FAILED, CloudKind.UNUSABLE)
FINAL = (CloudKind.REJECTED,)


def every_failure_costs(kind: CloudKind, attempts: int, chance: float) -> Treatment:
    """Mutant: an outcome that concerns the whole cloud is the question's fault."""
    return treat(CloudKind.FAILED if kind in WHOLE_CLOUD else kind, attempts, chance)


def never_gives_up(kind: CloudKind, attempts: int, chance: float) -> Treatment:
    """Mutant: does not look at the attempts."""
    return treat(kind, 0, chance)


@pytest.mark.parametrize("kind", [k for k in CloudKind if k is not CloudKind.ANSWERED])
@catches(treat, every_failure_costs, never_gives_up)
def test_every_failure_is_treated(part, kind: CloudKind) -> None:
    """Each time with a kind of every class, so that each mutant fails."""
    for each in (kind, CloudKind.OFFLINE, CloudKind.FAILED):
        first, last = part(each, 0, 1.0), part(each, MAX_ATTEMPTS - 1, 1.0)
        assert first.costs_attempt == (each in COSTLY + FINAL)
        assert first.state == ("dead" if each in FINAL else "ready")
        assert last.state == ("dead" if each in COSTLY + FINAL else "ready")
        assert (first.wait_s > 0) == (each in COSTLY or each is CloudKind.PROVISIONAL)


def final_at_once(kind: CloudKind, attempts: int, chance: float, suspicions: int = 0) -> Treatment:
    """Mutant: the first unusable reply is the end."""
    return treat(kind, attempts, chance, MAX_UNUSABLE)


def billed_for_ever(kind: CloudKind, attempts: int, chance: float, suspicions: int = 0) -> Treatment:
    """Mutant: an unusable reply is tried as often as a failure."""
    return treat(kind, attempts, chance)


@catches(treat, final_at_once, billed_for_ever)
def test_unusable_reply_is_tried_three_times_with_minutes_between(part) -> None:
    tries = [part(CloudKind.UNUSABLE, n, 0.0, n) for n in range(3)]
    assert [one.state for one in tries] == ["ready", "ready", "dead"] and all(one.costs_attempt for one in tries)
    assert [one.wait_s for one in tries] == [450, 450, 0] and part(CloudKind.UNUSABLE, 0, 1.0).wait_s == 900


def constant(failures: int, chance: float) -> float:
    """Mutant: no jitter."""
    return backoff_s(failures, 1.0)


def unbounded(failures: int, chance: float) -> float:
    """Mutant: doubles forever."""
    return chance * 2.0 * 2.0**failures


@catches(backoff_s, constant, unbounded)
def test_backoff_doubles_up_to_a_limit_with_full_jitter(part) -> None:
    assert [part(n, 1.0) for n in (0, 1, 2, 8, 9, 40)] == [2, 4, 8, 512, 900, 900]
    assert part(5, 0.0) == 0.0 and part(5, 0.5) == part(5, 1.0) / 2


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_is_between_zero_and_a_quarter_of_an_hour(failures: int, chance: float) -> None:
    assert 0 <= backoff_s(failures, chance) <= 900

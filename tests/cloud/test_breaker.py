"""When the cloud is left alone, and when it is looked for again."""

import pathlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.breaker import HOUR_S, Breaker, Health, after, wait_s
from edge_agent.core.outcome import CloudKind
from edge_agent.store.device_time import Moment
from edge_agent.store.store import Store
from tests.support.mutation import catches

FAIL, VALID = CloudKind.FAILED, CloudKind.ANSWERED


def calls(part, *kinds: CloudKind, health: Health | None = None, now_s: float = 0.0) -> Health:
    health = health or Health()
    for kind in kinds:
        health = part(health, kind, "error", now_s)
    return health


def never_trips(*arguments) -> Health:
    """Mutant: no breaker."""
    return replace(after(*arguments), open_s=0.0)


def trips_at_once(health: Health, kind: CloudKind, error: str | None, now_s: float, *more) -> Health:
    """Mutant: one failure is enough."""
    return replace(after(health, kind, error, now_s, *more), open_s=30.0 if kind is not VALID else 0.0, open_until_s=now_s + 30)


def never_doubles(health: Health, kind: CloudKind, error: str | None, now_s: float, *more) -> Health:
    """Mutant: probes every 30 s."""
    found = after(health, kind, error, now_s, *more)
    return replace(found, open_s=min(found.open_s, 30.0), open_until_s=now_s + min(found.open_s, 30.0))


def never_closes(health: Health, kind: CloudKind, error: str | None, now_s: float, *more) -> Health:
    """Mutant: one valid reply is not enough."""
    return health if kind is VALID else after(health, kind, error, now_s, *more)


@catches(after, never_trips, trips_at_once)
def test_breaker_opens_after_five_in_a_row(part) -> None:
    assert wait_s(calls(part, *[FAIL] * 4), 0.0, None) == 0.0
    assert wait_s(calls(part, *[FAIL] * 5), 0.0, None) == 30.0


@catches(after, never_trips)
def test_breaker_opens_when_half_of_the_last_twenty_failed(part) -> None:
    health = calls(part, *[FAIL, VALID] * 9)
    assert not health.open_s
    assert calls(part, FAIL, health=health).open_s == 30.0


@catches(after, never_doubles)
def test_each_failed_probe_doubles_the_wait_up_to_a_quarter_of_an_hour(part) -> None:
    health, now_s, waits = calls(part, *[FAIL] * 5), 0.0, []
    for _ in range(7):
        waits.append(wait_s(health, now_s, None))
        now_s += waits[-1]
        health = part(health, FAIL, "error", now_s)
    assert waits == [30, 60, 120, 240, 480, 900, 900]


@catches(after, never_closes)
def test_one_valid_reply_closes(part) -> None:
    health = calls(part, *[FAIL] * 5)
    assert calls(part, VALID, health=health, now_s=31.0) == Health()


def test_missing_connection_is_looked_for_sooner() -> None:
    health = calls(after, *[CloudKind.OFFLINE] * 5)
    assert wait_s(health, 0.0, None) == 5.0
    for _ in range(10):
        health = after(health, CloudKind.OFFLINE, "error", health.open_until_s)
    assert health.open_s == 300.0


def test_failure_that_began_before_the_breaker_opened_says_nothing_new() -> None:
    health = calls(after, *[FAIL] * 5)
    assert calls(after, FAIL, health=health, now_s=10.0) == health


def test_cloud_that_asks_for_patience_gets_it() -> None:
    health = after(Health(), CloudKind.LIMITED, "error", 0.0, None, 77.0)
    assert wait_s(health, 0.0, None) == 77.0
    assert wait_s(after(Health(), CloudKind.LIMITED, "error", 0.0), 0.0, None) == 30.0


def never_looks_at_the_key(health: Health, now_s: float, key: str | None) -> float:
    """Mutant: a new key waits for the hour to pass."""
    return max(0.0, health.open_until_s - now_s)


@catches(wait_s, never_looks_at_the_key)
def test_refused_key_pauses_until_it_changes_or_an_hour_has_passed(part) -> None:
    health = after(Health(), CloudKind.REFUSED, "error", 0.0, "sk-old")
    assert "sk-old" not in str(health)
    assert part(health, 1.0, "sk-old") == HOUR_S - 1 and part(health, 1.0, "sk-new") == 0.0
    assert part(health, HOUR_S, "sk-old") == 0.0


@given(st.lists(st.tuples(st.sampled_from(CloudKind), st.floats(0, 5000)), max_size=60))
def test_wait_is_never_longer_than_an_hour_and_ends_by_itself(steps: list[tuple[CloudKind, float]]) -> None:
    health, now_s = Health(), 0.0
    for kind, passes_s in steps:
        health = after(health, kind, "error", now_s, "key", 10.0)
        assert 0 <= wait_s(health, now_s, "key") <= HOUR_S
        assert wait_s(health, now_s + HOUR_S, "key") == 0
        now_s += passes_s


class LetsEveryoneThrough(Breaker):
    """Mutant: half-open, everybody is a probe."""

    def refusal(self, probe_s: float) -> tuple[CloudKind, str] | None:
        return None if not self.wait_s() else super().refusal(probe_s)

    def _keep(self, health: Health) -> None:
        super()._keep(replace(health, probe_until_s=0.0))


@catches(Breaker, LetsEveryoneThrough)
def test_half_open_breaker_lets_one_process_through_at_a_time(part, tmp_path: pathlib.Path) -> None:
    moment = Moment("boot", 100.0, 1.8e9, True)
    path = tmp_path / "edge-agent.db"
    with Store(path, moment=lambda: moment) as store, Store(path, moment=lambda: moment) as other:
        one, two = (part(each, "https://cloud") for each in (store, other))
        for _ in range(5):
            one.note(FAIL, "the cloud answered HTTP 500")
        assert one.refusal(60)[0] is two.refusal(60)[0] is CloudKind.PAUSED and "HTTP 500" in two.refusal(60)[1]
        moment = replace(moment, uptime_s=131.0)
        assert one.refusal(60) is None and two.refusal(60) is not None
        moment = replace(moment, uptime_s=192.0)
        assert two.refusal(60) is None  # the first probe never came back
        two.note(VALID, None)
        assert one.refusal(60) is None and two.refusal(60) is None


def test_other_cloud_has_a_health_of_its_own(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        one, two = Breaker(store, "https://one"), Breaker(store, "https://two")
        one.note(CloudKind.REFUSED, "HTTP 401")
        assert one.refusal(1) is not None and two.refusal(1) is None


def test_breaker_works_when_nothing_can_be_stored(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        with store.transaction() as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON clouds BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        breaker = Breaker(store, "https://cloud")
        for _ in range(5):
            breaker.note(CloudKind.OFFLINE, "no connection")
        kind, error = breaker.refusal(1)
        assert kind is CloudKind.OFFLINE and "no connection" in error


@pytest.mark.parametrize("health", ["", "{", "[]", '{"recent": 3, "x": 1}'])
def test_damaged_health_is_no_health(tmp_path: pathlib.Path, health: str) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        with store.transaction() as db:
            db.execute("INSERT INTO clouds VALUES ('https://cloud', ?)", (health,))
        assert Breaker(store, "https://cloud").refusal(1) is None

"""When calls to the cloud stop, and when they start again."""

import pathlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.breaker import HOUR_S, Breaker, Health
from edge_agent.core.outcome import CloudKind
from edge_agent.store.device_time import Moment
from edge_agent.store.store import Store
from tests.support.mutation import catches

FAIL, VALID = CloudKind.FAILED, CloudKind.ANSWERED


def calls(health: Health, *kinds: CloudKind, now_s: float = 0.0) -> Health:
    """The health after calls that ended like this, all at one time."""
    for kind in kinds:
        health = health.after(kind, "error", now_s)
    return health


class NeverTrips(Health):
    """Mutant: there is no breaker."""

    def trips(self, kind: CloudKind, recent: str) -> bool:
        return False


class TripsAtOnce(Health):
    """Mutant: one failure is enough."""

    def trips(self, kind: CloudKind, recent: str) -> bool:
        return True


class NeverDoubles(Health):
    """Mutant: probes every 30 s."""

    def longer_s(self, kind: CloudKind) -> float:
        return self.open_s


class NeverCloses(Health):
    """Mutant: one valid reply is not enough."""

    def after_valid_reply(self) -> Health:
        return self


@catches(Health, NeverTrips, TripsAtOnce)
def test_breaker_opens_after_five_failures_in_a_row(part) -> None:
    assert calls(part(), *[FAIL] * 4).wait_s(0.0, None) == 0.0
    assert calls(part(), *[FAIL] * 5).wait_s(0.0, None) == 30.0


@catches(Health, NeverTrips)
def test_breaker_opens_when_half_of_the_last_twenty_calls_failed(part) -> None:
    health = calls(part(), *[FAIL, VALID] * 9)
    assert not health.open_s
    assert calls(health, FAIL).open_s == 30.0


@catches(Health, NeverDoubles)
def test_each_failed_probe_doubles_the_wait_up_to_a_quarter_of_an_hour(part) -> None:
    health, now_s, waits = calls(part(), *[FAIL] * 5), 0.0, []
    for _ in range(7):
        waits.append(health.wait_s(now_s, None))
        now_s += waits[-1]
        health = health.after(FAIL, "error", now_s)
    assert waits == [30, 60, 120, 240, 480, 900, 900]


@catches(Health, NeverCloses)
def test_one_valid_reply_closes_the_breaker(part) -> None:
    assert calls(calls(part(), *[FAIL] * 5), VALID, now_s=31.0) == part()


def test_missing_connection_is_tried_again_sooner() -> None:
    health = calls(Health(), *[CloudKind.OFFLINE] * 5)
    assert health.wait_s(0.0, None) == 5.0
    for _ in range(10):
        health = health.after(CloudKind.OFFLINE, "error", health.open_until_s)
    assert health.open_s == 300.0


def test_failure_of_a_call_that_began_before_the_breaker_opened_changes_nothing() -> None:
    health = calls(Health(), *[FAIL] * 5)
    assert calls(health, FAIL, now_s=10.0) == health


def test_breaker_waits_as_long_as_the_cloud_asks() -> None:
    assert Health().after(CloudKind.LIMITED, "error", 0.0, None, 77.0).wait_s(0.0, None) == 77.0
    assert Health().after(CloudKind.LIMITED, "error", 0.0).wait_s(0.0, None) == 30.0
    assert calls(Health(), *[FAIL] * 5).after(CloudKind.LIMITED, "error", 1.0, None, 77.0).wait_s(1.0, None) == 77.0


class IgnoresTheKey(Health):
    """Mutant: a new key waits until the hour has passed."""

    def has_new_key(self, key: str | None) -> bool:
        return False


@catches(Health, IgnoresTheKey)
def test_refused_key_pauses_until_it_changes_or_an_hour_has_passed(part) -> None:
    health = part().after(CloudKind.REFUSED, "error", 0.0, "sk-old")
    assert "sk-old" not in str(health)
    assert health.wait_s(1.0, "sk-old") == HOUR_S - 1
    assert health.wait_s(1.0, "sk-new") == 0.0
    assert health.wait_s(HOUR_S, "sk-old") == 0.0


@given(st.lists(st.tuples(st.sampled_from(CloudKind), st.floats(0, 5000)), max_size=60))
def test_wait_is_never_longer_than_an_hour_and_always_ends(steps: list[tuple[CloudKind, float]]) -> None:
    health, now_s = Health(), 0.0
    for kind, passed_s in steps:
        health = health.after(kind, "error", now_s, "key", 10.0)
        assert 0 <= health.wait_s(now_s, "key") <= HOUR_S
        assert health.wait_s(now_s + HOUR_S, "key") == 0
        now_s += passed_s


class ClaimsNoProbe(Breaker):
    """Mutant: every caller sends a probe while the breaker is half-open."""

    def _claim_probe(self, now_s: float, probe_s: float) -> float:
        return 0.0


@catches(Breaker, ClaimsNoProbe)
def test_half_open_breaker_lets_one_process_probe_at_a_time(part, tmp_path: pathlib.Path) -> None:
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
        assert two.refusal(60) is None  # the first probe never ended
        two.note(VALID, None)
        assert one.refusal(60) is None and two.refusal(60) is None


@pytest.mark.parametrize("kind", [CloudKind.DEVICE, CloudKind.PAUSED])
def test_probe_that_says_nothing_about_the_cloud_is_free_for_the_next_caller(kind: CloudKind, tmp_path: pathlib.Path) -> None:
    moment = Moment("boot", 100.0, 1.8e9, True)
    with Store(tmp_path / "edge-agent.db", moment=lambda: moment) as store:
        breaker = Breaker(store, "https://cloud")
        for _ in range(5):
            breaker.note(FAIL, "the cloud answered HTTP 500")
        moment = replace(moment, uptime_s=131.0)
        assert breaker.refusal(120) is None
        breaker.note(kind, "no file handles", proven=True)
        assert breaker.wait_s() == 0 and breaker.refusal(120) is None
        assert "HTTP 500" in (breaker.health.error or "")


@pytest.mark.parametrize("proven", [False, True])
def test_pause_by_the_budget_is_no_failure_of_the_cloud(proven: bool, tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        breaker = Breaker(store, "https://cloud")
        for _ in range(6):
            breaker.note(CloudKind.PAUSED, "the budget for the cloud is used up for now", proven=proven)
        assert breaker.health == Health() and breaker.last_error is None


def test_each_cloud_has_its_own_breaker(tmp_path: pathlib.Path) -> None:
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
def test_damaged_health_counts_as_unknown(tmp_path: pathlib.Path, health: str) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        with store.transaction() as db:
            db.execute("INSERT INTO clouds VALUES ('https://cloud', ?)", (health,))
        assert Breaker(store, "https://cloud").refusal(1) is None

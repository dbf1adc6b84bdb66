"""What the store says of its past: the same numbers as plain SQL, in bounded stretches, whatever is damaged."""

import pathlib
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from edge_agent.core.errors import AgentClosed, BadQuestion
from edge_agent.store import history, overview
from edge_agent.store.history import Window
from edge_agent.store.store import Store
from tests.support.past_weeks import live_through

N = 2300
HOUR, DAY = 3600, 86_400
DAMAGED = ("", "{}", "[]", "null", "\x00", '{"levels": 5}', "{" * 50)


@pytest.fixture
def store(home: pathlib.Path) -> Iterator[Store]:
    with Store(home / "edge-agent.db") as made:
        live_through(made, N, days=10)
        yield made


def counted(store: Store, since: float, until: float) -> tuple[int, ...]:
    sql = (
        "SELECT count(*), sum(deferred), sum(route = 'cloud'), sum(provisional AND ending IS NULL), sum(ending IS 'upheld'), "
        "sum(ending IS 'overturned'), sum(ending IS 'abandoned') FROM decisions WHERE created_at >= ? AND created_at < ?"
    )
    return tuple(value or 0 for value in store.database.rows(sql, (since, until))[0].values())


@pytest.mark.parametrize(("step_s", "offset_s"), [(DAY, 0), (DAY, 5 * HOUR), (DAY, -7 * HOUR), (HOUR, 0), (HOUR, 5 * HOUR + 1800)])
def test_each_period_has_the_numbers_of_the_database(store: Store, step_s: int, offset_s: int) -> None:
    window = Window(step_s, 8, offset_s, time.time())
    found = history.history(store, window)
    assert len(found.periods) == 8
    for number, one in found.periods.items():
        begins = window.begins_s(number)
        assert (begins + offset_s) % step_s == 0
        told = (one.decisions, one.deferred, one.cloud, one.waiting, one.upheld, one.overturned, one.abandoned)
        assert told == counted(store, begins, begins + step_s)
    assert found.total.decisions == sum(one.decisions for one in found.periods.values()) > 0


@pytest.mark.parametrize(("last", "long_day", "hours"), [("2026-10-28", "2026-10-25", 25), ("2026-04-01", "2026-03-29", 23)])
def test_days_begin_at_midnight_before_the_clocks_were_changed_too(home: pathlib.Path, last: str, long_day: str, hours: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime.fromisoformat(f"{last}T15:00").replace(tzinfo=berlin).timestamp()
    with Store(home / "edge-agent.db") as store:
        live_through(store, 900, days=9, now=now)
        window = Window(DAY, 8, 0, now, berlin)
        found = history.history(store, window)
        assert len(found.periods) == 8
        for (begins, ends), one in zip(pairwise(window.bounds_s), found.periods.values(), strict=True):
            begun = datetime.fromtimestamp(begins, berlin)
            assert (begun.hour, begun.minute) == (0, 0)
            assert ends - begins == (hours if begun.date().isoformat() == long_day else 24) * HOUR
            told = (one.decisions, one.deferred, one.cloud, one.waiting, one.upheld, one.overturned, one.abandoned)
            assert told == counted(store, begins, ends)
            assert one.compared == compared(store, begins, ends) > 0


def compared(store: Store, since: float, until: float) -> int:
    sql = (
        "SELECT count(*) AS n FROM decisions d LEFT JOIN audits u USING (decision_id) WHERE d.created_at >= ? AND d.created_at < ? "
        "AND NOT recalled AND (cloud_answer_id IS NOT NULL OR u.agrees IS NOT NULL)"
    )
    return int(store.database.rows(sql, (since, until))[0]["n"])


def test_decisions_of_a_clock_that_was_ahead_are_named(store: Store) -> None:
    assert history.history(store, Window(DAY, 3, 0, time.time())).to_dict()["later"] == 0
    with store.transaction():
        store.database.write("UPDATE decisions SET created_at = created_at + ? WHERE rowid % 100 = 0", (400.0 * DAY,))
    found = history.history(store, Window(DAY, 365, 0, time.time()))
    assert found.n_later == N // 100 and found.total.decisions == N - N // 100


def test_agreement_is_that_of_the_stored_answers(store: Store) -> None:
    found = history.history(store, Window(DAY, 12, 0, time.time()))
    sql = (
        "SELECT count(*) AS n, sum(coalesce(u.agrees, json_extract(r.reading, '$.letter') = json_extract(c.answer, '$.answer'))) AS agreed "
        "FROM decisions d JOIN readings r ON r.id = d.reading_id LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id "
        "LEFT JOIN audits u USING (decision_id) WHERE c.id IS NOT NULL OR u.agrees IS NOT NULL"
    )
    row = store.database.rows(sql)[0]
    assert (found.total.decisions, found.total.compared, found.total.agreed) == (N, row["n"], row["agreed"])
    levels = found.to_dict()["reliability"]
    assert [one["confidence"] for one in levels] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert sum(one["compared"] for one in levels) == row["n"] and sum(one["agreed"] for one in levels) == row["agreed"]
    assert all(one["interval"][0] < one["agreed"] / one["compared"] < one["interval"][1] for one in levels)
    assert levels[0]["agreed"] / levels[0]["compared"] < levels[-1]["agreed"] / levels[-1]["compared"]


def test_question_that_was_compared_twice_counts_once_in_the_diagram(store: Store) -> None:
    with store.transaction():
        store.database.write(
            "UPDATE decisions SET fingerprint = (SELECT fingerprint FROM decisions WHERE cloud_answer_id IS NOT NULL LIMIT 1)"
        )
    found = history.history(store, Window(DAY, 12, 0, time.time()))
    assert sum(one["compared"] for one in found.to_dict()["reliability"]) == 1 < found.total.compared


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_facts_are_left_out(store: Store, text: str) -> None:
    with store.transaction():
        store.database.write("UPDATE readings SET reading = ? WHERE id % 2", (text,))
        store.database.write("UPDATE cloud_answers SET answer = ? WHERE id % 3 = 0", (text,))
        store.database.write("UPDATE decisions SET created_at = 9e999 WHERE rowid = 7")
    found = history.history(store, Window(DAY, 12, 0, time.time()))
    assert found.total.decisions == N - 1 and 0 < found.total.compared < N
    assert 0 < history.reading_times(store).n < history.MOST_TIMES and history.cloud_times(store).n > 0


def test_clock_that_stood_in_1970_has_its_periods(home: pathlib.Path) -> None:
    with Store(home / "edge-agent.db") as store:
        live_through(store, 40, days=0.2, now=20_000.0)
        found = history.history(store, Window(HOUR, 12, -10 * HOUR, 20_000.0))
    assert found.total.decisions == 40 == sum(one.decisions for one in found.periods.values())


def test_empty_store_has_empty_periods(home: pathlib.Path) -> None:
    with Store(home / "edge-agent.db") as store:
        found = history.history(store, Window(DAY, 3, 0, time.time())).to_dict()
        assert [one["decisions"] for one in found["periods"]] == [0, 0, 0] and found["reliability"] == [] and found["complete"]
        assert history.reading_times(store) == history.cloud_times(store) == (0, None, None, None)
        kept = overview.storage(store)
        assert set(kept.rows.values()) == {0} and kept.oldest_at is None and kept.file_bytes > 0
        assert overview.decisions_before(store, None, 5, "waiting", "x") == ([], None) == overview.decisions_before(store, None, 5)


def test_only_the_newest_are_counted_where_there_are_too_many(store: Store) -> None:
    found = history.history(store, Window(DAY, 12, 0, time.time()), most=1500)
    assert found.total.decisions == 1500 and not found.is_complete


def test_long_look_ends_between_two_stretches(store: Store) -> None:
    looks = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise AgentClosed("Enough.")

    with pytest.raises(AgentClosed):
        history.history(store, Window(DAY, 12, 0, time.time()), check)
    assert len(looks) == 2


def test_times_are_ranked(store: Store) -> None:
    sql = "SELECT json_extract(answer, '$.latency_ms') AS ms FROM cloud_answers ORDER BY id DESC LIMIT ?"
    every = sorted(row["ms"] for row in store.database.rows(sql, (history.MOST_TIMES,)))
    found = history.cloud_times(store)
    assert (found.n, found.longest_ms) == (len(every), round(every[-1], 1))
    assert found.p50_ms is not None and sum(ms <= found.p50_ms + 0.05 for ms in every) >= len(every) / 2
    assert found.p95_ms is not None and sum(ms > found.p95_ms + 0.05 for ms in every) <= len(every) * 0.05


@pytest.mark.parametrize("kind", overview.KINDS)
def test_pages_of_a_kind_have_all_of_it(store: Store, kind: str) -> None:
    found, before = [], None
    while True:
        page = overview.decisions_before(store, before, 70, kind)
        found += [row["decision_id"] for row in page.rows]
        if (before := page.next) is None:
            break
    sql = f"SELECT decision_id FROM decisions d WHERE {overview.KINDS[kind]} ORDER BY rowid DESC"
    assert found == [row["decision_id"] for row in store.database.rows(sql)] != []


@pytest.mark.parametrize(("text", "n"), [("РЕКА", N // 5), ("қазақ", N // 5), ("(17)", 1), ("neither of", N), ("%", 0), ("_", 0)])
def test_search_finds_questions_and_options_in_any_case(store: Store, text: str, n: int) -> None:
    assert len(overview.decisions_before(store, None, N, None, text).rows) == n


def test_search_that_finds_nothing_goes_on_where_it_ended(store: Store) -> None:
    first = overview.decisions_before(store, None, 10, None, "(17)", most=1100)
    second = overview.decisions_before(store, first.next, 10, None, "(17)", most=1100)
    last = overview.decisions_before(store, second.next, 10, None, "(17)", most=1100)
    assert first.rows == second.rows == [] and first.next and second.next and len(last.rows) == 1 and last.next is None


def test_page_goes_on_after_what_was_deleted(store: Store) -> None:
    first = overview.decisions_before(store, None, 10)
    with store.transaction():
        store.database.write("DELETE FROM audits")
        store.database.write("DELETE FROM decisions WHERE rowid < 2000")
    rest = overview.decisions_before(store, first.next, N)
    assert len(rest.rows) == N - 1999 - 10 and rest.next is None
    with pytest.raises(BadQuestion, match="no decision"):
        overview.decisions_before(store, "0f8fad5b-d9cb-469f-a165-70867728950e", 10)

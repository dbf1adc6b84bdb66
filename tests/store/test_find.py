"""What a person may type to name a decision or a row of the queue."""

import pathlib
from collections.abc import Iterator

import pytest

from edge_agent.core.errors import BadQuestion
from edge_agent.store.find import decided, decisions_of, find_decision, find_queue_row
from edge_agent.store.store import Store
from tests.support.asked import CLAIM, KAZAKH, asked


@pytest.fixture
def store(home: pathlib.Path) -> Iterator[Store]:
    """Row 1 has two decisions, row 2 one; the ids of row 1 start with the same digits, and that of row 2 with 2."""
    asked(home, CLAIM, KAZAKH, CLAIM)
    with Store(home / "edge-agent.db") as opened:
        renamed(opened, "77aa-first", "2bcd-second", "77ab-third")
        yield opened


@pytest.mark.parametrize(
    ("named", "decision_id"),
    [("1", "77ab-third"), ("2", "2bcd-second"), ("2bcd", "2bcd-second"), ("77AA", "77aa-first"), ("77ab-third", "77ab-third")],
)
def test_number_is_a_row_and_anything_else_the_start_of_an_id(store: Store, named: str, decision_id: str) -> None:
    assert find_decision(store, named) == decision_id
    assert find_queue_row(store, named) == decided(store, decision_id)["queue_id"]


def test_start_of_two_ids_is_never_guessed(store: Store) -> None:
    renamed(store, "77aaaaaa-1", "77aaaaaa-2", "77aaaaaa-3")
    for find in (find_decision, find_queue_row):
        with pytest.raises(BadQuestion, match="77aaaaaa-1, 77aaaaaa-2, 77aaaaaa-3"):
            find(store, "77aaa")


@pytest.mark.parametrize("named", ["4", "7", "77", "0", "471118", "4711183", "99999999", "9" * 30])
def test_digits_that_are_no_row_name_no_decision(store: Store, named: str) -> None:
    renamed(store, "47111833-first", "2bcd-second", "77ab-third")
    for find in (find_decision, find_queue_row):
        with pytest.raises(BadQuestion, match=f"There is no queue row {named};"):
            find(store, named)
        assert find(store, "47111833") == (1 if find is find_queue_row else "47111833-first")  # as the list shows it


@pytest.mark.parametrize("named", ["2b", "77a", "2bc", "77A"])
def test_start_that_is_too_short_names_no_decision(store: Store, named: str) -> None:
    for find in (find_decision, find_queue_row):
        with pytest.raises(BadQuestion, match=r"too short.*at least 4"):
            find(store, named)


def renamed(store: Store, *names: str) -> None:
    """Give the decisions these ids."""
    for number, name in enumerate(names, 1):
        with store.transaction():
            store.database.write("UPDATE decisions SET decision_id = ? WHERE rowid = ?", (name, number))


@pytest.mark.parametrize("named", ["", " ", "x", "%", "_", "77aa-first ", "\udcff", "\0", "9" * 30, "²", "٣"])
def test_name_of_nothing_is_refused(store: Store, named: str) -> None:
    with pytest.raises(BadQuestion):
        find_decision(store, named)


def test_all_decisions_of_a_row_are_found_with_their_options(store: Store) -> None:
    assert [row["decision_id"] for row in decisions_of(store, 1)] == ["77aa-first", "77ab-third"]
    assert decisions_of(store, 1)[0]["options"] == list(CLAIM.options)

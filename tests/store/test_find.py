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
    """Row 1 has two decisions, row 2 one; their ids start with digits that are no row, that are row 2, and with letters."""
    asked(home, CLAIM, KAZAKH, CLAIM)
    with Store(home / "edge-agent.db") as opened:
        for name, number in (("77aa-first", 1), ("2bcd-second", 2), ("77ab-third", 3)):
            with opened.transaction():
                opened.database.write("UPDATE decisions SET decision_id = ? WHERE rowid = ?", (name, number))
        yield opened


@pytest.mark.parametrize(
    ("named", "decision_id"),
    [("1", "77ab-third"), ("2", "2bcd-second"), ("2b", "2bcd-second"), ("77AA", "77aa-first"), ("77ab-third", "77ab-third")],
)
def test_number_is_a_row_and_anything_else_the_start_of_an_id(store: Store, named: str, decision_id: str) -> None:
    assert find_decision(store, named) == decision_id
    assert find_queue_row(store, named) == decided(store, decision_id)["queue_id"]


@pytest.mark.parametrize("named", ["77", "77a", "7"])
def test_start_of_two_ids_is_never_guessed(store: Store, named: str) -> None:
    for find in (find_decision, find_queue_row):
        with pytest.raises(BadQuestion, match="77aa-first, 77ab-third"):
            find(store, named)


@pytest.mark.parametrize("named", ["", " ", "x", "%", "_", "77aa-first ", "\udcff", "\0", "9" * 30, "²", "٣"])
def test_name_of_nothing_is_refused(store: Store, named: str) -> None:
    with pytest.raises(BadQuestion):
        find_decision(store, named)


def test_all_decisions_of_a_row_are_found_with_their_options(store: Store) -> None:
    assert [row["decision_id"] for row in decisions_of(store, 1)] == ["77aa-first", "77ab-third"]
    assert decisions_of(store, 1)[0]["options"] == list(CLAIM.options)

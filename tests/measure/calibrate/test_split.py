"""The parts of a data set: fixed by the questions alone, and no question in two of them."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.measure.calibrate.split import WITH_TEST, WITHOUT_TEST, split

FINGERPRINTS = [f"question {i}" for i in range(1000)]


def names(parts, fingerprints) -> list[set[str]]:
    return [{fingerprints[place] for place in part} for part in (parts.choose, parts.test, parts.report)]


def test_sizes_are_the_shares() -> None:
    assert split(FINGERPRINTS, "data", WITH_TEST).sizes == (200, 700, 100)
    assert split(FINGERPRINTS, "data", WITHOUT_TEST).sizes == (700, 0, 300)


def test_part_does_not_depend_on_the_order_of_the_questions() -> None:
    turned = FINGERPRINTS[::-1]
    assert names(split(FINGERPRINTS, "data", WITH_TEST), FINGERPRINTS) == names(split(turned, "data", WITH_TEST), turned)


def test_another_data_set_is_parted_in_another_way() -> None:
    one, other = (names(split(FINGERPRINTS, salt, WITH_TEST), FINGERPRINTS)[1] for salt in ("one", "other"))
    assert 400 < len(one & other) < 580  # 490 expected of independent parts of 700


@given(st.lists(st.sampled_from(FINGERPRINTS[:30]), max_size=60))
def test_repeated_question_counts_once_and_is_in_one_part(fingerprints: list[str]) -> None:
    parts = split(fingerprints, "data", WITH_TEST)
    assert sum(parts.sizes) + parts.repeated == len(fingerprints)
    together = [fingerprint for part in names(parts, fingerprints) for fingerprint in part]
    assert sorted(together) == sorted(set(fingerprints)) and sum(parts.sizes) == len(together)
